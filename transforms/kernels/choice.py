"""What the pilot chooses: the Lipschitz constant and the uniform floor of the proxy, or constant probabilities.

The pilot's records are drawn uniformly, and each is left out of its own neighbours, so it tells what the proxy is worth
where nothing was asked. Representatives cannot: their distance is 0.
"""

from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy.typing import NDArray

from tithe.transforms.kernels import hashing

Floats = NDArray[np.float64]

MIN_PILOT = 20
"""Records of a pilot below which no gain is shown, whatever they say."""

RESAMPLES = 500
"""Bootstrap resamples of the pilot."""

BLOCK = 1 << 18
"""Records of the resamples that are looked at together."""

CONFIDENCE = 0.95

ROUNDING = 1e-12
"""A standard error below this share of the total is rounding, and counts as 0."""


@dataclass(frozen=True)
class Pilot:
    """The pilot, each record with its leave-one-out neighbours.

    Attributes:
        losses: l, float64, (m,).
        suggested: f, the loss that the other anchors suggest, (m,).
        distances: distance to the nearest other anchor, to the power in use, (m,).
        hashes: id hashes, uint64, (m,).
    """

    losses: Floats
    suggested: Floats
    distances: Floats
    hashes: NDArray[np.uint64]


@dataclass(frozen=True)
class Totals:
    """What the scores of the whole corpus add up to: records, sum of f, sum of distances to the power in use."""

    records: int
    suggested: float
    distances: float

    def proxy(self, lipschitz: float) -> float:
        """Returns T, the total of the proxy."""
        return self.suggested + lipschitz * self.distances


@dataclass(frozen=True)
class Point:
    """A choice of constants; `floor` 1 means constant probabilities."""

    lipschitz: float
    floor: float

    @property
    def constant(self) -> bool:
        """Whether all records have the same probability."""
        return self.floor == 1


CONSTANT = Point(0.0, 1.0)


def fitted_lipschitz(pilot: Pilot) -> float:
    """Returns sum |l - f| / sum d over the pilot; 0 where that sum of distances is 0."""
    distances = float(pilot.distances.sum())
    return float(np.abs(pilot.losses - pilot.suggested).sum()) / distances if distances > 0 else 0.0


def candidates(pilot: Pilot, lipschitz: float | None, floor: float | None) -> list[Point]:
    """Returns the points to choose from: constant probabilities and four others, fewer where constants are pinned.

    A larger grid needs a pilot of 400 or more to choose well. Where both constants are pinned, or the floor at 1, there
    is nothing to choose.
    """
    fitted = fitted_lipschitz(pilot)
    if floor == 1:
        return [CONSTANT]
    if lipschitz is not None and floor is not None:
        return [Point(lipschitz, floor)]
    if lipschitz is not None:
        return [CONSTANT, *(Point(lipschitz, u) for u in (0.1, 0.3, 0.6))]
    if floor is not None:
        return [CONSTANT, Point(fitted, floor), Point(4 * fitted, floor)]
    return [CONSTANT, Point(fitted, 0.1), Point(fitted, 0.3), Point(fitted, 0.6), Point(4 * fitted, 0.3)]


def probabilities(point: Point, pilot: Pilot, totals: Totals) -> Floats:
    """Returns p of the pilot's records, from their leave-one-out proxies, float64, (m,)."""
    total = totals.proxy(point.lipschitz)
    uniform = np.full(len(pilot.losses), 1 / totals.records)
    if point.constant or total <= 0:
        return uniform
    proxy = pilot.suggested + point.lipschitz * pilot.distances
    return (1 - point.floor) * proxy / total + point.floor * uniform


def variance(losses: Floats, p: Floats, records: int) -> float:
    """Returns the estimated variance of the total from one independent draw.

    That is n [mean(l^2 / p) - mean(l)^2 / mean(p)], means over the pilot: never negative, by Cauchy and Schwarz, and
    n^2 var(l) for constant p. Infinite where a record with a loss has no probability, or where there is no record.

    Args:
        losses: of the pilot, float64, (m,).
        p: their probabilities, float64, (m,).
        records: n, of the corpus.
    """
    if len(losses) == 0 or np.any((p <= 0) & (losses > 0)):
        return float("inf")
    return float(_mean_squares(losses, p)[0]) * records


