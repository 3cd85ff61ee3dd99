"""Exact sums against Python's fractions."""

import math
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tithe.transforms.kernels import exact

Floats = NDArray[np.float64]
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TINY = 5e-324


def fraction_sum(values: list[float]) -> int:
    """The sum in units of 2**-1074."""
    return int(sum(map(Fraction, values), Fraction(0)) * 2**1074)


@given(st.lists(FINITE, max_size=30))
@example([TINY, -TINY, 2.0**-1022, 1.7976931348623157e308])
@example([-1.7976931348623157e308] * 3 + [TINY])
def test_scalars_as_fractions(values: list[float]) -> None:
    assert exact.exact_sum(np.array(values, np.float64)) == fraction_sum(values)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=30), st.randoms())
def test_scalars_in_any_order(values: list[float], random: Random) -> None:
    total = exact.exact_sum(np.array(values))
    assert exact.to_float(total) == math.fsum(values)
    random.shuffle(values)
    half = len(values) // 2
    parts = exact.exact_sum(np.array(values[:half])) + exact.exact_sum(np.array(values[half:]))
    assert parts == total


@given(st.lists(st.tuples(FINITE, st.integers(0, 4)), max_size=40))
def test_groups_are_summed_apart(pairs: list[tuple[float, int]]) -> None:
    values, groups = np.array([v for v, _ in pairs], np.float64), np.array([g for _, g in pairs], np.int32)
    sums = exact.exact_sums(values, groups, 5)
    assert sums == [fraction_sum([v for v, g in pairs if g == group]) for group in range(5)]


def test_one_huge_value_leaves_the_small_ones() -> None:
    assert exact.exact_sum(np.array([1e300, 1.0, TINY, -1e300])) == 2**1074 + 1


def test_a_million_values_of_one_exponent() -> None:
    values = np.full(1 << 20, 2 - 2.0**-52)
    assert exact.exact_sum(values) == (1 << 20) * fraction_sum([2 - 2.0**-52])


@given(FINITE)
def test_one_value_and_back(value: float) -> None:
    assert exact.to_exact(value) == fraction_sum([value])
    assert exact.to_float(exact.to_exact(value)) == value


def test_a_sum_above_every_float() -> None:
    with pytest.raises(OverflowError):
        exact.to_float(2 * exact.to_exact(1.7976931348623157e308))


def test_grid_of_a_corpus() -> None:
    assert exact.grid_exponent(1.0, 1.0) == 1  # below 2**1
    assert exact.grid_exponent(1000.0, 1.0) == 1
    assert exact.grid_exponent(1000.0, 2000.0) == 10
    # The high limb has no more room than OUTLYING bits above an ordinary row.
    assert exact.grid_exponent(1e12, 1.0) == 40 - exact.OUTLYING
    assert exact.grid_exponent(0.0, 0.0) == 0
    assert exact.grid_exponent(3.0, 0.0) == 2


# Vectors


def on_grid(value: float, exponent: int) -> int:
    """A component in units of the grid, half to even."""
    return round(Fraction(value) * Fraction(2) ** (exact.FRACTION - exponent))


def units(sums: exact.VectorSums) -> list[list[int]]:
    """Sums in units of the grid, as Python's integers."""
    cut = exact.densify(sums, int(sums.clusters.max()) + 1)
    exact.cut(cut)
    assert cut.limbs is not None and not cut.grid.any()
    limbs, d = cut.limbs[sums.clusters], sums.grid.shape[1]
    return [[(h << exact.FRACTION) + low for h, low in zip(r[:d], r[d:], strict=True)] for r in limbs.tolist()]


def fraction_vectors(x: NDArray[np.float32], clusters: NDArray[np.int64], exponent: int) -> list[list[int]]:
    rounded = [[on_grid(v, exponent) for v in row] for row in x.tolist()]
    out = []
    for cluster in sorted(set(clusters.tolist())):
        mine = [row for row, c in zip(rounded, clusters.tolist(), strict=True) if c == cluster]
        out.append([sum(column) for column in zip(*mine, strict=True)])
    return out


