"""Sums that do not depend on order, because they are exact.

Scalars (cost, totals of proxies and losses) are summed as Python integers on the grid of float64's smallest number, so
no range is too wide. Vectors are summed on a grid of their own, 2**-40 of what bounds an ordinary row. The sums of a
block of ordinary rows stay below 2**53 units, where float64 is exact, so that one sparse product adds them; the few
rows beyond the bound are added one by one; and totals are two integer limbs.
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
"""Bits of a grid below the bound of an ordinary row; with a block of 2**12 rows or fewer, sums stay below 2**53 units.
"""

ROWS = 2048
"""Rows of a block."""

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
    mantissa, exponent = np.frexp(values)
    integer = np.ldexp(mantissa, 53).astype(np.int64)
    keys, place = np.unique(groups.astype(np.int64) * 4096 + exponent + 2048, return_inverse=True)
    high, low = integer >> LIMB, integer & ((1 << LIMB) - 1)
    highs = np.bincount(place, high, len(keys))
    lows = np.bincount(place, low, len(keys))
    totals = [0] * count
    for key, h, m in zip(keys.tolist(), highs.tolist(), lows.tolist(), strict=True):
        total, shift = (int(h) << LIMB) + int(m), key % 4096 - 2048 - 53 + SCALE
        # A subnormal's mantissa ends in zeros, so shifting right loses nothing.
        totals[key // 4096] += total << shift if shift >= 0 else total >> -shift
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
    """Sums of vectors for each of some clusters.

    Attributes:
        clusters: int64, (m,), ascending.
        counts: rows of each cluster, int64, (m,).
        limbs: high limbs, in units of 2**t, and low ones, in units of 2**(t - FRACTION), side by side; int64, (m, 2 d).
    """

    clusters: NDArray[np.int64]
    counts: NDArray[np.int64]
    limbs: NDArray[np.int64]


def vector_sums(x: NDArray[np.float32], clusters: NDArray[np.integer], exponent: int) -> VectorSums:
    """Returns the sums of the rows of each cluster that occurs, each component rounded to the grid first.

    Args:
        x: float32, (n, d), every magnitude below 2**(exponent + OUTLYING).
        clusters: the cluster of each row, (n,).
        exponent: t of the grid; one for a whole corpus.
    """
    present, place, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    n, d = x.shape
    limbs = np.zeros((len(present), 2 * d), np.int64)
    wide = np.empty((min(n, ROWS), d))
    # Adding and taking away a number whose last bit is the unit rounds to the grid.
    rounder = 1.5 * 2.0 ** (52 + exponent - FRACTION)
    for low in range(0, n, ROWS):
        rows, block, where = x[low : low + ROWS], wide[: len(x[low : low + ROWS])], place[low : low + ROWS]
        beyond = np.flatnonzero(np.maximum(rows.max(1), -rows.min(1)) >= 2.0**exponent)
        block[:] = rows
        block[beyond] = 0
        block += rounder
        block -= rounder
        one_hot = scipy.sparse.csr_matrix(
            (np.ones(len(block)), where, np.arange(len(block) + 1)), shape=(len(block), len(present))
        )
        _add_limbs(limbs, slice(None), np.asarray(one_hot.T @ block), exponent)
        for row in beyond:
            _add_limbs(limbs, where[row], rows[row].astype(np.float64), exponent)
    return VectorSums(present.astype(np.int64), counts.astype(np.int64), limbs)


def _add_limbs(limbs: NDArray[np.int64], where: slice | np.integer, values: NDArray[np.float64], exponent: int) -> None:
    """Adds numbers below 2**53 units or of one row, cut in limbs, to some rows of `limbs`."""
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
