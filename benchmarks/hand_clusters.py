"""The hand-written loop's clustering: k-means|| seeding, rounds with exact sums, means rounded to records."""

from functools import partial

import numpy as np
import scipy.sparse
from hand_store import Piece, Store
from numpy.typing import NDArray
from plain import Floats, Search, uniform

STEPS, LLOYD_STEPS, DECAY = 3, 5, 0.2
SEEDING, FAR = 100, 200
"""Uses of chance: step i of seeding is SEEDING + i, round i is FAR + i."""

Doubles = NDArray[np.float64]


# -- seeding ----------------------------------------------------------------------------------------------------------


def seed(store: Store, rows: int, k: int) -> Floats:
    """Returns the first centers, float32, (k, d): k-means|| on about so many rows, in memory."""
    low, width = store.batch(-1, rows)  # from the end, apart from the batches of the rounds
    blocks = [
        (x, piece.hashes[at : at + len(x)])
        for piece in store.pieces
        for start, stop in piece.ranges(low, width)
        for at, x in piece.chunks(start, stop)
    ]
    middle = np.mean([x.mean(0) for x, _ in blocks], axis=0, dtype=np.float32)
    squared = [np.square(x - middle).sum(1) for x, _ in blocks]
    nearest = [np.zeros(len(x), np.int64) for x, _ in blocks]
    starts = np.cumsum([0, *(len(x) for x, _ in blocks[:-1])])
    chosen: list[Floats] = []

    def come_closer(i: int, search: Search, first: int) -> None:
        index, _ = search.assign(blocks[i][0])
        distance = search.squared(blocks[i][0], index)
        closer = distance < squared[i] if first else np.ones(len(distance), bool)
        squared[i][closer], nearest[i][closer] = distance[closer], index[closer] + first

    for step in range(STEPS):
        chances = uniform(np.concatenate([hashes for _, hashes in blocks]), SEEDING + step)
        keys = -np.log(chances) / np.maximum(np.concatenate(squared), 1e-30)
        picked = np.sort(np.argpartition(keys, k)[:k])
        of_block = np.split(picked, np.searchsorted(picked, starts[1:]))
        candidates = np.concatenate(
            [x[some - start] for (x, _), some, start in zip(blocks, of_block, starts, strict=True)]
        )
        chosen.append(candidates)
        list(store.pool.map(partial(come_closer, search=Search(candidates), first=step * k), range(len(blocks))))
    weights = np.bincount(np.concatenate(nearest), minlength=STEPS * k).astype(np.float64)
    return _reduce(np.concatenate(chosen), np.maximum(weights, 1e-9), k)


def _reduce(points: Floats, weights: Doubles, k: int) -> Floats:
    """Weighted k-means++ and a few weighted Lloyd steps, from the table of all distances between candidates."""
    norms = np.einsum("ij,ij->i", points, points)
    table = points @ points.T
    table *= -2
    table += norms
    table += norms[:, None]
    np.maximum(table, 0, out=table)
    chances = uniform(np.arange(k, dtype=np.uint64), SEEDING - 1)
    distance, chosen, mass = np.full(len(points), np.inf, np.float32), np.empty(k, np.int64), weights
    for i in range(k):
        cumulated = np.cumsum(mass)
        chosen[i] = j = min(int(np.searchsorted(cumulated, chances[i] * cumulated[-1], "right")), len(points) - 1)
        np.minimum(distance, table[j], out=distance)
        distance[j] = 0
        mass = weights * distance
    centers = points[chosen]
    for _ in range(LLOYD_STEPS):
        index, _ = Search(centers).assign(points)
        members = scipy.sparse.csr_matrix((weights, index, np.arange(len(points) + 1)), shape=(len(points), k)).T
        total = np.bincount(index, weights, k)
        moved = np.asarray(members @ points.astype(np.float64)) / np.maximum(total, 1e-300)[:, None]
        centers = np.where(total[:, None] > 0, moved, centers).astype(np.float32)
    return centers


# -- rounds -----------------------------------------------------------------------------------------------------------


