"""Far rows: their draw, and the choice among them against plain loops."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tithe.transforms.kernels import far, hashing

SQUARE = np.array([[0, 0], [0, 2], [10, 0], [10, 2]], np.float32)


def ids(n: int) -> NDArray[np.uint64]:
    return hashing.hash_integers(np.arange(n))


def far_rows(vectors: NDArray[np.float32], squared: NDArray[np.float64] | float) -> NDArray[np.void]:
    """Far rows in the order given."""
    out = np.zeros(len(vectors), far.far_dtype(vectors.shape[1]))
    out["key"], out["hash"], out["squared"], out["vector"] = np.arange(len(out)), ids(len(out)), squared, vectors
    return out


def greedy_in_loops(vectors: NDArray[np.float32], squared: NDArray[np.float64], count: int) -> list[int]:
    """Each time the row whose share saved, summed over all rows, is the largest."""
    left, chosen = squared.tolist(), list[int]()
    for _ in range(count):
        gains = {}
        for j, candidate in enumerate(vectors.astype(np.float64)):
            if j not in chosen:
                apart = ((vectors - candidate) ** 2).sum(1)
                saved = [max(still - d, 0) / of for still, d, of in zip(left, apart, squared, strict=True)]
                gains[j] = sum(saved) + far.APART * squared[j] / squared.max()
        best = max(gains, key=lambda j: gains[j])
        chosen.append(best)
        left = [min(still, d) for still, d in zip(left, ((vectors - vectors[best]) ** 2).sum(1), strict=True)]
    return chosen


def test_a_point_has_one_far_row_whatever_the_sign_of_its_zeros() -> None:
    rows = far_rows(np.array([[1, 0], [1, -0.0], [0, 1], [-0.0, 1], [1, 0]], np.float32), 1.0)
    assert far.distinct(rows)["key"].tolist() == [0, 2]


def test_far_rows_fall_in_proportion_to_squared_distance() -> None:
    squared, trials = np.array([0.0, 1.0, 2.0, 3.0]), 6000
    first = []
    for seed in range(trials):
        drawn = far.far_rows(SQUARE, ids(4), squared, seed, "far/1", 1)
        assert len(drawn) == 1 and drawn.dtype == far.far_dtype(2)
        first.append(int(np.flatnonzero(ids(4) == drawn["hash"][0])[0]))
        assert drawn["squared"][0] == squared[first[-1]]
    counts = np.bincount(first, minlength=4)
    assert counts[0] == 0
    assert scipy.stats.chisquare(counts[1:], trials * np.array([1, 2, 3]) / 6).pvalue > 1e-3


def test_far_rows_are_another_draw_in_another_round() -> None:
    squared = np.ones(100)
    keys = [far.far_keys(ids(100), squared, 1, f"far/{number}", 10)[0].tolist() for number in (1, 1, 2)]
    assert keys[0] == keys[1] != keys[2] and all(len(k) == 10 for k in keys)


def test_rows_beyond_a_limit_are_left_out_and_one_at_it_stays() -> None:
    squared = np.arange(100) / 7
    rows, keys = far.far_keys(ids(100), squared, 1, "far/1", 30)
    limit = float(np.sort(keys)[9])
    fewer, _ = far.far_keys(ids(100), squared, 1, "far/1", 30, limit)
    assert sorted(fewer.tolist()) == sorted(rows[keys <= limit].tolist()) and len(fewer) == 10


def test_distinct_keeps_the_order_of_first_places() -> None:
    rows = far_rows(np.array([[2, 1], [0, 0], [2, 1], [-1, 5], [0, 0]], np.float32), 1.0)
    assert far.distinct(rows)["key"].tolist() == [0, 1, 3]
    assert len(far.distinct(rows[:0])) == 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 3))
def test_the_choice_is_greedy(seed: int, n: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, d)).astype(np.float32)
    squared = rng.exponential(2, n) + 1e-3
    count = int(rng.integers(1, n + 1))
    assert far.greedy(vectors, squared, count).tolist() == greedy_in_loops(vectors.astype(np.float64), squared, count)


def test_a_group_is_worth_more_than_a_row_alone_and_of_those_the_farther() -> None:
    """Three rows lie together, two are alone, of which the last is the farther."""
    vectors = np.array([[-50, 0], [0, 5], [0, 6], [1, 5], [0, -90]], np.float32)
    squared = (vectors.astype(np.float64) ** 2).sum(1)
    assert far.greedy(vectors, squared, 3).tolist() == [1, 4, 0]


@pytest.mark.parametrize(("wanted", "given"), [(0, 0), (2, 2), (3, 3), (9, 3)])
def test_as_many_are_chosen_as_are_wanted_and_there_are(wanted: int, given: int) -> None:
    rows = far_rows(np.array([[1, 0], [5, 5], [1, 0], [0, 9]], np.float32), 4.0)
    chosen = far.choose(rows, wanted)
    assert chosen.dtype == np.float32 and chosen.shape == (given, 2)
    assert len(np.unique(chosen, axis=0)) == given


def test_a_great_many_far_rows_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part chooses its share, each among its own rows."""
    rng = np.random.default_rng(3)
    rows = far_rows(rng.standard_normal((103, 2)).astype(np.float32), rng.exponential(1, 103))
    monkeypatch.setattr(far, "TABLED", 25)
    chosen = far.choose(rows, 17)
    assert len(np.unique(chosen, axis=0)) == 17
    places = [int(np.flatnonzero((rows["vector"] == vector).all(1))[0]) for vector in chosen]
    assert [place % 5 for place in places] == [0] * 4 + [1] * 4 + [2] * 3 + [3] * 3 + [4] * 3
    assert all(len(far.choose(rows, wanted)) == min(wanted, 103) for wanted in range(120))


def test_how_many_are_kept() -> None:
    assert [far.far_count(k) for k in (1, 4, 100, 1_000, 1_024, 5_000, 8_192, 100_000)] == [
        8, 8, 200, 2_000, 2_048, 2_048, 2_048, 25_000
    ]  # fmt: skip
