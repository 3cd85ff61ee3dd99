"""Sizes from promises: by hand, kept over many seeds, and numbers of clusters."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tithe.transforms.kernels.promise import auto_clusters, guarantee, hoeffding_size, size_for_standard_error


def test_hoeffding_by_hand() -> None:
    # ln 40 = 3.688879; over 2 x 0.0025 it is 737.78, and over that x 0.81 it is 910.84.
    assert hoeffding_size(0.05, 0.05, 0.0) == 738
    assert hoeffding_size(0.05, 0.05, 0.1) == 911


@given(st.floats(0.001, 0.9), st.floats(1e-6, 0.9), st.floats(0, 0.9))
def test_hoeffding_is_the_smallest_size_that_keeps_the_promise(epsilon: float, delta: float, floor: float) -> None:
    def fails(size: int) -> float:
        return 2 * math.exp(-2 * size * (epsilon * (1 - floor)) ** 2)

    size = hoeffding_size(epsilon, delta, floor)
    assert fails(size) <= delta * (1 + 1e-9)
    assert fails(size - 1) >= delta * (1 - 1e-9)


@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_the_promise_holds(floor: float) -> None:
    """Losses of 0 or the whole proxy make the widest error there is."""
    rng, epsilon, delta, n = np.random.default_rng(1), 0.1, 0.1, 500
    proxy = rng.gamma(2, 1, n)
    losses = np.where(np.arange(n) % 2, proxy, 0.0)
    p = (1 - floor) * proxy / proxy.sum() + floor / n
    size = hoeffding_size(epsilon, delta, floor)
    drawn = rng.choice(n, (2000, size), p=p)
    errors = np.abs((losses / p)[drawn].mean(axis=1) - losses.sum())
    failed = float(np.mean(errors > epsilon * proxy.sum()))
    assert failed <= delta


@pytest.mark.parametrize(("epsilon", "delta", "floor"), [(0.1, 0.1, 1.0), (0.0, 0.1, 0.0), (0.1, 1.0, 0.0)])
def test_hoeffding_out_of_range(epsilon: float, delta: float, floor: float) -> None:
    with pytest.raises(ValueError, match=f"epsilon {epsilon:g}, delta {delta:g}, floor {floor:g}: a promise needs"):
        hoeffding_size(epsilon, delta, floor)


def test_guarantee_says_the_numbers_and_the_condition() -> None:
    said = guarantee(0.05, 0.01, 12_345, 2000.0)
    for words in ("if loss <= proxy for every record", "12,345 draws", "within 100 ", "0.05 of", "2000", "99 %"):
        assert words in said
    assert "99.9999 %" in guarantee(0.05, 1e-6, 10, 1.0)


def test_size_for_standard_error() -> None:
    # sqrt(40,000 / s) = 0.02 x 1,000 = 20 at s = 100.
    assert size_for_standard_error(40_000.0, 1000.0, 0.02) == 100
    assert size_for_standard_error(40_001.0, 1000.0, 0.02) == 101
    assert size_for_standard_error(0.0, 1000.0, 0.02) == 2


@pytest.mark.parametrize(("variance", "total", "relative"), [(math.inf, 1.0, 0.1), (1.0, 0.0, 0.1), (1.0, 1.0, 0.0)])
def test_size_for_standard_error_out_of_range(variance: float, total: float, relative: float) -> None:
    with pytest.raises(ValueError, match="a size needs a finite variance"):
        size_for_standard_error(variance, total, relative)


@pytest.mark.parametrize(
    ("max_calls", "pilot", "size", "records", "expected"),
    [
        (1200, 200, 1000, 100_000, 1000),  # all but the pilot
        (1200, 200, 1000, 6000, 600),  # a tenth of the records
        (1200, 200, 50, 100_000, 200),  # four for each draw
        (201, 200, 1000, 100_000, 1),
        (1200, 200, 1000, 5, 1),
    ],
)
def test_auto_clusters(max_calls: int, pilot: int, size: int, records: int, expected: int) -> None:
    assert auto_clusters(max_calls, pilot, size, records) == expected
