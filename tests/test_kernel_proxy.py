"""The proxy: by hand, against a plain loop, and what must not change it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tithe.transforms.kernels.proxy import SOFTENING, balanced_lipschitz, power_of_distance, smoothed_loss

Floats = NDArray[np.float64]


def plain(losses: Floats, anchors: list[int], squared: list[float]) -> float:
    if squared[-1] == 0:
        return float(losses[anchors[0]])
    weights = [1 / (d + SOFTENING * squared[-1]) for d in squared]
    return float(sum(w * losses[a] for w, a in zip(weights, anchors, strict=True)) / sum(weights))


def scores(seed: int, n: int, k: int, q: int) -> tuple[Floats, NDArray[np.int32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    squared = np.sort(rng.gamma(1, 1, (n, q)).astype(np.float32), axis=1)
    squared[::5, 0] = 0
    squared[::11] = 0
    anchor = np.array([rng.choice(k, q, replace=False) for _ in range(n)], np.int32)
    return rng.lognormal(0, 1, k), anchor, squared


def test_by_hand() -> None:
    losses = np.array([1.0, 4.0])
    anchor, squared = np.array([[0, 1]] * 3, np.int32), np.array([[1, 1], [0, 1], [0, 0]], np.float32)
    # Equal weights; 1000 against 1 / 1.001; both on the record.
    near, far = 1000, 1 / 1.001
    expected = [2.5, (near * 1 + far * 4) / (near + far), 1.0]
    np.testing.assert_allclose(smoothed_loss(losses, anchor, squared), expected, rtol=1e-12)


@pytest.mark.parametrize("q", [1, 2, 5, 10])
def test_equals_a_plain_loop(q: int) -> None:
    losses, anchor, squared = scores(q, 200, 30, q)
    expected = [plain(losses, anchor[i].tolist(), squared[i].tolist()) for i in range(200)]
    found = smoothed_loss(losses, anchor, squared)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_one_neighbour_gives_its_loss_to_the_last_bit() -> None:
    losses, anchor, squared = scores(1, 500, 30, 1)
    np.testing.assert_array_equal(smoothed_loss(losses, anchor, squared), losses[anchor[:, 0]])


def test_equal_losses_give_that_loss_to_the_last_bit() -> None:
    _, anchor, squared = scores(2, 500, 30, 5)
    np.testing.assert_array_equal(smoothed_loss(np.full(30, 0.1), anchor, squared), np.full(500, 0.1))


@pytest.mark.parametrize("height", [1, 7, 64])
def test_a_block_does_not_change_its_rows(height: int) -> None:
    losses, anchor, squared = scores(3, 300, 30, 5)
    whole = smoothed_loss(losses, anchor, squared)
    blocks = [smoothed_loss(losses, anchor[i : i + height], squared[i : i + height]) for i in range(0, 300, height)]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


@given(st.floats(1e-300, 1e300))
def test_the_scale_of_the_distances_does_not_count(scale: float) -> None:
    losses, anchor, squared = scores(4, 20, 30, 5)
    wide = squared.astype(np.float64) / 64
    np.testing.assert_allclose(
        smoothed_loss(losses, anchor, wide * scale), smoothed_loss(losses, anchor, wide), rtol=1e-9
    )


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_lies_between_the_losses_of_the_neighbours(seed: int, q: int) -> None:
    losses, anchor, squared = scores(seed, 20, 30, q)
    found, near = smoothed_loss(losses, anchor, squared), losses[anchor]
    assert np.all(found >= near.min(axis=1) * (1 - 1e-12))
    assert np.all(found <= near.max(axis=1) * (1 + 1e-12))


def test_no_rows() -> None:
    assert smoothed_loss(np.ones(3), np.empty((0, 5), np.int32), np.empty((0, 5), np.float32)).shape == (0,)


def test_power_of_distance() -> None:
    squared = np.array([0, 2.25, 9], np.float32)
    np.testing.assert_array_equal(power_of_distance(squared, 1), [0, 1.5, 3])
    np.testing.assert_array_equal(power_of_distance(squared, 2), [0, 2.25, 9])
    assert power_of_distance(squared, 1).dtype == power_of_distance(squared, 2).dtype == np.float64


def test_balanced_lipschitz_makes_both_terms_equal() -> None:
    assert balanced_lipschitz(12.0, 4.0) * 4.0 == 12.0
    assert balanced_lipschitz(12.0, 0.0) == 0.0
