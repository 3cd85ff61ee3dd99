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

HELD = 393_216
"""Numbers of the differences, in float64, that are held at once. Fewer would stay in a nearer cache, but the threads
would then wait for each other: each call on an array gives Python's lock up and takes it again.
"""

FOLDS = 8
"""Parts of a line of scores that are laid on each other to see how large its largest are."""


@dataclass(frozen=True)
class Points:
    """Points prepared for search; made by `prepare`.

    A point much farther from the origin than most would make the error bound of every row useless, so such *outlying*
    points stay out of the product and are looked at only for rows that are far out too.

    Attributes:
        exact: the points, float64, (k, d).
        ordinary: which of them are in the product, int64, (m,).
        outlying: and which are not, int64, (k - m,).
        factor: of the product, `score_factor` of the ordinary points, float32, (d + 1, m).
        reach: the largest norm of an ordinary point.
        outlying_from: the smallest norm of an outlying one, infinite where there is none.
    """

    exact: NDArray[np.float64]
    ordinary: NDArray[np.int64]
    outlying: NDArray[np.int64]
    factor: NDArray[np.float32]
    reach: float
    outlying_from: float


def prepare(points: NDArray[np.float32]) -> Points:
    """Prepares float32 points, (k, d), k >= 1, for search."""
    exact = points.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", exact, exact))
    limit = 16 * np.median(norms) if len(norms) > 2 else np.inf
    is_ordinary = norms <= max(limit, norms.min())
    ordinary, outlying = np.flatnonzero(is_ordinary), np.flatnonzero(~is_ordinary)
    return Points(
        exact=exact,
        ordinary=ordinary,
        outlying=outlying,
        factor=score_factor(points[ordinary], norms[ordinary] ** 2),
        reach=float(norms[ordinary].max()),
        outlying_from=float(norms[outlying].min(initial=np.inf)),
    )


