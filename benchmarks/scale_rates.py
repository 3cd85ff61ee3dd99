"""What one core does in the inner loops of a selection: the best of several, since the machine may be busy."""

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from bench_data import mixture
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tithe.transforms import vectors
from tithe.transforms.kernels import exact, rounds, search, seeding
from tithe.transforms.kernels.proxy import smoothed_loss

BLOCK = 2048
"""Rows of a block, about what a round reads of a split."""

SCORES = 65_536
"""Rows of scores read as proxies."""


@dataclass(frozen=True)
class Rates:
    """What one core does, with k points of d numbers.

    Attributes:
        product: of float32 matrices, in flop a second.
        search, several: seconds a row of the nearest point, and of the q nearest.
        round: seconds a row of a round: the search, and the sums, folded into those of the bundle.
        prepare: seconds to make the points ready for search.
        passed: seconds a candidate of one pass of k-means++.
        proxy: seconds a record of its proxy, and of adding that up.
        add, cut: bytes a second of sums that are unpickled and added, and that are cut into limbs.
        chain: bytes a second of centers in a product with one of them.
        read: bytes a second of an .npy file in the system's cache.
    """

    product: float
    search: float
    several: float
    round: float
    prepare: float
    passed: float
    proxy: float
    add: float
    cut: float
    chain: float
    read: float


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """Returns the fewest seconds that the work took."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def measure_rates(k: int, d: int, q: int, folder: Path) -> Rates:
    """Returns the rates for k points of d numbers, all of one core; `folder` is for a file of 64 MB at least."""
    with threadpool_limits(1):
        rows, points = mixture(d, 0)(BLOCK), mixture(d, 1)(k)
        start = time.perf_counter()
        prepared = search.prepare(points)
        prepare = time.perf_counter() - start
        squares = mixture(d, 2)(1024)
        path = str(folder / "rates.npy")
        vectors.write_array(path, mixture(d, 3)(max(1, 2**24 // d)))
        add, cut = _sums(d)
        return Rates(
            product=2 * len(squares) ** 2 * d / seconds(lambda: squares @ squares.T, 10),
            search=seconds(lambda: search.search(rows, prepared)) / len(rows),
            several=seconds(lambda: search.search(rows, prepared, q)) / len(rows),
            round=_round(rows, prepared),
            prepare=prepare,
            passed=_pass(k, d),
            proxy=_proxies(k, q),
            add=add,
            cut=cut,
            chain=points.nbytes / seconds(lambda: points @ points[0]),
            read=4 * d * max(1, 2**24 // d) / seconds(lambda: vectors.read_array(path)),
        )


def _round(rows: NDArray[np.float32], prepared: search.Prepared) -> float:
    hashes = np.random.default_rng(1).integers(0, 2**63, len(rows)).astype(np.uint64)
    block, _ = rounds.batch_sums(rows, hashes, prepared, 3, 1, 1)
    total = rounds.densify(block, len(prepared.exact))

    def work() -> None:
        rounds.add(total, rounds.batch_sums(rows, hashes, prepared, 3, 1, 1)[0])

    return seconds(work) / len(rows)


def _pass(k: int, d: int) -> float:
    """Of one pass, which compares the candidates with as many centers as k-means++ takes at a time."""
    candidates, together = mixture(d, 4)(seeding.ROWS), max(1, k // seeding.BATCHES)
    weights = np.ones(len(candidates))
    with mock.patch.object(seeding, "BATCHES", 1):  # one pass for all that are asked for
        return seconds(lambda: seeding.plus_plus(candidates, weights, together, 1)) / len(candidates)


def _proxies(k: int, q: int) -> float:
    generator = np.random.default_rng(1)
    losses, near = generator.random(k), generator.integers(0, k, (SCORES, q))
    squared = np.sort(generator.random((SCORES, q), np.float32), axis=1)
    return seconds(lambda: exact.exact_sum(smoothed_loss(losses, near, squared))) / SCORES


def _sums(d: int) -> tuple[float, float]:
    clusters = 2**24 // d // 8  # 16 MB
    one = exact.densify(exact.vector_sums(mixture(d, 5)(clusters), np.arange(clusters), 3), clusters)
    stored, total = pickle.dumps(one, pickle.HIGHEST_PROTOCOL), pickle.loads(pickle.dumps(one))

    def add() -> None:
        total.held[:] = 0  # nothing is cut
        exact.add(total, pickle.loads(stored))

    bytes_of_one = float(one.grid.nbytes)
    return bytes_of_one / seconds(add, 5), bytes_of_one / seconds(lambda: exact.cut(total), 5)
