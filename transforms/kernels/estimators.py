"""Totals estimated from a sample, each draw with its own standard error, and intervals that hold on skewed values."""

from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEIGHBOURS = 3
"""Records on either side, along the pass, that make the local mean of a systematic draw."""


@dataclass(frozen=True)
class Estimate:
    """An estimated total over the corpus.

    Attributes:
        total: the estimate.
        standard_error: of it; NaN where the sample cannot tell (fewer than two draws that were left to chance).
        low, high: 95 % confidence interval.
        degrees: degrees of freedom of the t quantiles.
    """

    total: float
    standard_error: float
    low: float
    high: float
    degrees: float


@dataclass(frozen=True)
class Drawn:
    """The distinct records of a sample.

    Attributes:
        method: systematic, pareto, multinomial or poisson.
        expected: expected multiplicity (inclusion probability where no record is drawn twice), float64, (m,).
        multiplicity: times drawn, int64, (m,).
        order: rank in the systematic pass, int64, (m,); -1 for certain records and for other draws.
        proxy: what the probabilities are proportional to, float64, (m,).
        proxy_total: its total over the corpus.
    """

    method: str
    expected: Floats
    multiplicity: NDArray[np.int64]
    order: NDArray[np.int64]
    proxy: Floats
    proxy_total: float


def estimate(values: Floats, drawn: Drawn, confidence: float = 0.95) -> Estimate:
    """Returns the total of a value over the corpus, estimated from the sample, with its standard error and interval.

    The formulas are those of the draw: for multinomial sum (l/p - L)^2 / (s (s-1)), unbiased; for pareto Rosén's
        ("Asymptotic theory for order sampling", JSPI 62, 1997); for systematic successive differences along the pass
        (Wolter, "Introduction to Variance Estimation", chapter 8); for poisson the ratio to the proxy, whose total is
        known. Certain records add nothing. The interval has t quantiles, with degrees of freedom after Satterthwaite,
        and Hall's correction for skewness ("On the removal of skewness by transformation", JRSS B 54, 1992).

    Args:
        values: of the distinct drawn records, finite float64, (m,).
        drawn: the sample.
        confidence: of the interval.
    """
    weighted = drawn.multiplicity * values / drawn.expected
    if drawn.method == "multinomial":
        return _multinomial(values, drawn, confidence)
    total = float(weighted.sum())
    chance = drawn.expected < 1
    z, pi = values[chance] / drawn.expected[chance], drawn.expected[chance]
    if drawn.method == "systematic":
        along = np.argsort(drawn.order[chance], kind="stable")
        return _systematic(total, z[along], pi[along], confidence)
    if drawn.method == "poisson":
        proxy = drawn.proxy[chance] / pi
        proxy_sum, certain = float(proxy.sum()), float(drawn.proxy[~chance].sum())
        if proxy_sum > 0:
            # The ratio stands for the records that were left to chance; the certain ones are known.
            ratio, rest = float(z.sum()) / proxy_sum, drawn.proxy_total - certain
            total = float(values[~chance].sum()) + ratio * rest
            residuals = (z - ratio * proxy) * (rest / proxy_sum)
            # The rows of a sample of random size are counted from 0, so nothing is divided by s - 1.
            return _interval(total, (1 - pi) * residuals**2, residuals, 1.0, confidence, independent=True)
        return _interval(total, (1 - pi) * z**2, z, 1.0, confidence, independent=True)
    left = 1 - pi
    center = np.sum(left * z) / np.sum(left) if len(z) else 0.0
    factor = len(z) / (len(z) - 1) if len(z) > 1 else 1.0 if len(z) == 0 else np.nan
    return _interval(total, left * (z - center) ** 2, z - center, factor, confidence, independent=True)


def _multinomial(values: Floats, drawn: Drawn, confidence: float) -> Estimate:
    s = int(drawn.multiplicity.sum())
    share = np.repeat(values / drawn.expected, drawn.multiplicity)
    total = float(share.sum())
    residuals = share - total / s if s else share
    return _interval(total, residuals**2, residuals, s / (s - 1) if s > 1 else np.nan, confidence, independent=True)


def _systematic(total: float, z: Floats, pi: Floats, confidence: float) -> Estimate:
    s = len(z)
    if s < 2:
        return _interval(total, z[:0], z[:0], np.nan if s else 1.0, confidence, independent=False)
    squares = np.diff(z) ** 2 * (1 - (pi[1:] + pi[:-1]) / 2) / 2
    return _interval(total, squares, _from_local_means(z), s / (s - 1), confidence, independent=False)


def _from_local_means(z: Floats) -> Floats:
    """The values less the means of their neighbours along the pass, themselves among them."""
    cumulated = np.concatenate([[0.0], np.cumsum(z)])
    low = np.maximum(np.arange(len(z)) - NEIGHBOURS, 0)
    high = np.minimum(np.arange(len(z)) + NEIGHBOURS + 1, len(z))
    local: Floats = z - (cumulated[high] - cumulated[low]) / (high - low)
    return local


def _interval(
    total: float, squares: Floats, residuals: Floats, factor: float, confidence: float, independent: bool
) -> Estimate:
    """The estimate whose variance is factor x sum of squares, with t quantiles and Hall's correction.

    `independent` squares are those of draws around one center, whose mean square varies by their variance about it;
    successive differences overlap.
    """
    count, added = len(residuals), float(squares.sum())
    error = float(np.sqrt(factor * added)) if np.isfinite(factor) else float("nan")
    if not error > 0:
        return Estimate(total, error, total - error, total + error, float(max(count - 1, 0)))
    spread = float((squares**2).sum()) - (added**2 / count if independent else 0.0)
    degrees = float(np.clip(2 * added**2 / spread if spread > 0 else np.inf, 2, max(count - 1, 2)))
    tail = (1 - confidence) / 2
    skewness = float(np.mean(residuals**3) / np.mean(residuals**2) ** 1.5)
    low, high = float(scipy.stats.t.ppf(tail, degrees)), float(scipy.stats.t.ppf(1 - tail, degrees))
    return Estimate(
        total,
        error,
        total - error * hall(high, skewness, count),
        total - error * hall(low, skewness, count),
        degrees,
    )


def hall(quantile: float, skewness: float, count: int) -> float:
    """Returns Hall's cubic transformation of a quantile of the studentised mean of `count` values with this
    skewness.
    """
    a = skewness / np.sqrt(count)
    if abs(a) < 1e-9:
        return float(quantile)
    return float(3 / a * (np.cbrt(1 + a * (quantile - a / 6)) - 1))


def predicted_standard_error(variance: float, size: int) -> float:
    """Returns the standard error that the pilot predicts for a total from `size` draws: sqrt(V / s).

    It is that of independent draws. Drawn without repeats or along the clusters the same sample does better, by 5-20 %
    where it was measured.
    """
    return float(np.sqrt(variance / size))
