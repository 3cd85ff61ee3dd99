"""What a selection reads, hands on, keeps and holds, as formulas of its sizes; scale.py checks them against a run.

The names are those of the manifest's counters. Nothing here is measured.
"""

from dataclasses import dataclass

from tithe.clustering import MIN_BATCH, SEED_ROWS
from tithe.transforms.centering import SAMPLE
from tithe.transforms.cluster import LATE_ROUNDS, SEED_STEPS
from tithe.transforms.draw import CHOSEN
from tithe.transforms.kernels import far, rounding, systematic
from tithe.transforms.kernels.exact import ROWS
from tithe.transforms.losses import GROUP
from tithe.transforms.pilot import SPARES
from tithe.transforms.publish import PART_ROWS
from tithe.transforms.systematic import MASS
from tithe.transforms.vectors import ROW, chunk_rows

EXACT_BYTES = 139
"""Of an exact sum, an integer of some 1,090 bits, in a pickle; as hexadecimal text it has twice as many, and 8 more."""

ANSWERS_BYTES = 120
"""Of the answers for records of one file, in a pickle, beside 16 a record."""

CROWDED = 4
"""How many times as many rows as the mean the largest cluster is taken to have."""

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
        files, row_groups: of the input.
        input_bytes: of the input.
        skew: clusters x the sum over them of (share of the records) x (share of the mass of the draw); 1 where all are
            alike.
        late: whether a cluster has no row in the last batch, so that some batches are read once more.
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
    files: int
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
        return min(self.records, max(MIN_BATCH, SEED_ROWS * self.clusters))

    @property
    def far_bytes(self) -> int:
        """Of a candidate of seeding, or of a far row of a round."""
        return far.far_dtype(self.dimension).itemsize

    @property
    def near_bytes(self) -> int:
        """Of a candidate for a representative, or a record of the pilot."""
        return rounding.near_dtype(self.dimension).itemsize

    @property
    def coarse_cells(self) -> int:
        """Of the systematic draw."""
        return self.anchors << systematic.coarse_bits(self.anchors)

    @property
    def crowd(self) -> float:
        """Rows of the largest cluster in one bundle of a round."""
        return CROWDED * self.batch_rows / self.processes / self.clusters

    @property
    def sums_bytes(self) -> float:
        """Of the sums of one bundle of a round: on the grid, and in limbs once a cluster may have passed ROWS rows."""
        grid = (24 if self.crowd > ROWS else 8) * self.clusters * self.dimension
        return grid + 24 * self.clusters + self.far_kept

    @property
    def far_kept(self) -> float:
        """Bytes of the far rows of one bundle of a round."""
        return min(far.far_count(self.clusters), self.batch_rows / self.processes) * self.far_bytes

    @property
    def near_kept(self) -> float:
        """Bytes of the candidates for representatives of one bundle."""
        most = rounding.SPARES * self.clusters + rounding.far_count(self.clusters)
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
    """Returns the counters of a selection with systematic draws, by name, but for those that are 0."""
    n, k, of_vector = job.records, job.clusters, job.vector_bytes
    processes, anchors = job.processes, job.anchors
    scores, whole = ROW.itemsize + 8 * job.neighbors, n * job.vector_bytes
    batch = job.batch_rows * of_vector + _bounds(job, job.batch_rows / n)
    share = min(1.0, LATE_ROUNDS * job.batch_rows / n)
    late = share * n * of_vector + _bounds(job, share)
    seeds = job.seed_rows * of_vector + _bounds(job, job.seed_rows / n)
    centers = k * (4 * job.dimension + 8)
    part, limit = n / job.splits, min(1, SAMPLE / n)
    slack = 6 * int(part**0.5) + 16
    window = min(part, part * limit + slack) - max(0, part * limit - slack)
    # A record's coarse cell holds a point by its own mass or by those of the others there, and so does its cell.
    others = job.skew * n / job.coarse_cells
    cells = job.size * (1 + others)
    near = job.size + LESS_THAN_A_DRAW * n / systematic.CELLS_A_DRAW * others / (1 + others)
    found = {
        "EmbedSplit.read_bytes": n * ROW.itemsize,
        "SampleRows.read_bytes": n * limit * of_vector + job.splits * ROW.itemsize * window,
        "SeedStep.read_bytes": (SEED_STEPS + 1) * seeds + SEED_STEPS * 16 * job.seed_rows,
        "SeedStep.sent_bytes": processes * SEED_STEPS * (job.seeds_kept + 8 * k),
        "SeedStep.side_bytes": processes * SEED_STEPS * 4 * k * job.dimension,
        "AssignBatch.read_bytes": job.rounds * batch,
        "AssignBatch.sent_bytes": job.rounds * processes * job.sums_bytes,
        "AssignBatch.side_bytes": job.rounds * processes * centers,
        "FindNear.read_bytes": batch + 4 * job.batch_rows + job.late * late,
        "FindNear.sent_bytes": processes * job.near_kept,
        "FindNear.side_bytes": processes * centers,
        "ScoreSplit.read_bytes": whole,
        "ScoreSplit.sent_bytes": processes * anchors * (8 + EXACT_BYTES),
        "ScoreSplit.side_bytes": processes * anchors * (4 * job.dimension + 30),
        "TotalSplit.read_bytes": n * 8 * job.neighbors,
        "TotalSplit.sent_bytes": processes * (8 * min(job.size, n / processes) + 2 * EXACT_BYTES),
        "CoarseSplit.read_bytes": n * scores,
        "CoarseSplit.sent_bytes": processes * 8 * job.coarse_cells,
        "CoarseSplit.side_bytes": processes * 8 * anchors,
        "CellSplit.read_bytes": n * scores,
        "CellSplit.side_bytes": processes * 8 * job.coarse_cells,
        "GatherSplit.read_bytes": n * scores,
        "GatherSplit.side_bytes": processes * 16 * job.size,
        "FetchPart.read_bytes": _groups_read(job, job.size, PART_ROWS)
        + -(-job.size // PART_ROWS) * job.size * CHOSEN.itemsize,
        "cell_rows": min(n, cells),
        "cell_bytes": MASS.itemsize * min(n, cells),
        "gathered_rows": min(n, near),
        "gathered_bytes": CHOSEN.itemsize * min(n, near),
    }
    if job.pilot:
        few = min(n, 2 * SPARES * job.pilot + 100)
        found |= {
            "FindPilot.read_bytes": n * ROW.itemsize + few * 4 * job.dimension,
            "FindPilot.sent_bytes": processes * min(SPARES * job.pilot, few / processes) * job.near_bytes,
            "AskLosses.read_bytes": _groups_read(job, anchors, GROUP),
            "AskLosses.sent_bytes": 16 * anchors + min(anchors, job.files + anchors // GROUP) * ANSWERS_BYTES,
        }
    if job.neighbors > 1:
        found |= {
            "SumSplit.read_bytes": n * 8 * job.neighbors,
            "SumSplit.sent_bytes": processes * 2 * EXACT_BYTES,
        }
    # The losses are read by the first step that needs them.
    found["SumSplit.side_bytes" if job.neighbors > 1 else "TotalSplit.side_bytes"] = processes * 8 * anchors
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


def kept_files(job: Job) -> int:
    """Returns how many files work/ has: 3 a split in vectors/, 2 in scores/, and one for each step of seeding."""
    return job.splits * (5 + SEED_STEPS + 1)


def memory(job: Job) -> float:
    """Returns the bytes of a process in a round: the centers of this round and the one before, prepared (24 bytes a
    component), the sums, their copy in Beam's table before the shuffle, and their bytes on the way.
    """
    return 24 * job.clusters * job.dimension + 3 * job.sums_bytes + 4 * chunk_rows(job.dimension) * job.dimension + 3e8
