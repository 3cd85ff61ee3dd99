"""The cluster stage: seeding, rounds of mini-batch k-means, and the representatives, as one unrolled graph.

Each step reads its share of vectors/, combines, and writes a checkpoint; what travels on to the next step is the
checkpoint's path. So the centers cross the network once a worker and the sums once a bundle; blocks never do.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tithe.transforms import vectors
from tithe.transforms.centering import hash_width
from tithe.transforms.centers import Reference, prepared, read_centers, write_centers
from tithe.transforms.counts import CombineCounts
from tithe.transforms.kernels import exact, far, hashing, rounds, search, seeding
from tithe.transforms.kernels.bottom import bottom
from tithe.transforms.parallel import ReadPlan, SplitDoFn, once_a_process
from tithe.transforms.representatives import FindRepresentatives, assignment_path
from tithe.transforms.space import Reader, read_space

SEED_STEPS = 3
"""Steps of k-means||, each of which takes k candidates."""

LATE_ROUNDS = 2
"""Rounds in whose batches clusters without a row in the last one look for their representative. A center that moved in
the last round lies on a row of its batch. One that did not has a weight of at least 1, so it had rows in the round
before, or so many in an earlier one that none in two batches is next to impossible; or no far row was left for it.
"""


@dataclass(frozen=True)
class ClusterTask:
    """What the workers need to cluster.

    Attributes:
        folder: of this stage: checkpoints, and tmp/ for what seeding keeps.
        reader: of vectors/.
        count: clusters wanted.
        rounds: of mini-batch k-means.
        batch: share of the records that a round reads.
        seed_share: share of the records that seeding reads.
        seed: of the clustering.
    """

    folder: str
    reader: Reader
    count: int
    rounds: int
    batch: float
    seed_share: float
    seed: int

    def checkpoint(self, number: int) -> str:
        """Returns the path of the centers after a round; round 0 is the seeding."""
        return f"{self.folder}/round-{number:04d}.npz"

    def batch_ranges(self, number: int, rounds: int = 1) -> list[tuple[int, int]]:
        """Returns the ranges of id hashes that make the batches of the rounds, 1 or more, that end with a number: each
        follows the one before.
        """
        width = hash_width(self.batch)
        start = hashing.role_key(self.seed, "batches") + (number - rounds) * width
        return hash_ranges(start, rounds * width)

    def seed_ranges(self) -> list[tuple[int, int]]:
        """Returns the ranges of id hashes that seeding reads."""
        return hash_ranges(hashing.role_key(self.seed, "seeding"), hash_width(self.seed_share))


def hash_ranges(start: int, width: int) -> list[tuple[int, int]]:
    """Returns the range of `width` hashes from `start` on, cut in two where it passes the largest hash."""
    if width >= vectors.HASHES:
        return [(0, vectors.HASHES)]
    start %= vectors.HASHES
    end = start + width
    if end <= vectors.HASHES:
        return [(start, end)]
    return [(0, end - vectors.HASHES), (start, vectors.HASHES)]


class SeedStep(SplitDoFn):
    """A split -> far rows: one step of k-means||. What is known of each row so far lies in a file of the split's."""

    def __init__(self, task: ClusterTask, step: int, threads: int) -> None:
        super().__init__(threads, CombineFar(task.count) if step < SEED_STEPS else CombineCounts())
        self._task, self._step = task, step

    def _state(self, key: str, step: int) -> str:
        return f"{self._task.folder}/tmp/seeding-{step}/{key}.npy"

    def work(self, element: Any, *sides: Any) -> list[Any]:
        task, step, key = self._task, self._step, element[1].key
        candidates: list[int] = sides[0]
        last = _candidates_path(task.folder, step - 1)
        points = _prepared_candidates(last) if candidates and candidates[-1] else None
        known = vectors.read_array(self._state(key, step - 1)) if step else None
        state, drawn, at = [], [], 0
        for _, rows, block in task.reader.range_blocks(key, task.seed_ranges()):
            now = np.empty(len(rows), [("squared", "<f8"), ("nearest", "<i8")])
            if known is None:
                # Nothing is chosen yet: distances are to the origin, the median of the corpus.
                wide = block.astype(np.float64)
                now["squared"], now["nearest"] = np.einsum("ij,ij->i", wide, wide), -1
            else:
                now[:] = known[at : at + len(rows)]
                if points is not None:
                    index, squared = search.search(block, points)
                    closer = (squared[:, 0] < now["squared"]) | (now["nearest"] < 0)
                    now["squared"][closer] = squared[closer, 0]
                    now["nearest"][closer] = index[closer, 0] + sum(candidates[:-1])
            at += len(rows)
            state.append(now)
            if step < SEED_STEPS:
                role = f"seeding/{step}"
                drawn.append(far.far_rows(block, rows["hash"], now["squared"], task.seed, role, task.count))
        whole = np.concatenate(state) if state else np.empty(0, [("squared", "<f8"), ("nearest", "<i8")])
        if step < SEED_STEPS:
            vectors.write_array(self._state(key, step), whole)
            return drawn
        found = whole["nearest"][whole["nearest"] >= 0]
        return [np.bincount(found, minlength=sum(candidates))]


