"""The sample stage: exact totals of the proxy, then the draw, a bottom-s reservoir over keys that depend on the record
alone.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.kernels import draws, estimators, exact
from tithe.transforms.kernels.bottom import bottom
from tithe.transforms.kernels.proxy import power_of_distance, smoothed_loss
from tithe.transforms.kernels.threshold import Threshold, solve
from tithe.transforms.parallel import ReadPlan, SplitDoFn, once_a_process
from tithe.transforms.vectors import Part

Floats = NDArray[np.float64]

CHOSEN = np.dtype(
    [
        ("key", "<f8"),
        ("hash", "<u8"),
        ("split", "<i8"),
        ("piece", "<i4"),
        ("position", "<i8"),
        ("cluster", "<i8"),
        ("squared", "<f8"),
        ("proxy", "<f8"),
        ("expected", "<f8"),
        ("multiplicity", "<i8"),
        ("order", "<i8"),
    ]
)
"""A drawn record: where it is, its expected multiplicity (its inclusion probability where no record is drawn twice),
and its rank in the pass of the systematic draw (-1: certain, or another draw)."""


@dataclass(frozen=True)
class ProxyRule:
    """How scores and losses become the proxy that a draw is proportional to.

    Attributes:
        neighbors: anchors that the loss is smoothed over; 1 takes the nearest anchor's loss as it is.
        power: of the distance, 1 or 2.
        lipschitz: its weight.
        floor: share u of the total that is spread evenly; 1 for constant probabilities.
        uniform: the mean of the proxy without the floor: what a record has of an even spread.
    """

    neighbors: int
    power: int
    lipschitz: float
    floor: float = 0.0
    uniform: float = 0.0

    def terms(self, losses: Floats, scores: NDArray[np.void]) -> tuple[Floats, Floats]:
        """Returns the loss that the anchors suggest and the distance to the power in use, float64, (n,) each."""
        q = self.neighbors
        suggested = smoothed_loss(losses, scores["anchor"][:, :q], scores["squared"][:, :q])
        return suggested, power_of_distance(scores["squared"][:, 0], self.power)

    def proxy(self, losses: Floats, scores: NDArray[np.void]) -> Floats:
        """Returns the proxy of each record, float64, (n,)."""
        if self.floor == 1:
            return np.full(len(scores), self.uniform)
        suggested, distance = self.terms(losses, scores)
        return (1 - self.floor) * (suggested + self.lipschitz * distance) + self.floor * self.uniform


@dataclass(frozen=True)
class Proxies:
    """Reads scores/ as proxies.

    Attributes:
        vectors_folder: of vectors/, for id hashes and positions.
        scores_folder: of scores/.
        losses: path of the anchors' losses, float64, (k,).
        rule: of the proxy.
    """

    vectors_folder: str
    scores_folder: str
    losses: str
    rule: ProxyRule

    def scores(self, key: str) -> Iterator[tuple[Part, NDArray[np.void]]]:
        """Yields (part, scores) of the parts of a split."""
        for number, part in enumerate(vectors.parts_of(f"{self.vectors_folder}/{key}")):
            stem = vectors.part_stem(f"{self.scores_folder}/{key}", number)
            yield part, vectors.read_array(f"{stem}.scores.npy")

    def read(self, key: str) -> Iterator[tuple[NDArray[np.void], NDArray[np.void]]]:
        """Yields (rows, scores) of the parts of a split."""
        for part, scores in self.scores(key):
            yield vectors.read_array(f"{part.stem}.rows.npy"), scores

    def proxy(self, scores: NDArray[np.void]) -> Floats:
        """Returns the proxies of some scores, (n,): of each a function of its score alone."""
        return self.rule.proxy(read_losses(self.losses), scores)


@once_a_process(2)
def read_losses(path: str) -> Floats:
    """Returns the anchors' losses, read once in a process."""
    return vectors.read_array(path)


