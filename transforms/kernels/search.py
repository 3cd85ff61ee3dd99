"""The search for nearest points, whatever their number: exact for some thousands, on two levels for more."""

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.kernels import groups, nearest

GROUPED_FROM = 20_000
"""Points from which on the search has two levels: below, it gains less than a factor of three."""

Prepared = nearest.Points | groups.Groups


def prepare(points: NDArray[np.float32]) -> Prepared:
    """Prepares float32 points, (k, d), k >= 1, for `search`."""
    return groups.prepare(points) if len(points) >= GROUPED_FROM else nearest.prepare(points)


def search(x: NDArray[np.float32], points: Prepared, q: int = 1) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Returns the q nearest points of each row, as `nearest.nearest` or `groups.search` does."""
    return nearest.nearest(x, points, q) if isinstance(points, nearest.Points) else groups.search(x, points, q)


def describe(count: int) -> str:
    """Returns what the manifest says of the search among so many points."""
    if count < GROUPED_FROM:
        return "exact"
    return f"two levels: the {groups.NEAREST} nearest groups of at most {groups.SIZE} points"
