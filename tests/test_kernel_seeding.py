"""The reduction of weighted candidates to the first centers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tithe.transforms.kernels import hashing, seeding
from tithe.transforms.kernels.seeding import plus_plus, reduce_candidates

Vectors = NDArray[np.float32]


def candidates(m: int, d: int = 3, seed: int = 1) -> Vectors:
    return np.random.default_rng(seed).standard_normal((m, d)).astype(np.float32)


@given(st.integers(2, 30), st.integers(0, 2**32 - 1), st.data())
def test_no_candidate_is_chosen_twice(m: int, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    # Far from the origin the cheap distances are 0 for many, and not 0 of a candidate to itself.
    d, offset = data.draw(st.sampled_from([2, 30])), data.draw(st.sampled_from([0.0, 1e4, 1e6]))
    points = np.unique((candidates(m, d, seed) + offset).astype(np.float32), axis=0)
    weights = np.maximum(rng.integers(0, 3, len(points)), 1e-9)
    count = data.draw(st.integers(0, max(len(points) - 1, 0)))
    chosen = plus_plus(points, weights, count, seed)
    assert chosen.dtype == np.int64 and len(set(chosen.tolist())) == count
    assert not count or (chosen.min() >= 0 and chosen.max() < len(points))


def test_a_table_of_distances_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whole numbers, so that float32 rounds nothing.
    points = np.unique(np.random.default_rng(1).integers(-50, 50, (300, 4)).astype(np.float32), axis=0)
    weights = np.random.default_rng(2).integers(1, 9, len(points)).astype(float)
    with_table = plus_plus(points, weights, 100, 3)
    monkeypatch.setattr(seeding, "TABLED", 0)
    np.testing.assert_array_equal(with_table, plus_plus(points, weights, 100, 3))


def test_the_first_is_chosen_by_weight_and_the_second_by_mass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "TRIALS", 1)
    # On a line, 0, 1, 3 and 7, weights 1, 2, 3, 4: after 3 the masses are 9, 8, 0 and 64 of 81.
    points, weights = np.array([[0], [1], [3], [7]], np.float32), np.array([1.0, 2.0, 3.0, 4.0])
    chosen = np.array([plus_plus(points, weights, 2, seed) for seed in range(4000)])
    first = np.bincount(chosen[:, 0], minlength=4) / 4000
    np.testing.assert_allclose(first, [0.1, 0.2, 0.3, 0.4], atol=3.5 * np.sqrt(0.25 / 4000))
    after = chosen[chosen[:, 0] == 2, 1]
    second = np.bincount(after, minlength=4) / len(after)
    np.testing.assert_allclose(second, [9 / 81, 8 / 81, 0, 64 / 81], atol=3.5 * np.sqrt(0.25 / len(after)))


def test_of_those_drawn_the_one_that_leaves_the_least_cost_is_chosen() -> None:
    points, weights = candidates(60), np.random.default_rng(3).uniform(0, 5, 60)
    squared = ((points[:, None].astype(float) - points) ** 2).sum(2)
    for seed in range(20):
        chosen = plus_plus(points, weights, 8, seed)
        uniforms = hashing.uniform(hashing.role_hash(np.arange(8 * seeding.TRIALS, dtype=np.uint64), seed, "k-means++"))
        mass, left = weights, np.full(60, np.inf)
        for i, some in enumerate(uniforms.reshape(8, seeding.TRIALS)):
            drawn = np.searchsorted(np.cumsum(mass), some * mass.sum(), side="right")
            costs = [float(weights @ np.minimum(left, squared[row])) for row in drawn]
            assert chosen[i] == drawn[int(np.argmin(costs))]
            left = np.minimum(left, squared[chosen[i]])
            mass = weights * left


def test_weights_decide_where_the_centers_are() -> None:
    # Two clumps, two centers: with the left clump weightless, both centers are in the right one.
    rng = np.random.default_rng(1)
    left, right = rng.normal(-1, 0.1, (20, 2)), rng.normal(1, 0.1, (20, 2))
    points = np.concatenate([left, right]).astype(np.float32)
    even = reduce_candidates(points, np.ones(40), 2, 3)
    assert sorted(np.sign(even[:, 0]).tolist()) == [-1, 1]
    heavy = reduce_candidates(points, np.repeat([0.0, 1e6], 20), 2, 3)
    assert np.all(heavy > 0)


def test_the_center_is_the_weighted_mean() -> None:
    points, weights = np.array([[0, 0], [0, 2], [4, 0], [4, 4]], np.float32), np.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(reduce_candidates(points, weights, 1, 1), np.array([[2.8, 2.0]], np.float32))


@pytest.mark.parametrize("count", [5, 6, 100])
def test_few_candidates_are_the_centers(count: int) -> None:
    points = candidates(5)
    found = reduce_candidates(points, np.ones(5), count, 1)
    assert found.dtype == np.float32 and np.array_equal(found, points)


def test_reduction_lowers_the_cost() -> None:
    points = candidates(400, 5)
    weights = np.random.default_rng(2).integers(1, 50, 400).astype(np.float64)

    def cost(centers: Vectors) -> float:
        distances = ((points[:, None].astype(np.float64) - centers) ** 2).sum(2).min(1)
        return float(weights @ distances)

    found = reduce_candidates(points, weights, 20, 1)
    assert found.shape == (20, 5) and len(np.unique(found, axis=0)) == 20
    drawn = [cost(points[np.random.default_rng(s).choice(400, 20, replace=False)]) for s in range(20)]
    assert cost(found) < 0.9 * min(drawn)


def test_a_seed_decides_everything() -> None:
    points, weights = candidates(100), np.ones(100)
    one, again, other = (reduce_candidates(points, weights, 10, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
