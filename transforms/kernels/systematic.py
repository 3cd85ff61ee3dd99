"""The systematic draw in integers: one random start, equal steps along the cumulated masses of the records.

Madow, "On the theory of systematic sampling, II" (Annals of Mathematical Statistics 20, 1949). The *pass* is an order
of the records: by the rank of the cluster, then by the draw's hash of the id. Each record holds an interval as long as
its integer mass, and is drawn where a selection point lies in it. So the size is exact, no record is drawn twice, the
inclusion probability is exactly mass x draws / total, and each cluster has the floor or the ceiling of its expected
number of draws.

The pass is cut into *cells*, by first bits of the hash, so that a distributed corpus need not be sorted: the exact
masses of the cells tell which of them hold points, and only their rows are looked at. How fine the cells are changes
what is read, never what is drawn.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.kernels import exact, hashing
from tithe.transforms.kernels.threshold import solve

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
U64 = NDArray[np.uint64]

MASS_BITS = 61
"""The masses before rounding up sum to less than 2**61, so with at most 1 more a record the total is below 2**62."""

COARSE = 131_072
"""Coarse cells, whose masses are summed first, or one a cluster where there are more clusters: 1 MB from a bundle. So
many that few of them hold one of some thousands of points, and the other passes look at few rows.
"""

CELLS_A_DRAW = 128
"""Cells for each draw, at least; then the rows of the cells that hold points are about one in CELLS_A_DRAW, beside the
drawn ones."""

DENSE = 8
"""Cells beside each other up to so many times the rows are summed in an array of all of them; more, in sorted order."""

MAX_BITS = 20
"""Bits of a coarse cell at most: 16 MB of masses."""


@dataclass(frozen=True)
class MassScale:
    """Turns proxies into integer masses, once the certain records are known.

    Attributes:
        certain_from: records whose proxy is at least this are certain (infinity where none is), and have no mass.
        exponent: a mass is proxy x 2**exponent, rounded up: at least 1 where the proxy is positive.
        cap: the largest mass. It is that of the largest proxy rounded down, without which rounding could lift a record
            above one draw.
        draws: left for the records that are not certain.
    """

    certain_from: float
    exponent: int
    cap: int
    draws: int

    def certain(self, proxy: Floats) -> NDArray[np.bool_]:
        """Returns which records are drawn whatever the start, (n,)."""
        return proxy >= self.certain_from

    def masses(self, proxy: Floats) -> Ints:
        """Returns the masses, int64, (n,): 0 for certain records and where the proxy is 0."""
        counted = (proxy > 0) & (proxy < self.certain_from)
        scaled = np.ceil(np.ldexp(np.where(counted, proxy, 0.0), self.exponent)).astype(np.int64)
        # A proxy far below the others may have become 0 in float64 before it could be rounded up.
        return np.where(counted, np.clip(scaled, 1, self.cap), 0)


def mass_scale(total: int, largest: Floats, positive: int, size: int) -> MassScale:
    """Returns the scale of a corpus.

    Records are certain, in descending order of their proxies, while proxy x (draws left) >= the sum left, exactly. For
    the others, after rounding, mass x draws < total mass still: let j of them have the largest mass, the cap. Where j
    >= draws that is plain (not all of them can be the whole, or they would be certain); otherwise the others hold more
    than (draws - j) caps before they are rounded, and rounding lifts them.

    Args:
        total: exact sum of all proxies (`exact.exact_sum`).
        largest: the `size` largest proxies (all where there are fewer), float64, descending.
        positive: number of positive proxies; where it is at most `size`, each of them is certain.
        size: sample size, >= 1.
    """
    threshold = solve(total, largest.tolist(), positive, size)
    if positive <= size:
        return MassScale(threshold.certain_from, 0, 1, 0)
    rest = total - exact.exact_sum(largest[: threshold.certain])
    exponent = MASS_BITS + exact.SCALE - rest.bit_length()
    cap = int(np.floor(np.ldexp(largest[threshold.certain], exponent)))
    return MassScale(threshold.certain_from, exponent, max(1, cap), size - threshold.certain)


@dataclass(frozen=True)
class SelectionPoints:
    """The points (start + j total) // draws, j = 0 .. draws - 1, on the cumulated masses 0 .. total - 1.

    A record with the interval [a, b) holds a point for exactly (b - a) draws of the `total` starts.

    Attributes:
        total: mass, 0 <= total < 2**62.
        draws: less than 2**48; 0 where total is.
        start: 0 <= start < total.
    """

    total: int
    draws: int
    start: int

    def below(self, positions: Ints) -> Ints:
        """Returns how many points lie below each position, 0 <= position <= total, int64, of the shape of `positions`.

        That is floor((position x draws + total - 1 - start) / total). The numerator has more than 64 bits: the quotient
        in float64 is wrong by at most one, so the remainder that belongs to it is known modulo 2**64, and puts it
        right.
        """
        if not self.draws:
            return np.zeros(np.shape(positions), np.int64)
        ahead = self.total - 1 - self.start
        quotient = np.floor((positions.astype(np.float64) * self.draws + ahead) / self.total).astype(np.int64)
        numerator = positions.astype(np.uint64) * np.uint64(self.draws) + np.uint64(ahead)
        remainder = (numerator - quotient.astype(np.uint64) * np.uint64(self.total)).view(np.int64)
        return quotient + (remainder >= self.total) - (remainder < 0)

    def inclusion(self, masses: Ints) -> Floats:
        """Returns mass x draws / total rounded once, float64, (n,), for masses of this pass."""
        return np.array([mass * self.draws / self.total for mass in masses.tolist()], np.float64)


def selection_points(total: int, draws: int, seed: int) -> SelectionPoints:
    """Returns the points of a seed; each start has its share of the 64-bit hashes to within one hash."""
    return SelectionPoints(total, draws if total else 0, (hashing.role_key(seed, "start") * total) >> 64)


def first_bits(hashes: U64, bits: Ints | int) -> Ints:
    """Returns the first bits of hashes, int64, (n,); 0 <= bits <= 63, one number or one for each hash."""
    # In two steps, for a shift by 64 is undefined.
    return ((hashes >> np.uint64(1)) >> (63 - np.asarray(bits)).astype(np.uint64)).astype(np.int64)


def coarse_bits(clusters: int) -> int:
    """Returns how many bits of the hash tell the coarse cells of a cluster apart: COARSE cells over all of `clusters`
    >= 1."""
    return max(0, (COARSE // clusters).bit_length() - 1)


def coarse_cells(ranks: Ints, hashes: U64, bits: int) -> Ints:
    """Returns the coarse cell of each record, in the order of the pass.

    Args:
        ranks: rank of the record's cluster, int64, (n,).
        hashes: the draw's hashes, uint64, (n,).
        bits: what `coarse_bits` gave.
    """
    return (ranks << bits) | first_bits(hashes, bits)


@dataclass(frozen=True)
class Cells:
    """The cells of a pass, numbered in its order; made by `lay_cells`.

    Attributes:
        coarse_bits: of a cluster.
        points: of the pass.
        starts: mass before each coarse cell, and the total, int64, (c + 1,).
        holding: coarse cells that hold a point, bool, (c,).
        bits: that cut each coarse cell into cells, int64, (c,).
        offsets: first cell of each coarse cell, and the number of cells, int64, (c + 1,).
    """

    coarse_bits: int
    points: SelectionPoints
    starts: Ints
    holding: NDArray[np.bool_]
    bits: Ints
    offsets: Ints

    def cell(self, coarse: Ints, hashes: U64) -> Ints:
        """Returns the cell of each record, int64, (n,), from its coarse cell and the draw's hash."""
        return self.offsets[coarse] + first_bits(hashes << np.uint64(self.coarse_bits), self.bits[coarse])

    def with_points(self, cells: Ints, masses: Ints) -> tuple[Ints, Ints]:
        """Returns the cells that hold a point, int64, (m,), and the mass before each.

        Args:
            cells: int64, (n,), ascending; of each coarse cell among them, every cell that has mass.
            masses: of the cells, int64, (n,).
        """
        coarse = np.searchsorted(self.offsets, cells, "right") - 1
        before = np.cumsum(masses) - masses
        first = np.searchsorted(coarse, coarse)
        starts = self.starts[coarse] + before - before[first]
        held = self.points.below(starts + masses) > self.points.below(starts)
        return cells[held], starts[held]


