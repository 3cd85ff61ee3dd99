"""Estimated totals: by hand, exactly unbiased where the formulas are, and intervals that hold over many seeds."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tithe.transforms.kernels import choice
from tithe.transforms.kernels.estimators import Drawn, Estimate, estimate, hall, predicted_standard_error

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
METHODS = ["systematic", "pareto", "multinomial", "poisson"]


def drawn_of(
    method: str,
    expected: list[float] | Floats,
    multiplicity: list[int] | None = None,
    order: list[int] | None = None,
    proxy: Floats | None = None,
    proxy_total: float = 0.0,
) -> Drawn:
    m = len(expected)
    return Drawn(
        method,
        np.asarray(expected, np.float64),
        np.array(multiplicity or [1] * m, np.int64),
        np.array(order or range(m), np.int64),
        np.zeros(m) if proxy is None else proxy,
        proxy_total,
    )


def some_sample(method: str, seed: int = 1, m: int = 40) -> tuple[Floats, Drawn]:
    rng = np.random.default_rng(seed)
    expected, proxy = rng.uniform(0.05, 0.9, m), rng.gamma(2, 1, m)
    expected[:3] = 1
    values = expected * rng.lognormal(0, 1, m)
    order = np.concatenate([[-1] * 3, rng.permutation(m - 3)])
    return values, drawn_of(method, expected, order=order.tolist(), proxy=proxy, proxy_total=900.0)


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_multinomial_by_hand() -> None:
    # Three draws, l / p = s z: 6, 6 and 12, of mean 8; squares around it 4 + 4 + 16 = 24, over 3 x 2 is 4.
    found = estimate(np.array([1.0, 1.0]), drawn_of("multinomial", [0.5, 0.25], [2, 1]))
    assert (found.total, found.standard_error) == pytest.approx((8, 2))


def test_pareto_by_hand() -> None:
    # z = 2, 8 and, certain, 5. B = (0.5 x 2 + 0.75 x 8) / 1.25 = 5.6; 2 (0.5 x 3.6^2 + 0.75 x 2.4^2) = 21.6.
    found = estimate(np.array([1.0, 2, 5]), drawn_of("pareto", [0.5, 0.25, 1]))
    assert (found.total, found.standard_error) == pytest.approx((15, math.sqrt(21.6)))


def test_systematic_by_hand() -> None:
    # Along the pass z = 4, 2, 8: 3 / 2 [(2^2 (1 - 0.375) + 6^2 (1 - 0.375)) / 2] = 18.75.
    sample = drawn_of("systematic", [0.5, 0.25, 1, 0.25], order=[1, 2, -1, 0])
    found = estimate(np.array([1.0, 2, 7, 1]), sample)
    assert (found.total, found.standard_error) == pytest.approx((21, math.sqrt(18.75)))


def test_poisson_by_hand() -> None:
    # Without a proxy: 0.5 x 2^2 + 0.75 x 8^2 = 50.
    values, expected = np.array([1.0, 2, 5]), [0.5, 0.25, 1]
    plain = estimate(values, drawn_of("poisson", expected))
    assert (plain.total, plain.standard_error) == pytest.approx((15, math.sqrt(50)))
    # With one: z sums to 10 and proxy / pi to 2 + 8 = 10 of 26 - 6 = 20, so the ratio is 1 and the total 20 + 5.
    # Residuals 2 (z - proxy / pi): 2 (2 - 2) and 2 (8 - 8) are 0.
    found = estimate(values, drawn_of("poisson", expected, proxy=np.array([1.0, 2, 6]), proxy_total=26))
    assert (found.total, found.standard_error) == pytest.approx((25, 0))
    # Proxies 2 and 1: proxy / pi = 4 and 4, ratio 10 / 8, 18 / 8 of the rest; residuals 9 / 4 (2 - 5), 9 / 4 (8 - 5).
    found = estimate(values, drawn_of("poisson", expected, proxy=np.array([2.0, 1, 6]), proxy_total=24))
    assert found.total == pytest.approx(5 + 10 / 8 * 18)
    assert found.standard_error == pytest.approx(math.sqrt(2 * (9 / 4 * 3) ** 2 * (0.5 + 0.75)))


def test_degrees_and_interval_by_hand() -> None:
    # Two draws around their mean: one degree of freedom would be all, 2 is the least that is used; no skewness.
    found = estimate(np.array([1.0, 2.0]), drawn_of("multinomial", [0.5, 0.5]))
    assert found.degrees == 2
    half = 4.302652729911275 * found.standard_error
    assert (found.low, found.high) == pytest.approx((found.total - half, found.total + half))


# -- formulas that are exactly unbiased ------------------------------------------------------------------------------


def test_the_multinomial_variance_is_unbiased() -> None:
    values, p, s = np.array([1.0, 3, 2, 10]), np.array([0.1, 0.4, 0.2, 0.3]), 3
    total = variance = estimated = 0.0
    for rows in itertools.product(range(4), repeat=s):
        chance = float(np.prod(p[list(rows)]))
        some, times = np.unique(rows, return_counts=True)
        found = estimate(values[some], drawn_of("multinomial", s * p[some], times.tolist()))
        total += chance * found.total
        variance += chance * (found.total - 16) ** 2
        estimated += chance * found.standard_error**2
    assert (total, estimated) == pytest.approx((16, variance))


def test_the_poisson_variance_without_a_proxy_is_unbiased() -> None:
    values, pi = np.array([1.0, 3, 2, 10]), np.array([0.1, 0.4, 0.7, 1.0])
    total = variance = estimated = 0.0
    for taken in itertools.product([False, True], repeat=4):
        rows = np.flatnonzero(taken)
        chance = float(np.prod(np.where(taken, pi, 1 - pi)))
        found = estimate(values[rows], drawn_of("poisson", pi[rows]))
        total += chance * found.total
        variance += chance * (found.total - 16) ** 2
        estimated += chance * found.standard_error**2
    assert (total, estimated) == pytest.approx((16, variance))


def test_pareto_at_equal_probabilities_is_simple_random_sampling() -> None:
    values = np.array([1.0, 4, 2, 9, 3])
    found = estimate(values, drawn_of("pareto", [0.1] * 5))
    assert found.standard_error == pytest.approx(50 * math.sqrt(0.9 * values.var(ddof=1) / 5))


# -- the interval ----------------------------------------------------------------------------------------------------


@given(st.floats(-3, 3), st.floats(-5, 5), st.integers(10, 10_000))
def test_hall_inverts_his_transformation(quantile: float, skewness: float, count: int) -> None:
    a, t = skewness / math.sqrt(count), hall(quantile, skewness, count)
    assert t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6 == pytest.approx(quantile, abs=1e-6)


def test_hall_without_skewness_changes_nothing() -> None:
    assert hall(1.96, 0.0, 100) == 1.96
    assert hall(1.96, 1e-6, 100) == pytest.approx(1.96)


@pytest.mark.parametrize("method", METHODS)
def test_skewed_values_lengthen_the_upper_end(method: str) -> None:
    values, sample = some_sample(method, m=200)
    found = estimate(values, sample)
    mirrored = estimate(-values, sample)
    if method != "poisson":  # which looks at the residuals of the ratio
        assert found.high - found.total > found.total - found.low
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize("method", METHODS)
def test_more_confidence_is_wider(method: str) -> None:
    values, sample = some_sample(method)
    wide, narrow = estimate(values, sample, 0.99), estimate(values, sample, 0.8)
    assert wide.low < narrow.low < narrow.total < narrow.high < wide.high


@pytest.mark.parametrize("method", METHODS)
@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 100))
def test_scale_and_the_order_of_rows_do_not_count(method: str, scale: float, seed: int) -> None:
    values, sample = some_sample(method, seed)
    rows = np.random.default_rng(seed).permutation(len(values))
    moved = Drawn(
        method, sample.expected[rows], sample.multiplicity[rows], sample.order[rows], sample.proxy[rows], 900.0
    )
    found, other = estimate(values, sample), estimate(scale * values[rows], moved)
    for name in ("total", "standard_error", "low", "high"):
        assert getattr(other, name) == pytest.approx(scale * getattr(found, name), rel=1e-9)
    assert other.degrees == pytest.approx(found.degrees)
    assert 2 <= found.degrees <= len(values) - 1


# -- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["systematic", "pareto", "poisson"])
def test_certain_records_have_no_error(method: str) -> None:
    sample = drawn_of(method, [1, 1, 1], order=[-1] * 3, proxy=np.array([2.0, 2, 2]), proxy_total=6)
    assert estimate(np.array([1.0, 2, 3]), sample) == Estimate(6, 0, 6, 6, 0)


@pytest.mark.parametrize("method", METHODS)
def test_one_draw_cannot_tell(method: str) -> None:
    found = estimate(np.array([1.0]), drawn_of(method, [0.5], proxy=np.ones(1), proxy_total=2))
    assert found.total == 2
    assert all(map(math.isnan, (found.standard_error, found.low, found.high)))


@pytest.mark.parametrize("method", METHODS)
def test_no_draw_at_all(method: str) -> None:
    found = estimate(np.empty(0), drawn_of(method, [], proxy_total=2))
    assert found.total == 0
    # Systematic and pareto draw as many as they promise, so there was nothing to draw.
    assert math.isnan(found.standard_error) == (method in ("multinomial", "poisson"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0])
def test_values_in_proportion_to_the_probabilities(method: str, value: float) -> None:
    _, sample = some_sample(method)
    sample = replace(sample, proxy=sample.expected * 10, proxy_total=400.0)
    found = estimate(value * sample.expected, sample)
    assert found.total == pytest.approx(40 * value)
    assert found.standard_error <= 1e-12 * abs(found.total)
    assert found.low == pytest.approx(found.total) == found.high


@pytest.mark.parametrize("method", METHODS)
def test_one_giant_among_zeros(method: str) -> None:
    _, sample = some_sample(method)
    values = np.zeros(40)
    values[20] = 1e9
    found = estimate(values, sample)
    assert np.isfinite([found.total, found.standard_error, found.low, found.high]).all()
    assert found.degrees >= 2 and found.low < found.total < found.high


# -- over many seeds -------------------------------------------------------------------------------------------------

RECORDS, CLUSTERS, SEEDS = 6000, 100, 1000


class Population:
    """Clusters of records; losses of light or heavy tails, and a proxy, a third of it even, that follows them."""

    def __init__(self, kind: str) -> None:
        rng = np.random.default_rng(5)
        level, cluster, near, noise = (
            rng.normal(0, 1, CLUSTERS),
            rng.integers(0, CLUSTERS, RECORDS),
            *rng.normal(0, 1, (2, RECORDS)),
        )
        if kind == "light":
            suggested = np.maximum(4 + 0.6 * level[cluster] + 0.6 * near, 0.5)
            self.losses = np.maximum(suggested + noise, 0)
        else:
            spread = 1.5 if kind == "heavier" else 1.0
            seen = (level[cluster] + 0.4 * near) / math.sqrt(1.16)
            self.losses = np.exp(spread * (0.75 * seen + math.sqrt(1 - 0.75**2) * noise))
            suggested = np.exp(spread * 0.75 * seen)
        floor = 1.0 if kind == "even" else 0.3
        p = (1 - floor) * suggested / suggested.sum() + floor / RECORDS
        self.proxy: Floats = p * RECORDS
        self.rank = np.argsort(np.argsort(level))[cluster]

    def inclusion(self, size: int) -> Floats:
        certain = np.zeros(RECORDS, bool)
        while True:
            rest = self.proxy * (size - certain.sum()) / self.proxy[~certain].sum()
            pi: Floats = np.where(certain, 1.0, rest)
            if not np.any((pi >= 1) & ~certain):
                return pi
            certain |= pi >= 1

    def draw(self, method: str, pi: Floats, size: int, rng: np.random.Generator) -> tuple[Ints, Drawn]:
        """A plain draw: rows, and what the estimator is told of them."""
        u, total, chance = rng.random(RECORDS), float(self.proxy.sum()), pi < 1
        if method == "multinomial":
            times = rng.multinomial(size, self.proxy / total)
            rows = np.flatnonzero(times)
            expected = size * self.proxy[rows] / total
            return rows, drawn_of(method, expected, times[rows].tolist(), None, self.proxy[rows], total)
        if method == "poisson":
            rows = np.flatnonzero(u < pi)
        elif method == "pareto":
            rows = np.argpartition(np.where(chance, u * (1 - pi) / ((1 - u) * pi), 0), size)[:size]
        else:
            along = np.argsort(self.rank + u)
            cumulated = np.cumsum(np.where(chance, pi, 0)[along])
            points = rng.random() + np.arange(round(cumulated[-1]))
            picked = along[np.minimum(np.searchsorted(cumulated, points, side="right"), RECORDS - 1)]
            rows = np.concatenate([picked, np.flatnonzero(~chance)])
        return rows, drawn_of(method, pi[rows], None, None, self.proxy[rows], total)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["light", "heavy", "heavier", "even"])
@pytest.mark.parametrize("method", METHODS)
def test_the_interval_holds(kind: str, method: str) -> None:
    population = Population(kind)
    truth = population.losses.sum()
    for size, least in ((300, 0.92), (1000, 0.93)):
        pi, found = population.inclusion(size), []
        for seed in range(SEEDS):
            rows, sample = population.draw(method, pi, size, np.random.default_rng(seed))
            found.append(estimate(population.losses[rows], sample))
        totals = np.array([each.total for each in found])
        held = np.mean([each.low <= truth <= each.high for each in found])
        stated = math.sqrt(np.mean([each.standard_error**2 for each in found]))
        print(f"{kind} {method} {size}: held {held:.3f}, stated error / true {stated / totals.std():.3f}")
        assert least <= held <= 0.98
        # The ratio form of poisson is biased by 1 / s of its error.
        assert abs(totals.mean() - truth) <= 3.5 * totals.std() / math.sqrt(SEEDS)
        assert 0.9 <= stated / totals.std() <= 1.1


@pytest.mark.slow
def test_the_predicted_error_is_that_of_independent_draws_and_more_than_the_others() -> None:
    population, size, seeds = Population("heavy"), 1000, 300
    p = population.proxy / population.proxy.sum()
    predicted = predicted_standard_error(choice.variance(population.losses, p, RECORDS), size)
    assert predicted == pytest.approx(
        math.sqrt(((population.losses**2 / p).sum() - population.losses.sum() ** 2) / size)
    )
    pi, errors = population.inclusion(size), {}
    for method in METHODS:
        totals = []
        for seed in range(seeds):
            rows, sample = population.draw(method, pi, size, np.random.default_rng(seed))
            totals.append(estimate(population.losses[rows], sample).total)
        errors[method] = float(np.std(totals))
    low, high = np.sqrt(scipy.stats.chi2.ppf([0.001, 0.999], seeds - 1) / (seeds - 1))
    assert low <= errors.pop("multinomial") / predicted <= high
    assert all(error < predicted for error in errors.values())
