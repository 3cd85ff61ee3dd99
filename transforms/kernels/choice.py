"""What the pilot chooses: the Lipschitz constant and the uniform floor of the proxy, or constant probabilities.

The pilot's records are drawn uniformly, and each is left out of its own neighbours, so it tells what the proxy is worth
where nothing was asked. Representatives cannot: their distance is 0.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from tithe.transforms.kernels import hashing

Floats = NDArray[np.float64]

RESAMPLES = 500
"""Bootstrap resamples of the pilot."""

CONFIDENCE = 0.95


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

    A larger grid needs a pilot of 400 or more to choose well. Where both constants are pinned there is nothing to
    choose.
    """
    fitted = fitted_lipschitz(pilot)
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
    """Returns the estimated variance of the total from one independent draw, n [mean(l^2 / p) - mean(l)^2 / mean(p)],
    means over the pilot.

    Never negative, by Cauchy and Schwarz; n^2 var(l) for constant p. Infinite where a record with a loss has no
    probability.
    """
    if len(losses) == 0 or np.any((p <= 0) & (losses > 0)):
        return float("inf")
    ratio = np.divide(losses**2, p, out=np.zeros(len(losses)), where=p > 0)
    return max(0.0, float(records * (ratio.mean() - losses.mean() ** 2 / p.mean())))


@dataclass(frozen=True)
class Gain:
    """The variance of the chosen point over that of constant probabilities, with a 95 % interval; below 1 is a gain."""

    ratio: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the pilot shows a gain over uniform sampling."""
        return self.high < 1


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
    """Chooses the candidate with the smallest estimated variance; of equals the first, constant probabilities before
    all.
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

    The pilot is resampled by hash, so the interval is the same everywhere. A resample in which either variance is 0
    tells nothing and is left out.
    """
    losses, p, n = pilot.losses, probabilities(point, pilot, totals), totals.records
    uniform = np.full(len(losses), 1 / n)
    if point.constant or len(losses) < 2:
        return Gain(1.0, 1.0, 1.0)
    ratio, error = _log_ratio(losses, p, uniform, n)
    if not np.isfinite(ratio) or error == 0:
        return Gain(float(np.exp(ratio)) if np.isfinite(ratio) else 1.0, 0.0, float("inf"))
    studentised = []
    numbers = np.arange(len(losses), dtype=np.uint64)
    for b in range(RESAMPLES):
        rows = (hashing.uniform(hashing.role_hash(numbers, seed, "bootstrap", b)) * len(losses)).astype(np.int64)
        again, its_error = _log_ratio(losses[rows], p[rows], uniform[rows], n)
        if np.isfinite(again) and its_error > 0:
            studentised.append((again - ratio) / its_error)
    if len(studentised) < RESAMPLES // 2:
        return Gain(float(np.exp(ratio)), 0.0, float("inf"))
    tail = (1 - CONFIDENCE) / 2
    below, above = np.quantile(studentised, [tail, 1 - tail])
    return Gain(float(np.exp(ratio)), float(np.exp(ratio - above * error)), float(np.exp(ratio - below * error)))


def _log_ratio(losses: Floats, p: Floats, uniform: Floats, records: int) -> tuple[float, float]:
    """The log of V(p) / V(constant) and its standard error, by the delta method."""
    v, base = variance(losses, p, records), variance(losses, uniform, records)
    if not (np.isfinite(v) and v > 0 and base > 0):
        return float("nan"), 0.0
    influence = _influence(losses, p, records) / v - _influence(losses, uniform, records) / base
    return float(np.log(v / base)), float(np.sqrt(np.mean(influence**2) / len(losses)))


def _influence(losses: Floats, p: Floats, records: int) -> Floats:
    """What each record of the pilot contributes to the variance, centred."""
    ratio = np.divide(losses**2, p, out=np.zeros(len(losses)), where=p > 0)
    mean, mean_p = losses.mean(), p.mean()
    influence: Floats = records * (
        (ratio - ratio.mean()) - 2 * mean / mean_p * (losses - mean) + (mean / mean_p) ** 2 * (p - mean_p)
    )
    return influence


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
    interval = scipy.stats.binomtest(count, m).proportion_ci(CONFIDENCE, method="wilson")
    return Share(count / m, float(interval.low), float(interval.high))


def correlations(losses: Floats, proxy: Floats) -> dict[str, float | None]:
    """Returns Pearson's and Spearman's correlation of proxy and loss on the pilot; None where one of them does not
    vary.
    """
    if len(losses) < 3 or np.ptp(losses) == 0 or np.ptp(proxy) == 0:
        return {"pearson": None, "spearman": None}
    return {
        "pearson": float(np.corrcoef(losses, proxy)[0, 1]),
        "spearman": float(np.corrcoef(scipy.stats.rankdata(losses), scipy.stats.rankdata(proxy))[0, 1]),
    }


def sentence(choice: Choice) -> str:
    """Returns what the pilot says of the gain, in one sentence."""
    g = choice.gain
    if not g.shown:
        why = (
            "constant probabilities were chosen"
            if choice.point.constant
            else f"variance x {g.ratio:.2f}, 95 % interval {g.low:.2f} to {g.high:.2f}"
        )
        return (
            f"no gain shown over uniform ({why}); try the target in the embedding (embed.label), "
            "or more clusters (cluster.count)"
        )
    return (
        f"the variance of an estimated total is {g.ratio:.2f} of that of uniform draws "
        f"(95 % interval {g.low:.2f} to {g.high:.2f}), so a sample of equal error is that much smaller"
    )
