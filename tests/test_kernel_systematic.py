"""The systematic draw, its integers, cells and orders."""

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tithe.transforms.kernels import draws, exact, hashing, systematic
from tithe.transforms.kernels.systematic import Cells, MassScale, SelectionPoints

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
U64 = NDArray[np.uint64]


def scale_of(proxy: Floats, size: int) -> MassScale:
    largest = np.sort(proxy)[::-1][:size]
    return systematic.mass_scale(exact.exact_sum(proxy), largest, int(np.count_nonzero(proxy)), size)


def cells_of(ranks: Ints, clusters: int, hashes: U64, masses: Ints, draws_left: int, seed: int) -> tuple[Cells, Ints]:
    coarse = systematic.coarse_cells(ranks, hashes, systematic.coarse_bits(clusters))
    sums = np.zeros(clusters << systematic.coarse_bits(clusters), np.int64)
    np.add.at(sums, coarse, masses)
    return systematic.lay_cells(sums, clusters, draws_left, seed), coarse


def run_pass(cells: Cells, coarse: Ints, hashes: U64, masses: Ints) -> tuple[Ints, Ints]:
    """The pass by cells, as over a corpus: returns the rows drawn and the numbers of their points."""
    rows = np.flatnonzero(cells.holding[coarse] & (masses > 0))
    cell = cells.cell(coarse[rows], hashes[rows])
    held, starts = cells.with_points(*systematic.sum_cells(cell, masses[rows]))
    gathered = np.isin(cell, held)
    rows, cell = rows[gathered], cell[gathered]
    drawn, numbers = systematic.pick(
        cells.points, cell, starts[np.searchsorted(held, cell)], hashes[rows], masses[rows]
    )
    return rows[drawn], numbers


def draw(proxy: Floats, ranks: Ints, ids: U64, seed: int, size: int) -> tuple[Ints, Ints, Floats]:
    """The whole draw in memory: rows, numbers (-1 where certain) and inclusion probabilities."""
    scale, hashes = scale_of(proxy, size), hashing.role_hash(ids, seed, "draw")
    masses = scale.masses(proxy)
    cells, coarse = cells_of(ranks, int(ranks.max()) + 1, hashes, masses, scale.draws, seed)
    rows, numbers = run_pass(cells, coarse, hashes, masses)
    certain = np.flatnonzero(scale.certain(proxy))
    inclusion = cells.points.inclusion(masses[rows])
    return (
        np.concatenate([certain, rows]),
        np.concatenate([np.full(len(certain), -1), numbers]),
        np.concatenate([np.ones(len(certain)), inclusion]),
    )


def plain_certain(values: list[int], size: int) -> set[int]:
    """The certain records of integer proxies, in descending order, in Python's integers."""
    order = sorted((i for i, v in enumerate(values) if v), key=lambda i: (-values[i], i))
    if len(order) <= size:
        return set(order)
    left, rest, out = size, sum(values), set()
    for i in order:
        if not left or values[i] * left < rest:
            break
        out.add(i)
        left, rest = left - 1, rest - values[i]
    return out


