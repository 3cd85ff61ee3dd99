"""The nearest points against brute force, and the same bits whatever the block and the threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tithe.transforms.kernels import nearest

Vectors = NDArray[np.float32]
Found = tuple[NDArray[np.int32], NDArray[np.float64]]


def brute(x: Vectors, points: Vectors, q: int) -> Found:
    """Every distance in float64, sorted by (distance, index)."""
    index, squared = np.empty((len(x), q), np.int32), np.empty((len(x), q))
    for i, row in enumerate(x.astype(np.float64)):
        distances = ((row - points.astype(np.float64)) ** 2).sum(1)
        order = np.lexsort((np.arange(len(points)), distances))[:q]
        index[i], squared[i] = order, distances[order]
    return index, squared


def search(x: Vectors, points: Vectors, q: int, height: int | None = None) -> Found:
    """The search, in blocks of so many rows."""
    prepared = nearest.prepare(points)
    if height is None:
        return nearest.nearest(x, prepared, q)
    found = [nearest.nearest(x[low : low + height], prepared, q) for low in range(0, len(x), height)]
    return np.concatenate([i for i, _ in found]), np.concatenate([d for _, d in found])


def check(x: Vectors, points: Vectors, q: int) -> None:
    index, squared = search(x, points, q)
    assert index.dtype == np.int32 and squared.dtype == np.float64 and index.shape == squared.shape == (len(x), q)
    expected, distances = brute(x, points, q)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(squared, distances, rtol=1e-13)


def same(one: Found, other: Found) -> None:
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


def gaussian(n: int, k: int, d: int, offset: float = 0.0) -> tuple[Vectors, Vectors]:
    rng = np.random.default_rng(n + k + d)
    x, points = rng.standard_normal((n, d)) + offset, rng.standard_normal((k, d)) + offset
    return x.astype(np.float32), points.astype(np.float32)


def integers(n: int, k: int, d: int) -> tuple[Vectors, Vectors]:
    """Small integers: most rows have several nearest points, and points repeat."""
    rng = np.random.default_rng(n + k + d)
    return rng.integers(0, 3, (n, d)).astype(np.float32), rng.integers(0, 3, (k, d)).astype(np.float32)


def with_outliers(n: int, k: int, d: int) -> tuple[Vectors, Vectors]:
    """A point and some rows of 1e12, one of them near that point."""
    x, points = gaussian(n, k, d)
    points[k // 2] = 1e12
    x[3] = 1e12
    x[4] = -1e12
    x[5, 0] = 1e12
    return x, points


CASES = {
    "gaussian": gaussian(700, 50, 20),
    "one dimension": gaussian(300, 40, 1),
    "offset": gaussian(700, 50, 20, 1000.0),
    "far offset": gaussian(300, 30, 8, 1e6),
    "integers": integers(700, 60, 4),
    "wide integers": integers(300, 30, 64),
    "outliers": with_outliers(700, 50, 20),
    "one point": gaussian(100, 1, 5),
    "two points": gaussian(100, 2, 5),
    "two points, one far out": (gaussian(100, 2, 3)[0], np.array([[0, 0, 0], [1e12, 0, 0]], np.float32)),
    "the rows themselves": (gaussian(200, 1, 6)[0], gaussian(200, 1, 6)[0]),
    "equal points": (gaussian(50, 1, 3)[0], np.ones((9, 3), np.float32)),
    "zeros": (np.zeros((20, 3), np.float32), np.zeros((5, 3), np.float32)),
    "one row": gaussian(1, 30, 7),
}


@pytest.mark.parametrize("q", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("case", CASES)
def test_as_brute_force(case: str, q: int) -> None:
    x, points = CASES[case]
    check(x, points, min(q, len(points)))


@given(st.data())
def test_as_brute_force_on_any_small_integers(data: st.DataObject) -> None:
    d, k, n = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8)), data.draw(st.integers(1, 12))
    some = st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, 1000.0, 1001.0, 1e12])
    values = data.draw(st.lists(some, min_size=(n + k) * d, max_size=(n + k) * d))
    both = np.array(values, np.float32).reshape(n + k, d)
    check(both[:n], both[n:], data.draw(st.integers(1, min(5, k))))


@pytest.mark.parametrize("case", ["gaussian", "offset", "integers", "wide integers", "outliers"])
def test_blocks_of_any_height_give_the_same_bits(case: str) -> None:
    x, points = CASES[case]
    x = np.concatenate([x] * 3)[:1100]
    for q in (1, 5):
        whole = search(x, points, q)
        for height in (64, 255, 256, 257, 512, 1000, 1023, 1024):
            same(search(x, points, q, height), whole)
        for height in (1, 2, 3, 7):
            same(search(x[:150], points, q, height), (whole[0][:150], whole[1][:150]))


@pytest.mark.parametrize("case", ["gaussian", "offset", "integers"])
def test_any_number_of_threads_gives_the_same_bits(case: str) -> None:
    x, points = CASES[case]
    with threadpool_limits(1):
        one = search(x, points, 5)
    with threadpool_limits(2):
        two = search(x, points, 5)
    same(one, two)


def test_a_distance_is_of_its_row_and_point_alone() -> None:
    x, points = CASES["gaussian"]
    prepared = nearest.prepare(points)
    index = np.random.default_rng(1).integers(0, len(points), (len(x), 3))
    whole = nearest.squared_distances(x, prepared.exact, index)
    for i in range(0, len(x), 37):
        alone = nearest.squared_distances(x[i : i + 1], prepared.exact, index[i : i + 1, 1:2])
        assert alone[0, 0] == whole[i, 1]
    np.testing.assert_allclose(whole[:, 0], ((x.astype(float) - points[index[:, 0]]) ** 2).sum(1), rtol=1e-13)


def test_an_outlying_point_costs_the_ordinary_rows_nothing() -> None:
    x, points = with_outliers(700, 50, 20)
    prepared = nearest.prepare(points)
    assert prepared.outlying.tolist() == [25] and prepared.reach < 20
    assert nearest.nearest(x[3:4], prepared)[0].tolist() == [[25]]


def test_no_rows() -> None:
    index, squared = search(np.empty((0, 3), np.float32), np.ones((4, 3), np.float32), 2)
    assert index.shape == squared.shape == (0, 2)


@pytest.mark.parametrize("q", [0, 4])
def test_more_neighbours_than_points(q: int) -> None:
    with pytest.raises(ValueError, match=f"q = {q} neighbours of 3 points"):
        search(np.ones((2, 2), np.float32), np.ones((3, 2), np.float32), q)
