"""The pilot beside the anchors: each of its records with its nearest other anchors."""

import numpy as np
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.kernels import search
from tithe.transforms.score import prepared_anchors, score_dtype


def pilot_dtype(q: int) -> np.dtype[np.void]:
    """The dtype of a record of the pilot: which anchor it is, its id hash, and the fields of `score_dtype`."""
    return np.dtype([("number", "<i8"), ("hash", "<u8"), *score_dtype(q).descr])


def leave_one_out(anchors: NDArray[np.void], points: search.Prepared, q: int) -> NDArray[np.void]:
    """Returns the pilot's records with their q nearest anchors but themselves.

    Args:
        anchors: `anchor_dtype`, (k,), k > q.
        points: their vectors, prepared.
        q: neighbours.

    Returns:
        `pilot_dtype`, (m,).
    """
    numbers = np.flatnonzero(anchors["pilot"])
    index, squared = search.search(np.ascontiguousarray(anchors["vector"][numbers]), points, q + 1)
    # A record is among its own nearest, unless q + 1 others lie on the same point: then it is none of those and the
    # last is left out.
    own = index == numbers[:, None]
    own[~own.any(1), -1] = True
    out = np.empty(len(numbers), pilot_dtype(q))
    out["number"], out["hash"] = numbers, anchors["hash"][numbers]
    out["anchor"], out["squared"] = index[~own].reshape(len(numbers), q), squared[~own].reshape(len(numbers), q)
    return out


def write_leave_one_out(anchors: str, path: str, neighbors: int) -> None:
    """Writes the pilot with its neighbours, fewer of these where there are few anchors; a sole anchor has none."""
    found = vectors.read_array(anchors)
    q = min(neighbors, len(found) - 1)
    rows = leave_one_out(found, prepared_anchors(anchors), q) if q else np.empty(0, pilot_dtype(1))
    vectors.write_array(path, rows)
