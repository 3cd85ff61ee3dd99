"""The samplers as keys of bottom-s reservoirs: what a record's key is depends on the record alone, so no order, split
or retry changes a draw.

Each states the expected multiplicity of a record (its inclusion probability where no record is drawn twice); the weight
of a drawn record is its multiplicity over the expected one, and the weighted total of anything over the sample is
unbiased for its total over the corpus.
"""

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.kernels import bottom, hashing

Floats = NDArray[np.float64]


def pareto_keys(inclusion: Floats, hashes: NDArray[np.uint64], seed: int) -> Floats:
    """Returns the keys u (1 - pi) / ((1 - u) pi) of Pareto sampling; the s smallest are the sample, none twice.

    Rosén, "On sampling with probability proportional to size" (JSPI 62, 1997). The inclusion probabilities are near
    `inclusion`, not exactly so: the difference matters only where sum pi (1 - pi) is under about 10. Certain records
    have key 0; those with pi = 0 infinity, which the caller leaves out.

    Args:
        inclusion: pi, float64, (n,), summing to s over the corpus.
        hashes: id hashes, uint64, (n,).
        seed: of the sample.
    """
    u = hashing.uniform(hashing.role_hash(hashes, seed, "draw"))
    with np.errstate(divide="ignore"):
        return (u * (1 - inclusion)) / ((1 - u) * inclusion)


def arrivals(rates: Floats, hashes: NDArray[np.uint64], seed: int, size: int) -> tuple[NDArray[np.int64], Floats]:
    """Returns the `size` earliest arrivals of independent Poisson processes, one a record: multinomial sampling.

    The records of the s earliest arrivals over the corpus are exactly s independent draws with probability in
    proportion to the rates (the superposition of Poisson processes; Axiotis et al., ICML 2024, section 2 asks for such
    draws). Arrival j of a record comes Exp(hash(seed, id, j)) / rate after arrival j - 1.

    Args:
        rates: p, float64, (n,), >= 0; a record of rate 0 never arrives.
        hashes: id hashes, uint64, (n,).
        seed: of the sample.
        size: s >= 1.

    Returns:
        rows of `rates`, int64, (m,), m <= size unless times tie, a row once for each arrival; and the times, float64,
        (m,).
    """
    alive = np.flatnonzero(rates > 0)
    clock = np.zeros(len(alive))
    rows, times, limit, j = np.empty(0, np.int64), np.empty(0), np.inf, 0
    more_rows: list[NDArray[np.int64]] = []
    more_times: list[Floats] = []
    while len(alive):
        u = hashing.uniform(hashing.role_hash(hashes[alive], seed, "arrival", j))
        clock = clock + bottom.exponential_keys(u, rates[alive])
        # A time that overflows is that of a rate next to nothing: such a record never arrives.
        early = (clock <= limit) & (clock < np.inf)
        alive, clock, j = alive[early], clock[early], j + 1
        more_rows.append(alive)
        more_times.append(clock)
        # Cut back to `size` only once there are twice as many, so that a record with most of the mass costs no more
        # than its arrivals.
        if not len(alive) or len(rows) + sum(map(len, more_rows)) >= 2 * size:
            rows, times = np.concatenate([rows, *more_rows]), np.concatenate([times, *more_times])
            more_rows, more_times = [], []
            if len(times) > size:
                limit = np.partition(times, size - 1)[size - 1]
                rows, times = rows[times <= limit], times[times <= limit]
                alive, clock = alive[clock <= limit], clock[clock <= limit]
    return rows, times


def poisson_drawn(inclusion: Floats, hashes: NDArray[np.uint64], seed: int) -> NDArray[np.bool_]:
    """Returns which records are drawn where each is drawn for itself, with probability pi: Poisson sampling.

    Hájek, "Asymptotic theory of rejective sampling with varying probabilities from a finite population" (Annals of
    Mathematical Statistics 35, 1964). The inclusion probabilities are exactly `inclusion`, to 2**-53; the size of the
    sample is random, sum pi on average.

    Args:
        inclusion: pi, float64, (n,), in 0 .. 1; a record of 1 is always drawn, one of 0 never.
        hashes: id hashes, uint64, (n,).
        seed: of the sample.
    """
    return hashing.uniform(hashing.role_hash(hashes, seed, "draw")) < inclusion
