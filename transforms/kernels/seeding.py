"""The first centers: candidates of k-means||, reduced with their weights.

k-means|| (Bahmani, Moseley, Vattani, Kumar, Vassilvitskii, "Scalable k-means++", VLDB 2012) takes in each of a few
steps many rows at once, with probability in proportion to their squared distance to the candidates so far. The
candidates, weighted by the rows nearest to each, are few enough to be reduced to k in one place by k-means++ (Arthur
and Vassilvitskii, SODA 2007) and a few steps of Lloyd's algorithm.
"""

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from tithe.transforms.kernels import hashing, search

LLOYD_STEPS = 5
"""Weighted Lloyd steps after k-means++; more changed the cost of the later rounds by less than the noise."""

BATCHES = 2048
"""Steps that k-means++ takes: one candidate in each for as many centers or fewer, several at once for more, which one
pass over the candidates serves.
"""

TRIALS = 4
"""Candidates drawn for a center where one is taken at a time; the one that leaves the least cost is taken. After some
rounds that matters by a hundredth, either way (benchmarks/results/trials.md).
"""

ROWS = 8192
"""Candidates compared at a time."""

TABLED = 4096
"""Candidates up to which all distances among them are computed at once, in a table of 64 MB at most; a product for each
step is several times slower.
"""


def reduce_candidates(
    points: NDArray[np.float32], weights: NDArray[np.float64], count: int, seed: int
) -> NDArray[np.float32]:
    """Reduces weighted candidates to centers.

    Args:
        points: distinct candidates, float32, (m, d), m >= 1.
        weights: how many rows each stands for, float64, (m,), >= 0.
        count: centers wanted; where m <= count the candidates themselves are returned.
        seed: of the clustering.

    Returns:
        centers, float32, (min(m, count), d).
    """
    if len(points) <= count:
        return points
    centers = points[plus_plus(points, np.maximum(weights, 1e-9), count, seed)]
    for _ in range(LLOYD_STEPS):
        centers = _lloyd_step(points, weights, centers)
    return centers


def plus_plus(points: NDArray[np.float32], weights: NDArray[np.float64], count: int, seed: int) -> NDArray[np.int64]:
    """Returns which candidates k-means++ chooses, int64, (count,), no index twice; count < m."""
    norms = np.einsum("ij,ij->i", points, points)
    chosen, at = np.empty(count, np.int64), 0
    each = max(1, count // BATCHES)
    trials = TRIALS if each == 1 else 1
    uniforms = hashing.uniform(hashing.role_hash(np.arange(count * trials, dtype=np.uint64), seed, "k-means++"))
    distances = np.full(len(points), np.inf)
    mass = weights.copy()

    def apart(some: NDArray[np.int64], rows: slice) -> NDArray[np.float32]:
        # Only chances and choices depend on these distances, so the cheap form will do.
        squared: NDArray[np.float32] = points[some] @ points[rows].T
        squared *= -2
        squared += norms[rows]
        squared += norms[some, None]
        return np.maximum(squared, 0, out=squared)

    everything = slice(0, len(points))
    table = apart(np.arange(len(points)), everything) if len(points) <= TABLED else None
    while at < count:
        cumulated = np.cumsum(mass)
        if cumulated[-1] > 0:
            wanted = uniforms[at * trials : (at + each) * trials] * cumulated[-1]
            some = np.unique(np.minimum(np.searchsorted(cumulated, wanted, side="right"), len(points) - 1))
        else:
            # Every candidate left coincides with a chosen one to the last bit of float32: take the first not chosen.
            some = np.flatnonzero(~np.isin(np.arange(len(points)), chosen[:at]))[:1]
        if trials > 1:
            nearer = np.minimum(distances, apart(some, everything) if table is None else table[some])
            best = int((nearer @ weights).argmin())
            some, distances = some[[best]], nearer[best].copy()
        else:
            for low in range(0, len(points), ROWS):
                rows = slice(low, low + ROWS)
                np.minimum(distances[rows], apart(some, rows).min(0), out=distances[rows])
        chosen[at : at + len(some)] = some
        at += len(some)
        distances[some] = 0
        mass = weights * distances
    return chosen


def _lloyd_step(
    points: NDArray[np.float32], weights: NDArray[np.float64], centers: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The weighted means of the candidates nearest to each center; a center without any stays."""
    index = search.search(points, search.prepare(centers))[0][:, 0]
    k = len(centers)
    members = scipy.sparse.csr_matrix((weights, index, np.arange(len(points) + 1)), shape=(len(points), k)).T
    mass = np.bincount(index, weights, k)
    moved = np.asarray(members @ points.astype(np.float64)) / np.maximum(mass, 1e-300)[:, None]
    return np.where(mass[:, None] > 0, moved, centers).astype(np.float32)