def run_rounds(store: Store, centers: Floats, rounds: int, rows: int) -> tuple[Floats, list[list[NDArray[np.int32]]]]:
    """Returns the centers after all rounds of mini-batch k-means, each on about so many rows; and the centers nearest
    to the rows of the last batch, by piece and chunk.
    """
    k, weights = len(centers), np.zeros(len(centers))
    # A component is below 2^exponent; sums are integers in units of 2^-40 of that.
    exponent = int(np.frexp(max(piece.largest for piece in store.pieces))[1]) + 1
    for number in range(rounds):
        low, width = store.batch(number, rows)
        work = partial(_sum_piece, search=Search(centers), low=low, width=width, use=FAR + number, exponent=exponent)
        totals, counts, far = np.zeros(centers.shape, np.int64), np.zeros(k, np.int64), list[Far]()
        assigned = []
        for sums, some, candidates, nearest in store.pool.map(work, store.pieces):
            assigned.append(nearest)
            totals += sums
            counts += some
            far += candidates
        old = weights * DECAY
        weights = old + counts
        moved = (centers * old[:, None] + totals * 2.0 ** (exponent - 40)) / np.maximum(weights, 1e-300)[:, None]
        centers = np.where(counts[:, None] > 0, moved, centers).astype(np.float32)
        starved = np.flatnonzero((counts == 0) & (weights < 1))
        if len(starved):
            targets = _choose_far(far, k, len(starved))
            centers[starved[: len(targets)]], weights[starved[: len(targets)]] = targets, 1
    return centers, assigned


Far = tuple[Doubles, Doubles, Floats]
"""Keys, squared distances and vectors of far rows."""


def _far_count(k: int) -> int:
    return max(8, min(2 * k, 2048), k // 4)


def _choose_far(far: list[Far], k: int, count: int) -> Floats:
    """Of the far rows with the smallest keys, those that one after the other take away most of the cost."""
    keys, squared, x = (np.concatenate(column) for column in zip(*far, strict=True))
    kept = np.argsort(keys)[: _far_count(k)]
    left, x = squared[kept], x[kept]
    norms = np.einsum("ij,ij->i", x, x)
    apart = np.maximum(norms[:, None] + norms - 2 * (x @ x.T), 0)
    np.fill_diagonal(apart, 0)
    weight = 1 / left
    gain = weight @ np.maximum(left[:, None] - apart, 0) + 0.01 * left / left.max()
    chosen = []
    for _ in range(min(count, len(x))):
        best = int(gain.argmax())
        chosen.append(best)
        gain[best] = -np.inf
        nearer = np.flatnonzero(apart[:, best] < left)
        saved = np.maximum(left[nearer, None] - apart[nearer], 0)
        left[nearer] = apart[nearer, best]
        gain -= weight[nearer] @ (saved - np.maximum(left[nearer, None] - apart[nearer], 0))
    return x[chosen]


def _sum_piece(
    piece: Piece, search: Search, low: int, width: int, use: int, exponent: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Far], list[NDArray[np.int32]]]:
    """The exact sums and counts of a piece's rows of a batch, far rows, and the center nearest to each row."""
    k = len(search.centers)
    totals, counts = np.zeros(search.centers.shape, np.int64), np.zeros(k, np.int64)
    far: list[Far] = []
    nearest = []
    limit = np.inf  # of this piece's rows so far, as many as are wanted have smaller keys
    for start, stop in piece.ranges(low, width):
        for at, x in piece.chunks(start, stop):
            index, best = search.assign(x)
            nearest.append(index)
            members = scipy.sparse.csr_matrix((np.ones(len(x)), index, np.arange(len(x) + 1)), shape=(len(x), k)).T
            units = np.asarray(members @ _on_grid(x, exponent))
            units *= 2.0 ** (40 - exponent)
            totals += units.astype(np.int64)
            counts += np.bincount(index, minlength=k)
            squared = np.maximum(np.einsum("ij,ij->i", x, x) - 2 * best, 1e-30)
            keys = -np.log(uniform(piece.hashes[at : at + len(x)], use)) / squared
            few = np.flatnonzero(keys <= limit)
            if len(few) > _far_count(k):
                few = few[np.argpartition(keys[few], _far_count(k) - 1)[: _far_count(k)]]
                limit = keys[few].max()
            far.append((keys[few], squared[few].astype(np.float64), x[few]))
    return totals, counts, far, nearest


