"""The anchors: the records whose loss is known, representatives and pilot together."""

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]


def anchor_dtype(d: int) -> np.dtype[np.void]:
    """The dtype of an anchor: where the record is, its vector, and what it is an anchor for."""
    where = [("hash", "<u8"), ("split", "<i8"), ("piece", "<i4"), ("position", "<i8")]
    return np.dtype([*where, ("vector", "<f4", (d,)), ("representative", "?"), ("pilot", "?")])


def record_keys(rows: NDArray[np.void]) -> list[tuple[int, int, int]]:
    """Returns (split, piece, position) of each row: which record it is."""
    return list(zip(rows["split"].tolist(), rows["piece"].tolist(), rows["position"].tolist(), strict=True))


def assemble(
    representatives: NDArray[np.void],
    spares: NDArray[np.void],
    pilot: NDArray[np.void],
    pilot_size: int,
    failed: set[tuple[int, int, int]],
) -> NDArray[np.void]:
    """Puts the anchors together, without the records on which the model failed.

    In the place of such a representative comes the next spare of its cluster, in that of such a record of the pilot the
    next by hash; a cluster whose spares have all failed has none. A record that is both is one anchor.

    Args:
        representatives: one a cluster, in the order of the clusters, `rounding.near_dtype`.
        spares: of the clusters, nearest first, `rounding.near_dtype`.
        pilot: the pilot and its spares, in the order of their hash in that role.
        pilot_size: records of the pilot wanted.
        failed: `record_keys` of the records to leave out.

    Returns:
        the anchors in the order of their id hash, which numbers them, as `anchor_dtype`.
    """
    candidates = np.concatenate([representatives, spares])
    usable = candidates[[key not in failed for key in record_keys(candidates)]]
    # Stable, so that a representative stays before its spares, and these in their order.
    usable = usable[np.argsort(usable["cluster"], kind="stable")]
    chosen = usable[np.unique(usable["cluster"], return_index=True)[1]]
    asked = pilot[[key not in failed for key in record_keys(pilot)]][:pilot_size]
    rows = np.concatenate([chosen, asked])
    roles = np.arange(len(rows)) < len(chosen)
    order = np.lexsort((~roles, rows["position"], rows["piece"], rows["split"], rows["hash"]))
    rows, roles = rows[order], roles[order]
    keys = record_keys(rows)
    first = np.array([i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]], np.int64)
    out = np.zeros(len(first), anchor_dtype(rows["vector"].shape[1]))
    for name in ("hash", "split", "piece", "position", "vector"):
        out[name] = rows[name][first]
    out["representative"] = roles[first]
    # Of a record that is both, the representative comes first and the pilot's row right behind it.
    last = np.append(first[1:], len(rows))[: len(first)] - 1
    out["pilot"] = ~roles[last]
    return out
