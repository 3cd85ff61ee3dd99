"""The proxy of a record's loss, from what the scores and the anchors' losses say.

The plain one is the paper's upper bound (Axiotis et al., ICML 2024): the loss of the nearest anchor, and a Lipschitz
constant times a power of the distance to it. The smoothed one takes the losses of several anchors instead; it must be
done record by record, since one smoothed value a cluster gains nothing. Every operation is element by element, so that
a record's proxy does not depend on the block it is computed in.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SOFTENING = 0.001
"""Part of the farthest neighbour's squared distance that is added to each, so that no anchor at distance 0 decides
alone."""


def smoothed_loss(anchor_losses: Floats, anchor: NDArray[np.integer], squared: NDArray[np.floating]) -> Floats:
    """Returns the loss that the neighbours of each record suggest: weighted by 1 / (d_j + 0.001 d_q); float64, (n,).

    Where all q neighbours lie on the record, it is the loss of the first.

    Args:
        anchor_losses: the loss of each anchor, float64, (k,).
        anchor: the q nearest anchors of each record, nearest first, (n, q); with q = 1 this is the loss of the nearest.
        squared: squared Euclidean distances to them, ascending, (n, q).
    """
    first: Floats = anchor_losses[anchor[:, 0]]
    if anchor.shape[1] == 1:
        return first
    distances = squared.astype(np.float64)
    farthest = distances[:, -1]
    together = farthest == 0
    scale = np.where(together, 1.0, farthest)
    excess, weights = np.zeros(len(anchor)), np.zeros(len(anchor))
    for j in range(anchor.shape[1]):
        # In units of the farthest, so that a weight is between 1 and 1,000 on any scale. What is averaged is the
        # difference to the first loss: where all are equal, the result is that loss to the last bit.
        weight = 1 / (distances[:, j] / scale + SOFTENING)
        excess += weight * (anchor_losses[anchor[:, j]] - first)
        weights += weight
    smoothed: Floats = np.where(together, first, first + excess / weights)
    return smoothed


def power_of_distance(squared: NDArray[np.floating], power: int) -> Floats:
    """Returns the distance to the power 1 or 2, float64, from its square."""
    wide = squared.astype(np.float64)
    return np.sqrt(wide) if power == 1 else wide


def balanced_lipschitz(loss_total: float, cost: float) -> float:
    """Returns the Lipschitz constant that gives both terms of the plain proxy the same total; 0 where the cost is 0."""
    return loss_total / cost if cost > 0 else 0.0
