"""Rounding means to members: the representative of a cluster is one of its own rows, near its mean.

The Hölder assumption speaks of the record whose loss was asked, so distances must be to records. Rounding at most doubles a cluster's squared cost.
"""

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.kernels import rounds

SPARES = 4
"""Rows kept for each cluster, nearest first: the representative, and spares for where the model fails on it."""


def near_dtype(d: int) -> np.dtype[np.void]:
    """The dtype of candidates: cluster (-1 for a far row), key (squared distance, or the key of a far row), and the row itself."""
    where = [("hash", "<u8"), ("split", "<i8"), ("piece", "<i4"), ("position", "<i8"), ("label", "<u8")]
    return np.dtype([("cluster", "<i8"), ("key", "<f8"), *where, ("vector", "<f4", (d,))])


def nearest_members(rows: NDArray[np.void], far: int) -> NDArray[np.void]:
    """Returns the SPARES rows of each cluster with the smallest (key, hash), in order of cluster, and `far` rows of cluster -1.

    Args:
        rows: `near_dtype`, (n,).
        far: how many far rows to keep.
    """
    order = np.lexsort((rows["hash"], rows["key"], rows["cluster"]))
    clusters = rows["cluster"][order]
    rank = np.arange(len(order)) - np.searchsorted(clusters, clusters)
    return rows[order[rank < np.where(clusters < 0, far, SPARES)]]


def choose(rows: NDArray[np.void], k: int) -> tuple[NDArray[np.void], NDArray[np.void], int]:
    """Chooses a representative for each cluster.

    A cluster without a row in the range that was searched takes a far row of that range instead, as an empty center does in a round. No two
    representatives lie on one point; a cluster for which nothing is left is dropped.

    Args:
        rows: what `nearest_members` gave for all rows of the range.
        k: number of clusters.

    Returns:
        representatives, in the order of their id hash, which numbers them; the spares, `cluster` being that number; and how many clusters took far rows.
    """
    members, far = rows[rows["cluster"] >= 0], rows[rows["cluster"] < 0]
    first = (
        np.concatenate([[True], members["cluster"][1:] != members["cluster"][:-1]])
        if len(members)
        else np.empty(0, bool)
    )
    chosen, spares = members[first], members[~first]
    taken = {row.tobytes() for row in chosen["vector"]}
    moved: list[np.void] = []
    for row in far:
        if len(chosen) + len(moved) == k:
            break
        if row["vector"].tobytes() not in taken:
            taken.add(row["vector"].tobytes())
            moved.append(row)
    if moved:
        far_rows = np.array(moved, rows.dtype)
        far_rows["cluster"] = np.setdiff1d(np.arange(k), chosen["cluster"])[: len(far_rows)]
        # A far row may be the spare of the cluster it lay in.
        spares = spares[~np.isin(spares["hash"], far_rows["hash"])]
        chosen = np.concatenate([chosen, far_rows])
    order = np.lexsort((chosen["position"], chosen["hash"]))
    chosen = chosen[order]
    number = np.full(k, -1)
    number[chosen["cluster"]] = np.arange(len(chosen))
    spares, chosen = spares.copy(), chosen.copy()
    spares["cluster"], chosen["cluster"] = number[spares["cluster"]], np.arange(len(chosen))
    return chosen, spares, len(moved)


def far_members(rows: NDArray[np.void], squared: NDArray[np.float64], seed: int, k: int) -> NDArray[np.void]:
    """Returns some of the rows, drawn in proportion to squared distance, as rows of cluster -1 with the keys of that draw."""
    index, keys = rounds.far_keys(rows["hash"], squared, seed, "representatives", rounds.far_count(k))
    out = rows[index].copy()
    out["cluster"], out["key"] = -1, keys
    return out
