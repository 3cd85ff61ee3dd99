"""Inclusion probabilities against a solution in fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tithe.transforms.kernels import exact
from tithe.transforms.kernels.threshold import Threshold, solve

Floats = NDArray[np.float64]


def solve_for(proxy: Floats, size: int) -> Threshold:
    largest = np.sort(proxy)[::-1][:size].tolist()
    return solve(exact.exact_sum(proxy), largest, int(np.count_nonzero(proxy)), size)


def fraction_probabilities(proxy: list[float], size: int) -> list[Fraction]:
    """min(1, tau p) with the sum `size`, by trying every number of certain records."""
    masses = [Fraction(p) for p in proxy]
    positive = sorted((m for m in masses if m), reverse=True)
    if len(positive) <= size:
        return [Fraction(bool(m)) for m in masses]
    for certain in range(size):
        tau = (size - certain) / sum(positive[certain:], Fraction(0))
        if positive[certain] * tau < 1:
            return [min(Fraction(1), tau * m) for m in masses]
    raise AssertionError("some number of certain records solves it")


def check(proxy: list[float], size: int) -> None:
    values = np.array(proxy)
    threshold = solve_for(values, size)
    found = threshold.inclusion_probability(values)
    expected = fraction_probabilities(proxy, size)
    assert found.dtype == np.float64 and np.all((found >= 0) & (found <= 1))
    for p, pi in zip(found.tolist(), expected, strict=True):
        assert p == pytest.approx(float(pi), rel=1e-14)
        assert (p == 0) == (pi == 0) and (pi < 1 or p == 1)
    certain = sum(pi == 1 for pi in expected)
    # All ties of a certain record are certain, though only `size` of the largest are looked at.
    assert threshold.certain == certain <= size
    assert np.count_nonzero(values >= threshold.certain_from) == certain
    assert found.sum() == pytest.approx(min(size, np.count_nonzero(values)), rel=1e-12)


# Ties, zeros, and giants of many orders.
PROXIES = st.one_of(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 10.0, 1e9]), min_size=1, max_size=30),
    st.lists(st.one_of(st.just(0.0), st.floats(1e-100, 1e100)), min_size=1, max_size=30),
    st.lists(st.floats(0.5, 2), min_size=1, max_size=30),
)


@given(PROXIES, st.integers(1, 35))
@example([1.0, 1.0, 1.0, 1.0], 2)
@example([2.0, 1.0, 1.0], 2)  # the giant has exactly one share: it is certain
@example([4.0, 2.0, 1.0, 1.0], 3)  # then so has the next
@example([2.0, 2.0, 1.0, 1.0], 3)
@example([1e100, 1e-100, 1e-100], 2)
@example([0.0, 0.0], 1)
def test_as_in_fractions(proxy: list[float], size: int) -> None:
    check(proxy, size)


def test_four_points_by_hand() -> None:
    # 2 draws: 10 is certain, and one draw is left for 3 + 2 + 1.
    threshold = solve_for(np.array([3.0, 10.0, 1.0, 2.0]), 2)
    assert (threshold.certain, threshold.certain_from, threshold.scale) == (1, 10.0, 1 / 6)
    found = threshold.inclusion_probability(np.array([3.0, 10.0, 1.0, 2.0]))
    np.testing.assert_allclose(found, [1 / 2, 1, 1 / 6, 1 / 3], rtol=1e-15)


def test_nothing_is_certain_among_equals() -> None:
    threshold = solve_for(np.full(1000, 0.1), 100)
    assert threshold.certain == 0 and threshold.certain_from == np.inf
    np.testing.assert_allclose(threshold.inclusion_probability(np.full(3, 0.1)), 0.1, rtol=1e-15)


@pytest.mark.parametrize("size", [3, 4, 10])
def test_as_few_positive_proxies_as_draws_are_certain(size: int) -> None:
    proxy = np.array([0.0, 5e-324, 0.0, 1.0, 1e300])
    threshold = solve_for(proxy, size)
    assert threshold.certain == 3
    assert threshold.inclusion_probability(proxy).tolist() == [0, 1, 0, 1, 1]


def test_a_certain_record_is_told_by_its_proxy_in_any_block() -> None:
    proxy = np.random.default_rng(1).lognormal(0, 3, 5000)
    threshold = solve_for(proxy, 500)
    whole = threshold.inclusion_probability(proxy)
    assert np.array_equal(np.concatenate([threshold.inclusion_probability(p) for p in np.split(proxy, 50)]), whole)
    assert np.count_nonzero(whole == 1) == threshold.certain > 10
    assert whole.sum() == pytest.approx(500, rel=1e-12)
