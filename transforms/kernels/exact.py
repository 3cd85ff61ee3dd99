"""Sums that do not depend on order, because they are exact.

Scalars (cost, totals of proxies and losses) are summed as Python integers on the grid of float64's smallest number, so
no range is too wide. Vectors are summed on a grid of their own, 2**-40 of what bounds an ordinary row. The sum of
thousands of ordinary rows does not pass 2**53 units, where float64 is exact, so that a sparse product adds them; sums
that may pass that bound are cut in two integer limbs, and so are the few rows beyond the ordinary.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

SCALE = 1074
"""An exact sum is an integer in units of 2**-1074, the smallest positive float64."""

LIMB = 26
"""Bits of the lower half of a float64's mantissa, as it is cut to be summed."""

FRACTION = 40
"""Bits of a grid below the bound of an ordinary row."""

ROWS = 2**13
"""Ordinary rows of one cluster whose sum does not pass 2**53 units, whatever they are."""

BLOCK = 256
"""Rows rounded to the grid at a time: they stay in the processor's cache."""

DENSE = 4096
"""Sums of numbers of one group and one power of two that are kept though there be fewer numbers than that."""

OUTLYING = 20
"""How far, in powers of two, a component may lie beyond the bound of an ordinary row: what the high limb has room for
in 2**43 rows.
"""


