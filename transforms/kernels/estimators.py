"""Totals estimated from a sample, each draw with its own standard error, and intervals that hold on skewed values."""

from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEIGHBOURS = 3
"""Records on either side, along the pass, that make the local mean of a systematic draw."""


@dataclass(frozen=True)
class Estimate:
    """An estimated total over the corpus.

    Attributes:
        total: the estimate.
        standard_error: of it; NaN, and with it the interval, where the sample cannot tell (one draw that was left to
            chance, or none of poisson's).
        low, high: confidence interval.
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

    The formulas are those of the draw, z = value / expected multiplicity, and certain records add nothing:

    - multinomial: sum (l / p - L)^2 / (s (s - 1)), unbiased (Hansen and Hurwitz, "On the theory of sampling from finite
      populations", Annals of Mathematical Statistics 14, 1943).
    - pareto: s / (s - 1) sum (1 - pi) (z - B)^2, B the mean of z weighted by 1 - pi (Rosén, "On sampling with
      probability proportional to size", JSPI 62, 1997).
    - systematic: squares of successive differences along the pass (Wolter, "Introduction to Variance Estimation",
      chapter 8).
    - poisson: the ratio to the proxy, whose total is known, with its linearised variance (Särndal, Swensson and
      Wretman, "Model Assisted Survey Sampling", section 5.6); without a proxy the plain weighted total.

    The interval has t quantiles, with degrees of freedom after Satterthwaite, and Hall's correction for skewness ("On
    the removal of skewness by transformation", JRSS B 54, 1992).

    Args:
        values: of the distinct drawn records, finite float64, (m,).
        drawn: the sample.
        confidence: of the interval, in 0 .. 1.
    """
    if drawn.method == "multinomial":
        return _multinomial(values, drawn, confidence)
    total = float((drawn.multiplicity * values / drawn.expected).sum())
    chance = drawn.expected < 1
    z, pi = values[chance] / drawn.expected[chance], drawn.expected[chance]
    if drawn.method == "systematic":
        along = np.argsort(drawn.order[chance], kind="stable")
        return _systematic(total, z[along], pi[along], confidence)
    if drawn.method == "poisson":
        return _poisson(values, drawn, confidence)
    left = 1 - pi
    center = np.sum(left * z) / np.sum(left) if len(z) else 0.0
    return _interval(total, left * (z - center) ** 2, z - center, _less_one(len(z)), confidence, independent=True)


def _multinomial(values: Floats, drawn: Drawn, confidence: float) -> Estimate:
    s = int(drawn.multiplicity.sum())
    share = np.repeat(values / drawn.expected, drawn.multiplicity)
    total = float(share.sum())
    residuals = share - total / s if s else share
    factor = _less_one(s) if s else float("nan")
    return _interval(total, residuals**2, residuals, factor, confidence, independent=True)


def _systematic(total: float, z: Floats, pi: Floats, confidence: float) -> Estimate:
    squares = np.diff(z) ** 2 * (1 - (pi[1:] + pi[:-1]) / 2) / 2
    return _interval(total, squares, _from_local_means(z), _less_one(len(z)), confidence, independent=False)


def _poisson(values: Floats, drawn: Drawn, confidence: float) -> Estimate:
    chance = drawn.expected < 1
    known, pi = float(values[~chance].sum()), drawn.expected[chance]
    z, proxy = values[chance] / pi, drawn.proxy[chance] / pi
    # The ratio stands for the records that were left to chance; the certain ones are known.
    drawn_proxy, rest = float(proxy.sum()), drawn.proxy_total - float(drawn.proxy[~chance].sum())
    if drawn_proxy > 0:
        ratio = float(z.sum()) / drawn_proxy
        total, residuals = known + ratio * rest, (z - ratio * proxy) * (rest / drawn_proxy)
    else:
        total, residuals = known + float(z.sum()), z
    squares = (1 - pi) * residuals**2
    # That no record was drawn says nothing of those that could have been: `rest` of the proxy, beyond rounding.
    if len(z) == 0 and rest > 1e-9 * drawn.proxy_total:
        return _interval(total, squares, residuals, float("nan"), confidence, independent=True)
    # The plain total of a sample of random size has no center to estimate, and so no s - 1.
    factor = _less_one(len(z)) if drawn_proxy > 0 else 1.0
    return _interval(total, squares, residuals, factor, confidence, independent=True)


def _less_one(count: int) -> float:
    """s / (s - 1), for squares around a center that was estimated; one draw has none to tell."""
    return count / (count - 1) if count > 1 else 1.0 if count == 0 else float("nan")


def _from_local_means(z: Floats) -> Floats:
    """The values less the means of their neighbours along the pass, themselves among them."""
    if len(z) == 0:
        return z
    z = z - z.mean()
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
    spread = float(((squares / added) ** 2).sum()) - (1 / count if independent else 0.0)
    degrees = float(np.clip(2 / spread if spread > 0 else np.inf, 2, max(count - 1, 2)))
    tail = (1 - confidence) / 2
    scaled = residuals / np.abs(residuals).max()
    skewness = float(np.mean(scaled**3) / np.mean(scaled**2) ** 1.5)
    high = float(scipy.special.stdtrit(degrees, 1 - tail))
    return Estimate(
        total,
        error,
        total - error * hall(high, skewness, count),
        total - error * hall(-high, skewness, count),
        degrees,
    )


def hall(quantile: float, skewness: float, count: int) -> float:
    """Returns a quantile of the studentised mean of `count` values with this skewness, by Hall's cubic transformation.

    With s the skewness and a = s / sqrt(count): 3 / a (cbrt(1 + a (quantile - a / 6)) - 1).
    """
    a = skewness / np.sqrt(count)
    if abs(a) < 1e-9:
        return float(quantile)
    return float(3 / a * (np.cbrt(1 + a * (quantile - a / 6)) - 1))


def predicted_standard_error(variance: float, size: int) -> float:
    """Returns the standard error that the pilot predicts for a total from `size` draws: sqrt(V / s).

    It is that of independent draws; without repeats, or along the clusters, the same number errs less. It is only as
    good as the pilot: the standard error of a sample whose losses were asked is measured by `estimate`.

    Args:
        variance: V, of the total from one independent draw, as the pilot estimates it.
        size: s, of the sample.
    """
    return float(np.sqrt(variance / size))
