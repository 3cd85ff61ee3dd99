"""A round of mini-batch k-means, by hand on four points, and against plain loops."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tithe.transforms.kernels import exact, hashing, nearest, rounds
from tithe.transforms.kernels.far import far_dtype
from tithe.transforms.kernels.rounds import BatchSums, Centers

Vectors = NDArray[np.float32]
CORNERS = np.array([[0, 0], [0, 2], [10, 0], [10, 2]], np.float32)
EXPONENT = 4  # everything in these tests is below 2**4


def ids(n: int) -> NDArray[np.uint64]:
    return hashing.hash_integers(np.arange(n))


def centers_of(points: list[list[float]], weights: list[float]) -> Centers:
    return Centers(np.array(points, np.float32), np.array(weights))


def batch_of(x: Vectors, centers: Centers, seed: int = 1, number: int = 1) -> BatchSums:
    """The dense sums of a batch."""
    some, _ = rounds.batch_sums(x, ids(len(x)), nearest.prepare(centers.points), EXPONENT, seed, number)
    return rounds.densify(some, len(centers.points))


def run_round(x: Vectors, centers: Centers, decay: float) -> Centers:
    return rounds.update(centers, batch_of(x, centers), decay)


def test_a_step_of_lloyd_by_hand() -> None:
    before = centers_of([[0, 0], [10, 0]], [0, 0])
    batch = batch_of(CORNERS, before)
    assert batch.sums.counts.tolist() == [2, 2]
    assert exact.to_float(batch.cost) == 0 + 4 + 0 + 4
    after = rounds.update(before, batch, 0)
    assert after.points.dtype == np.float32 and after.points.tolist() == [[0, 1], [10, 1]]
    assert after.weights.tolist() == [2, 2]
    # And another changes nothing but the cost.
    again = batch_of(CORNERS, after)
    assert exact.to_float(again.cost) == 4
    assert np.array_equal(rounds.update(after, again, 0).points, after.points)


def test_an_earlier_weight_is_forgotten_by_hand() -> None:
    # 10 rows become 2, beside 2 new ones: (2 (0, 0) + (0, 0) + (0, 2)) / 4, and so on.
    after = run_round(CORNERS, centers_of([[0, 0], [10, 0]], [10, 30]), 0.2)
    assert after.weights.tolist() == [4, 8]
    assert after.points.tolist() == [[0, 0.5], [10, 0.25]]


def test_a_tie_goes_to_the_first_center() -> None:
    after = run_round(CORNERS, centers_of([[0, 1], [0, 1], [10, 1]], [0, 5, 0]), 0.2)
    assert after.points.tolist() == [[0, 1], [0, 1], [10, 1]]
    assert after.weights.tolist() == [2, 1, 2]


def test_a_center_without_rows_in_this_batch_stays() -> None:
    after = run_round(CORNERS[:2], centers_of([[0, 0], [10, 5]], [0, 10]), 0.2)
    assert after.points.tolist() == [[0, 1], [10, 5]] and after.weights.tolist() == [2, 2]


def test_starved_centers_move_to_far_rows() -> None:
    before = centers_of([[0, 0], [10, 0], [15, 15], [-15, 15]], [0, 0, 0, 4])
    batch = batch_of(CORNERS, before)
    assert np.isfinite(batch.far["key"]).all()
    # Only two rows are off their centers.
    far = batch.far["vector"].tolist()
    assert sorted(far) == [[0, 2], [10, 2]] and batch.far["squared"].tolist() == [4, 4]
    after = rounds.update(before, batch, 0.2)
    assert after.points[2:].tolist() == far and after.weights.tolist() == [2, 2, 1, 1]


def test_more_starved_centers_than_far_points() -> None:
    x = np.array([[0, 0], [3, 0], [3, 0], [3, 0]], np.float32)
    before = centers_of([[0, 0], [15, 15], [14, 14]], [0, 0, 0])
    after = run_round(x, before, 0.2)
    # The three far rows are one point.
    assert after.points.tolist() == [[2.25, 0], [3, 0], [14, 14]] and after.weights.tolist() == [4, 1, 0]


def test_no_row_is_far_when_each_lies_on_a_center() -> None:
    before = centers_of([*CORNERS.tolist(), [7, 7]], [0] * 5)
    batch = batch_of(CORNERS, before)
    assert batch.cost == 0 and len(batch.far) == 0 and batch.far.dtype == far_dtype(2)
    after = rounds.update(before, batch, 0)
    assert np.array_equal(after.points, before.points)


@pytest.mark.parametrize("decay", [0.0, rounds.DECAY])
def test_a_round_in_plain_loops(decay: float) -> None:
    rng = np.random.default_rng(1)
    x, points = rng.uniform(-8, 8, (500, 3)).astype(np.float32), rng.uniform(-8, 8, (12, 3)).astype(np.float32)
    before = Centers(points, rng.integers(0, 100, 12).astype(np.float64))
    members: list[list[int]] = [[] for _ in points]
    cost = []
    for i, row in enumerate(x.astype(np.float64)):
        distances = ((row - points) ** 2).sum(1)
        members[int(distances.argmin())].append(i)
        cost.append(distances.min())
    batch = batch_of(x, before)
    assert exact.to_float(batch.cost) == pytest.approx(math.fsum(cost), rel=1e-13)
    after = rounds.update(before, batch, decay)
    for j, mine in enumerate(members):
        old = before.weights[j] * decay
        assert after.weights[j] == old + len(mine)
        expected = (old * points[j].astype(np.float64) + x[mine].astype(np.float64).sum(0)) / (old + len(mine))
        np.testing.assert_allclose(after.points[j], expected, rtol=1e-6)


def test_batches_add_up_in_any_division_and_order() -> None:
    rng = np.random.default_rng(2)
    x, points = rng.uniform(-8, 8, (400, 3)).astype(np.float32), nearest.prepare(CORNERS.repeat(2, 1)[:, :3] - 5)
    hashes = ids(400)

    def sums(rows: NDArray[np.intp]) -> BatchSums:
        return rounds.batch_sums(x[rows], hashes[rows], points, EXPONENT, 3, 1)[0]

    whole = rounds.densify(sums(np.arange(400)), 4)
    for parts in (2, 7, 100):
        total = rounds.densify(sums(np.arange(0)), 4)
        for part in np.array_split(rng.permutation(400), parts):
            rounds.add(total, sums(part) if parts != 7 else rounds.densify(sums(part), 4))
        assert total.cost == whole.cost
        assert np.array_equal(total.sums.counts, whole.sums.counts)
        assert np.array_equal(total.sums.values(), whole.sums.values())
        assert np.array_equal(total.far, whole.far)


def test_far_rows_that_cannot_stay_are_left_out() -> None:
    rng = np.random.default_rng(4)
    x, points, hashes = rng.uniform(-8, 8, (400, 2)).astype(np.float32), nearest.prepare(CORNERS[:2]), ids(400)
    whole = rounds.densify(rounds.batch_sums(x, hashes, points, EXPONENT, 3, 1)[0], 2)
    first, second = (
        rounds.batch_sums(x[rows], hashes[rows], points, EXPONENT, 3, 1)[0] for rows in (np.s_[:200], np.s_[200:])
    )
    total = rounds.densify(first, 2)
    fewer, _ = rounds.batch_sums(x[200:], hashes[200:], points, EXPONENT, 3, 1, total)
    assert len(fewer.far) < len(second.far) == len(whole.far) == 8
    assert np.array_equal(rounds.add(total, fewer).far, whole.far)


def test_dense_sums_are_arrays_of_their_own_and_can_be_cropped() -> None:
    batch = batch_of(CORNERS, centers_of([[0, 0], [10, 0]], [0, 0]))
    wide = rounds.densify(batch, 5)
    rounds.add(wide, batch)
    assert batch.sums.counts.tolist() == [2, 2] and wide.sums.counts.tolist() == [4, 4, 0, 0, 0]
    wide.far = wide.far.repeat(20)  # more than two clusters keep
    assert len(rounds.crop(wide, 2).far) == 8
    assert rounds.crop(wide, 2).sums.counts.tolist() == [4, 4] and rounds.crop(wide, 2).sums.values().shape == (2, 2)