def exact_sums(values: NDArray[np.float64], groups: NDArray[np.integer], count: int) -> list[int]:
    """Returns the exact sum of each group, in units of 2**-1074.

    Args:
        values: finite float64, (n,), n <= 2**26.
        groups: the group of each value, (n,), in 0 .. count - 1.
        count: number of groups.
    """
    if not len(values):
        return [0] * count
    mantissa, exponent = np.frexp(values)
    integer = np.ldexp(mantissa, 53).astype(np.int64)
    least = int(exponent.min())
    width = int(exponent.max()) - least + 1
    cell = groups * np.int64(width) + (exponent - least)
    if count * width <= DENSE + 4 * len(values):
        cells = np.arange(count * width)
    else:
        cells, cell = np.unique(cell, return_inverse=True)
    high, low = integer >> LIMB, integer & ((1 << LIMB) - 1)
    highs, lows = np.bincount(cell, high, len(cells)), np.bincount(cell, low, len(cells))
    some = np.flatnonzero((highs != 0) | (lows != 0))
    totals = [0] * count
    for key, h, m in zip(cells[some].tolist(), highs[some].tolist(), lows[some].tolist(), strict=True):
        total, shift = (int(h) << LIMB) + int(m), key % width + least - 53 + SCALE
        # A subnormal's mantissa ends in zeros, so shifting right loses nothing.
        totals[key // width] += total << shift if shift >= 0 else total >> -shift
    return totals


def exact_sum(values: NDArray[np.float64]) -> int:
    """Returns the exact sum of finite float64 values, in units of 2**-1074."""
    return exact_sums(values, np.zeros(len(values), np.int64), 1)[0]


def to_exact(value: float) -> int:
    """Returns one float64 in units of 2**-1074."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (SCALE - denominator.bit_length() + 1)


def to_float(total: int) -> float:
    """Returns an exact sum as the nearest float64; OverflowError where it is above the largest."""
    return total / (1 << SCALE)


def grid_exponent(magnitude: float, ordinary: float) -> int:
    """Returns the exponent t of the grid of a corpus: rows below 2**t are ordinary, and a unit is 2**(t - FRACTION).

    Args:
        magnitude: above every component of every row.
        ordinary: above those of most rows, so that the unit is small though one row be huge.
    """
    highest = math.frexp(magnitude)[1] if magnitude > 0 else 0
    return min(highest, max(highest - OUTLYING, math.frexp(ordinary)[1] if ordinary > 0 else highest))


@dataclass
class VectorSums:
    """Exact sums of vectors for each of some clusters.

    Attributes:
        exponent: t of the grid.
        clusters: int64, (m,), ascending.
        counts: rows of each cluster, int64, (m,).
        grid: sums on the grid that are not in the limbs yet, float64, (m, d).
        held: ordinary rows of each cluster in `grid`, never above ROWS, int64, (m,).
        limbs: the rest: high limbs, in units of 2**t, and low ones, in units of 2**(t - FRACTION), side by side; int64,
            (m, 2 d). None as long as there is nothing in them.
    """

    exponent: int
    clusters: NDArray[np.int64]
    counts: NDArray[np.int64]
    grid: NDArray[np.float64]
    held: NDArray[np.int64]
    limbs: NDArray[np.int64] | None = None

    def values(self) -> NDArray[np.float64]:
        """Returns the sums as float64, (m, d), each rounded once."""
        if self.limbs is None:
            return self.grid
        limbs = self.limbs.copy()
        _add_limbs(limbs, slice(None), self.grid, self.exponent)
        return from_limbs(limbs, self.exponent)


def vector_sums(x: NDArray[np.float32], clusters: NDArray[np.integer], exponent: int) -> VectorSums:
    """Returns the sums of the rows of each cluster that occurs, each component rounded to the grid first.

    Args:
        x: float32, (n, d), every magnitude below 2**(exponent + OUTLYING).
        clusters: the cluster of each row, (n,).
        exponent: t of the grid; one for a whole corpus.
    """
    present, place, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    m = len(present)
    total = VectorSums(
        exponent, present.astype(np.int64), counts.astype(np.int64), np.zeros((m, x.shape[1])), np.zeros(m, np.int64)
    )
    for low in range(0, len(x), ROWS):
        _add_rows(total, x[low : low + ROWS], place[low : low + ROWS])
    return total


def _add_rows(total: VectorSums, x: NDArray[np.float32], place: NDArray[np.integer]) -> None:
    """Adds at most ROWS rows to the sums at their places."""
    counts = np.bincount(place, minlength=len(total.held))
    if (total.held + counts).max() > ROWS:
        cut(total)
    bound, beyond = 2.0**total.exponent, np.empty(0, np.int64)
    if max(x.max(), -x.min()) >= bound:  # seldom, and a look at rows takes several times as long
        beyond = np.flatnonzero(np.maximum(x.max(1), -x.min(1)) >= bound)
    # Adding and taking away a number whose last bit is the unit rounds to the grid.
    rounder = np.float64(1.5 * 2.0 ** (52 + total.exponent - FRACTION))  # a Python float would be added in float32
    wide = np.empty(x.shape)
    for low in range(0, len(x), BLOCK):
        block = wide[low : low + BLOCK]
        np.add(x[low : low + BLOCK], rounder, out=block)
        block -= rounder
    wide[beyond] = 0
    one_hot = scipy.sparse.csr_matrix(
        (np.ones(len(x)), place, np.arange(len(x) + 1)), shape=(len(x), len(total.counts))
    )
    total.grid += one_hot.T @ wide
    total.held += counts
    for row in beyond:
        if total.limbs is None:
            total.limbs = np.zeros((len(total.counts), 2 * x.shape[1]), np.int64)
        _add_limbs(total.limbs, place[row], x[row].astype(np.float64), total.exponent)


def densify(some: VectorSums, k: int) -> VectorSums:
    """Returns the sums with a row for each of k clusters, in arrays of their own."""
    counts, held, grid = np.zeros(k, np.int64), np.zeros(k, np.int64), np.zeros((k, some.grid.shape[1]))
    counts[some.clusters], held[some.clusters], grid[some.clusters] = some.counts, some.held, some.grid
    limbs = None
    if some.limbs is not None:
        limbs = np.zeros((k, some.limbs.shape[1]), np.int64)
        limbs[some.clusters] = some.limbs
    return VectorSums(some.exponent, np.arange(k), counts, grid, held, limbs)


def add(total: VectorSums, more: VectorSums) -> None:
    """Adds sums, sparse or dense, to dense ones, in place."""
    # A slice adds in place; a list of all clusters would copy them there and back.
    where = slice(None) if len(more.clusters) == len(total.clusters) else more.clusters
    if (total.held[where] + more.held).max(initial=0) > ROWS:
        cut(total)
    total.counts[where] += more.counts
    total.grid[where] += more.grid
    total.held[where] += more.held
    if more.limbs is not None:
        if total.limbs is None:
            total.limbs = np.zeros((len(total.counts), more.limbs.shape[1]), np.int64)
        total.limbs[where] += more.limbs


def crop(sums: VectorSums, k: int) -> VectorSums:
    """Returns dense sums with the first k clusters only, which are all there are."""
    limbs = None if sums.limbs is None else sums.limbs[:k]
    return VectorSums(sums.exponent, sums.clusters[:k], sums.counts[:k], sums.grid[:k], sums.held[:k], limbs)


def cut(sums: VectorSums) -> None:
    """Cuts what lies on the grid into the limbs, in place."""
    if sums.limbs is None:
        sums.limbs = np.zeros((len(sums.counts), 2 * sums.grid.shape[1]), np.int64)
    _add_limbs(sums.limbs, slice(None), sums.grid, sums.exponent)
    sums.grid[:], sums.held[:] = 0, 0


def _add_limbs(limbs: NDArray[np.int64], where: slice | np.integer, values: NDArray[np.float64], exponent: int) -> None:
    """Adds numbers of at most 2**53 units or of one row, cut in limbs, to some rows of `limbs`."""
    d = limbs.shape[1] // 2
    high = np.floor(values * 2.0**-exponent)
    low = np.rint((values - high * 2.0**exponent) * 2.0 ** (FRACTION - exponent))
    limbs[where, :d] += high.astype(np.int64)
    limbs[where, d:] += low.astype(np.int64)


def from_limbs(limbs: NDArray[np.int64], exponent: int) -> NDArray[np.float64]:
    """Returns sums as float64, (m, d), from their limbs, (m, 2 d)."""
    d = limbs.shape[1] // 2
    high, low = limbs[:, :d], limbs[:, d:]
    # Which limbs a sum has depends on how it was cut in blocks, its value does not: carry first.
    high, low = high + (low >> FRACTION), low & ((1 << FRACTION) - 1)
    return high * 2.0**exponent + low * 2.0 ** (exponent - FRACTION)