@dataclass
class ProxyTotals:
    """Exact total of the proxies, number of positive ones, and the largest, float64, descending."""

    total: int
    positive: int
    largest: NDArray[np.float64]


class TotalSplit(SplitDoFn):
    """A split -> ProxyTotals of its parts."""

    def __init__(self, proxies: Proxies, size: int, threads: int) -> None:
        super().__init__(threads, CombineProxyTotals(size))
        self._proxies, self._size = proxies, size

    def work(self, element: Any, *sides: Any) -> list[ProxyTotals]:
        proxies = self._proxies
        return [proxy_totals(proxies.proxy(scores), self._size) for _, scores in proxies.scores(element[1].key)]


def proxy_totals(proxy: Floats, size: int) -> ProxyTotals:
    """Returns the totals of some proxies, with the `size` largest."""
    return ProxyTotals(exact.exact_sum(proxy), int(np.count_nonzero(proxy)), largest(proxy, size))


def largest(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Returns the `size` largest values, descending."""
    if len(values) > size:
        values = np.partition(values, len(values) - size)[len(values) - size :]
    return np.sort(values)[::-1]


class CombineProxyTotals(beam.CombineFn):
    """ProxyTotals of parts -> ProxyTotals of the corpus, with the `size` largest."""

    def __init__(self, size: int) -> None:
        self._size = size

    def create_accumulator(self) -> ProxyTotals:
        return ProxyTotals(0, 0, np.empty(0))

    def add_input(self, accumulator: ProxyTotals, element: ProxyTotals) -> ProxyTotals:
        return self.merge_accumulators([accumulator, element])

    def merge_accumulators(self, accumulators: Iterable[ProxyTotals]) -> ProxyTotals:
        some = list(accumulators)
        return ProxyTotals(
            sum(a.total for a in some),
            sum(a.positive for a in some),
            largest(np.concatenate([np.empty(0), *(a.largest for a in some)]), self._size),
        )

    def extract_output(self, accumulator: ProxyTotals) -> ProxyTotals:
        return accumulator


def write_totals(totals: ProxyTotals, path: str) -> None:
    """Writes the totals; the driver solves for the threshold from them."""
    vectors.write_array(path.replace(".json", ".npy"), totals.largest)
    vectors.write_json(path, {"total": f"{totals.total:x}", "positive": totals.positive})


class TotalProxies(beam.PTransform):
    """The plan of splits -> the exact total of the proxies and the largest of them, in two files."""

    def __init__(self, plan: str, proxies: Proxies, size: int, path: str, threads: int) -> None:
        super().__init__()
        self._plan, self._proxies, self._size, self._path, self._threads = plan, proxies, size, path, threads

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        return (
            root
            | "Splits" >> ReadPlan(self._plan)
            | "Proxies" >> beam.ParDo(TotalSplit(self._proxies, self._size, self._threads))
            | "Total" >> beam.CombineGlobally(CombineProxyTotals(self._size)).without_defaults()
            | "Write" >> beam.Map(write_totals, self._path)
        )


@dataclass(frozen=True)
class Pareto:
    """Pareto sampling: each record at most once, exactly `size` of them where so many proxies are positive."""

    threshold: Threshold
    size: int
    seed: int

    def draw(
        self, proxy: NDArray[np.float64], hashes: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Returns rows, their keys and expected multiplicities; only rows that can be among the `size` smallest of the
        corpus.
        """
        inclusion = self.threshold.inclusion_probability(proxy)
        rows = np.flatnonzero(inclusion > 0)
        keys = draws.pareto_keys(inclusion[rows], hashes[rows], self.seed)
        if len(rows) > self.size:
            near = keys <= np.partition(keys, self.size - 1)[self.size - 1]
            rows, keys = rows[near], keys[near]
        return rows, keys, inclusion[rows]


@dataclass(frozen=True)
class Multinomial:
    """Independent draws with probability proxy / total, `size` of them; a record drawn m times is `m` arrivals."""

    total: float
    size: int
    seed: int

    def draw(
        self, proxy: NDArray[np.float64], hashes: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Returns rows (one for each arrival), times and expected multiplicities."""
        rates = proxy / self.total
        rows, times = draws.arrivals(rates, hashes, self.seed, self.size)
        return rows, times, self.size * rates[rows]


@dataclass(frozen=True)
class Poisson:
    """Each record alone, with its inclusion probability; `size` of them in the mean."""

    threshold: Threshold
    seed: int
    size: int = 2**62
    """Of the reservoir: all that are drawn are kept."""

    def draw(
        self, proxy: NDArray[np.float64], hashes: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Returns the drawn rows, with key 0, and their inclusion probabilities."""
        inclusion = self.threshold.inclusion_probability(proxy)
        rows = np.flatnonzero(draws.poisson_drawn(inclusion, hashes, self.seed))
        return rows, np.zeros(len(rows)), inclusion[rows]


@dataclass(frozen=True)
class Everything:
    """The whole corpus, each record with weight 1: where the sample is as large as the corpus."""

    size: int

    def draw(
        self, proxy: NDArray[np.float64], hashes: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Returns every row, with key 0 and expected multiplicity 1."""
        return np.arange(len(proxy)), np.zeros(len(proxy)), np.ones(len(proxy))


Sampler = Pareto | Multinomial | Poisson | Everything


def make_sampler(method: str, totals: ProxyTotals, size: int, seed: int) -> Sampler:
    """Returns the sampler of a method: multinomial, pareto or poisson.

    Args:
        method: of the draw.
        totals: of the proxies, with the `size` largest; the total is above 0.
        size: of the sample, below the number of records.
        seed: of the sample.
    """
    if method == "multinomial":
        return Multinomial(exact.to_float(totals.total), size, seed)
    threshold = solve(totals.total, totals.largest.tolist(), totals.positive, size)
    return Pareto(threshold, size, seed) if method == "pareto" else Poisson(threshold, seed)


class DrawSplit(SplitDoFn):
    """A split -> the rows of its parts that may be in the sample, as arrays of CHOSEN."""

    def __init__(self, proxies: Proxies, sampler: Sampler, threads: int) -> None:
        super().__init__(threads, Reservoir(sampler.size))
        self._proxies, self._sampler = proxies, sampler

    def work(self, element: Any, *sides: Any) -> list[list[NDArray[np.void]]]:
        number, split = element
        out = []
        for rows, scores in self._proxies.read(split.key):
            proxy = self._proxies.proxy(scores)
            drawn, keys, expected = self._sampler.draw(proxy, rows["hash"])
            chosen = np.empty(len(drawn), CHOSEN)
            chosen["key"], chosen["expected"], chosen["multiplicity"] = keys, expected, 1
            chosen["split"], chosen["proxy"], chosen["order"] = number, proxy[drawn], -1
            chosen["cluster"], chosen["squared"] = scores["anchor"][drawn, 0], scores["squared"][drawn, 0]
            for name in ("hash", "piece", "position"):
                chosen[name] = rows[name][drawn]
            out.append(chosen)
        return [out]


class Reservoir(beam.CombineFn):
    """Lists of arrays of CHOSEN -> the `size` rows with the smallest keys."""

    def __init__(self, size: int) -> None:
        self._size = size

    def create_accumulator(self) -> list[NDArray[np.void]]:
        return []

    def add_input(self, accumulator: list[NDArray[np.void]], element: list[NDArray[np.void]]) -> list[NDArray[np.void]]:
        # Cut back only when there are twice as many, so that a row is sorted a few times and not once a part.
        accumulator = [*accumulator, *element]
        return self.compact(accumulator) if sum(map(len, accumulator)) > 2 * self._size else accumulator

    def merge_accumulators(self, accumulators: Iterable[list[NDArray[np.void]]]) -> list[NDArray[np.void]]:
        return self.compact([rows for accumulator in accumulators for rows in accumulator])

    def compact(self, accumulator: list[NDArray[np.void]]) -> list[NDArray[np.void]]:
        return [bottom(np.concatenate(accumulator), self._size)] if accumulator else []

    def extract_output(self, accumulator: list[NDArray[np.void]]) -> NDArray[np.void]:
        return self.compact(accumulator)[0] if accumulator else np.empty(0, CHOSEN)


def gather_draws(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Returns one row for each distinct record with its multiplicity, ordered by split, piece and position."""
    rows = rows[np.lexsort((rows["key"], rows["position"], rows["piece"], rows["split"]))]
    where = rows[["split", "piece", "position"]]
    first = np.flatnonzero(np.concatenate([[True], where[1:] != where[:-1]])) if len(rows) else np.empty(0, np.int64)
    out = rows[first].copy()
    out["multiplicity"] = np.diff(np.append(first, len(rows)))
    return out


def drawn_of(rows: NDArray[np.void], method: str, proxy_total: float) -> estimators.Drawn:
    """Returns what estimators need of drawn records (CHOSEN)."""
    return estimators.Drawn(method, rows["expected"], rows["multiplicity"], rows["order"], rows["proxy"], proxy_total)


def sample_facts(rows: NDArray[np.void], method: str) -> dict[str, Any]:
    """Returns what the manifest says of the drawn records: how many, the digest, and the sum of their weights with its
    standard error.

    Args:
        rows: what `gather_draws` gave.
        method: of the draw.
    """
    expected, times = rows["expected"], rows["multiplicity"]
    # As a plain sum of weights: without the proxy, which would bring poisson's ratio form.
    plain = replace(drawn_of(rows, method, 0.0), proxy=np.zeros(len(rows)))
    error = estimators.estimate(np.ones(len(rows)), plain).standard_error
    return {
        "records": len(rows),
        "draws": int(times.sum()),
        "certain": int(np.count_nonzero(expected == 1)) if method != "multinomial" else 0,
        "sum_of_weights": float(np.sum(times / expected)),
        "sum_of_weights_standard_error": error if np.isfinite(error) else None,
        "sample_digest": sample_digest(rows),
    }


def sample_digest(rows: NDArray[np.void]) -> str:
    """Returns the sha256 of the drawn records without file and position, in the order of their id hash."""
    kept = rows[["hash", "multiplicity", "expected", "proxy", "cluster", "squared"]]
    kept = np.sort(kept, order=("hash", "proxy"))
    digest = hashlib.sha256()
    for name in kept.dtype.names or ():
        digest.update(np.ascontiguousarray(kept[name]).tobytes())
    return digest.hexdigest()


def write_chosen(rows: NDArray[np.void], path: str, method: str) -> None:
    """Writes the drawn records as .npy, and their facts as .json beside it."""
    chosen = gather_draws(rows)
    vectors.write_array(path, chosen)
    vectors.write_json(path.replace(".npy", ".json"), sample_facts(chosen, method))


class DrawSample(beam.PTransform):
    """The plan of splits -> the drawn records, one row each, as a file of CHOSEN."""

    def __init__(self, plan: str, proxies: Proxies, sampler: Sampler, path: str, threads: int) -> None:
        super().__init__()
        self._plan, self._proxies, self._sampler, self._path, self._threads = plan, proxies, sampler, path, threads

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        return (
            root
            | "Splits" >> ReadPlan(self._plan)
            | "Draw" >> beam.ParDo(DrawSplit(self._proxies, self._sampler, self._threads))
            | "Reservoir" >> beam.CombineGlobally(Reservoir(self._sampler.size)).without_defaults()
            | "Write" >> beam.Map(write_chosen, self._path, type(self._sampler).__name__.lower())
        )