def _on_grid(x: Floats, exponent: int) -> Doubles:
    """The rows with each component rounded to a multiple of 2^(exponent - 40)."""
    wide = np.empty(x.shape)
    # Its last bit is the unit, so adding it rounds; float64, or numpy adds in float32.
    rounder = np.float64(1.5 * 2.0 ** (52 + exponent - 40))
    for low in range(0, len(x), 256):
        block = wide[low : low + 256]
        np.add(x[low : low + 256], rounder, out=block)
        block -= rounder
    return wide


# -- rounding ---------------------------------------------------------------------------------------------------------


def round_centers(
    store: Store, centers: Floats, assigned: list[list[NDArray[np.int32]]], rounds: int, rows: int
) -> Floats:
    """Returns the records that stand for the means: of each cluster the nearest row that the last batch put in it; for
    a cluster without one, the nearest row of the last two batches that stands for none.
    """
    k = len(centers)
    low, width = store.batch(rounds - 1, rows)
    search = Search(centers)

    def nearest_rows(number: int) -> list[tuple[NDArray[np.int64], Floats, NDArray[np.int64], Floats]]:
        """(clusters, squared distances, rows, vectors) of a chunk: for each cluster that it has, its nearest row."""
        out, indices = [], iter(assigned[number])
        for start, stop in store.pieces[number].ranges(low, width):
            for at, x in store.pieces[number].chunks(start, stop):
                index = next(indices)
                squared = search.squared(x, index)
                order = np.lexsort((squared, index))
                clusters, first = np.unique(index[order], return_index=True)
                best = order[first]
                out.append((clusters.astype(np.int64), squared[best], at + best, x[best]))
        return out

    distance, anchors = np.full(k, np.inf, np.float32), centers.copy()
    place = np.full((k, 2), -1)
    for number, found in enumerate(store.pool.map(nearest_rows, range(len(store.pieces)))):
        for clusters, squared, at, vectors in found:
            better = squared < distance[clusters]
            where = clusters[better]
            distance[where], anchors[where] = squared[better], vectors[better]
            place[where, 0], place[where, 1] = number, at[better]
    missing = np.flatnonzero(np.isinf(distance))
    if len(missing):
        wider = store.batch(rounds - 2, rows)[0], 2 * width
        _look_wider(store, wider, centers[missing], missing, place, distance, anchors)
    kept = np.unique(place, axis=0, return_index=True)[1]  # two late clusters may have found the same row
    found_rows = np.sort(kept[place[kept, 0] >= 0])
    return np.ascontiguousarray(anchors[found_rows])


def _look_wider(
    store: Store,
    wider: tuple[int, int],
    centers: Floats,
    clusters: NDArray[np.int64],
    place: NDArray[np.int64],
    distance: Floats,
    anchors: Floats,
) -> None:
    """Puts the nearest row of a range that is nobody's yet in the place of each of some clusters, in place."""
    taken = {number: place[place[:, 0] == number, 1] for number in range(len(store.pieces))}
    norms = np.einsum("ij,ij->i", centers, centers)

    def nearest_rows(number: int) -> list[tuple[Floats, NDArray[np.int64], Floats]]:
        out = []
        for start, stop in store.pieces[number].ranges(*wider):
            for at, x in store.pieces[number].chunks(start, stop):
                table = np.einsum("ij,ij->i", x, x)[:, None] - 2 * (x @ centers.T) + norms
                here = taken[number] - at
                table[here[(here >= 0) & (here < len(x))]] = np.inf
                best = table.argmin(0)
                out.append((table[best, np.arange(len(centers))], at + best, x[best]))
        return out

    for number, found in enumerate(store.pool.map(nearest_rows, range(len(store.pieces)))):
        for squared, at, vectors in found:
            better = squared < distance[clusters]
            where = clusters[better]
            distance[where], anchors[where] = squared[better], vectors[better]
            place[where, 0], place[where, 1] = number, at[better]