def _candidates_path(folder: str, step: int) -> str:
    return f"{folder}/tmp/candidates-{step}.npy"


@once_a_process(2)
def _prepared_candidates(path: str) -> search.Prepared:
    return search.prepare(vectors.read_array(path))


class CombineFar(beam.CombineFn):
    """Far rows -> the `size` of them with the smallest keys; None where there is none."""

    def __init__(self, size: int) -> None:
        self._size = size

    def create_accumulator(self) -> NDArray[np.void] | None:
        return None

    def add_input(self, accumulator: NDArray[np.void] | None, element: NDArray[np.void]) -> NDArray[np.void] | None:
        return self.merge_accumulators([accumulator, element])

    def merge_accumulators(self, accumulators: Iterable[NDArray[np.void] | None]) -> NDArray[np.void] | None:
        some = [a for a in accumulators if a is not None]
        return bottom(np.concatenate(some), self._size) if some else None

    def extract_output(self, accumulator: NDArray[np.void] | None) -> NDArray[np.void] | None:
        return accumulator


def write_candidates(found: NDArray[np.void] | None, counts: list[int], task: ClusterTask, step: int) -> list[int]:
    """Writes the candidates of a step, without repeats; returns how many each step has had so far."""
    points = far.distinct(found)["vector"] if found is not None else np.empty((0, 0), np.float32)
    vectors.write_array(_candidates_path(task.folder, step), points)
    return [*counts, len(points)]


def write_seeds(weights: NDArray[np.int64] | None, counts: list[int], task: ClusterTask) -> str:
    """Reduces the candidates to centers and writes them as checkpoint 0; returns its path."""
    # For good, as in every ThreadedDoFn: the products below must not depend on the cores of the worker that this is.
    threadpool_limits(1)
    chosen = [vectors.read_array(_candidates_path(task.folder, step)) for step, count in enumerate(counts) if count]
    if chosen and weights is not None:
        points = seeding.reduce_candidates(np.concatenate(chosen), weights.astype(np.float64), task.count, task.seed)
    else:
        # Every row that seeding saw lies on the origin.
        points = np.zeros((1, read_space(task.reader.space_path).dimension), np.float32)
    path = task.checkpoint(0)
    write_centers(path, rounds.Centers(points, np.zeros(len(points))), clusters=len(points))
    return path


class AssignBatch(SplitDoFn):
    """A split, and the centers of the round before -> what its rows of the batch add. The last round keeps which center
    each row was nearest to.
    """

    def __init__(self, task: ClusterTask, number: int, threads: int) -> None:
        super().__init__(threads, CombineSums(task.count))
        self._task, self._number = task, number

    def work(self, element: Any, *sides: Any) -> list[rounds.BatchSums]:
        reference: Reference = sides[0]
        if reference.converged:
            return []
        task, points = self._task, prepared(reference.path)
        exponent = read_space(task.reader.space_path).exponent
        key = element[1].key
        found, assigned = [], [np.empty(0, np.int32)]
        for _, rows, block in task.reader.range_blocks(key, task.batch_ranges(self._number)):
            sums, nearest = rounds.batch_sums(
                block, rows["hash"], points, exponent, task.seed, self._number, self._total
            )
            found.append(sums)
            assigned.append(nearest)
        if self._number == task.rounds:
            vectors.write_array(assignment_path(task.folder, key), np.concatenate(assigned))
        return found


