"""Sums that do not depend on order, because they are exact.

Scalars (cost, totals of proxies and losses) are summed as Python integers on the grid of float64's smallest number, so no range is
too wide. Vectors are summed on a grid of 52 bits below the largest magnitude in the corpus, in two integer limbs: each partial sum
stays below 2**53 in float64, where integers are exact, and the total has room for 2**34 rows in int64.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

SCALE = 1074
"""An exact sum is an integer in units of 2**-1074, the smallest positive float64."""

LIMB = 26
"""Bits of a limb of a vector component."""


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
    return exact_sum(np.array([value], np.float64))


def to_float(total: int) -> float:
    """Returns an exact sum as the nearest float64; OverflowError where it is above the largest."""
    return total / (1 << SCALE)


def grid_exponent(magnitude: float) -> int:
    """Returns the least e with magnitude < 2**e: the grid on which vectors of that largest component are summed."""
    return math.frexp(magnitude)[1] if magnitude > 0 else 0


@dataclass
class VectorSums:
    """Sums of vectors for each of some clusters.

    Attributes:
        clusters: int64, (m,), ascending.
        counts: rows of each cluster, int64, (m,).
        limbs: high and low limbs side by side, int64, (m, 2 d).
    """

    clusters: NDArray[np.int64]
    counts: NDArray[np.int64]
    limbs: NDArray[np.int64]


def vector_sums(x: NDArray[np.float32], clusters: NDArray[np.integer], exponent: int) -> VectorSums:
    """Returns the sums of the rows of each cluster that occurs.

    Args:
        x: float32, (n, d), n <= 2**26, every magnitude below 2**exponent.
        clusters: the cluster of each row, (n,).
        exponent: of the grid; one for a whole corpus.
    """
    present, place, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    n, d = x.shape
    limbs = np.empty((n, 2 * d))
    scaled, high, low = np.ldexp(x.astype(np.float64), LIMB - exponent), limbs[:, :d], limbs[:, d:]
    np.rint(scaled, out=high)
    np.subtract(scaled, high, out=scaled)
    np.rint(np.ldexp(scaled, LIMB, out=scaled), out=low)
    one_hot = scipy.sparse.csr_matrix((np.ones(n), place, np.arange(n + 1)), shape=(n, len(present)))
    sums = np.asarray(one_hot.T @ limbs)
    return VectorSums(present.astype(np.int64), counts.astype(np.int64), sums.astype(np.int64))


def from_limbs(limbs: NDArray[np.int64], exponent: int) -> NDArray[np.float64]:
    """Returns sums as float64, (m, d), from their limbs, (m, 2 d)."""
    d = limbs.shape[1] // 2
    return np.ldexp(np.ldexp(limbs[:, :d].astype(np.float64), LIMB) + limbs[:, d:], exponent - 2 * LIMB)
