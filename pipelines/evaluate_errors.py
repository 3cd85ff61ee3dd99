"""How far totals estimated from draws are from the truth: in closed form where there is one, by drawing elsewhere.

An error is a root mean square error as a share of the true total. All of it is numpy in one process, on a corpus whose
losses are all known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.draw import largest
from tithe.transforms.kernels import draws, exact, hashing, systematic
from tithe.transforms.kernels.systematic import MassScale
from tithe.transforms.kernels.threshold import Threshold, solve

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
U64 = NDArray[np.uint64]

RESAMPLES = 1000
"""Bootstrap resamples of the draws, for intervals of an error."""


@dataclass(frozen=True)
class Errors:
    """The error of one way to draw at one size.

    Attributes:
        squared: squared relative error of each draw, (seeds,); one number, the mean, where there is a closed form.
        closed_form: whether `squared` is that.
    """

    squared: Floats
    closed_form: bool = False

    @property
    def rmse(self) -> float:
        """Root mean square error as a share of the truth."""
        return float(np.sqrt(self.squared.mean()))

    def interval(self) -> tuple[float, float]:
        """Returns the 95 % interval of the error that the number of draws leaves."""
        return ratio_interval(self, Errors(np.ones(1), True))


def ratio_interval(errors: Errors, other: Errors) -> tuple[float, float]:
    """Returns the 95 % interval of errors.rmse / other.rmse; draws of one seed are resampled together."""
    rng = np.random.default_rng(0)
    counts = [len(e.squared) for e in (errors, other) if not e.closed_form]
    if not counts:
        ratio = errors.rmse / other.rmse
        return ratio, ratio
    picks = rng.integers(0, counts[0], (RESAMPLES, counts[0]))
    above, below = (e.squared.mean() if e.closed_form else e.squared[picks].mean(1) for e in (errors, other))
    low, high = np.quantile(np.sqrt(above / below), [0.025, 0.975])
    return float(low), float(high)


def uniform_error(losses: Floats, size: int) -> Errors:
    """Returns the error of a uniform draw without replacement: (1 - s/n) n^2 var(l) / s, var with n - 1."""
    n = len(losses)
    return _closed(n * (n - size) / size * float(losses.var(ddof=1)) if n > size else 0.0, losses)


def independent_error(losses: Floats, proxy: Floats, size: int) -> Errors:
    """Returns the error of `size` independent draws with probability p = proxy / T: (sum l^2 / p - L^2) / s.

    What lies where p is 0 is never drawn and adds its square as a bias.
    """
    reached = proxy > 0
    some, p = losses[reached], proxy[reached] / proxy.sum()
    variance = max(0.0, float((some**2 / p).sum() - some.sum() ** 2)) / size
    return _closed(variance + float(losses[~reached].sum()) ** 2, losses)


def poisson_error(losses: Floats, proxy: Floats, size: int) -> Errors:
    """Returns the error of the sum of weighted losses where each record is drawn for itself: sum (1 - pi) l^2 / pi."""
    inclusion = _threshold(proxy, size).inclusion_probability(proxy)
    reached = inclusion > 0
    some, pi = losses[reached], inclusion[reached]
    return _closed(float(((1 - pi) * some**2 / pi).sum()) + float(losses[~reached].sum()) ** 2, losses)


def _closed(mean_square: float, losses: Floats) -> Errors:
    return Errors(np.array([mean_square / losses.sum() ** 2]), True)


def pareto_errors(losses: Floats, proxy: Floats, hashes: U64, sizes: Sequence[int], seeds: range) -> list[Errors]:
    """Returns the errors of Pareto draws, one for each size."""
    out = []
    for size in sizes:
        inclusion = _threshold(proxy, size).inclusion_probability(proxy)
        rows = np.flatnonzero(inclusion > 0)
        share, pi, ids = losses[rows] / inclusion[rows], inclusion[rows], hashes[rows]
        totals = []
        for seed in seeds:
            keys = draws.pareto_keys(pi, ids, seed)
            drawn = np.argpartition(keys, size - 1)[:size] if len(rows) > size else np.arange(len(rows))
            totals.append(share[drawn].sum())
        out.append(_simulated(totals, losses))
    return out


def systematic_errors(
    losses: Floats, proxy: Floats, ranks: Ints, hashes: U64, sizes: Sequence[int], seeds: range
) -> list[Errors]:
    """Returns the errors of systematic draws along the clusters, one for each size.

    Args:
        losses: of all records, (n,).
        proxy: float64, (n,).
        ranks: rank in the pass of each record's cluster, (n,).
        hashes: id hashes, (n,).
        sizes: of the samples.
        seeds: of the draws.
    """
    scales = [scale_of(proxy, size) for size in sizes]
    masses = [scale.masses(proxy) for scale in scales]
    certain = [float(losses[scale.certain(proxy)].sum()) for scale in scales]
    totals: list[list[float]] = [[] for _ in sizes]
    for seed in seeds:
        order = pass_order(ranks, hashes, seed)
        for i, scale in enumerate(scales):
            rows, inclusion = draw_along(order, masses[i], scale.draws, seed)
            totals[i].append(certain[i] + float((losses[rows] / inclusion).sum()))
    return [_simulated(some, losses) for some in totals]


def _simulated(totals: list[float], losses: Floats) -> Errors:
    truth = losses.sum()
    return Errors(((np.array(totals) - truth) / truth) ** 2)


# -- the systematic draw in one process ------------------------------


def scale_of(proxy: Floats, size: int) -> MassScale:
    """Returns the scale of the masses of a whole corpus."""
    positive = int(np.count_nonzero(proxy))
    return systematic.mass_scale(exact.exact_sum(proxy), largest(proxy, size), positive, size)


def pass_order(ranks: Ints, hashes: U64, seed: int) -> Ints:
    """Returns the records in the order of the pass of a seed, int64, (n,)."""
    return np.lexsort((hashing.role_hash(hashes, seed, "draw"), ranks))


def draw_along(order: Ints, masses: Ints, size: int, seed: int) -> tuple[Ints, Floats]:
    """Returns the records that are drawn along the pass, and their inclusion probabilities; without the certain ones.

    Args:
        order: what `pass_order` gave.
        masses: of `scale_of`, (n,).
        size: draws that it leaves for them.
        seed: of the sample.
    """
    above = np.concatenate([np.zeros(1, np.int64), np.cumsum(masses[order])])
    points = systematic.selection_points(int(above[-1]), size, seed)
    number = points.below(above)
    rows = order[number[1:] > number[:-1]]
    return rows, points.inclusion(masses[rows])


def _threshold(proxy: Floats, size: int) -> Threshold:
    positive = int(np.count_nonzero(proxy))
    return solve(exact.exact_sum(proxy), largest(proxy, size).tolist(), positive, size)
