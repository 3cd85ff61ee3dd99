"""The proxy of a record's loss, from what the scores and the anchors' losses say (Axiotis et al., ICML 2024)."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def plain_proxy(
    anchor_losses: Floats, lipschitz: float, anchor: NDArray[np.integer], squared: NDArray[np.floating]
) -> Floats:
    """Returns l(c) + lipschitz x squared distance to c, c the nearest anchor: an upper bound of a loss that is Hölder (z = 2) in each cluster.

    Args:
        anchor_losses: the loss of each anchor, float64, (k,).
        lipschitz: >= 0.
        anchor: the nearest anchor of each record, (n,).
        squared: squared Euclidean distance to it, (n,).
    """
    return anchor_losses[anchor] + lipschitz * squared.astype(np.float64)


def balanced_lipschitz(loss_total: float, cost: float) -> float:
    """Returns the Lipschitz constant that gives both terms of the plain proxy the same total; 0 where the cost is 0."""
    return loss_total / cost if cost > 0 else 0.0
