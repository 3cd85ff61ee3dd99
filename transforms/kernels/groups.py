"""The nearest of very many points, on two levels: the groups nearest to a row first, then the points in them.

What it gives is defined exactly, and so is the same for any block height and thread count: the nearest among the points
of the NEAREST groups whose means are nearest to the row. That a nearer point lies in another group is rare, and then
it is not much nearer; see ARCHITECTURE.md for what was measured.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.kernels import nearest

SIZE = 128
"""Points of a group at most. A group that k-means leaves larger is split by k-means again: cut at a capacity, it would
hold points that belong to other means, and a row would not find them.
"""

NEAREST = 20
"""Groups in which a row looks."""

STEPS = 4
"""Steps of Lloyd's algorithm behind a division into groups; it has to be good, not the best."""


@dataclass(frozen=True)
class Groups:
    """Points in groups; made by `prepare`.

    Attributes:
        exact: the points, float64, (k, d).
        means: of the groups, prepared for search.
        members: the points of all groups one after another, int64, (k,), ascending in each group.
        starts: where each group starts in `members`, int64, (groups + 1,).
        transposed: the points in the order of `members`, float32, (d, k).
        half_norms: half their squared norms, float32, (k,).
        reach: the largest norm in each group, float64, (groups,).
    """

    exact: NDArray[np.float64]
    means: nearest.Points
    members: NDArray[np.int64]
    starts: NDArray[np.int64]
    transposed: NDArray[np.float32]
    half_norms: NDArray[np.float32]
    reach: NDArray[np.float64]


def prepare(points: NDArray[np.float32]) -> Groups:
    """Puts float32 points, (k, d), in groups, the same ones wherever it is called."""
    parts = _divide(points, np.arange(len(points)))
    members, starts = np.concatenate(parts), np.cumsum([0, *map(len, parts)])
    ordered = points[members].astype(np.float64)
    squares = np.einsum("ij,ij->i", ordered, ordered)
    return Groups(
        exact=points.astype(np.float64),
        means=nearest.prepare(_means(ordered, starts[:-1])),
        members=members,
        starts=starts,
        transposed=np.ascontiguousarray(points[members].T),
        half_norms=(squares / 2).astype(np.float32),
        reach=np.sqrt(np.maximum.reduceat(squares, starts[:-1])),
    )


def _means(rows: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The means of consecutive rows."""
    counts = np.diff(np.append(starts, len(rows)))
    return np.asarray(np.add.reduceat(rows, starts) / counts[:, None], np.float32)


def _divide(points: NDArray[np.float32], index: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The points of this index in groups of SIZE at most."""
    if len(index) <= SIZE:
        return [index]
    # At most 512 groups at a time: a division is as dear as its points times its groups.
    count = min(512, -(-2 * len(index) // SIZE))
    means = points[index[:: len(index) // count][:count]]
    for _ in range(STEPS):
        group = nearest.nearest(points[index], nearest.prepare(means))[0][:, 0]
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        means = _means(points[index[order]].astype(np.float64), starts)
    if len(starts) == 1:  # all on one point, or nearly so
        return [index[low : low + SIZE] for low in range(0, len(index), SIZE)]
    parts = np.split(index[order], starts[1:])
    return [small for part in parts for small in _divide(points, part)]


def search(x: NDArray[np.float32], groups: Groups, q: int = 1) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Returns the q nearest points of each row in its nearest groups, nearest first, ties by index, and their squared
    distances.

    Args:
        x: finite float32, (n, d).
        groups: points in groups, at least q points.
        q: >= 1.

    Returns:
        indices, int32, (n, q), and squared Euclidean distances, float64, (n, q).
    """
    if not len(x):
        return np.empty((0, q), np.int32), np.empty((0, q))
    # Enough groups to hold q points, however small they are.
    wide = int(np.searchsorted(np.cumsum(np.sort(np.diff(groups.starts))), q)) + 1
    looked = nearest.closest(x, groups.means, min(max(NEAREST, wide), len(groups.starts) - 1))
    value, place, beyond = _best_of_groups(x, groups, looked, q)
    norms = np.sqrt(np.einsum("ij,ij->i", x, x).astype(np.float64) * (1 + x.shape[1] * 2.0**-23))
    bound = nearest.error_bound(x.shape[1], norms, groups.reach[looked].max(1))
    rows, best, kept = np.arange(len(x)), np.empty((len(x), q), np.int64), np.empty((len(x), q), np.float32)
    for j in range(q):
        column = value.argmax(1)
        best[:, j], kept[:, j] = place[rows, column], value[rows, column]
        value[rows, column] = -np.inf
    threshold = kept[:, -1] - 2 * bound
    doubtful = np.maximum(value.max(1), beyond.max(1)) >= threshold
    index = groups.members[best]
    distance = nearest.squared_distances(x, groups.exact, index)
    if q > 1:
        order = np.lexsort((index, distance))
        index, distance = np.take_along_axis(index, order, 1), np.take_along_axis(distance, order, 1)
    for row in np.flatnonzero(doubtful):
        index[row], distance[row] = _settle(x[row], groups, looked[row], q, threshold[row])
    return index.astype(np.int32), distance


def _best_of_groups(
    x: NDArray[np.float32], groups: Groups, looked: NDArray[np.int64], q: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """The q largest scores x c - |c|^2 / 2 of each row in each of its groups, (n, p q), where those points are in
    `members`, and the largest score that is not among them, (n, p).
    """
    n, p = looked.shape
    order = np.argsort(looked, axis=None, kind="stable")
    row, ends = order // p, np.searchsorted(looked.ravel()[order], np.arange(len(groups.starts)))
    # One line for each row and group, those of a group one after another; put in their places at the end.
    value, place = np.full((n * p, q), -np.inf, np.float32), np.zeros((n * p, q), np.int64)
    beyond = np.empty(n * p, np.float32)
    for group in np.flatnonzero(np.diff(ends)):
        lines = slice(ends[group], ends[group + 1])
        low, high = groups.starts[group], groups.starts[group + 1]
        scores = np.take(x, row[lines], axis=0) @ groups.transposed[:, low:high]
        scores -= groups.half_norms[low:high]
        some = np.arange(len(scores))
        for j in range(min(q, high - low)):
            best = scores.argmax(1)
            value[lines, j], place[lines, j] = scores[some, best], low + best
            scores[some, best] = -np.inf
        beyond[lines] = scores.max(1)
    back = np.empty(n * p, np.int64)
    back[order] = np.arange(n * p)
    return value[back].reshape(n, p * q), place[back].reshape(n, p * q), beyond[back].reshape(n, p)


def _settle(
    row: NDArray[np.float32], groups: Groups, looked: NDArray[np.int64], q: int, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The exact search for one row, among the points of its groups whose score reaches the threshold."""
    place = np.concatenate([np.arange(groups.starts[g], groups.starts[g + 1]) for g in looked])
    scores = row @ groups.transposed[:, place] - groups.half_norms[place]
    points = np.sort(groups.members[place[scores >= threshold]])
    rows = np.broadcast_to(row, (len(points), len(row)))
    distance = nearest.squared_distances(rows, groups.exact, points[:, None])[:, 0]
    first = np.lexsort((points, distance))[:q]
    return points[first], distance[first]
