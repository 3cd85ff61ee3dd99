"""The nearest of k points, exactly: the same answer for any block height, thread count or offset of the data.

A float32 matrix product is only a filter, since its last bits depend on the height of the block. Where the best
candidates are nearer to each other than a stated bound of its error, their distances are computed again from x - c in
float64, ties by index; and the distances that are kept are always computed so.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Rows of a product: its buffer of BLOCK x k float32 stays in the processor's cache."""

PAIRS = 256
"""Rows whose differences are held at once, in float64."""


@dataclass(frozen=True)
class Points:
    """Points prepared for search; made by `prepare`.

    A point much farther from the origin than most would make the error bound of every row useless, so such *outlying*
    points stay out of the product and are looked at only for rows that are far out too.
    """

    exact: NDArray[np.float64]
    ordinary: NDArray[np.int64]
    outlying: NDArray[np.int64]
    transposed: NDArray[np.float32]
    half_norms: NDArray[np.float32]
    reach: float
    outlying_from: float


def prepare(points: NDArray[np.float32]) -> Points:
    """Prepares float32 points, (k, d), k >= 1, for search."""
    exact = points.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", exact, exact))
    limit = 16 * np.median(norms) if len(norms) > 2 else np.inf
    is_ordinary = norms <= max(limit, norms.min())
    ordinary, outlying = np.flatnonzero(is_ordinary), np.flatnonzero(~is_ordinary)
    near = points[ordinary]
    return Points(
        exact=exact,
        ordinary=ordinary,
        outlying=outlying,
        transposed=np.ascontiguousarray(near.T),
        half_norms=(norms[ordinary] ** 2 / 2).astype(np.float32),
        reach=float(norms[ordinary].max()),
        outlying_from=float(norms[outlying].min(initial=np.inf)),
    )


def squared_distances(
    x: NDArray[np.float32], points: NDArray[np.float64], index: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Returns the squared distance of each row to the points named beside it, float64, (n, q).

    Args:
        x: float32, (n, d).
        points: float64, (k, d).
        index: which points, (n, q).

    Each value is a function of its row and point alone: differences in float64, summed along the row in one fixed
        order.
    """
    out = np.empty(index.shape)
    difference = np.empty((min(PAIRS, len(x)), x.shape[1]))
    for low in range(0, len(x), PAIRS):
        rows = x[low : low + PAIRS].astype(np.float64)
        block = difference[: len(rows)]
        for j in range(index.shape[1]):
            np.take(points, index[low : low + PAIRS, j], axis=0, out=block, mode="clip")
            np.subtract(rows, block, out=block)
            np.einsum("ij,ij->i", block, block, out=out[low : low + PAIRS, j])
    return out


def nearest(x: NDArray[np.float32], points: Points, q: int = 1) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Returns the q nearest points of each row, nearest first, ties by index, and their squared distances.

    Args:
        x: finite float32, (n, d).
        points: prepared points, k of them.
        q: 1 <= q <= k.

    Returns:
        indices, int32, (n, q), and squared Euclidean distances, float64, (n, q).

    Raises:
        ValueError: q is not in 1 .. k.
    """
    if not 1 <= q <= len(points.exact):
        raise ValueError(f"q = {q} neighbours of {len(points.exact)} points")
    index, distance = np.empty((len(x), q), np.int32), np.empty((len(x), q))
    buffer = np.empty((min(BLOCK, len(x)), len(points.ordinary)), np.float32)
    for low in range(0, len(x), BLOCK):
        rows = x[low : low + BLOCK]
        index[low : low + BLOCK], distance[low : low + BLOCK] = _nearest_block(rows, points, q, buffer[: len(rows)])
    return index, distance


def closest(x: NDArray[np.float32], points: Points, q: int) -> NDArray[np.int64]:
    """Returns which points are the q nearest of each row, ties by index, in no order: int64, (n, q), q <= k.

    Distances are computed only for rows where the q-th and the next are too near to tell apart.
    """
    index = np.empty((len(x), q), np.int64)
    for low in range(0, len(x), BLOCK):
        rows = x[low : low + BLOCK]
        if q >= len(points.ordinary) or len(points.outlying):
            index[low : low + BLOCK] = nearest(rows, points, q)[0]
            continue
        scores = rows @ points.transposed
        scores -= points.half_norms
        some = np.argpartition(scores, len(points.ordinary) - q - 1, axis=1)[:, len(points.ordinary) - q - 1 :]
        value = np.take_along_axis(scores, some, 1)
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows).astype(np.float64) * (1 + rows.shape[1] * 2.0**-23))
        # argpartition puts the (q + 1)-th largest first.
        gap = value[:, 1:].min(1) - value[:, 0]
        doubtful = np.flatnonzero(gap <= 2 * error_bound(rows.shape[1], norms, points.reach))
        found = points.ordinary[some[:, 1:]]
        if len(doubtful):
            found[doubtful] = nearest(rows[doubtful], points, q)[0]
        index[low : low + BLOCK] = found
    return index