def plain_pass(masses: list[int], order: list[int], count: int, start: int) -> dict[int, int]:
    """The pass in Python's integers: row -> number of its point."""
    total, at, out = sum(masses), 0, {}
    points = [(start + j * total) // count for j in range(count)]
    for i in order:
        inside = [j for j, p in enumerate(points) if at <= p < at + masses[i]]
        assert len(inside) <= 1
        if inside:
            out[i] = inside[0]
        at += masses[i]
    return out


def points_below(points: SelectionPoints, position: int) -> int:
    """How many points lie below: (start + j total) // draws < position, that is j total < position draws - start."""
    return max(0, -((points.start - position * points.draws) // points.total))


def population(seed: int) -> tuple[Floats, Ints, U64, int]:
    """Small integer proxies with zeros, ties and giants; ranks of clusters, ids, and a size."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 14))
    proxy = rng.integers(0, 6, n).astype(float)
    proxy[rng.random(n) < 0.15] = float(rng.choice([15, 40, 200]))
    proxy[int(rng.integers(n))] = 3.0
    ids = hashing.hash_integers(rng.integers(0, 2**62, n))
    return proxy, rng.integers(0, 4, n), ids, int(rng.integers(1, n))


@pytest.mark.slow
def test_every_start_of_300_populations() -> None:
    for seed in range(300):
        proxy, ranks, ids, size = population(seed)
        n, scale, hashes = len(proxy), scale_of(proxy, size), hashing.role_hash(ids, seed, "draw")
        certain = plain_certain([int(p) for p in proxy], size)
        assert set(np.flatnonzero(scale.certain(proxy)).tolist()) == certain
        assert scale.draws == min(size, int((proxy > 0).sum())) - len(certain)
        masses = scale.masses(proxy)
        # Integer proxies keep their ratios: masses are multiples of a power of two, and so are the starts that differ.
        small = [0 if i in certain else int(p) for i, p in enumerate(proxy)]
        total, unit = sum(small), 1 << scale.exponent
        assert masses.tolist() == [m * unit if scale.draws else 0 for m in small]
        if not scale.draws:
            continue
        cells, coarse = cells_of(ranks, 4, hashes, masses, scale.draws, seed)
        assert cells.points.total == total * unit
        order = sorted(range(n), key=lambda i: (ranks[i], hashes[i]))
        times = np.zeros(n, int)
        for start in range(total):
            points = dataclasses.replace(cells.points, start=start * unit)
            below = points.below(cells.starts)
            holding = below[1:] > below[:-1]
            rows, numbers = run_pass(dataclasses.replace(cells, points=points, holding=holding), coarse, hashes, masses)
            assert len(rows) == scale.draws == len(set(rows.tolist()))
            drawn = dict(zip(rows.tolist(), numbers.tolist(), strict=True))
            assert drawn == plain_pass(small, order, scale.draws, start)
            times[rows] += 1
            for rank in range(4):
                mass = sum(m for m, r in zip(small, ranks, strict=True) if r == rank)
                expected = Fraction(mass * scale.draws, total)
                found = int(np.count_nonzero(ranks[rows] == rank))
                assert math.floor(expected) <= found <= math.ceil(expected)
        assert times.tolist() == [m * scale.draws for m in small]  # over `total` starts: exactly m s / M
        assert cells.points.inclusion(masses).tolist() == [m * scale.draws / total for m in small]


@given(st.data())
def test_points_are_counted_exactly_up_to_the_limits_of_int64(data: st.DataObject) -> None:
    total = data.draw(st.one_of(st.integers(1, 50), st.integers(2**62 - 100, 2**62 - 1), st.integers(1, 2**62 - 1)))
    count = data.draw(st.one_of(st.integers(1, 60), st.integers(1, 2**40)))
    start = data.draw(st.one_of(st.just(0), st.just(total - 1), st.integers(0, total - 1)))
    j = data.draw(st.lists(st.integers(0, count - 1), max_size=5))
    near = {(start + i * total) // count + d for i in j for d in (-1, 0, 1)}
    anywhere = set(data.draw(st.lists(st.integers(0, total), max_size=5)))
    positions = sorted(b for b in near | anywhere | {0, total} if 0 <= b <= total)
    got = SelectionPoints(total, count, start).below(np.array(positions))
    assert got.tolist() == [points_below(SelectionPoints(total, count, start), b) for b in positions]
    assert got[0] == 0 and got[-1] == count


def test_a_million_points_are_counted_in_many_cells() -> None:
    rng = np.random.default_rng(0)
    masses = rng.integers(1, 2**40, 4_000_000)
    starts = np.cumsum(masses)
    points = systematic.selection_points(int(starts[-1]), 1_000_000, 1)
    below = points.below(starts)
    assert below[-1] == 1_000_000 and np.all(np.diff(below) >= 0)
    some = rng.integers(0, len(starts), 1000)
    assert below[some].tolist() == [points_below(points, b) for b in starts[some].tolist()]


@given(
    st.lists(
        st.one_of(
            st.sampled_from([0.0, 5e-324, 1.0, 1.5, 1e-300, 1e300]),
            st.floats(0, 1e6, allow_nan=False),
            st.floats(0.999999, 1.000001),
        ),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 40),
)
def test_no_mass_is_worth_more_than_a_draw_at_any_scale(values: list[float], size: int) -> None:
    proxy = np.array(values)
    scale = scale_of(proxy, size)
    masses = scale.masses(proxy)
    assert np.all((masses > 0) == ((proxy > 0) & ~scale.certain(proxy)))
    total = sum(masses.tolist())
    assert total < 2**62
    assert scale.draws == min(size, int((proxy > 0).sum())) - int(scale.certain(proxy).sum())
    if scale.draws:
        assert max(masses.tolist()) * scale.draws < total
    order = np.argsort(proxy)
    assert np.all(np.diff(masses[order][~scale.certain(proxy)[order]]) >= 0)


def test_rounding_never_lifts_a_record_above_one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systematic, "MASS_BITS", 7)  # so coarse a scale that rounding matters for every record
    rng = np.random.default_rng(5)
    lifted = 0
    for _ in range(3000):
        n, size = int(rng.integers(2, 30)), int(rng.integers(1, 29))
        proxy = np.concatenate([rng.random(n) ** rng.integers(1, 9), np.full(rng.integers(0, 9), rng.random())])
        scale = scale_of(proxy, size)
        masses = scale.masses(proxy)
        if scale.draws:
            assert masses.max() * scale.draws < masses.sum()
            without_cap = np.ceil(np.ldexp(proxy[~scale.certain(proxy)].max(), scale.exponent))
            lifted += int(without_cap * scale.draws >= masses.sum())
    assert lifted  # without the cap it would have


def test_one_record_holds_nearly_all() -> None:
    proxy = np.concatenate([[1e300], np.full(50, 1e-20), [0.0]])
    scale = scale_of(proxy, 6)
    assert np.flatnonzero(scale.certain(proxy)).tolist() == [0] and scale.draws == 5
    masses = scale.masses(proxy)
    assert masses[1] > 2**50 and np.all(masses[1:51] == masses[1]) and masses[51] == 0
    rows, numbers, inclusion = draw(proxy, np.zeros(52, np.int64), hashing.hash_integers(np.arange(52)), 1, 6)
    assert rows[0] == 0 and len(rows) == 6 and numbers.tolist() == [-1, 0, 1, 2, 3, 4]
    assert inclusion.tolist() == [1.0] + [0.1] * 5


def test_a_proxy_far_below_the_others_keeps_a_mass() -> None:
    proxy = np.array([1e300, 1e300, 1e300, 5e-324])
    scale = scale_of(proxy, 2)
    assert scale.masses(proxy)[3] == 1 and not scale.certain(proxy).any()


def test_fewer_positive_records_than_draws_are_all_certain() -> None:
    proxy = np.array([0.0, 2.0, 0.0, 1e-9])
    rows, numbers, inclusion = draw(proxy, np.zeros(4, np.int64), hashing.hash_integers(np.arange(4)), 3, 3)
    assert (rows.tolist(), numbers.tolist(), inclusion.tolist()) == ([1, 3], [-1, -1], [1.0, 1.0])
    nothing = draw(np.zeros(4), np.zeros(4, np.int64), hashing.hash_integers(np.arange(4)), 3, 3)
    assert len(nothing[0]) == 0


def test_all_become_certain_one_after_the_other() -> None:
    proxy = np.ldexp(np.ones(30), np.arange(30))  # each holds more than half of what is left, but for the last two
    scale = scale_of(proxy, 28)
    assert np.flatnonzero(~scale.certain(proxy)).tolist() == [0, 1, 2] and scale.draws == 1


def test_the_total_is_near_the_limit_and_equal_masses_are_exact() -> None:
    n = 1023
    proxy = np.full(n, 0.1)
    scale = scale_of(proxy, 100)
    masses = scale.masses(proxy)
    total = sum(masses.tolist())
    assert 2**60 <= total < 2**62
    points = systematic.selection_points(total, scale.draws, 3)
    ends = np.cumsum(masses)
    drawn = points.below(ends) - points.below(ends - masses)
    assert drawn.sum() == 100 and drawn.max() == 1
    assert np.all(points.inclusion(masses) == 100 / 1023)


def test_neither_the_order_of_the_rows_nor_their_number_of_cells_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    n = 3000
    proxy, ids = rng.lognormal(0, 2, n), hashing.hash_integers(np.arange(n))
    ranks = rng.integers(0, 12, n)
    rows, numbers, inclusion = draw(proxy, ranks, ids, 9, 200)
    by_id = {int(ids[r]): (j, p) for r, j, p in zip(rows, numbers.tolist(), inclusion.tolist(), strict=True)}
    order = rng.permutation(n)
    layouts = [(16_384, 128, 20), (1, 128, 20), (1, 1, 0), (16, 8, 2), (2**18, 1000, 20)]
    for coarse, cells_a_draw, bits in layouts:
        monkeypatch.setattr(systematic, "COARSE", coarse)
        monkeypatch.setattr(systematic, "CELLS_A_DRAW", cells_a_draw)
        monkeypatch.setattr(systematic, "MAX_BITS", bits)
        again, j, p = draw(proxy[order], ranks[order], ids[order], 9, 200)
        assert by_id == {int(ids[order[r]]): (a, b) for r, a, b in zip(again, j.tolist(), p.tolist(), strict=True)}


def test_a_cell_rarely_holds_more_than_the_drawn_row() -> None:
    rng = np.random.default_rng(2)
    n, size = 60_000, 600
    proxy, ids, ranks = rng.lognormal(0, 1.5, n), hashing.hash_integers(np.arange(n)), rng.integers(0, 300, n)
    scale, hashes = scale_of(proxy, size), hashing.role_hash(ids, 0, "draw")
    masses = scale.masses(proxy)
    cells, coarse = cells_of(ranks, 300, hashes, masses, scale.draws, 0)
    assert cells.offsets[-1] <= 2 * 128 * size + (300 << cells.coarse_bits)
    kept = cells.holding[coarse] & (masses > 0)
    cell = cells.cell(coarse[kept], hashes[kept])
    held, _ = cells.with_points(*systematic.sum_cells(cell, masses[kept]))
    assert np.count_nonzero(np.isin(cell, held)) <= n / 20


def test_weighted_totals_are_unbiased_over_seeds() -> None:
    rng = np.random.default_rng(3)
    n, size, seeds = 60, 12, 2000
    proxy = np.round(rng.lognormal(0, 1, n), 1)
    proxy[:6], proxy[6:20], proxy[20] = 0, 0.7, 500.0
    values = rng.normal(5, 2, n) * (proxy > 0)
    ids, ranks = hashing.hash_integers(np.arange(n)), rng.integers(0, 5, n)
    totals, times, expected = np.empty(seeds), np.zeros(n), np.zeros(n)
    left = scale_of(proxy, size).draws
    for seed in range(seeds):
        rows, numbers, inclusion = draw(proxy, ranks, ids, seed, size)
        assert len(rows) == size == len(set(rows.tolist()))
        assert sorted(numbers.tolist()) == [-1] * (size - left) + list(range(left))
        totals[seed] = np.sum(values[rows] / inclusion)
        times[rows] += 1
        expected[rows] = inclusion
    error = totals.std(ddof=1) / math.sqrt(seeds)
    assert abs(totals.mean() - values.sum()) <= 3 * error
    seen = (expected > 0) & (expected < 1)
    spread = np.sqrt(seeds * expected[seen] * (1 - expected[seen]))
    assert np.abs((times[seen] - seeds * expected[seen]) / spread).max() < 4  # 53 records
    assert np.all(times[expected == 1] == seeds) and times[:6].sum() == 0


def test_poisson_draws_each_record_for_itself() -> None:
    inclusion = np.tile([0.0, 0.05, 0.5, 0.9, 1.0], 40)
    ids, seeds = hashing.hash_integers(np.arange(len(inclusion))), 2000
    values = 1.0 + np.arange(len(inclusion))
    times, totals = np.zeros(len(inclusion)), np.empty(seeds)
    for seed in range(seeds):
        drawn = draws.poisson_drawn(inclusion, ids, seed)
        times += drawn
        totals[seed] = np.sum(values[drawn] / inclusion[drawn])
    assert times[inclusion == 0].sum() == 0 and np.all(times[inclusion == 1] == seeds)
    middle = (inclusion > 0) & (inclusion < 1)
    spread = np.sqrt(seeds * inclusion[middle] * (1 - inclusion[middle]))
    assert np.abs((times[middle] - seeds * inclusion[middle]) / spread).max() < 4
    error = totals.std(ddof=1) / math.sqrt(seeds)
    assert abs(totals.mean() - values[inclusion > 0].sum()) <= 3 * error


def test_first_bits() -> None:
    hashes = np.array([0, 2**63, 2**64 - 1, 0b1011 << 60], np.uint64)
    assert systematic.first_bits(hashes, 0).tolist() == [0, 0, 0, 0]
    assert systematic.first_bits(hashes, 2).tolist() == [0, 2, 3, 2]
    assert systematic.first_bits(hashes, np.array([63, 63, 63, 4])).tolist() == [0, 2**62, 2**63 - 1, 11]


@pytest.mark.parametrize(("clusters", "bits"), [(1, 17), (2, 16), (3, 15), (131_072, 0), (131_073, 0), (10**6, 0)])
def test_coarse_bits(clusters: int, bits: int) -> None:
    assert systematic.coarse_bits(clusters) == bits


def test_clusters_go_by_loss_then_by_index() -> None:
    assert systematic.loss_order(np.array([2.0, 1.0, 2.0, 0.0])).tolist() == [2, 1, 3, 0]


def plain_chain(points: NDArray[np.float32]) -> list[int]:
    wide = points.astype(np.float64)
    left = list(range(len(points)))
    at = min(left, key=lambda i: (float(wide[i] @ wide[i]), i))
    ranks = [0] * len(points)
    for rank in itertools.count():
        ranks[at] = rank
        left.remove(at)
        if not left:
            return ranks
        at = min(left, key=lambda i: (float(np.sum((wide[i] - wide[at]) ** 2)), i))
    raise AssertionError("the chain ends with the points")


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("grid", [False, True])
def test_the_chain_goes_on_to_the_nearest_center(offset: float, grid: bool) -> None:
    rng = np.random.default_rng(4)
    for k in (1, 2, 7, 120):
        points = (rng.normal(0, 1, (k, 3)) + offset).astype(np.float32)
        if grid:  # with ties and repeated points
            points = np.round(points)
        assert systematic.chain_order(points).tolist() == plain_chain(points)


def test_the_chain_of_no_centers_is_empty_and_a_far_one_comes_last() -> None:
    assert systematic.chain_order(np.empty((0, 4), np.float32)).tolist() == []
    points = np.array([[1e12, 0], [0, 0], [2, 0], [1, 0]], np.float32)
    assert systematic.chain_order(points).tolist() == [3, 0, 2, 1]


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.sampled_from([1, 5, 1000, 1 << 40]))
def test_masses_of_cells_are_added_up_exactly(seed: int, n: int, spread: int) -> None:
    """In an array of all cells where they lie close, in sorted order where they do not."""
    rng = np.random.default_rng(seed)
    cells, masses = 7 + rng.integers(0, spread, n), rng.integers(0, 1 << 55, n)
    expected: dict[int, int] = {}
    for cell, mass in zip(cells.tolist(), masses.tolist(), strict=True):
        expected[cell] = expected.get(cell, 0) + mass
    distinct, sums = systematic.sum_cells(cells, masses)
    assert distinct.dtype == sums.dtype == np.int64
    assert list(zip(distinct.tolist(), sums.tolist(), strict=True)) == sorted(expected.items())
