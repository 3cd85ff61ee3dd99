"""What a selection reads, hands on, keeps and holds, as formulas of its sizes; scale.py checks them against a run.

The names are those of the manifest's counters. Nothing here is measured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tithe.clustering import MIN_BATCH, SEED_ROWS
from tithe.transforms.centering import SAMPLE
from tithe.transforms.cluster import SEED_STEPS
from tithe.transforms.draw import CHOSEN
from tithe.transforms.kernels import rounding, rounds, search, systematic
from tithe.transforms.kernels.exact import ROWS
from tithe.transforms.losses import GROUP
from tithe.transforms.pilot import SPARES
from tithe.transforms.publish import PART_ROWS
from tithe.transforms.systematic import MASS
from tithe.transforms.vectors import CHUNK, ROW

EXACT_BYTES = 139
"""Of an exact sum, an integer of some 1,090 bits, in a pickle; as hexadecimal text it has twice as many, and 8 more."""

INTEGER_BYTES = 180
"""Of such an integer in memory, with its place in a list."""

CROWDED = 4
"""How many times as many rows as the mean the largest cluster of a block is taken to have."""

LESS_THAN_A_DRAW = 0.72
"""The mean of 2**-u, u uniform in 0 .. 1: what cutting cells by powers of two leaves of 1 / CELLS_A_DRAW."""


@dataclass(frozen=True)
class Job:
    """The sizes of a selection with systematic draws.

    Attributes:
        records, dimension, clusters, size: n, d, k, s.
        neighbors: q.
        pilot: records of it; 0 where no losses are asked for.
        rounds: of mini-batch k-means.
        wanted_batch: `cluster.batch`.
        splits: of the plan; a split is one part of vectors/.
        processes: that work, each with one bundle in a step.
        row_groups: of the input.
        input_bytes: of the input.
        skew: clusters x the sum over them of (share of the records) x (share of the mass of the draw); 1 where all are
            alike.
        late: whether a cluster has no row in the last batch, so that all vectors are read once more.
    """

    records: int
    dimension: int
    clusters: int
    size: int
    neighbors: int
    pilot: int
    rounds: int
    wanted_batch: float
    splits: int
    processes: int
    row_groups: int
    input_bytes: float
    skew: float = 1.0
    late: bool = False

    @property
    def anchors(self) -> int:
        """Representatives and pilot."""
        return self.clusters + self.pilot

    @property
    def vector_bytes(self) -> int:
        """Of a vector and its row in vectors/."""
        return ROW.itemsize + 4 * self.dimension

    @property
    def batch_rows(self) -> float:
        """Records of a round."""
        return min(self.records, max(self.wanted_batch * self.records, MIN_BATCH, 10 * self.clusters))

    @property
    def seed_rows(self) -> float:
        """Records that seeding reads."""
        tenth, least = min(0.1 * self.records, SEED_ROWS * self.clusters), max(MIN_BATCH, 20 * self.clusters)
        return min(self.records, max(tenth, least))

    @property
    def far_bytes(self) -> int:
        """Of a candidate of seeding, or of a far row of a round."""
        return rounds.far_dtype(self.dimension).itemsize

    @property
    def near_bytes(self) -> int:
        """Of a candidate for a representative, or a record of the pilot."""
        return rounding.near_dtype(self.dimension).itemsize

    @property
    def coarse_cells(self) -> int:
        """Of the systematic draw."""
        return self.anchors << systematic.coarse_bits(self.anchors)

    @property
    def sums_bytes(self) -> float:
        """Of the sums of one bundle of a round: on the grid, and in limbs once a cluster may have passed ROWS rows."""
        blocks = max(1, self.batch_rows / self.processes / min(CHUNK, self.batch_rows / self.splits))
        most = blocks * max(1, CROWDED * min(CHUNK, self.batch_rows / self.splits) / self.clusters)
        return (24 if most > ROWS else 8) * self.clusters * self.dimension + 16 * self.clusters + self.far_kept

    @property
    def far_kept(self) -> float:
        """Bytes of the far rows of one bundle of a round."""
        return min(rounds.far_count(self.clusters), self.batch_rows / self.processes) * self.far_bytes

    @property
    def near_kept(self) -> float:
        """Bytes of the candidates for representatives of one bundle."""
        most = rounding.SPARES * self.clusters + rounds.far_count(self.clusters)
        return min(most, self.batch_rows / self.processes) * self.near_bytes

    @property
    def seeds_kept(self) -> float:
        """Bytes of the candidates of one step of seeding of one bundle."""
        return min(self.clusters, self.seed_rows / self.processes) * self.far_bytes


def _bounds(job: Job, share: float) -> float:
    """Bytes read to find where one or two ranges of hashes begin and end, in all parts: rows around the guesses."""
    rows = job.records / job.splits
    slack = 6 * int(rows**0.5) + 16
    return 0 if share >= 1 else 2 * job.splits * ROW.itemsize * min(rows, 2 * slack)


def _groups_read(job: Job, wanted: int, together: int) -> float:
    """Bytes of the row groups that hold wanted records, `together` in a request; a group cut by the border of two
    requests is read in both.
    """
    distinct = job.row_groups * (1 - (1 - 1 / job.row_groups) ** wanted)
    return (distinct + (wanted - 1) // together) * job.input_bytes / job.row_groups


def counters(job: Job) -> dict[str, float]:
    """Returns the counters of a selection with systematic draws, in bytes, by name."""
    n, k, of_vector = job.records, job.clusters, job.vector_bytes
    processes, anchors = job.processes, job.anchors
    scores, whole = ROW.itemsize + 8 * job.neighbors, n * job.vector_bytes
    batch = job.batch_rows * of_vector + _bounds(job, job.batch_rows / n)
    seeding = job.seed_rows * of_vector + _bounds(job, job.seed_rows / n)
    centers = k * (4 * job.dimension + 8)
    part, limit = n / job.splits, min(1, SAMPLE / n)
    slack = 6 * int(part**0.5) + 16
    window = min(part, part * limit + slack) - max(0, part * limit - slack)
    cells = job.size * (1 + job.skew * n / job.coarse_cells)
    near = job.size + LESS_THAN_A_DRAW * n / systematic.CELLS_A_DRAW
    found = {
        "EmbedSplit.read_bytes": n * ROW.itemsize,
        "SampleRows.read_bytes": n * limit * of_vector + job.splits * ROW.itemsize * window,
        "SeedStep.read_bytes": (SEED_STEPS + 1) * seeding + SEED_STEPS * 16 * job.seed_rows,
        "SeedStep.sent_bytes": processes * SEED_STEPS * (job.seeds_kept + 8 * k),
        "SeedStep.side_bytes": processes * SEED_STEPS * 4 * k * job.dimension,
        "AssignBatch.read_bytes": job.rounds * batch,
        "AssignBatch.sent_bytes": job.rounds * processes * job.sums_bytes,
        "AssignBatch.side_bytes": job.rounds * processes * centers,
        "FindNear.read_bytes": batch + job.late * whole,
        "FindNear.sent_bytes": processes * job.near_kept,
        "FindNear.side_bytes": processes * centers,
        "ScoreSplit.read_bytes": whole,
        "ScoreSplit.sent_bytes": processes * anchors * (8 + EXACT_BYTES),
        "ScoreSplit.side_bytes": processes * anchors * (4 * job.dimension + 30),
        "TotalSplit.read_bytes": n * scores + processes * 8 * anchors,
        "TotalSplit.sent_bytes": processes * (8 * min(job.size, n / processes) + 2 * EXACT_BYTES),
        "CoarseSplit.read_bytes": n * scores + processes * 16 * anchors,
        "CellSplit.read_bytes": n * scores + processes * 8 * job.coarse_cells,
        "GatherSplit.read_bytes": n * scores + processes * 16 * job.size,
        "FetchPart.read_bytes": _groups_read(job, job.size, PART_ROWS)
        + -(-job.size // PART_ROWS) * job.size * CHOSEN.itemsize,
        "cell_bytes": MASS.itemsize * min(n, cells),
        "gathered_bytes": CHOSEN.itemsize * min(n, near),
    }
    if job.pilot:
        few = min(n, 2 * SPARES * job.pilot + 100)
        found |= {
            "FindPilot.read_bytes": n * ROW.itemsize + few * 4 * job.dimension,
            "FindPilot.sent_bytes": processes * min(SPARES * job.pilot, few / processes) * job.near_bytes,
            "AskLosses.read_bytes": _groups_read(job, anchors, GROUP),
        }
    if job.neighbors > 1:
        found |= {
            "SumSplit.read_bytes": n * 8 * job.neighbors + processes * 8 * anchors,
            "SumSplit.sent_bytes": processes * 2 * EXACT_BYTES,
        }
    return found


def kept(job: Job) -> dict[str, float]:
    """Returns the bytes in work/ that grow with the corpus: vectors/, scores/, what each split of scores/ says of its
    clusters, and what seeding knows of its rows.
    """
    touched = job.anchors * (1 - (1 - 1 / job.anchors) ** (job.records / job.splits))
    said = touched * (2 * EXACT_BYTES + 8) + (job.anchors - touched) * 7 + job.anchors * 6
    return {
        "vectors": job.records * job.vector_bytes,
        "scores": job.records * 8.0 * job.neighbors,
        "done.json of scores": job.splits * said,
        "seeding": (SEED_STEPS + 1) * 16 * job.seed_rows,
    }


def files(job: Job) -> int:
    """Returns how many files work/ has: 3 a split in vectors/, 2 in scores/, and one for each step of seeding."""
    return job.splits * (5 + SEED_STEPS + 1)


def memory(job: Job) -> float:
    """Returns the bytes of a process in a round: the centers of this round and the one before, prepared (24 bytes a
    component), the sums, their copy in Beam's table before the shuffle, and their bytes on the way.
    """
    return 24 * job.clusters * job.dimension + 3 * job.sums_bytes + 4 * CHUNK * job.dimension + 3e8


@dataclass(frozen=True)
class OnePlace:
    """A step that runs in one process whatever the number of workers.

    Attributes:
        name: what it does.
        arrives: bytes that come to it.
        element: the largest of them, in bytes.
        held: bytes that it holds at once.
        work: from measured rates to its seconds, beside those of what arrives.
        times: how often it runs.
        mend: what would mend it.
    """

    name: str
    arrives: float
    element: float
    held: float
    work: Callable[[dict[str, float]], float]
    times: int
    mend: str


def _none(rates: dict[str, float]) -> float:
    return 0.0


def one_place(job: Job) -> list[OnePlace]:
    """Returns these steps, in the order in which a selection comes to them."""
    k, d, all_of = job.clusters, job.dimension, job.processes
    candidates, grid = SEED_STEPS * k, 8.0 * k * d
    seeds, near, costs = all_of * job.seeds_kept, all_of * job.near_kept, float(all_of * job.anchors)
    total = all_of * 8.0 * min(job.size, job.records / all_of)
    split_bytes = 250.0 * job.splits

    def reduce(rates: dict[str, float]) -> float:
        lloyd = rates[f"prepare {k}"] + candidates * rates[f"search {k}"]
        return 2.0 * k * candidates * d / rates["plus_plus"] + 5 * lloyd

    merge = partial(lambda rates, amount: amount / rates["merge"])
    blocks = "keys by blocks of clusters in the place of one"
    fanout = "a fanout, which keeps only the best at each level"
    return [
        OnePlace("plan read and spread", split_bytes, 250, split_bytes, _none, 9, "larger splits"),
        OnePlace("seeding: candidates", seeds, job.seeds_kept, 2 * seeds, _none, SEED_STEPS, fanout),
        OnePlace(
            "seeding: reduced to k", 4.0 * candidates * d, 0, 16.0 * candidates * d + 28.0 * k * d, reduce, 1,
            "seeding in two stages, groups of candidates first",
        ),
        OnePlace(
            "round: sums", all_of * job.sums_bytes, job.sums_bytes, 9 * grid, partial(merge, amount=all_of * grid),
            job.rounds, blocks,
        ),
        OnePlace("representatives", near, job.near_kept, 2 * near, _none, 1 + job.late, blocks),
        OnePlace(
            "score: costs of clusters", costs * (8 + EXACT_BYTES), job.anchors * 147.0, costs * (8 + INTEGER_BYTES),
            _none, 1, "added one after another, or " + blocks,
        ),
        OnePlace("sample: largest proxies", total, 8.0 * job.size, 3 * total, _none, 1, fanout),
        OnePlace(
            "sample: coarse masses", all_of * 8.0 * job.coarse_cells, 8.0 * job.coarse_cells,
            16.0 * all_of * job.coarse_cells, _none, 1, "added one after another",
        ),
        OnePlace(
            "sample: drawn rows", job.size * float(CHOSEN.itemsize), PART_ROWS * float(CHOSEN.itemsize),
            3.0 * job.size * CHOSEN.itemsize, _none, 1, "written in parts",
        ),
    ]


def others(job: Job) -> list[OnePlace]:
    """Returns the steps in one place of other configurations: pareto draws, and the pass along anchors whose losses are
    all equal.
    """
    k, d = job.clusters, job.dimension
    rows = CHOSEN.itemsize * job.processes * float(min(job.size, job.records / job.processes))
    chain = lambda rates: 4.0 * k * k * d / rates["stream"]  # noqa: E731
    return [
        OnePlace("pareto: reservoirs", rows, 84.0 * job.size, 2 * rows, _none, 1, "a fanout"),
        OnePlace("equal losses: chain", 4.0 * k * d, 0, 20.0 * k * d, chain, 1, "a chain of groups, then inside each"),
    ]


def is_grouped(k: int) -> bool:
    """Returns whether the search among k points has two levels."""
    return k >= search.GROUPED_FROM
