"""One round of mini-batch k-means: what a batch adds up to, and the centers that follow from it.

After Sculley, "Web-scale k-means clustering" (WWW 2010), with counts that forget: the weight of earlier rounds is
multiplied by `DECAY`, since a running mean never gets rid of a bad start. A center left without rows moves to a far
row (`far`).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.kernels import bottom, exact, search
from tithe.transforms.kernels.far import ANY_KEY, choose, far_count, far_rows

DECAY = 0.2
"""What is left of a center's weight after a round; 0.1 to 0.5 are much alike, 1 (the running mean) and 0 (no memory)
worse.
"""


@dataclass(frozen=True)
class Centers:
    """The state after a round: points, float32, (k, d), and their weights in rows, float64, (k,)."""

    points: NDArray[np.float32]
    weights: NDArray[np.float64]


@dataclass
class BatchSums:
    """What some rows of a batch add to a round.

    Attributes:
        sums: sums of the rows of each cluster, sparse (some clusters) or dense (clusters 0 .. k - 1).
        cost: exact sum of squared distances (`exact.to_float`).
        far: rows to move empty centers to, a bottom-s sample, `far_dtype`.
    """

    sums: exact.VectorSums
    cost: int
    far: NDArray[np.void]


def batch_sums(
    x: NDArray[np.float32],
    hashes: NDArray[np.uint64],
    points: search.Prepared,
    exponent: int,
    seed: int,
    number: int,
    total: BatchSums | None = None,
) -> tuple[BatchSums, NDArray[np.int32]]:
    """Returns what the rows x, float32, (n, d), with id hashes uint64, (n,), add to round `number`, and the nearest
    point of each, int32, (n,). Far rows that cannot stay in a total of other rows are left out.
    """
    index, squared = search.search(x, points)
    size = far_count(len(points.exact))
    # Another thread may add to the total: its far rows are replaced as a whole, and their keys only get smaller.
    kept = None if total is None else total.far
    limit = ANY_KEY if kept is None or len(kept) < size else float(kept["key"][size - 1])
    far = far_rows(x, hashes, squared[:, 0], seed, f"far/{number}", size, limit)
    nearest = index[:, 0]
    return BatchSums(exact.vector_sums(x, nearest, exponent), exact.exact_sum(squared[:, 0]), far), nearest


def densify(some: BatchSums, k: int) -> BatchSums:
    """Returns the sums with a row for each of k clusters, in arrays of their own."""
    return replace(some, sums=exact.densify(some.sums, k))


def crop(batch: BatchSums, k: int) -> BatchSums:
    """Returns dense sums with the first k clusters only, which are all there are, and their far rows."""
    return replace(batch, sums=exact.crop(batch.sums, k), far=batch.far[: far_count(k)])


def add(total: BatchSums, more: BatchSums) -> BatchSums:
    """Adds sums, sparse or dense, to dense ones, in place, and returns them."""
    exact.add(total.sums, more.sums)
    total.cost += more.cost
    if len(more.far):
        total.far = bottom.bottom(np.concatenate([total.far, more.far]), far_count(len(total.sums.counts)))
    return total


def update(centers: Centers, batch: BatchSums, decay: float) -> Centers:
    """Returns the centers after a round.

    Args:
        centers: those the batch was assigned to.
        batch: dense sums of the whole batch.
        decay: what is left of the earlier weight; 0 where the batch is the whole corpus (then this is Lloyd's
            algorithm).
    """
    old, counts = centers.weights * decay, batch.sums.counts.astype(np.float64)
    weights = old + counts
    moved = (centers.points.astype(np.float64) * old[:, None] + batch.sums.values()) / np.maximum(weights, 1e-300)[
        :, None
    ]
    points = np.where(counts[:, None] > 0, moved, centers.points).astype(np.float32)
    # Starved: not one row in this batch, and hardly any before it.
    starved = np.flatnonzero((counts == 0) & (weights < 1))
    vectors = choose(batch.far, len(starved))
    points[starved[: len(vectors)]] = vectors
    weights[starved[: len(vectors)]] = 1
    return Centers(points, weights)
