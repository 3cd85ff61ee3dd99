"""The search on two levels, against what it says that it gives, by brute force."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tithe.transforms.kernels import groups, nearest, search


def blobs(n: int, d: int, seed: int) -> NDArray[np.float32]:
    """Rows around a few dozen centers of skewed weight."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(0, 4, (40, d))
    weights = 1 / np.arange(1, 41)
    return (centers[rng.choice(40, n, p=weights / weights.sum())] + rng.normal(0, 1, (n, d))).astype(np.float32)


def expected(
    x: NDArray[np.float32], points: NDArray[np.float32], prepared: groups.Groups, q: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What the search is said to give, row by row in float64."""
    means = prepared.means.exact
    index, distance = np.empty((len(x), q), np.int64), np.empty((len(x), q))
    for i, row in enumerate(x.astype(np.float64)):
        to_means = ((row - means) ** 2).sum(1)
        looked = np.lexsort((np.arange(len(means)), to_means))[: groups.NEAREST]
        mine = np.concatenate([prepared.members[prepared.starts[g] : prepared.starts[g + 1]] for g in looked])
        squared = ((row - points[mine].astype(np.float64)) ** 2).sum(1)
        first = np.lexsort((mine, squared))[:q]
        index[i], distance[i] = mine[first], squared[first]
    return index, distance


@given(st.integers(0, 2**32 - 1), st.sampled_from(["blobs", "integers", "offset"]), st.sampled_from([1, 3, 5]))
def test_the_nearest_points_of_the_nearest_groups(seed: int, kind: str, q: int) -> None:
    rng = np.random.default_rng(seed)
    points, x = blobs(3000, 6, seed), blobs(60, 6, seed + 1)
    if kind == "integers":  # ties everywhere
        points, x = rng.integers(0, 4, points.shape).astype(np.float32), rng.integers(0, 4, x.shape).astype(np.float32)
    if kind == "offset":  # scores in float32 cannot tell
        points, x = points + np.float32(1000), x + np.float32(1000)
    prepared = groups.prepare(points)
    index, squared = groups.search(x, prepared, q)
    wanted, distance = expected(x, points, prepared, q)
    np.testing.assert_allclose(squared, distance, rtol=1e-12)
    if kind != "integers" or q == 1:  # equal sums may round differently in another order of summing
        assert np.array_equal(index, wanted)
    for height in (1, 7):
        again = [groups.search(x[low : low + height], prepared, q) for low in range(0, len(x), height)]
        assert np.array_equal(np.concatenate([a for a, _ in again]), index)
        assert np.array_equal(np.concatenate([b for _, b in again]), squared)
    for numbers in (1, 1000, 20_000):  # less than those of a group, of one or two, and of some
        with mock.patch.object(groups, "BATCH", numbers):
            cut = groups.search(x, prepared, q)
        assert np.array_equal(cut[0], index) and np.array_equal(cut[1], squared)


@pytest.mark.parametrize("kind", ["blobs", "one point", "two points"])
def test_every_point_is_in_one_group_of_a_bounded_size(kind: str) -> None:
    points = blobs(5000, 4, 3)
    if kind == "one point":
        points[:] = 1
    if kind == "two points":
        points[:], points[::3] = 1, 2
    prepared = groups.prepare(points)
    assert sorted(prepared.members.tolist()) == list(range(5000))
    sizes = np.diff(prepared.starts)
    assert sizes.min() >= 1 and sizes.max() <= groups.SIZE
    for low, high in zip(prepared.starts[:-1], prepared.starts[1:], strict=True):
        assert np.all(np.diff(prepared.members[low:high]) > 0)
    index, squared = groups.search(points[:50], prepared, 6)
    if kind == "one point":
        assert not squared.any() and all(len(set(row)) == 6 for row in index.tolist())


def test_little_is_lost_to_the_exact_search() -> None:
    points, x = blobs(20_000, 64, 1), blobs(2_000, 64, 2)
    exact = nearest.nearest(x, nearest.prepare(points))[1].sum()
    grouped = groups.search(x, groups.prepare(points))[1].sum()
    assert exact <= grouped <= 1.02 * exact


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.booleans())
def test_closest_is_the_set_of_the_nearest(seed: int, q: int, has_ties: bool) -> None:
    rng = np.random.default_rng(seed)
    points, x = blobs(40, 3, seed), blobs(30, 3, seed + 1)
    if has_ties:
        points, x = rng.integers(0, 3, points.shape).astype(np.float32), rng.integers(0, 3, x.shape).astype(np.float32)
    prepared = nearest.prepare(points)
    found = nearest.closest(x, prepared, q)
    assert np.array_equal(np.sort(found, 1), np.sort(nearest.nearest(x, prepared, q)[0], 1))


def test_the_search_is_exact_below_its_crossover() -> None:
    points = blobs(search.GROUPED_FROM, 2, 1)
    assert isinstance(search.prepare(points[:-1]), nearest.Points)
    assert isinstance(search.prepare(points), groups.Groups)
    assert search.describe(search.GROUPED_FROM - 1) == "exact"
    assert search.describe(search.GROUPED_FROM).startswith("two levels")
