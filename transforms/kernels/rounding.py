"""Rounding means to members: the representative of a cluster is one of its own rows, near its mean.

The Hölder assumption speaks of the record whose loss was asked, so distances must be to records. Rounding at most
doubles a cluster's squared cost.
"""

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.kernels.far import ANY_KEY, far_keys, point_keys

SPARES = 4
"""Rows kept for each cluster, nearest first: the representative, and spares for where the model fails on it."""


def far_count(k: int) -> int:
    """How many far rows are kept for clusters that find no other row: few of them get there."""
    return max(8, k // 4)


def near_dtype(d: int) -> np.dtype[np.void]:
    """The dtype of candidates: cluster (-1 for a far row), key (squared distance, or the key of a far row), and the row
    itself.
    """
    where = [("hash", "<u8"), ("split", "<i8"), ("piece", "<i4"), ("position", "<i8"), ("label", "<u8")]
    return np.dtype([("cluster", "<i8"), ("key", "<f8"), *where, ("vector", "<f4", (d,))])


def candidates(
    rows: NDArray[np.void],
    vectors: NDArray[np.float32],
    split: int,
    cluster: NDArray[np.integer] | int,
    key: NDArray[np.float64],
) -> NDArray[np.void]:
    """Returns rows of vectors/, (n,), and their vectors, (n, d), as `near_dtype`."""
    out = np.empty(len(rows), near_dtype(vectors.shape[1]))
    out["cluster"], out["key"], out["split"], out["vector"] = cluster, key, split, vectors
    for name in ("hash", "piece", "position", "label"):
        out[name] = rows[name]
    return out


def nearest_members(rows: NDArray[np.void], far: int) -> NDArray[np.void]:
    """Returns the SPARES rows of each cluster with the smallest (key, hash), in order of cluster, and `far` rows of
    cluster -1.

    Args:
        rows: `near_dtype`, (n,).
        far: how many far rows to keep.
    """
    return rows[first_of_clusters(rows["cluster"], rows["key"], rows["hash"], far)]


def first_of_clusters(
    cluster: NDArray[np.integer], key: NDArray[np.float64], hashes: NDArray[np.uint64], far: int
) -> NDArray[np.int64]:
    """Returns which rows `nearest_members` takes, given their fields, each (n,)."""
    order = np.lexsort((hashes, key, cluster))
    clusters = cluster[order]
    rank = np.arange(len(order)) - np.searchsorted(clusters, clusters)
    return order[rank < np.where(clusters < 0, far, SPARES)]


def limits(rows: NDArray[np.void], k: int) -> tuple[NDArray[np.float64], float]:
    """Returns the keys beyond which other rows are of no interest: of each of k clusters, float64, (k,), and of far
    rows; infinite, or `ANY_KEY`, where there are not yet as many rows as are kept.

    Args:
        rows: what `nearest_members` gave, of clusters below k.
    """
    cluster, key = rows["cluster"], rows["key"]
    far = int(np.searchsorted(cluster, 0))
    members = cluster[far:]
    last = far + SPARES - 1 + np.flatnonzero(members[SPARES - 1 :] == members[: max(len(members) - SPARES + 1, 0)])
    limit = np.full(k, np.inf)
    limit[cluster[last]] = key[last]
    return limit, float(key[far_count(k) - 1]) if far >= far_count(k) else ANY_KEY


def choose(rows: NDArray[np.void], late: NDArray[np.void], k: int) -> tuple[NDArray[np.void], NDArray[np.void], int]:
    """Chooses a representative for each cluster.

    A cluster without a row of its own in the range takes the nearest row of a wider one that represents none; where
    there is none either, a far row of the range, as an empty center does in a round. No two representatives lie on one
    point; a cluster for which nothing is left is dropped.

    Args:
        rows: what `nearest_members` gave for all rows of the range.
        late: and for the clusters that had none there, from the wider range.
        k: number of clusters.

    Returns:
        representatives, in the order of their id hash, which numbers them; the spares, `cluster` being that number; and
        how many clusters took far rows.
    """
    # Where there are fewer clusters than were asked for, how many more far rows are here depends on the blocks.
    members, far = rows[rows["cluster"] >= 0], rows[rows["cluster"] < 0][: far_count(k)]
    first = members["cluster"][:-1] != members["cluster"][1:]
    first = np.concatenate([[True], first]) if len(members) else np.empty(0, bool)
    chosen, spares = members[first], members[~first]
    taken = set(point_keys(chosen["vector"]))

    def take(candidates: NDArray[np.void], clusters: NDArray[np.integer]) -> NDArray[np.void]:
        """The candidates that get a cluster: each cluster and each point once, in order."""
        kept: list[int] = []
        given: set[int] = set()
        for i, (point, cluster) in enumerate(zip(point_keys(candidates["vector"]), clusters.tolist(), strict=True)):
            if cluster not in given and point not in taken:
                given.add(cluster)
                taken.add(point)
                kept.append(i)
        return candidates[kept]

    found = take(late, late["cluster"])
    chosen = np.concatenate([chosen, found])
    free = np.setdiff1d(np.arange(k), chosen["cluster"])
    moved = take(far, np.arange(len(far)))[: len(free)].copy()
    moved["cluster"] = free[: len(moved)]
    chosen = np.concatenate([chosen, moved])
    # A row that came to a cluster late may be the spare of the one it lies in.
    spares = np.concatenate([spares, late])
    spares = spares[~np.isin(spares["hash"], chosen["hash"]) & np.isin(spares["cluster"], chosen["cluster"])].copy()
    chosen = chosen[np.lexsort((chosen["position"], chosen["hash"]))].copy()
    number = np.full(k, -1)
    number[chosen["cluster"]] = np.arange(len(chosen))
    spares["cluster"], chosen["cluster"] = number[spares["cluster"]], np.arange(len(chosen))
    return chosen, spares, len(moved)


def far_members(
    hashes: NDArray[np.uint64], squared: NDArray[np.float64], seed: int, k: int, limit: float = ANY_KEY
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns which rows are drawn in proportion to squared distance, and their keys in that draw, none above the
    limit.
    """
    return far_keys(hashes, squared, seed, "representatives", far_count(k), limit)
