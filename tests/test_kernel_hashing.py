"""Hashes against a scalar version in Python's integers, and the chances that are made of them."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tithe.transforms.kernels import hashing

U64 = NDArray[np.uint64]
MASK = 2**64 - 1
IDS = np.arange(1 << 16, dtype=np.uint64)


def scalar_mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def scalar_bytes(data: bytes) -> int:
    h = scalar_mix(scalar_mix(len(data)))
    for at in range(0, len(data), 8):
        h = scalar_mix(h ^ int.from_bytes(data[at : at + 8], "little"))
    return h


def hash_all(strings: list[bytes], before: bytes = b"", behind: bytes = b"") -> U64:
    """The hashes of strings that lie between other bytes."""
    offsets = len(before) + np.concatenate([[0], np.cumsum([len(s) for s in strings], dtype=np.int64)])
    return hashing.hash_bytes(np.frombuffer(before + b"".join(strings) + behind, np.uint8), offsets.astype(np.int64))


def test_the_mixer_is_that_of_splitmix64() -> None:
    # The first outputs of SplitMix64 from the state 0, as its authors publish them.
    state = np.array([0, 0x9E3779B97F4A7C15], np.uint64)
    assert [hex(h) for h in hashing.mix(state).tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


@given(st.lists(st.binary(max_size=40), max_size=20), st.binary(max_size=9), st.binary(max_size=9))
def test_strings_together_as_each_alone(strings: list[bytes], before: bytes, behind: bytes) -> None:
    hashes = hash_all(strings, before, behind)
    assert hashes.dtype == np.uint64 and hashes.tolist() == [scalar_bytes(s) for s in strings]


def test_strings_of_every_length() -> None:
    text = bytes(range(1, 41))
    strings = [text[:length] for length in range(41)] + [b"\0" * length for length in range(41)]
    hashes = hash_all(strings)
    assert hashes.tolist() == [scalar_bytes(s) for s in strings]
    # The empty string is in both lists.
    assert len(set(hashes.tolist())) == 81


@given(st.text(max_size=40))
def test_text_is_its_bytes_in_utf8(text: str) -> None:
    assert hashing.hash_text(text) == scalar_bytes(text.encode())


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=10))
def test_an_integer_is_its_value_whatever_its_width(values: list[int]) -> None:
    wide = hashing.hash_integers(np.array(values, np.int64))
    assert wide.tolist() == [scalar_mix(v & MASK) for v in values]
    narrow: NDArray[np.int64] = np.array(values, np.int32)
    assert np.array_equal(hashing.hash_integers(narrow), wide)


def test_an_integer_is_not_its_digits() -> None:
    integers = hashing.hash_integers(np.arange(1000))
    texts = {hashing.hash_text(str(i)) for i in range(1000)}
    assert texts.isdisjoint(integers.tolist()) and len(texts) == 1000


def test_uniforms_lie_strictly_between_0_and_1() -> None:
    ends = hashing.uniform(np.array([0, 1, MASK - 1, MASK], np.uint64))
    assert np.all((ends > 0) & (ends < 1))
    assert ends[0] == 2.0**-53 and ends[-1] == 1 - 2.0**-53


@given(st.lists(st.integers(0, MASK), min_size=2, max_size=50))
def test_uniforms_keep_the_order_of_the_hashes(hashes: list[int]) -> None:
    uniforms = hashing.uniform(np.array(sorted(hashes), np.uint64))
    assert np.all(np.diff(uniforms) >= 0)
    assert np.allclose(uniforms, [h / 2**64 for h in sorted(hashes)], rtol=0, atol=2.0**-52)


def id_hashes_of_text(prefix: str) -> Callable[[], U64]:
    return lambda: hash_all([f"{prefix}{i}".encode() for i in IDS.tolist()])


@pytest.mark.parametrize(
    "make",
    [
        lambda: hashing.hash_integers(IDS),
        lambda: hashing.hash_integers(IDS << np.uint64(32)),
        id_hashes_of_text(""),
        id_hashes_of_text("module:function:"),
        lambda: hashing.role_hash(hashing.hash_integers(IDS), 17, "draw"),
        lambda: hashing.role_hash(hashing.hash_integers(IDS), 17, "arrival", 3),
    ],
    ids=["integers", "multiples", "digits", "names", "draw", "arrival"],
)
def test_hashes_are_uniform(make: Callable[[], U64]) -> None:
    uniforms = hashing.uniform(make())
    counts = np.histogram(uniforms, 256, (0, 1))[0]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    # And their last bits are those of fair coins too.
    bits = (make()[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.all(np.abs(bits.mean(0) - 0.5) < 4.5 * 0.5 / len(IDS) ** 0.5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, "draw", 0), (1, "arrival", 0)),
        ((1, "draw", 0), (2, "draw", 0)),
        ((1, "arrival", 0), (1, "arrival", 1)),
        ((1, "seeding/0", 0), (1, "far/1", 0)),
        (None, (1, "draw", 0)),
    ],
    ids=["roles", "seeds", "counters", "steps", "id"],
)
def test_roles_are_independent(one: tuple[int, str, int] | None, other: tuple[int, str, int]) -> None:
    ids = hashing.hash_integers(IDS)
    u = hashing.uniform(ids if one is None else hashing.role_hash(ids, *one))
    v = hashing.uniform(hashing.role_hash(ids, *other))
    table = np.histogram2d(u, v, 16, [(0, 1), (0, 1)])[0]
    assert scipy.stats.chisquare(table.ravel()).pvalue > 1e-3
    assert abs(np.corrcoef(u, v)[0, 1]) < 4 / len(IDS) ** 0.5


def test_keys_tell_seed_role_and_counter_apart() -> None:
    keys = {hashing.role_key(s, r, c) for s in (0, 1, 11) for r in ("draw", "1/draw", "far/1") for c in (0, 1, 11)}
    assert len(keys) == 27 and all(0 <= key < 2**64 for key in keys)