def lay_cells(masses: Ints, clusters: int, draws: int, seed: int) -> Cells:
    """Cuts each coarse cell by its share of the mass, so that a cell is expected to hold at most 1 / CELLS_A_DRAW of a
    point.

    Args:
        masses: exact masses of the coarse cells, int64, (clusters << coarse_bits(clusters),).
        clusters: number of clusters.
        draws: of `MassScale`.
        seed: of the sample.
    """
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(masses)])
    points = selection_points(int(starts[-1]), draws, seed)
    # The least b with 2**b >= wanted. Only exact operations and IEEE's four, so that every machine lays the same cells.
    mantissa, exponent = np.frexp(CELLS_A_DRAW * points.draws * (masses / max(1, points.total)))
    bits = np.clip(exponent - (mantissa == 0.5), 0, MAX_BITS).astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.int64(1) << bits)])
    below = points.below(starts)
    return Cells(coarse_bits(clusters), points, starts, below[1:] > below[:-1], bits, offsets)


def sum_cells(cells: Ints, masses: Ints) -> tuple[Ints, Ints]:
    """Returns the distinct cells, ascending, and the exact mass of each, both int64, (m,).

    Args:
        cells: numbers from 0 on, int64, (n,).
        masses: at least 0, int64, (n,).
    """
    low, high = (int(cells.min()), int(cells.max())) if len(cells) else (0, 0)
    if high - low < DENSE * len(cells):
        sums, there = np.zeros(high - low + 1, np.int64), np.zeros(high - low + 1, bool)
        np.add.at(sums, cells - low, masses)  # integers: bincount would add in float64
        there[cells - low] = True
        distinct = np.flatnonzero(there)
        return distinct + low, sums[distinct]
    order = np.argsort(cells)
    cells, masses = cells[order], masses[order]
    first = np.flatnonzero(np.diff(cells, prepend=-1))
    return cells[first], np.add.reduceat(masses, first) if len(first) else masses


