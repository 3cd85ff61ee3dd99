"""Sample sizes from what is promised of the error, and numbers of clusters from what may be asked."""

import math

MIN_CLUSTER = 10
"""Records of a cluster on average, at least, where their number is chosen."""

CLUSTERS_A_DRAW = 4
"""Clusters for each draw, at most, where their number is chosen."""


def hoeffding_size(epsilon: float, delta: float, floor: float) -> int:
    """Returns s with P(error > epsilon T) <= delta for s independent draws, T the total of the proxy.

    If l <= proxy for every record, each draw contributes l / p in 0 .. T, or 0 .. T / (1 - u) with a uniform floor u,
    and Hoeffding's inequality ("Probability inequalities for sums of bounded random variables", JASA 58, 1963) gives
    s = ln(2 / delta) / (2 epsilon^2 (1 - u)^2).

    Args:
        epsilon: error in units of T, above 0.
        delta: probability that the promise fails, 0 < delta < 1.
        floor: u, 0 <= u < 1.

    Raises:
        ValueError: where one of them is out of range; with a floor of 1 the proxy bounds nothing.
    """
    if not (epsilon > 0 and 0 < delta < 1 and 0 <= floor < 1):
        raise ValueError(
            f"epsilon {epsilon:g}, delta {delta:g}, floor {floor:g}: a promise needs epsilon > 0, 0 < delta < 1 and "
            "0 <= floor < 1"
        )
    return math.ceil(math.log(2 / delta) / (2 * (epsilon * (1 - floor)) ** 2))


def guarantee(epsilon: float, delta: float, size: int, total: float) -> str:
    """Returns the promise in words with the numbers of a run."""
    return (
        f"if loss <= proxy for every record, the total loss estimated from these {size:,} draws is within "
        f"{epsilon * total:.6g} ({epsilon:g} of the proxy's total {total:.6g}) of the truth with probability at least "
        f"{100 * (1 - delta):.15g} % (Hoeffding)"
    )


def size_for_standard_error(variance: float, total: float, relative: float) -> int:
    """Returns s for which sqrt(variance / s) = relative x total, at least 2.

    Args:
        variance: of the total from one independent draw, as the pilot estimates it; finite.
        total: of the losses, as the pilot estimates it; > 0.
        relative: standard error wanted, as a share of the total; > 0.

    Raises:
        ValueError: where one of them is out of range.
    """
    if not (0 <= variance < math.inf and total > 0 and relative > 0):
        raise ValueError(
            f"variance {variance:g}, total {total:g}, standard error {relative:g}: a size needs a finite variance, and "
            "the others above 0"
        )
    return max(2, math.ceil(variance / (relative * total) ** 2))


def auto_clusters(max_calls: int, pilot: int, size: int, records: int) -> int:
    """Returns how many clusters to make of the calls that may be made; at least 1.

    All calls but the pilot's go into representatives, since of a given number of calls more clusters made better use
    than a larger pilot did. Not more than a tenth of the records: the calls are to spare the corpus, and each pass of
    the clustering takes time in proportion to clusters x records. And not more than four for each draw, beyond which
    nothing was measured.

    Args:
        max_calls: losses that may be asked for, pilot included.
        pilot: records of the pilot.
        size: of the sample.
        records: of the corpus.
    """
    return max(1, min(max_calls - pilot, records // MIN_CLUSTER, CLUSTERS_A_DRAW * size))
