"""Bottom-s samples, and the chances that their keys give."""

from random import Random

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tithe.transforms.kernels import hashing
from tithe.transforms.kernels.bottom import bottom, exponential_keys

ROW = np.dtype([("key", "<f8"), ("hash", "<u8"), ("payload", "<i4")])
# Few values, so that keys tie; no two rows have both key and hash.
KEYS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0, np.inf]), st.integers(0, 2**64 - 1)), max_size=40, unique=True
)


def rows_of(pairs: list[tuple[float, int]]) -> NDArray[np.void]:
    return np.array([(key, h, i) for i, (key, h) in enumerate(pairs)], ROW)


@given(KEYS, st.integers(0, 45))
def test_the_first_of_all_in_order(pairs: list[tuple[float, int]], size: int) -> None:
    found = bottom(rows_of(pairs), size)
    expected = sorted(range(len(pairs)), key=lambda i: pairs[i])[:size]
    assert found.dtype == ROW and found["payload"].tolist() == expected


@given(KEYS, st.integers(0, 10), st.integers(1, 6), st.randoms())
def test_any_partition_merges_to_the_same(
    pairs: list[tuple[float, int]], size: int, parts: int, random: Random
) -> None:
    rows = rows_of(pairs)
    order = list(range(len(rows)))
    random.shuffle(order)
    merged = rows[:0]
    for part in np.array_split(np.array(order, np.int64), parts):
        merged = bottom(np.concatenate([bottom(rows[part], size), merged]), size)
    assert np.array_equal(merged, bottom(rows, size))


def test_keys_by_hand() -> None:
    uniforms, weights = np.array([np.exp(-2), np.exp(-3), 0.5, 0.5]), np.array([1.0, 6.0, 0.0, np.log(2)])
    np.testing.assert_allclose(exponential_keys(uniforms, weights), [2.0, 0.5, np.inf, 1.0], rtol=1e-15)


@pytest.mark.parametrize("first", range(4))
def test_the_least_key_falls_in_proportion_to_the_weights(first: int) -> None:
    weights, trials = np.array([1.0, 2.0, 3.0, 0.0]), 20_000
    ids = hashing.hash_integers(np.arange(4 * trials))
    uniforms = hashing.uniform(hashing.role_hash(ids, 5, "draw"))
    keys = exponential_keys(uniforms, np.tile(weights, trials)).reshape(trials, 4)
    count = int(np.count_nonzero(keys.argmin(1) == first))
    assert scipy.stats.binomtest(count, trials, weights[first] / 6).pvalue > 1e-3
