"""Far rows: where centers without rows move to.

Rows are drawn in proportion to their squared distance to the nearest center, more of them than there are such centers.
Among these the centers choose one after the other, each the row that leaves the least cost. By distance alone they
would take single rows of wide clusters, and have no row again in the next batch.
"""

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.kernels import bottom, hashing

TABLED = 2048
"""Far rows compared with each other at a time, in a table of 16 MB; the choice takes some 100 MB."""

ROWS = 256
"""Rows of that table at a time where another of its size would do."""

ANY_KEY = float(np.finfo(np.float64).max)
"""The limit of keys that leaves out only rows that are never drawn, whose keys are infinite."""

APART = 0.01
"""What the farthest row gains by its distance, in rows that a center takes for itself: it settles which of single rows
goes first.
"""


def far_dtype(d: int) -> np.dtype[np.void]:
    """The dtype of far rows, and of the candidates of seeding: key in the draw, hash, squared distance, and vector."""
    return np.dtype([("key", "<f8"), ("hash", "<u8"), ("squared", "<f8"), ("vector", "<f4", (d,))])


def far_count(k: int) -> int:
    """How many far rows a round keeps for its empty centers: two for each of k centers, to choose among, but where
    there are many centers no more than are likely to be empty.
    """
    return max(8, min(2 * k, TABLED), k // 4)


def far_keys(
    hashes: NDArray[np.uint64],
    squared: NDArray[np.float64],
    seed: int,
    role: str,
    size: int,
    limit: float = ANY_KEY,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draws `size` rows without replacement in proportion to squared distance, those at distance 0 never.

    Args:
        hashes: id hashes, uint64, (n,).
        squared: distances to the nearest point, float64, (n,).
        seed: of the clustering.
        role: what the draw is for.
        size: how many rows are drawn.
        limit: rows with larger keys are left out, where so many others are known to have smaller ones.

    Returns:
        rows, int64, (m,), in no order, and their keys; m may pass `size` where keys tie, and be less where too few rows
        are off the points.
    """
    keys = bottom.exponential_keys(hashing.uniform(hashing.role_hash(hashes, seed, role)), squared)
    rows = np.flatnonzero(keys <= limit)
    if len(rows) > size:
        rows = rows[keys[rows] <= np.partition(keys[rows], size - 1)[size - 1]]
    return rows, keys[rows]


def far_rows(
    x: NDArray[np.float32],
    hashes: NDArray[np.uint64],
    squared: NDArray[np.float64],
    seed: int,
    role: str,
    size: int,
    limit: float = ANY_KEY,
) -> NDArray[np.void]:
    """Returns the rows of `far_keys`, of vectors x, float32, (n, d), as `far_dtype`, at most `size`."""
    rows, keys = far_keys(hashes, squared, seed, role, size, limit)
    out = np.empty(len(rows), far_dtype(x.shape[1]))
    out["key"], out["hash"], out["squared"], out["vector"] = keys, hashes[rows], squared[rows], x[rows]
    return bottom.bottom(out, size)


def point_keys(vectors: NDArray[np.float32]) -> list[bytes]:
    """Returns what tells the points of vectors, (n, d), apart; -0 is 0, as it is in every distance."""
    return [vector.tobytes() for vector in vectors + np.float32(0)]


def distinct(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Returns the rows without repeats of a point, in the order of their first places."""
    first: dict[bytes, int] = {}
    for i, point in enumerate(point_keys(rows["vector"])):
        first.setdefault(point, i)
    return rows[list(first.values())]


def choose(rows: NDArray[np.void], count: int) -> NDArray[np.float32]:
    """Returns where `count` empty centers move to.

    Args:
        rows: far rows in the order of their keys, `far_dtype`, (n,).
        count: how many are wanted.

    Returns:
        vectors of rows, float32, (min(count, m), d), where m vectors are distinct.
    """
    rows = distinct(rows) if count else rows[:0]
    if len(rows) <= count:
        return np.ascontiguousarray(rows["vector"])
    # The order of keys is one of chance, so every such part is a sample of the whole, and its share of the centers too.
    parts = -(-len(rows) // TABLED)
    chosen = []
    for part in range(parts):
        some = rows[part::parts]
        chosen.append(some["vector"][greedy(some["vector"], some["squared"], -(-(count - part) // parts))])
    return np.concatenate(chosen)


def greedy(vectors: NDArray[np.float32], squared: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Chooses far rows one after the other, each the one that takes the most from the cost.

    A row that is there by chance in proportion to its squared distance stands for a cost that is the same for all: what
    a candidate takes from the cost is the sum over rows of the share of its own squared distance that each saves.

    Args:
        vectors: of distinct rows, float32, (n, d).
        squared: distances to the nearest center, float64, (n,), > 0.
        count: how many to choose, <= n.

    Returns:
        indices in the order of the choice, int64, (count,).
    """
    apart, left = _distances(vectors), squared.copy()
    weight = 1 / np.maximum(squared, 1e-300)
    gain = APART * squared / squared.max()
    for low in range(0, len(vectors), ROWS):
        some = slice(low, low + ROWS)
        gain += weight[some] @ np.maximum(left[some, None] - apart[some], 0)
    chosen = np.empty(count, np.int64)
    for at in range(count):
        chosen[at] = best = gain.argmax()
        gain[best] = -np.inf
        # Only rows that come nearer to a center matter less to the other candidates now.
        nearer = np.flatnonzero(apart[:, best] < left)
        now, to_others = apart[nearer, best], apart[nearer]
        saved = np.maximum(left[nearer, None] - to_others, 0) - np.maximum(now[:, None] - to_others, 0)
        gain -= weight[nearer] @ saved
        left[nearer] = now
    return chosen


def _distances(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """All squared distances among rows, (n, n), in the cheap form: only a choice depends on them."""
    norms = np.einsum("ij,ij->i", x, x)
    apart: NDArray[np.float32] = x @ x.T
    apart *= -2
    apart += norms
    apart += norms[:, None]
    np.maximum(apart, 0, out=apart)
    np.fill_diagonal(apart, 0)
    return apart
