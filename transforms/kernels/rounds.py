"""One round of mini-batch k-means: what a batch adds up to, and the centers that follow from it.

After Sculley, "Web-scale k-means clustering" (WWW 2010), with counts that forget: the weight of earlier rounds is
multiplied by `DECAY`, since a running mean never gets rid of a bad start. A center left without rows moves to a far
point, drawn with probability in proportion to squared distance.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.kernels import bottom, exact, hashing, search

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
        far: rows to move empty centers to, a bottom-s sample with fields key, hash, vector.
    """

    sums: exact.VectorSums
    cost: int
    far: NDArray[np.void]


def far_dtype(d: int) -> np.dtype[np.void]:
    """The dtype of far points, and of the candidates of seeding: key, hash and vector of a row."""
    return np.dtype([("key", "<f8"), ("hash", "<u8"), ("vector", "<f4", (d,))])


def far_count(k: int) -> int:
    """How many far points a round keeps for its empty centers: enough that none waits for the next round, also where
    many clusters are small.
    """
    return max(8, k // 4)


def far_keys(
    hashes: NDArray[np.uint64], squared: NDArray[np.float64], seed: int, role: str, size: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draws `size` rows without replacement in proportion to squared distance, those at distance 0 never.

    Returns:
        rows, int64, (m,), in no order, and their keys; m may pass `size` where keys tie, and be less where too few rows
        are off the points.
    """
    keys = bottom.exponential_keys(hashing.uniform(hashing.role_hash(hashes, seed, role)), squared)
    rows = np.flatnonzero(np.isfinite(keys))
    if len(rows) > size:
        rows = rows[keys[rows] <= np.partition(keys[rows], size - 1)[size - 1]]
    return rows, keys[rows]


def far_rows(
    x: NDArray[np.float32], hashes: NDArray[np.uint64], squared: NDArray[np.float64], seed: int, role: str, size: int
) -> NDArray[np.void]:
    """Returns the rows of `far_keys` as `far_dtype`, at most `size`."""
    rows, keys = far_keys(hashes, squared, seed, role, size)
    out = np.empty(len(rows), far_dtype(x.shape[1]))
    out["key"], out["hash"], out["vector"] = keys, hashes[rows], x[rows]
    return bottom.bottom(out, size)


def batch_sums(
    x: NDArray[np.float32], hashes: NDArray[np.uint64], points: search.Prepared, exponent: int, seed: int, number: int
) -> tuple[BatchSums, NDArray[np.int32]]:
    """Returns what the rows x, float32, (n, d), with id hashes uint64, (n,), add to round `number`, and the nearest
    point of each, int32, (n,).
    """
    index, squared = search.search(x, points)
    far = far_rows(x, hashes, squared[:, 0], seed, f"far/{number}", far_count(len(points.exact)))
    nearest = index[:, 0]
    return BatchSums(exact.vector_sums(x, nearest, exponent), exact.exact_sum(squared[:, 0]), far), nearest


def densify(some: BatchSums, k: int) -> BatchSums:
    """Returns the sums with a row for each of k clusters, in arrays of their own."""
    return replace(some, sums=exact.densify(some.sums, k))


def crop(batch: BatchSums, k: int) -> BatchSums:
    """Returns dense sums with the first k clusters only, which are all there are."""
    return replace(batch, sums=exact.crop(batch.sums, k))


def add(total: BatchSums, more: BatchSums) -> BatchSums:
    """Adds sums, sparse or dense, to dense ones, in place, and returns them."""
    exact.add(total.sums, more.sums)
    total.cost += more.cost
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
    vectors = distinct(batch.far["vector"])[: len(starved)]
    points[starved[: len(vectors)]] = vectors
    weights[starved[: len(vectors)]] = 1
    return Centers(points, weights)


def distinct(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the vectors without repeats, in the order of their first places, float32, (m, d)."""
    first = np.sort(np.unique(vectors, axis=0, return_index=True)[1]) if len(vectors) else np.arange(0)
    return vectors[first]
