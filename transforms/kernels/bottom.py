"""Bottom-s samples: the s rows with the smallest keys, ties by id hash. They merge in any order to the same rows.

The keys make the sample. A key of Exp(1) / weight gives draws without replacement with probabilities in proportion to
the weights (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", IPL 2006); the samplers have theirs
in `draws`.
"""

import numpy as np
from numpy.typing import NDArray


def bottom(rows: NDArray[np.void], size: int) -> NDArray[np.void]:
    """Returns the `size` rows with the smallest (key, hash), in that order.

    Args:
        rows: a structured array with fields `key` (float64) and `hash` (uint64), (n,).
        size: at least 0; all rows are returned, in order, where there are fewer.
    """
    if len(rows) > size:
        if size == 0:
            return rows[:0]
        # Everything up to the size-th key, ties included, is sorted; the rest is never looked at again.
        limit = np.partition(rows["key"], size - 1)[size - 1]
        rows = rows[rows["key"] <= limit]
    return rows[np.lexsort((rows["hash"], rows["key"]))][:size]


def exponential_keys(uniforms: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns -log(u) / weight, infinite where the weight is 0: the keys of a draw in proportion to weights; float64,
    (n,).
    """
    with np.errstate(divide="ignore", over="ignore"):
        return -np.log(uniforms) / weights
