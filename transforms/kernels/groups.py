"""The nearest of very many points, on two levels: the groups nearest to a row first, then the points in them.

What it gives is defined exactly, and so is the same for any block height and thread count: the nearest among the points
of the NEAREST groups whose means are nearest to the row. That a nearer point lies in another group is rare, and then
it is not much nearer; see ARCHITECTURE.md for what was measured.
"""

from collections.abc import Iterator
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

BATCH = 1 << 20
"""Numbers of the rows and scores looked at together, and those of one group more: 4 MB."""

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
        factor: `nearest.score_factor` of the points in the order of `members`, float32, (d + 1, k).
        reach: the largest norm in each group, float64, (groups,).
    """

    exact: NDArray[np.float64]
    means: nearest.Points
    members: NDArray[np.int64]
    starts: NDArray[np.int64]
    factor: NDArray[np.float32]
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
        factor=nearest.score_factor(points[members], squares),
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
    n, p = looked.shape
    ones = nearest.with_ones(x)
    slack = 2 * nearest.error_bound(x.shape[1], nearest.upper_norms(x), groups.reach[looked].max(1))
    # First how large the scores in each group are; then again in the few groups that reach the q-th of these.
    order = _stable_order(looked, len(groups.reach))
    largest = np.empty(n * p, np.float32)
    for batch in _batches(ones, groups, looked, order):
        largest[batch.pairs] = np.maximum.reduceat(batch.scores, batch.starts)
    largest = largest.reshape(n, p)
    least = np.partition(largest, p - q, axis=1)[:, p - q] - slack if q <= p else np.full(n, -np.inf)
    again = order[(largest >= least[:, None]).ravel()[order]]
    found = []
    for batch in _batches(ones, groups, looked, again):
        row = batch.pairs // p
        widths = np.diff(batch.starts, append=len(batch.scores))
        near = np.flatnonzero(batch.scores >= np.repeat(least[row], widths))
        line = np.searchsorted(batch.starts, near, "right") - 1
        place = groups.starts[looked.ravel()[batch.pairs[line]]] + near - batch.starts[line]
        found.append((row[line], place, batch.scores[near]))
    row, place, score = (np.concatenate(parts) for parts in zip(*found, strict=True))
    in_order = _stable_order(row, n)
    row, place, score = row[in_order], place[in_order], score[in_order]
    # The q-th largest score of each row is now known, where it was known what it is at least.
    table, _ = nearest.lines_of(row, score, n)
    least = np.partition(table, table.shape[1] - q, axis=1)[:, -q] - slack
    near = score >= least[row]
    return nearest.first_of_pairs(x, groups.exact, row[near], groups.members[place[near]], q)


def _stable_order(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The order of values 0 .. count - 1; numpy sorts 16 bits, enough for a chunk, much faster than 64."""
    return np.argsort(values.astype(np.min_scalar_type(count)), axis=None, kind="stable")


@dataclass(frozen=True)
class _Batch:
    """The scores of some pairs of row and group, one pair after another.

    Attributes:
        pairs: which of them, int64, (m,).
        scores: float32, as many of each pair as its group has points.
        starts: where each pair starts among them, int64, (m,).
    """

    pairs: NDArray[np.int64]
    scores: NDArray[np.float32]
    starts: NDArray[np.int64]


def _batches(
    ones: NDArray[np.float32], groups: Groups, looked: NDArray[np.int64], order: NDArray[np.int64]
) -> Iterator[_Batch]:
    """Multiplies rows and groups, many groups between two looks at their scores: the threads take Python's lock by
    turns at each call on an array, and wait for each other where the calls are many and small.

    Args:
        ones: the rows, `nearest.with_ones`.
        groups: points in groups.
        looked: groups of each row, (n, p).
        order: which of the n p pairs of row and group, those of a group one after another.
    """
    group_of = looked.ravel()[order]
    widths = np.diff(groups.starts)[group_of]
    begins = np.cumsum(widths) - widths
    firsts = np.flatnonzero(np.diff(group_of, prepend=-1, append=-1))  # the first pair of each group, and the end
    numbers = begins[firsts[:-1]] + ones.shape[1] * firsts[:-1]  # before each group
    for some in np.split(firsts[:-1], np.flatnonzero(np.diff(numbers // BATCH)) + 1):
        low, high = some[0], firsts[np.searchsorted(firsts, some[-1]) + 1]
        starts = begins[low:high] - begins[low]
        rows = np.take(ones, order[low:high] // looked.shape[1], axis=0)
        scores = np.empty(starts[-1] + widths[high - 1], np.float32)
        for first, end in zip(some - low, np.append(some[1:], high) - low, strict=True):
            group = group_of[low + first]
            points = groups.factor[:, groups.starts[group] : groups.starts[group + 1]]
            out = scores[starts[first] :][: (end - first) * points.shape[1]]
            np.matmul(rows[first:end], points, out=out.reshape(end - first, points.shape[1]))
        yield _Batch(order[low:high], scores, starts)