class CombineSums(beam.CombineFn):
    """Sparse sums of blocks -> dense sums of the batch; None where no row was read.

    One accumulator for all clusters, not a key each: Beam's table before the shuffle evicts by number of keys, not by
        bytes.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def create_accumulator(self) -> rounds.BatchSums | None:
        return None

    def add_input(
        self, accumulator: rounds.BatchSums | None, element: rounds.BatchSums | None
    ) -> rounds.BatchSums | None:
        if element is None:
            return accumulator
        if accumulator is None:
            return rounds.densify(element, self._count)
        return rounds.add(accumulator, element)

    def merge_accumulators(self, accumulators: Iterable[rounds.BatchSums | None]) -> rounds.BatchSums | None:
        total = self.create_accumulator()
        for some in accumulators:
            total = self.add_input(total, some)
        return total

    def extract_output(self, accumulator: rounds.BatchSums | None) -> rounds.BatchSums | None:
        return accumulator


class UpdateCenters(beam.DoFn):
    """The dense sums of a batch, or None where the centers had converged -> a reference to the centers after the round.

    It takes no side input: of a step that has one Beam keeps the last element until the pipeline ends, in every round.
    """

    def __init__(self, task: ClusterTask, number: int) -> None:
        self._task, self._number = task, number

    def setup(self) -> None:
        # For good, as in every ThreadedDoFn: products must not depend on the cores of the worker that this is.
        threadpool_limits(1)

    def process(self, batch: rounds.BatchSums | None) -> Iterator[Reference]:
        task, path = self._task, self._task.checkpoint(self._number)
        centers = read_centers(task.checkpoint(self._number - 1))
        if batch is None:
            write_centers(path, centers, converged=True)
            yield Reference(path, converged=True)
            return
        # With the whole corpus in every batch there is nothing to remember: Lloyd's algorithm, which ends.
        decay = 0.0 if task.batch >= 1 else rounds.DECAY
        after = rounds.update(centers, rounds.crop(batch, len(centers.points)), decay)
        converged = decay == 0 and np.array_equal(after.points, centers.points)
        count = int(batch.sums.counts.sum())
        write_centers(path, after, cost=exact.to_float(batch.cost), rows=count, converged=converged)
        yield Reference(path, converged)


class ClusterCorpus(beam.PTransform):
    """The plan of splits -> checkpoints of every round, and the representatives, as files of the stage.

    Args of the constructor:
        plan: path of the plan of splits.
        task: the settings.
        done: the last round that stands already (0: the seeding does; None: nothing), from an earlier run.
        threads: of a worker.
    """

    def __init__(self, plan: str, task: ClusterTask, done: int | None, threads: int) -> None:
        super().__init__()
        self._plan, self._task, self._done, self._threads = plan, task, done, threads

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        task, threads = self._task, self._threads
        splits = root | "Splits" >> ReadPlan(self._plan)  # JSON of a split
        if self._done is None:
            seeds = self._seed(root, splits)  # path
            reference = seeds | "Seeds" >> beam.Map(Reference)  # Reference
        else:
            reference = root | "Resume" >> beam.Create([Reference(task.checkpoint(self._done))])
        for number in range((self._done or 0) + 1, task.rounds + 1):
            sums = (
                splits
                | f"Assign{number}"
                >> beam.ParDo(AssignBatch(task, number, threads), AsSingleton(reference))  # BatchSums
                | f"Sum{number}" >> beam.CombineGlobally(CombineSums(task.count)).without_defaults()  # BatchSums | None
            )
            reference = sums | f"Update{number}" >> beam.ParDo(UpdateCenters(task, number))  # Reference
        return (splits, reference) | "Representatives" >> FindRepresentatives(
            task.reader,
            task.folder,
            task.batch_ranges(task.rounds),
            task.batch_ranges(task.rounds, LATE_ROUNDS),
            task.seed,
            task.count,
            threads,
        )

    def _seed(self, root: beam.Pipeline, splits: beam.PCollection) -> beam.PCollection:
        task, threads = self._task, self._threads
        counts = root | "NoCandidates" >> beam.Create([[]])  # candidates of each step so far
        for step in range(SEED_STEPS):
            drawn = (
                splits
                | f"Draw{step}" >> beam.ParDo(SeedStep(task, step, threads), AsSingleton(counts))  # far rows
                | f"Gather{step}" >> beam.CombineGlobally(CombineFar(task.count)).without_defaults()  # far rows | None
            )
            counts = drawn | f"Candidates{step}" >> beam.Map(write_candidates, AsSingleton(counts), task, step)
        return (
            splits
            | "Weigh" >> beam.ParDo(SeedStep(task, SEED_STEPS, threads), AsSingleton(counts))  # counts of a split
            | "Weights" >> beam.CombineGlobally(CombineCounts()).without_defaults()  # counts | None
            | "Reduce" >> beam.Map(write_seeds, AsSingleton(counts), task)  # path
        )