def error_bound(dimension: int, norms: NDArray[np.float64], reach: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Returns how far a float32 score x c - |c|^2 / 2 is from the true one at most.

    |error| <= gamma_d |x| |c| for the product (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1), plus the
    roundings of the half norm and of the difference; u = 2^-24. The factor covers what is second order.

    Args:
        dimension: d.
        norms: of the rows, (n,).
        reach: the largest norm of a point, (n,) or one for all.
    """
    return np.asarray(1.05 * 2.0**-24 * ((dimension + 4) * norms * reach + 2 * np.square(reach)))


def _nearest_block(
    x: NDArray[np.float32], points: Points, q: int, scores: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The search in one block; `scores` is the buffer for x c - |c|^2 / 2, which is largest at the nearest point."""
    np.matmul(x, points.transposed, out=scores)
    np.subtract(scores, points.half_norms, out=scores)
    # In float32 for speed, so a little more than it says: enough for what is a bound.
    norms = np.sqrt(np.einsum("ij,ij->i", x, x).astype(np.float64) * (1 + x.shape[1] * 2.0**-23))
    bound = error_bound(x.shape[1], norms, points.reach)
    rows = np.arange(len(x))
    taken = min(q, scores.shape[1])
    best = np.empty((len(x), taken), np.int64)
    value = np.empty((len(x), taken), np.float32)
    for j in range(taken):
        best[:, j] = scores.argmax(1)
        value[:, j] = scores[rows, best[:, j]]
        scores[rows, best[:, j]] = -np.inf
    threshold = value[:, -1] - 2 * bound
    doubtful = scores.max(1) >= threshold
    # An outlying point can be among the nearest only of a row that is itself far out, by the triangle inequality.
    doubtful |= 2 * norms * 1.01 + points.reach >= points.outlying_from
    if taken < q:
        doubtful[:] = True
    index = points.ordinary[best]
    out_index, out_distance = np.empty((len(x), q), np.int32), np.empty((len(x), q))
    sure = np.flatnonzero(~doubtful)
    if len(sure):
        some, found = (x, index) if len(sure) == len(x) else (x[sure], index[sure])
        d = squared_distances(some, points.exact, found)
        if q > 1:
            order = np.lexsort((found, d))
            found, d = np.take_along_axis(found, order, 1), np.take_along_axis(d, order, 1)
        out_index[sure], out_distance[sure] = found, d
    unsure = np.flatnonzero(doubtful)
    if len(unsure):
        scores[rows[:, None], best] = value
        out_index[unsure], out_distance[unsure] = _settle(x[unsure], points, q, scores[unsure], threshold[unsure])
    return out_index, out_distance


def _settle(
    x: NDArray[np.float32], points: Points, q: int, scores: NDArray[np.float32], threshold: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The exact search among the contenders of each row: the points whose score reaches the threshold, and the outlying
    ones.
    """
    row, place = np.nonzero(scores >= threshold[:, None])
    m = len(points.outlying)
    row = np.concatenate([row, np.repeat(np.arange(len(x)), m)])
    point = np.concatenate([points.ordinary[place], np.tile(points.outlying, len(x))])
    distance = np.empty(len(row))
    for low in range(0, len(row), BLOCK):
        some = slice(low, low + BLOCK)
        distance[some] = squared_distances(x[row[some]], points.exact, point[some, None])[:, 0]
    order = np.lexsort((point, distance, row))
    starts = np.searchsorted(row[order], np.arange(len(x)))
    first = order[starts[:, None] + np.arange(q)]
    return point[first].astype(np.int32), distance[first]
