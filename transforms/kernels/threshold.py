"""Inclusion probabilities that sum to the sample's size: pi = min(1, tau proxy), those above 1 capped, the rest
rescaled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.kernels import exact


@dataclass(frozen=True)
class Threshold:
    """Turns proxies into inclusion probabilities.

    Attributes:
        certain_from: records whose proxy is at least this are certain (infinity where none is).
        scale: tau; the others have pi = scale x proxy.
        certain: number of certain records among the largest proxies that were looked at.
    """

    certain_from: float
    scale: float
    certain: int

    def inclusion_probability(self, proxy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns pi of each record, float64, in 0 .. 1 (0 only where the proxy is 0)."""
        return np.where(proxy >= self.certain_from, 1.0, np.minimum(proxy * self.scale, 1.0))


def solve(total: int, largest: Sequence[float], positive: int, size: int) -> Threshold:
    """Solves sum of min(1, tau proxy) = size for tau, exactly.

    Args:
        total: exact sum of all proxies (`exact.to_float`).
        largest: the `size` largest proxies (all where there are fewer), descending.
        positive: number of positive proxies; where it is at most `size`, each of them is certain.
        size: sample size, >= 1.
    """
    if positive <= size:
        return Threshold(5e-324, 0.0, positive)
    rest, certain = total, 0
    for proxy in largest:
        mass = exact.to_exact(proxy)
        # The next largest is certain while it holds at least one share of what is left. Equal proxies follow each
        # other: where one of them is certain the next is too, so the smallest certain proxy tells all of them apart
        # from the others.
        if certain == size or mass * (size - certain) < rest:
            break
        rest -= mass
        certain += 1
    certain_from = largest[certain - 1] if certain else float("inf")
    return Threshold(certain_from, (size - certain) / exact.to_float(rest), certain)
