"""The systematic draw over a corpus in splits: exact masses of coarse cells, then of cells, then the rows of the cells
that hold a selection point.

Each step reads rows and scores of its split again and lets them go; what crosses the network is the coarse masses (1
MB, or 8 bytes a cluster, from each bundle), at most 16 bytes for each row of a coarse cell that holds a point, and the
rows of the cells that hold one: the drawn ones and about one in kernels.systematic.CELLS_A_DRAW others. The drawn rows
meet in one place only when their file is written.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsSingleton, TaggedOutput
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.counts import CombineCounts
from tithe.transforms.draw import CHOSEN, write_chosen
from tithe.transforms.kernels import hashing, systematic
from tithe.transforms.kernels.systematic import Cells, MassScale
from tithe.transforms.parallel import ReadPlan, SplitDoFn, once_a_process

MASS = np.dtype([("cell", "<i8"), ("mass", "<i8")])
"""The exact mass of a cell, or of its rows in one part."""

START = np.dtype([("cell", "<i8"), ("start", "<i8")])
"""A cell that holds a point, and the mass before it in the pass."""

CELLS_A_GROUP = 1 << systematic.MAX_BITS
"""Cells whose masses are added up under one key, or a few more: a coarse cell is not cut in two."""

WAITING_MASSES = 1 << 20
"""Masses that wait to be added up under a key, or more: 16 MB."""

CELLS_A_KEY = 1024
"""Cells with points whose rows are gathered under one key, by number of such cells, so that a key holds as many draws
or a few more."""


class ProxyReader(Protocol):
    """What gives the rows and scores of the parts of a split, the same on each reading, and the proxies of scores."""

    def read(self, key: str) -> Iterator[tuple[NDArray[np.void], NDArray[np.void]]]:
        """Yields (rows, scores) of the parts of a split."""
        ...

    def proxy(self, scores: NDArray[np.void]) -> NDArray[np.float64]:
        """Returns the proxies of some scores."""
        ...


@dataclass(frozen=True)
class SystematicTask:
    """What the workers need for the draw.

    Attributes:
        proxies: reads the proxies; all 1 for a draw with equal probabilities.
        order: path of the rank of each cluster in the pass, int64, (k,): a permutation of 0 .. k - 1.
        scale: of the masses.
        seed: of the sample.
        folder: of this stage, for the masses and the cells with points.
    """

    proxies: ProxyReader
    order: str
    scale: MassScale
    seed: int
    folder: str

    @property
    def coarse_path(self) -> str:
        """Where the masses of the coarse cells are, once they are added up."""
        return f"{self.folder}/coarse.npy"

    @property
    def cells_path(self) -> str:
        """Where the cells with points are, once they are known."""
        return f"{self.folder}/cells.npy"


@dataclass
class PassRows:
    """Some rows of a part of a split, as the pass sees them; all fields are arrays, (n,)."""

    rows: NDArray[np.void]
    scores: NDArray[np.void]
    hashes: NDArray[np.uint64]
    coarse: NDArray[np.int64]
    proxy: NDArray[np.float64]
    masses: NDArray[np.int64]


def read_pass(task: SystematicTask, key: str, holding: NDArray[np.bool_] | None = None) -> Iterator[PassRows]:
    """Yields the parts of a split, or their rows in the coarse cells that hold a point, (c,): few, so that the other
    passes cost little more than reading.
    """
    ranks = _read_shared(task.order)
    bits = systematic.coarse_bits(len(ranks))
    for rows, scores in task.proxies.read(key):
        hashes = hashing.role_hash(rows["hash"], task.seed, "draw")
        coarse = systematic.coarse_cells(ranks[scores["anchor"][:, 0]], hashes, bits)
        if holding is not None:
            some = np.flatnonzero(holding[coarse])
            rows, scores, hashes, coarse = rows[some], scores[some], hashes[some], coarse[some]
        proxy = task.proxies.proxy(scores)
        yield PassRows(rows, scores, hashes, coarse, proxy, task.scale.masses(proxy))


@once_a_process(4)
def _read_shared(path: str) -> NDArray[Any]:
    return vectors.read_array(path)


@once_a_process(2)
def _read_cells(coarse: str, clusters: int, draws: int, seed: int) -> Cells:
    return systematic.lay_cells(vectors.read_array(coarse), clusters, draws, seed)


def read_cells(task: SystematicTask) -> Cells:
    """Returns the cells of the pass, laid once in a process."""
    return _read_cells(task.coarse_path, len(_read_shared(task.order)), task.scale.draws, task.seed)


# -- exact masses of coarse cells ------------------------------


class CoarseSplit(SplitDoFn):
    """A split -> masses of the coarse cells; the records that are certain, CHOSEN, by the output `certain`."""

    def __init__(self, task: SystematicTask, threads: int) -> None:
        super().__init__(threads, CombineCounts())
        self._task = task

    def work(self, element: Any, *sides: Any) -> list[Any]:
        task, (number, split) = self._task, element
        clusters = len(_read_shared(task.order))
        sums = np.zeros(clusters << systematic.coarse_bits(clusters), np.int64)
        out: list[Any] = [sums]
        for part in read_pass(task, split.key):
            np.add.at(sums, part.coarse, part.masses)
            certain = np.flatnonzero(task.scale.certain(part.proxy))
            if len(certain):
                out.append(TaggedOutput("certain", _chosen(number, part, certain)))
        return out


def write_coarse(masses: NDArray[np.int64], task: SystematicTask) -> str:
    """Writes the masses of the coarse cells; returns where they are."""
    vectors.write_array(task.coarse_path, masses)
    return task.coarse_path


# -- cells that hold a point ------------------------------


def sum_masses(some: Iterable[NDArray[np.void]]) -> NDArray[np.void]:
    """Returns the MASS of the distinct cells, ascending."""
    together = np.concatenate([np.empty(0, MASS), *some])
    cells, masses = systematic.sum_cells(together["cell"], together["mass"])
    out = np.empty(len(cells), MASS)
    out["cell"], out["mass"] = cells, masses
    return out


Waiting = tuple[list[NDArray[np.void]], int]
"""Arrays of MASS, and how many masses may wait in them before they are added up."""


class CombineMasses(beam.CombineFn):
    """MASS of some rows -> the MASS of the distinct cells, ascending.

    Arrays wait until there are twice as many masses as there were cells at the last sum: each is sorted a few times,
    and not with every array that comes.
    """

    def create_accumulator(self) -> Waiting:
        return [], WAITING_MASSES

    def add_input(self, accumulator: Waiting, element: NDArray[np.void]) -> Waiting:
        return self.merge_accumulators([accumulator, ([element], 0)])

    def merge_accumulators(self, accumulators: Iterable[Waiting]) -> Waiting:
        together, room = [], 0
        for waiting, some in accumulators:
            together += waiting
            room = max(room, some)
        if sum(map(len, together)) <= room:
            return together, room
        summed = sum_masses(together)
        return [summed], max(WAITING_MASSES, 2 * len(summed))

    def compact(self, accumulator: Waiting) -> Waiting:
        return [sum_masses(accumulator[0])], accumulator[1]

    def extract_output(self, accumulator: Waiting) -> NDArray[np.void]:
        return sum_masses(accumulator[0])


class CellSplit(SplitDoFn):
    """A split, once the coarse masses are known -> (group, MASS of the cells) for the coarse cells that hold a
    point."""

    def __init__(self, task: SystematicTask, threads: int) -> None:
        super().__init__(threads)
        self._task = task

    def work(self, element: Any, *sides: Any) -> list[tuple[int, NDArray[np.void]]]:
        cells, found = read_cells(self._task), []
        for part in read_pass(self._task, element[1].key, cells.holding):
            masses = np.empty(len(part.rows), MASS)
            masses["cell"], masses["mass"] = cells.cell(part.coarse, part.hashes), part.masses
            found.append(masses[part.masses > 0])
        together = sum_masses(found)
        first = cells.offsets[np.searchsorted(cells.offsets, together["cell"], "right") - 1]
        return list(_by_key(first // CELLS_A_GROUP, together))


class FindPoints(beam.DoFn):
    """(group, MASS of its cells) -> the START of those that hold a point."""

    def __init__(self, task: SystematicTask) -> None:
        self._task = task

    def start_bundle(self) -> None:
        self._cells: Cells | None = None  # once a bundle: asking whether a file has changed may be a request

    def process(self, group: tuple[int, NDArray[np.void]]) -> Iterator[NDArray[np.void]]:
        if self._cells is None:
            self._cells = read_cells(self._task)
        cells, starts = self._cells.with_points(group[1]["cell"], group[1]["mass"])
        out = np.empty(len(cells), START)
        out["cell"], out["start"] = cells, starts
        yield out


def write_cells(groups: list[NDArray[np.void]], task: SystematicTask) -> str:
    """Writes the cells that hold a point, ascending: at most one a draw, 16 bytes each; returns where they are."""
    vectors.write_array(task.cells_path, np.sort(np.concatenate([np.empty(0, START), *groups]), order="cell"))
    return task.cells_path


# -- the rows of these cells ------------------------------


class GatherSplit(SplitDoFn):
    """A split, once the cells with points are known -> (key, CHOSEN as bytes) of their rows.

    Bytes, since a key has but a few rows in a split and an array would be mostly header.
    """

    def __init__(self, task: SystematicTask, threads: int) -> None:
        super().__init__(threads)
        self._task = task

    def work(self, element: Any, *sides: Any) -> list[tuple[int, bytes]]:
        task, (number, split) = self._task, element
        cells, held = read_cells(task), _read_shared(task.cells_path)["cell"]
        out: list[tuple[int, bytes]] = []
        for part in read_pass(task, split.key, cells.holding):
            cell = cells.cell(part.coarse, part.hashes)
            place = np.searchsorted(held, cell)
            rows = np.flatnonzero((np.append(held, -1)[place] == cell) & (part.masses > 0))
            keys = place[rows] // CELLS_A_KEY
            out += [(key, some.tobytes()) for key, some in _by_key(keys, _chosen(number, part, rows))]
        return out


def _chosen(number: int, part: PassRows, wanted: NDArray[np.int64]) -> NDArray[np.void]:
    """The rows as certain records; `PickRows` gives those that are not their inclusion probability and order."""
    out = np.zeros(len(wanted), CHOSEN)
    for name in ("hash", "piece", "position"):
        out[name] = part.rows[name][wanted]
    out["split"], out["proxy"] = number, part.proxy[wanted]
    out["cluster"], out["squared"] = part.scores["anchor"][wanted, 0], part.scores["squared"][wanted, 0]
    out["expected"], out["multiplicity"], out["order"] = 1, 1, -1
    return out


def _by_key(keys: NDArray[np.int64], rows: NDArray[np.void]) -> Iterator[tuple[int, NDArray[np.void]]]:
    """Yields (key, its rows in their order)."""
    order = np.argsort(keys, kind="stable")
    distinct, first = np.unique(keys[order], return_index=True)
    for key, some in zip(distinct.tolist(), np.split(order, first[1:]), strict=False):  # of nothing, one empty piece
        yield key, rows[some]


class Count(beam.DoFn):
    """Passes (key, rows) on; counts rows and bytes that go through the shuffle.

    Apart from the DoFns over splits, whose threads Beam's counters do not see.
    """

    def __init__(self, name: str, row_bytes: int) -> None:
        self._row_bytes = row_bytes
        self._rows = Metrics.counter("systematic", f"{name}_rows")
        self._bytes = Metrics.counter("systematic", f"{name}_bytes")

    def process(self, element: tuple[int, Any]) -> Iterator[tuple[int, Any]]:
        size = memoryview(element[1]).nbytes
        self._rows.inc(size // self._row_bytes)
        self._bytes.inc(size)
        yield element


class PickRows(beam.DoFn):
    """(key, all rows of some cells that hold points, CHOSEN as bytes) -> the drawn rows, CHOSEN in the order of the
    pass.
    """

    def __init__(self, task: SystematicTask) -> None:
        self._task = task

    def start_bundle(self) -> None:
        self._read: tuple[Cells, NDArray[np.void], NDArray[np.int64]] | None = None

    def process(self, gathered: tuple[int, Iterable[bytes]]) -> Iterator[NDArray[np.void]]:
        task = self._task
        if self._read is None:
            self._read = read_cells(task), _read_shared(task.cells_path), _read_shared(task.order)
        cells, held, ranks = self._read
        rows = np.frombuffer(b"".join(gathered[1]), CHOSEN)
        rows = rows[np.lexsort((rows["position"], rows["piece"], rows["split"]))]
        hashes, masses = hashing.role_hash(rows["hash"], task.seed, "draw"), task.scale.masses(rows["proxy"])
        coarse = systematic.coarse_cells(ranks[rows["cluster"]], hashes, cells.coarse_bits)
        cell = cells.cell(coarse, hashes)
        starts = held["start"][np.searchsorted(held["cell"], cell)]
        drawn, numbers = systematic.pick(cells.points, cell, starts, hashes, masses)
        out = rows[drawn]
        out["order"], out["expected"] = numbers, cells.points.inclusion(masses[drawn])
        yield out


def write_draws(drawn: list[NDArray[np.void]], path: str) -> None:
    """Writes the drawn rows, the only place where they meet."""
    write_chosen(np.concatenate([np.empty(0, CHOSEN), *drawn]), path, "systematic")


class DrawSystematic(beam.PTransform):
    """The plan of splits -> the drawn records, one row each, as a file of CHOSEN; `order` is the number of a record's
    point, -1 where it is certain.

    Args of the constructor:
        plan: path of the plan of splits.
        task: the settings.
        path: of the file, .npy; its facts lie beside it as .json.
        threads: of a worker.
    """

    def __init__(self, plan: str, task: SystematicTask, path: str, threads: int) -> None:
        super().__init__()
        self._plan, self._task, self._path, self._threads = plan, task, path, threads

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        task, threads = self._task, self._threads
        splits = root | "Splits" >> ReadPlan(self._plan)  # (number, Split)
        first = splits | "Masses" >> beam.ParDo(CoarseSplit(task, threads)).with_outputs("certain", main="masses")
        coarse = (
            first.masses  # of the coarse cells
            | "Sum" >> beam.CombineGlobally(CombineCounts()).without_defaults()
            | "WriteMasses" >> beam.Map(write_coarse, task)  # path
        )
        cells = (
            splits
            | "Cells" >> beam.ParDo(CellSplit(task, threads), AsSingleton(coarse))  # (group, MASS)
            | "CountCells" >> beam.ParDo(Count("cell", MASS.itemsize))
            | "SumCells" >> beam.CombinePerKey(CombineMasses())
            | "FindPoints" >> beam.ParDo(FindPoints(task))  # START
            | "GatherCells" >> beam.combiners.ToList()
            | "WriteCells" >> beam.Map(write_cells, task)  # path
        )
        picked = (
            splits
            | "Rows" >> beam.ParDo(GatherSplit(task, threads), AsSingleton(cells))  # (key, CHOSEN as bytes)
            | "CountRows" >> beam.ParDo(Count("gathered", CHOSEN.itemsize))
            | "Gather" >> beam.GroupByKey()
            | "Pick" >> beam.ParDo(PickRows(task))  # CHOSEN
        )
        return (
            (first.certain, picked)
            | "Together" >> beam.Flatten()
            | "GatherDraws" >> beam.combiners.ToList()
            | "Write" >> beam.Map(write_draws, self._path)
        )