def score_factor(points: NDArray[np.float32], squares: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns the points, (k, d), as columns with minus half their squared norms below: what rows with a 1 at their end
    are multiplied by to give the scores x c - |c|^2 / 2, in one product and no pass after it.
    """
    return np.concatenate([points.T, (squares / -2).astype(np.float32)[None]])


def with_ones(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the rows, (n, d), with a 1 at their end, (n, d + 1)."""
    out = np.empty((len(x), x.shape[1] + 1), np.float32)
    out[:, :-1], out[:, -1] = x, 1
    return out


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
    height = max(1, min(HELD // x.shape[1], len(x)))
    wide, difference = np.empty((height, x.shape[1])), np.empty((height, x.shape[1]))
    for low in range(0, len(x), height):
        some = x[low : low + height]
        rows, block = wide[: len(some)], difference[: len(some)]
        rows[:] = some
        for j in range(index.shape[1]):
            np.take(points, index[low : low + height, j], axis=0, out=block, mode="clip")
            np.subtract(rows, block, out=block)
            np.einsum("ij,ij->i", block, block, out=out[low : low + height, j])
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
    taken = min(q, len(points.ordinary))
    norms = upper_norms(x)
    slack = 2 * error_bound(x.shape[1], norms, points.reach)
    # An outlying point can be among the nearest only of a row that is itself far out, by the triangle inequality.
    doubtful = (2 * norms * 1.01 + points.reach >= points.outlying_from) | (taken < q)
    place, settled = np.empty((len(x), taken), np.int64), []
    buffer = np.empty((min(BLOCK, len(x)), len(points.ordinary)), np.float32)
    for low in range(0, len(x), BLOCK):
        some = slice(low, low + BLOCK)
        # x c - |c|^2 / 2, which is largest at the nearest point
        scores = np.matmul(with_ones(x[some]), points.factor, out=buffer[: len(x) - low])
        rows = np.arange(len(scores))
        for j in range(taken):
            place[some, j] = best = scores.argmax(1)
            value = scores[rows, best]
            scores[rows, best] = -np.inf
        threshold = value - slack[some]
        unsure = np.flatnonzero((scores.max(1) >= threshold) | doubtful[some])
        if len(unsure):
            at = low + unsure
            settled.append((at, _settle(x[at], points, q, place[at], scores[unsure] >= threshold[unsure, None])))
    index = points.ordinary[place]
    squared = squared_distances(x, points.exact, index)
    if q > 1:
        # Where the filter had the right order already, most of them, nothing moves.
        mixed = np.flatnonzero((np.diff(squared) <= 0).any(1))
        order = np.lexsort((index[mixed], squared[mixed]))
        index[mixed] = np.take_along_axis(index[mixed], order, 1)
        squared[mixed] = np.take_along_axis(squared[mixed], order, 1)
    out_index, out_squared = np.empty((len(x), q), np.int32), np.empty((len(x), q))
    out_index[:, :taken], out_squared[:, :taken] = index, squared
    for at, found in settled:
        out_index[at], out_squared[at] = found
    return out_index, out_squared


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
        scores = with_ones(rows) @ points.factor
        place, value = _largest(scores, q + 1)
        # Of each row, the last is the one too many.
        gap = value[:, :-1].min(1) - value[:, -1]
        doubtful = np.flatnonzero(gap <= 2 * error_bound(rows.shape[1], upper_norms(rows), points.reach))
        found = points.ordinary[place[:, :-1]]
        if len(doubtful):
            found[doubtful] = nearest(rows[doubtful], points, q)[0]
        index[low : low + BLOCK] = found
    return index


def _largest(scores: NDArray[np.float32], m: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns where the m largest of each line are and their values, (n, m), of each the m-th largest last.

    Laid on each other, the parts of a line show a value that at least m of its scores reach, and hardly more than m do:
    only those need an order.
    """
    n, k = scores.shape
    width = k // FOLDS if k >= 2 * FOLDS * m else k
    folded = scores[:, :width].copy()
    for low in range(width, k - width + 1, width):
        np.maximum(folded, scores[:, low : low + width], out=folded)
    folded.sort(1)
    flat = np.flatnonzero(scores >= folded[:, -m, None])
    row, place = np.divmod(flat, k)
    table, starts = lines_of(row, scores.ravel()[flat], n)
    first = np.argpartition(-table, m - 1, axis=1)[:, :m]
    return place[starts[:, None] + first], np.take_along_axis(table, first, 1)


def lines_of(
    row: NDArray[np.int64], score: NDArray[np.float32], n: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns the scores of each row, 0 .. n - 1, in a line of their own, filled up with -inf, float32, (n, most), and
    where each row starts among the scores, int64, (n,). The rows ascend.
    """
    starts = np.searchsorted(row, np.arange(n))
    column = np.arange(len(row)) - starts[row]
    table = np.full((n, int(column.max(initial=0)) + 1), -np.inf, np.float32)
    table[row, column] = score
    return table, starts


def upper_norms(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns norms of the rows, float64, (n,); computed in float32 for speed, so a little more than they are: enough
    for a bound.
    """
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", x, x).astype(np.float64) * (1 + x.shape[1] * 2.0**-23)))


def error_bound(dimension: int, norms: NDArray[np.float64], reach: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Returns how far a float32 score x c - |c|^2 / 2 is from the true one at most.

    |error| <= gamma_(d + 1) (|x| |c| + |c|^2 / 2) for the product with the half norm in it (Higham, "Accuracy and
    Stability of Numerical Algorithms", 3.1), plus the rounding of the half norm; u = 2^-24. The first factor covers
    what is second order.

    Args:
        dimension: d.
        norms: of the rows, (n,).
        reach: the largest norm of a point, (n,) or one for all.
    """
    return np.asarray(1.05 * 2.0**-24 * (dimension + 2) * reach * (norms + reach / 2))


def _settle(
    x: NDArray[np.float32], points: Points, q: int, place: NDArray[np.int64], contends: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The exact search among the contenders of each row: the best of the filter, `place`, those that may be as near,
    `contends`, and the outlying points.
    """
    row, other = np.nonzero(contends)
    every = np.arange(len(x))
    row = np.concatenate([row, np.repeat(every, place.shape[1]), np.repeat(every, len(points.outlying))])
    ordinary = points.ordinary[np.concatenate([other, place.ravel()])]
    return first_of_pairs(x, points.exact, row, np.concatenate([ordinary, np.tile(points.outlying, len(x))]), q)


def first_of_pairs(
    x: NDArray[np.float32],
    exact: NDArray[np.float64],
    row: NDArray[np.int64],
    point: NDArray[np.int64],
    q: int,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Returns the q nearest among the points that are paired with each row, at least q, ties by index.

    Args:
        x: float32, (n, d).
        exact: all points, float64, (k, d).
        row: of each pair, 0 .. n - 1, in any order.
        point: of each pair.
        q: >= 1.

    Returns:
        indices, int32, (n, q), nearest first, and squared distances, float64, (n, q).
    """
    distance, height = np.empty(len(row)), max(1, HELD // x.shape[1])
    for low in range(0, len(row), height):
        some = slice(low, low + height)
        distance[some] = squared_distances(x[row[some]], exact, point[some, None])[:, 0]
    order = np.lexsort((point, distance, row))
    first = order[np.searchsorted(row[order], np.arange(len(x)))[:, None] + np.arange(q)]
    return point[first].astype(np.int32), distance[first]