def pick(points: SelectionPoints, cells: Ints, starts: Ints, hashes: U64, masses: Ints) -> tuple[Ints, Ints]:
    """Returns which rows are drawn, int64, (m,), in the order of the pass, and the number j of the point of each.

    Args:
        points: of the pass.
        cells: cell of each row, int64, (n,); each cell that occurs is here with all of its rows.
        starts: mass before the row's cell, int64, (n,).
        hashes: the draw's hashes, uint64, (n,); rows of one hash keep their order.
        masses: int64, (n,).
    """
    order = np.lexsort((hashes, cells))
    cells, masses = cells[order], masses[order]
    before = np.cumsum(masses) - masses  # of a part of the pass, so below its total
    low = starts[order] + before - before[np.searchsorted(cells, cells)]
    number = points.below(low)
    drawn = points.below(low + masses) > number
    return order[drawn], number[drawn]


def loss_order(losses: Floats) -> Ints:
    """Returns the rank of each cluster, int64, (k,), by (loss of its anchor, cluster)."""
    return _ranks(np.argsort(losses, kind="stable"))


def chain_order(points: NDArray[np.float32]) -> Ints:
    """Returns the rank of each cluster along a greedy chain: from the center nearest to the origin always on to the
    nearest center not yet visited.

    Args:
        points: finite centers, float32, (k, d); time grows as k**2 d, memory as k d.

    Returns:
        ranks, int64, (k,). Ties by index; distances are float64, of differences summed in one fixed order.
    """
    if not len(points):
        return np.empty(0, np.int64)
    wide = points.astype(np.float64)
    centered = wide - np.median(wide, axis=0)
    near = centered.astype(np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", centered, centered))
    half = (norms**2 / 2).astype(np.float32)
    chain = np.empty(len(points), np.int64)
    at = int(np.einsum("ij,ij->i", wide, wide).argmin())
    for step in range(len(points) - 1):
        chain[step] = at
        # The product is a filter: |c|^2 / 2 - x c orders the centers by distance, up to a generous bound of all its
        # roundings, those of the coordinates among them. The centers already visited are infinitely far.
        half[at] = np.inf
        scores = half - near @ near[at]
        bound = 2.0**-24 * (points.shape[1] + 8) * (norms + norms[at]) ** 2
        contenders = np.flatnonzero(scores - bound <= (scores + bound).min())
        differences = wide[contenders] - wide[at]
        at = int(contenders[np.einsum("ij,ij->i", differences, differences).argmin()])
    chain[-1] = at
    return _ranks(chain)


def _ranks(order: Ints) -> Ints:
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks
