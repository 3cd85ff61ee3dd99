"""The whole method once more, slow and obvious: plain loops over rows in float64, full sorts, fractions.

Written apart from the code that it checks. It shares with it the definition of chance alone (which hash stands for
which record, seed and role), and takes the first centers as given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.kernels import hashing

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]
U64 = NDArray[np.uint64]

HASHES = 2**64
CENTERING_ROWS = 4096
DECAY = 0.2
SPARES = 4


@dataclass(frozen=True)
class Settings:
    """The numbers of a configuration; `batch` is the share of the records that a round reads."""

    count: int
    rounds: int
    batch: float
    seed: int


@dataclass(frozen=True)
class Clustering:
    """What clustering gives.

    Attributes:
        centers: the last means, float32, (m, d).
        representatives: row of each cluster's representative, in the order of the clusters.
        cluster: of each row, int64, (n,).
        squared: distance of each row to its representative, float64, (n,).
        missing: clusters that had no row in the last batch.
    """

    centers: Vectors
    representatives: list[int]
    cluster: NDArray[np.int64]
    squared: Floats
    missing: list[int]


@dataclass(frozen=True)
class Draw:
    """A drawn record: how often, and its expected multiplicity."""

    multiplicity: int
    expected: float


def id_hashes(ids: list[str]) -> U64:
    """The hash of each id, uint64, (n,)."""
    return np.array([hashing.hash_text(i) for i in ids], np.uint64)


def center(vectors: Vectors, hashes: U64) -> Vectors:
    """The vectors less the median of those with the smallest hashes."""
    share = CENTERING_ROWS / len(vectors)
    sample = [i for i, h in enumerate(hashes.tolist()) if share >= 1 or h < share * HASHES]
    origin = np.median(vectors[sample].astype(np.float64), axis=0).astype(np.float32)
    return vectors - origin


def batch_rows(hashes: U64, settings: Settings, number: int, rounds: int = 1) -> list[int]:
    """The rows of the batches of rounds up to a number: their hashes lie in ranges that follow each other."""
    width = int(settings.batch * HASHES)
    start = hashing.role_key(settings.seed, "batches") + (number - rounds) * width
    return [i for i, h in enumerate(hashes.tolist()) if (h - start) % HASHES < rounds * width]


def assign(row: Vectors, centers: Vectors) -> tuple[int, float]:
    """The nearest center, ties by index, and the squared distance to it."""
    squared = ((row.astype(np.float64) - centers.astype(np.float64)) ** 2).sum(1)
    nearest = int(squared.argmin())
    return nearest, float(squared[nearest])


def far_rows(rows: list[int], squared: list[float], hashes: U64, seed: int, role: str, count: int) -> list[int]:
    """Rows drawn without replacement in proportion to squared distance, in the order of the draw."""
    uniforms = hashing.uniform(hashing.role_hash(hashes, seed, role))
    keys = [(-math.log(uniforms[i]) / d, int(hashes[i]), i) for i, d in zip(rows, squared, strict=True) if d > 0]
    return [i for _, _, i in sorted(keys)[:count]]


def choose_far(x: Vectors, far: list[int], squared: dict[int, float], count: int) -> list[int]:
    """Those of the far rows, one of each point, that centers without rows move to: each time the row that takes away
    most of what the rows cost, each in shares of its own squared distance, the farthest a hundredth of a row more.
    """
    distinct: list[int] = []
    for i in far:
        if not any(np.array_equal(x[i], x[other]) for other in distinct):
            distinct.append(i)
    if len(distinct) <= count:
        return distinct
    apart = {i: ((x[distinct].astype(np.float64) - x[i].astype(np.float64)) ** 2).sum(1).tolist() for i in distinct}
    left, most = [squared[i] for i in distinct], max(squared[i] for i in distinct)
    chosen: list[int] = []
    for _ in range(count):
        gains = {
            j: sum(max(still - d, 0) / squared[i] for i, still, d in zip(distinct, left, apart[j], strict=True))
            + 0.01 * squared[j] / most
            for j in distinct
            if j not in chosen
        }
        best = max(gains, key=lambda j: gains[j])
        chosen.append(best)
        left = [min(still, d) for still, d in zip(left, apart[best], strict=True)]
    return chosen


def run_round(
    x: Vectors, hashes: U64, centers: Vectors, weights: list[float], settings: Settings, number: int
) -> tuple[Vectors, list[float]]:
    """The centers and their weights after a round."""
    rows = batch_rows(hashes, settings, number)
    found = [assign(x[i], centers) for i in rows]
    decay = 0.0 if settings.batch >= 1 else DECAY
    points, after = centers.copy(), []
    starved = []
    for j in range(len(centers)):
        mine = [i for i, (cluster, _) in zip(rows, found, strict=True) if cluster == j]
        old = weights[j] * decay
        after.append(old + len(mine))
        if mine:
            sums = [math.fsum(x[i, c] for i in mine) for c in range(x.shape[1])]
            mean = [(float(centers[j, c]) * old + sums[c]) / after[j] for c in range(x.shape[1])]
            points[j] = np.array(mean, np.float32)
        elif after[j] < 1:
            starved.append(j)
    squared = {i: d for i, (_, d) in zip(rows, found, strict=True)}
    kept = max(8, min(2 * len(centers), 2048), len(centers) // 4)
    far = far_rows(rows, list(squared.values()), hashes, settings.seed, f"far/{number}", kept)
    for j, i in zip(starved, choose_far(x, far, squared, len(starved)), strict=False):
        points[j], after[j] = x[i], 1.0
    return points, after


def represent(
    x: Vectors, hashes: U64, centers: Vectors, before: Vectors, settings: Settings
) -> tuple[list[int], list[int]]:
    """The representatives in the order of their hashes, and the clusters that have no row in the last batch.

    `before` are the centers of the round before the last: they say in which cluster a row is.
    """
    rows = batch_rows(hashes, settings, settings.rounds)
    found = [(c, assign(x[i], centers[c : c + 1])[1]) for i in rows for c in [assign(x[i], before)[0]]]
    chosen: list[int] = []

    def is_taken(i: int) -> bool:
        return any(np.array_equal(x[i], x[other]) for other in chosen)

    missing = []
    for j in range(len(centers)):
        mine = [(d, int(hashes[i]), i) for i, (cluster, d) in zip(rows, found, strict=True) if cluster == j]
        if mine:
            chosen.append(min(mine)[2])
        else:
            missing.append(j)
    # Those look among the rows of the last two batches, as if there were no other clusters.
    left = len(missing)
    if missing and settings.batch < 1:
        wider = batch_rows(hashes, settings, settings.rounds, 2)
        late = [assign(x[i], centers[missing]) for i in wider]
        for place in range(len(missing)):
            mine = [(d, int(hashes[i]), i) for i, (cluster, d) in zip(wider, late, strict=True) if cluster == place]
            free = [i for _, _, i in sorted(mine)[:SPARES] if not is_taken(i)]
            if free:
                chosen.append(free[0])
                left -= 1
    last = max(8, len(centers) // 4)
    for i in far_rows(rows, [d for _, d in found], hashes, settings.seed, "representatives", last):
        if left and not is_taken(i):
            chosen.append(i)
            left -= 1
    return sorted(chosen, key=lambda i: int(hashes[i])), missing


def cluster(vectors: Vectors, hashes: U64, seeds: Vectors, settings: Settings) -> Clustering:
    """Rounds from the first centers on, representatives, and the nearest representative of every row."""
    x = center(vectors, hashes)
    before = centers = seeds
    weights = [0.0] * len(seeds)
    for number in range(1, settings.rounds + 1):
        before = centers
        centers, weights = run_round(x, hashes, centers, weights, settings, number)
    representatives, missing = represent(x, hashes, centers, before, settings)
    found = [assign(row, x[representatives]) for row in x]
    return Clustering(
        centers, representatives, np.array([c for c, _ in found]), np.array([d for _, d in found]), missing
    )


def proxies(losses: Floats, found: Clustering) -> Floats:
    """Loss of the representative + L x squared distance, with the L that gives both terms one total."""
    suggested = [float(losses[found.representatives[c]]) for c in found.cluster.tolist()]
    lipschitz = math.fsum(suggested) / math.fsum(found.squared)
    return np.array([loss + lipschitz * d for loss, d in zip(suggested, found.squared.tolist(), strict=True)])


def inclusion(proxy: Floats, size: int) -> list[float]:
    """min(1, tau x proxy) with the sum `size`: certain records are taken out one by one, the largest first."""
    masses = {i: Fraction(p) for i, p in enumerate(proxy.tolist())}
    out = [0.0] * len(proxy)
    left = size
    while left:
        total = sum(masses.values())
        largest = max(masses, key=lambda i: masses[i])
        if masses[largest] * left < total:
            return [float(masses[i] * left / total) if i in masses else p for i, p in enumerate(out)]
        out[largest] = 1.0
        del masses[largest]
        left -= 1
    return out


def draw_pareto(proxy: Floats, hashes: U64, seed: int, size: int) -> dict[int, Draw]:
    """The `size` smallest of u (1 - pi) / ((1 - u) pi)."""
    pi = inclusion(proxy, size)
    uniforms = hashing.uniform(hashing.role_hash(hashes, seed, "draw")).tolist()
    keys = [u * (1 - p) / ((1 - u) * p) for u, p in zip(uniforms, pi, strict=True)]
    order = sorted(range(len(keys)), key=lambda i: (keys[i], int(hashes[i])))
    return {i: Draw(1, pi[i]) for i in order[:size]}


def draw_multinomial(proxy: Floats, hashes: U64, seed: int, size: int) -> dict[int, Draw]:
    """The records of the `size` earliest arrivals, each record at its own rate proxy / total."""
    rates = (proxy / math.fsum(proxy)).tolist()
    horizon = 3 * size  # all together they arrive at the rate 1
    arrivals: list[tuple[float, int]] = []
    clock, j = [0.0] * len(rates), 0
    while min(clock) < horizon:
        uniforms = hashing.uniform(hashing.role_hash(hashes, seed, "arrival", j)).tolist()
        clock = [t - math.log(u) / rate for t, u, rate in zip(clock, uniforms, rates, strict=True)]
        arrivals += [(t, i) for i, t in enumerate(clock)]
        j += 1
    arrivals = sorted(arrivals)[:size]
    assert arrivals[-1][0] < horizon
    drawn = [i for _, i in arrivals]
    return {i: Draw(drawn.count(i), size * rates[i]) for i in set(drawn)}
