"""Sample sizes from what is promised of the error, and numbers of clusters from what may be asked."""

import math


def hoeffding_size(epsilon: float, delta: float, floor: float) -> int:
    """Returns s with P(error > epsilon T) <= delta for s independent draws, T the total of the proxy.

    If l <= proxy for every record, each draw contributes l / p in 0 .. T, or T / (1 - u) with a uniform floor u, and
    Hoeffding's inequality gives s = ln(2 / delta) / (2 epsilon^2 (1 - u)^2).

    Args:
        epsilon: error in units of T, 0 < epsilon.
        delta: probability that the promise fails, 0 < delta < 1.
        floor: u, 0 <= u < 1.
    """
    return math.ceil(math.log(2 / delta) / (2 * (epsilon * (1 - floor)) ** 2))


def guarantee(epsilon: float, delta: float, size: int, total: float) -> str:
    """Returns the promise in words with the numbers of a run."""
    return (
        f"if loss <= proxy for every record, the total loss estimated from these {size:,} draws is within "
        f"{epsilon * total:.6g} "
        f"({epsilon:g} of the proxy's total {total:.6g}) of the truth with probability at least "
        f"{1 - delta:g} (Hoeffding)"
    )


def size_for_standard_error(variance: float, total: float, relative: float) -> int:
    """Returns s for which sqrt(variance / s) = relative x total, at least 2.

    Args:
        variance: of the total from one independent draw, as the pilot estimates it.
        total: of the losses, as the pilot estimates it; > 0.
        relative: standard error wanted, as a share of the total.
    """
    return max(2, math.ceil(variance / (relative * total) ** 2))


def auto_clusters(max_calls: int, pilot: int, size: int, records: int) -> int:
    """Returns how many clusters to make of the calls that may be made.

    All calls but the pilot's go into representatives: more clusters beat more of anything else. Not more than a tenth
    of the records, since the calls are to cost less than the corpus, and not above four times the sample, beyond which
    nothing was measured.
    """
    return max(1, min(max_calls - pilot, records // 10, 4 * size))