def _mean_squares(losses: Floats, p: Floats) -> tuple[Floats, Floats]:
    """What the records add to the variance, p (l / p - mean(l) / mean(p))^2: its means over the last axis, and each.

    Written so, and not as a difference of means, equal losses at equal probabilities give rounding alone, which is 0.
    """
    mean, mean_p = losses.mean(axis=-1, keepdims=True), p.mean(axis=-1, keepdims=True)
    center = np.divide(mean, mean_p, out=np.zeros_like(mean), where=mean_p > 0)
    ratio = np.divide(losses, p, out=center + np.zeros_like(losses), where=p > 0)
    squares = p * (ratio - center) ** 2
    means = squares.mean(axis=-1)
    return np.where(means > (ROUNDING * center[..., 0]) ** 2 * mean_p[..., 0], means, 0.0), squares


@dataclass(frozen=True)
class Gain:
    """The variance of the chosen point over that of constant probabilities, with a 95 % interval; below 1 is a gain.

    An infinite end means that the pilot cannot tell.
    """

    ratio: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the pilot shows a gain over uniform sampling, of more than one part in a million."""
        return self.high < 1 - 1e-6


@dataclass(frozen=True)
class Choice:
    """The chosen point, and what the pilot says of it.

    Attributes:
        point: chosen.
        variance: estimated variance of one independent draw with it.
        points: every candidate with its variance, the chosen one first.
        gain: over constant probabilities.
    """

    point: Point
    variance: float
    points: list[tuple[Point, float]]
    gain: Gain


def choose(pilot: Pilot, totals: Totals, lipschitz: float | None, floor: float | None, seed: int) -> Choice:
    """Chooses the candidate with the smallest estimated variance; of equals the first, so constant probabilities.

    Args:
        pilot: leave-one-out, as is all that is said of the points.
        totals: of the corpus, from which T follows for every point.
        lipschitz: pinned, or None for the fitted one.
        floor: pinned, or None.
        seed: of the bootstrap.
    """
    found = [
        (point, variance(pilot.losses, probabilities(point, pilot, totals), totals.records))
        for point in candidates(pilot, lipschitz, floor)
    ]
    best = min(range(len(found)), key=lambda i: found[i][1])
    point, chosen = found[best]
    others = sorted((p for i, p in enumerate(found) if i != best), key=lambda p: p[1])
    return Choice(point, chosen, [found[best], *others], gain(point, pilot, totals, seed))


def gain(point: Point, pilot: Pilot, totals: Totals, seed: int) -> Gain:
    """Returns the gain of a point, with a studentised bootstrap interval on the log scale, the point held fixed.

    It holds the true ratio more often than the plain percentile interval does, yet on heavy-tailed losses less often
    than 95 %, since a pilot that saw none of the largest losses cannot know of them. On the five populations of
    `tests/test_kernel_choice.py`, with pilots of 200, it holds 0.74 to 0.99 of the time; the percentile interval, 0.67
    to 0.96.

    The pilot is resampled by hash, in the order of the id hashes, so the interval is the same everywhere. A resample in
    which either variance is 0 tells nothing and is left out.
    """
    m, n = len(pilot.losses), totals.records
    if point.constant or m < 2:
        return Gain(1.0, 1.0, 1.0)
    order = np.argsort(pilot.hashes)
    losses, p = pilot.losses[order], probabilities(point, pilot, totals)[order]
    chosen, base = variance(losses, p, n), variance(losses, np.full(m, 1 / n), n)
    if base == 0:
        return Gain(1.0, 1.0, 1.0) if chosen == 0 else Gain(float("inf"), 1.0, float("inf"))
    # Where the variance is 0 or infinite, or the proxy constant, every resample says the same.
    ratio = chosen / base
    if m < MIN_PILOT:
        return Gain(ratio, 0.0, float("inf"))
    error = float(_log_ratios(losses, p, n)[1]) if 0 < ratio < float("inf") else 0.0
    if error < ROUNDING:
        return Gain(ratio, ratio, ratio)
    studentised, block = [], max(1, BLOCK // m)
    for start in range(0, RESAMPLES, block):
        numbers = np.arange(start * m, min(start + block, RESAMPLES) * m, dtype=np.uint64).reshape(-1, m)
        rows = (hashing.uniform(hashing.role_hash(numbers, seed, "bootstrap")) * m).astype(np.int64)
        logs, errors = _log_ratios(losses[rows], p[rows], n)
        told = errors > ROUNDING
        studentised.append((logs[told] - np.log(ratio)) / errors[told])
    all_told = np.concatenate(studentised)
    if len(all_told) < RESAMPLES // 2:
        return Gain(ratio, 0.0, float("inf"))
    tail = (1 - CONFIDENCE) / 2
    below, above = np.quantile(all_told, [tail, 1 - tail])
    # An end may be beyond float64 where some resamples hardly vary.
    low, high = ratio * np.exp(np.clip([-above * error, -below * error], -700, 700))
    return Gain(ratio, float(low), float(high))


def _log_ratios(losses: Floats, p: Floats, records: int) -> tuple[Floats, Floats]:
    """Logs of V(p) / V(constant) over the last axis, and their standard errors by the delta method.

    Both are 0 where either variance is. The center of the squares makes their sum smallest, so how it varies does not
    count.
    """
    means, squares = _mean_squares(losses, p)
    base_means, base_squares = _mean_squares(losses, np.full_like(losses, 1 / records))
    told = (means > 0) & (base_means > 0)
    means, base_means = np.where(told, means, 1.0), np.where(told, base_means, 1.0)
    influence = squares / means[..., None] - base_squares / base_means[..., None]
    errors = np.sqrt(np.mean(influence**2, axis=-1) / losses.shape[-1])
    return np.where(told, np.log(means / base_means), 0.0), np.where(told, errors, 0.0)


@dataclass(frozen=True)
class Share:
    """A share of the pilot with a 95 % interval (Wilson's)."""

    share: float
    low: float
    high: float


def share_above(losses: Floats, proxy: Floats) -> Share:
    """Returns the share of records whose loss is above the proxy: where the Hölder assumption fails."""
    m, count = len(losses), int(np.count_nonzero(losses > proxy))
    if m == 0:
        return Share(0.0, 0.0, 1.0)
    share, z2 = count / m, float(scipy.special.ndtri((1 + CONFIDENCE) / 2)) ** 2
    middle = (share + z2 / (2 * m)) / (1 + z2 / m)
    half = np.sqrt(z2 * (share * (1 - share) / m + z2 / (4 * m**2))) / (1 + z2 / m)
    return Share(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def correlations(losses: Floats, proxy: Floats) -> dict[str, float | None]:
    """Returns Pearson's and Spearman's correlation of proxy and loss on the pilot.

    None for both where one of them does not vary, and of fewer than three records.
    """
    if len(losses) < 3 or np.ptp(losses) == 0 or np.ptp(proxy) == 0:
        return {"pearson": None, "spearman": None}
    return {
        "pearson": float(np.corrcoef(losses, proxy)[0, 1]),
        "spearman": float(np.corrcoef(_ranks(losses), _ranks(proxy))[0, 1]),
    }


def _ranks(values: Floats) -> Floats:
    """The ranks of values, equal ones sharing the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def sentence(choice: Choice) -> str:
    """Returns what the pilot says of the gain, in one sentence."""
    g = choice.gain
    told = f"{g.ratio:.3g} of that of uniform draws, 95 % interval {g.low:.3g} to {g.high:.3g}"
    if g.shown:
        return f"the variance of an estimated total is {told}: a sample of that share of the size errs as little"
    why = "constant probabilities were chosen" if choice.point.constant else f"variance {told}"
    if not np.isfinite(g.ratio):
        unequal = "the pilot has losses where the proxy is 0, which a floor above 0 reaches"
        why = "the losses of the pilot are all equal" if np.isfinite(choice.variance) else unequal
    elif not np.isfinite(g.high):
        why = f"variance {g.ratio:.3g} of that of uniform draws, on too few records with a loss to tell"
    return (
        f"no gain shown over uniform ({why}); try the target in the embedding (embed.label), "
        "or more clusters (cluster.count)"
    )