def rows(n: int, d: int, seed: int = 1, outliers: int = 0) -> NDArray[np.float32]:
    """Unit values over many exponents, and some rows of 1e12."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, d)) * 2.0 ** -rng.integers(0, 50, (n, d))
    x[:outliers] *= 1e12
    return x.astype(np.float32)


@pytest.mark.parametrize("outliers", [0, 3], ids=["ordinary", "outliers"])
def test_vectors_as_fractions(outliers: int) -> None:
    x, clusters = rows(200, 3, outliers=outliers), np.random.default_rng(2).integers(0, 7, 200) * 2
    exponent = exact.grid_exponent(1e12 if outliers else 1.0, 1.0)
    sums = exact.vector_sums(x, clusters, exponent)
    assert sums.clusters.tolist() == sorted(set(clusters.tolist()))
    assert sums.counts.tolist() == [np.count_nonzero(clusters == c) for c in sums.clusters]
    expected = fraction_vectors(x, clusters, exponent)
    assert units(sums) == expected
    unit = Fraction(2) ** (exponent - exact.FRACTION)
    floats = [[float(value * unit) for value in row] for row in expected]
    assert sums.values().tolist() == floats
    exact.cut(sums)
    assert sums.values().tolist() == floats


@pytest.mark.parametrize("n", [1, 5, exact.ROWS, exact.ROWS + 1, 2 * exact.ROWS + 3])
def test_blocks_of_rows_add_up(n: int) -> None:
    x = rows(n, 2, seed=n)
    x[0] = 1  # the largest that is below 2**1
    sums = exact.vector_sums(x, np.zeros(n, np.int64), 1)
    assert units(sums) == fraction_vectors(x, np.zeros(n, np.int64), 1)


def test_the_largest_block_of_the_largest_ordinary_rows() -> None:
    largest = np.nextafter(np.float32(2), np.float32(0))
    for sign in (1, -1):
        x = np.full((exact.ROWS, 2), sign * largest, np.float32)
        sums = exact.vector_sums(x, np.zeros(len(x), np.int64), 1)
        assert sums.limbs is None and sums.held.tolist() == [exact.ROWS]
        assert units(sums) == [[exact.ROWS * on_grid(float(sign * largest), 1)] * 2]
        exact.add(sums, exact.vector_sums(x[:1], np.zeros(1, np.int64), 1))
        assert sums.limbs is not None and sums.held.tolist() == [1]
        assert units(sums) == [[(exact.ROWS + 1) * on_grid(float(sign * largest), 1)] * 2]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(0, 2))
def test_vectors_in_any_order_and_division(seed: int, n: int, outliers: int) -> None:
    rng = np.random.default_rng(seed)
    x, clusters = rows(n, 2, seed, outliers), rng.integers(0, 3, n)
    exponent = exact.grid_exponent(1e12, 1.0)
    whole = exact.vector_sums(x, clusters, exponent)
    order = rng.permutation(n)
    total = exact.densify(exact.vector_sums(x[:0], clusters[:0], exponent), 3)
    for part in np.array_split(order, rng.integers(1, n + 1)):
        some = exact.vector_sums(x[part], clusters[part], exponent)
        exact.add(total, exact.densify(some, 3) if rng.random() < 0.3 else some)
        if rng.random() < 0.2:
            exact.cut(total)
    # What lies on the grid and what in the limbs may differ, the sums are the same bits.
    assert np.array_equal(total.values()[whole.clusters], whole.values())
    assert total.counts[whole.clusters].tolist() == whole.counts.tolist()


def test_limbs_of_many_blocks_are_carried() -> None:
    # The low limb alone has more bits than a float64.
    limbs = np.array([[-(1 << 20), (1 << 60) + 1], [3, -(1 << 41)]])
    assert exact.from_limbs(limbs, 0).tolist() == [[2.0**-40], [1.0]]


def test_one_outlier_leaves_the_other_rows() -> None:
    x = np.full((1000, 1), 1.0, np.float32)
    x[500] = 1e12
    exponent = exact.grid_exponent(1.1e12, 8.0)
    sums = exact.vector_sums(x, np.zeros(1000, np.int64), exponent)
    assert sums.values()[0, 0] == 999 + float(x[500, 0])
    x[501] = -1e12
    sums = exact.vector_sums(x, np.zeros(1000, np.int64), exponent)
    assert sums.values()[0, 0] == 998


def test_no_rows() -> None:
    sums = exact.vector_sums(np.empty((0, 3), np.float32), np.empty(0, np.int64), 0)
    assert (len(sums.clusters), len(sums.counts), sums.grid.shape, sums.limbs) == (0, 0, (0, 3), None)
    assert exact.exact_sum(np.empty(0)) == 0
