"""The first centers: candidates of k-means||, reduced with their weights.

k-means|| (Bahmani, Moseley, Vattani, Kumar, Vassilvitskii, "Scalable k-means++", VLDB 2012) takes in each of a few
steps many rows at once, with probability in proportion to their squared distance to the candidates so far. The
candidates, weighted by the rows nearest to each, are few enough to be reduced to k in one place by k-means++ (Arthur
and Vassilvitskii, SODA 2007) and a few steps of Lloyd's algorithm.
"""

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from tithe.transforms.kernels import hashing, nearest

LLOYD_STEPS = 5
"""Weighted Lloyd steps after k-means++; more changed the cost of the later rounds by less than the noise."""


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
    chosen = np.empty(count, np.int64)
    uniforms = hashing.uniform(hashing.role_hash(np.arange(count, dtype=np.uint64), seed, "k-means++"))
    distances = np.full(len(points), np.inf)
    mass = weights.copy()
    for i in range(count):
        cumulated = np.cumsum(mass)
        if cumulated[-1] > 0:
            j = int(np.searchsorted(cumulated, uniforms[i] * cumulated[-1], side="right"))
        else:
            # Every candidate left coincides with a chosen one to the last bit of float32: take the first not chosen.
            j = int(np.flatnonzero(~np.isin(np.arange(len(points)), chosen[:i]))[0])
        chosen[i] = j = min(j, len(points) - 1)
        # Only chances depend on these distances, so the cheap form will do, with nothing left at the chosen.
        np.minimum(distances, np.maximum(norms - 2 * (points @ points[j]) + norms[j], 0), out=distances)
        distances[j] = 0
        mass = weights * distances
    return chosen


def _lloyd_step(
    points: NDArray[np.float32], weights: NDArray[np.float64], centers: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The weighted means of the candidates nearest to each center; a center without any stays."""
    index = nearest.nearest(points, nearest.prepare(centers))[0][:, 0]
    k = len(centers)
    members = scipy.sparse.csr_matrix((weights, index, np.arange(len(points) + 1)), shape=(len(points), k)).T
    mass = np.bincount(index, weights, k)
    moved = np.asarray(members @ points.astype(np.float64)) / np.maximum(mass, 1e-300)[:, None]
    return np.where(mass[:, None] > 0, moved, centers).astype(np.float32)
