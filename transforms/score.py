"""The score stage: one full pass that finds the nearest anchors of every record, and totals over scores/.

scores/ holds anchors and squared distances only, aligned with vectors/: the proxy is computed when it is read, so
another loss or Lipschitz constant rewrites nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.files import exists
from tithe.transforms.kernels import exact, search
from tithe.transforms.parallel import ReadPlan, SplitDoFn, once_a_process
from tithe.transforms.space import Reader


def score_dtype(q: int) -> np.dtype[np.void]:
    """The dtype of a row of scores/: the q nearest anchors, nearest first, and the squared Euclidean distances
    to them.
    """
    return np.dtype([("anchor", "<i4", (q,)), ("squared", "<f4", (q,))])


@dataclass(frozen=True)
class ScoreTask:
    """What the workers need to score.

    Attributes:
        folder: of scores/.
        reader: of vectors/.
        anchors: path of the anchors, a structured array with a field `vector`, (k,).
        neighbors: q.
    """

    folder: str
    reader: Reader
    anchors: str
    neighbors: int


@once_a_process(2)
def prepared_anchors(path: str) -> search.Prepared:
    """Returns the anchors ready for search, read once in a process."""
    return search.prepare(np.ascontiguousarray(vectors.read_array(path)["vector"]))


@dataclass
class ClusterTotals:
    """What the clusters hold: counts, int64, (k,), and exact costs (`exact.to_float`), k integers."""

    counts: NDArray[np.int64]
    costs: list[int]


class ScoreSplit(SplitDoFn):
    """A split -> its ClusterTotals; the scores go to disk."""

    def __init__(self, task: ScoreTask, threads: int) -> None:
        super().__init__(threads, CombineClusters())
        self._task = task

    def work(self, element: Any, *sides: Any) -> list[ClusterTotals]:
        task, key = self._task, element[1].key
        folder = f"{task.folder}/{key}"
        points = prepared_anchors(task.anchors)
        k = len(points.exact)
        if exists(vectors.done_path(folder)):
            done = vectors.read_json(vectors.done_path(folder))
            return [ClusterTotals(np.array(done["counts"], np.int64), [int(c, 16) for c in done["costs"]])]
        counts, costs = np.zeros(k, np.int64), [0] * k
        for number, part in enumerate(task.reader.parts(key)):
            scores = np.empty(part.rows, score_dtype(task.neighbors))
            at = 0
            for rows, block in task.reader.blocks(part):
                some = scores[at : at + len(rows)]
                some["anchor"], some["squared"] = search.search(block, points, task.neighbors)
                at += len(rows)
            cluster = scores["anchor"][:, 0]
            counts += np.bincount(cluster, minlength=k)
            more = exact.exact_sums(scores["squared"][:, 0].astype(np.float64), cluster, k)
            costs = [a + b for a, b in zip(costs, more, strict=True)]
            vectors.write_array(f"{vectors.part_stem(folder, number)}.scores.npy", scores)
        vectors.write_json(vectors.done_path(folder), {"counts": counts.tolist(), "costs": [f"{c:x}" for c in costs]})
        return [ClusterTotals(counts, costs)]


class CombineClusters(beam.CombineFn):
    """ClusterTotals of splits -> ClusterTotals of the corpus; None where there is none."""

    def create_accumulator(self) -> ClusterTotals | None:
        return None

    def add_input(self, accumulator: ClusterTotals | None, element: ClusterTotals) -> ClusterTotals | None:
        return self.merge_accumulators([accumulator, element])

    def merge_accumulators(self, accumulators: Iterable[ClusterTotals | None]) -> ClusterTotals | None:
        some = [a for a in accumulators if a is not None]
        if not some:
            return None
        return ClusterTotals(
            np.sum([a.counts for a in some], axis=0), [sum(c) for c in zip(*(a.costs for a in some), strict=True)]
        )

    def extract_output(self, accumulator: ClusterTotals | None) -> ClusterTotals | None:
        return accumulator


def write_clusters(totals: ClusterTotals | None, path: str) -> None:
    """Writes counts and costs of the clusters: a structured array with the fields count and cost, (k,), costs rounded
    to float64.
    """
    assert totals is not None, "the plan has a split"
    out = np.empty(len(totals.counts), [("count", "<i8"), ("cost", "<f8")])
    out["count"], out["cost"] = totals.counts, [exact.to_float(c) for c in totals.costs]
    vectors.write_array(path, out)
    vectors.write_json(
        path.replace(".npy", ".json"), {"cost": exact.to_float(sum(totals.costs)), "rows": int(totals.counts.sum())}
    )


class ScoreCorpus(beam.PTransform):
    """The plan of splits -> scores/, and the clusters' totals in one file."""

    def __init__(self, plan: str, task: ScoreTask, path: str, threads: int) -> None:
        super().__init__()
        self._plan, self._task, self._path, self._threads = plan, task, path, threads

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        return (
            root
            | "Splits" >> ReadPlan(self._plan)
            | "Score" >> beam.ParDo(ScoreSplit(self._task, self._threads))
            | "Total" >> beam.CombineGlobally(CombineClusters()).without_defaults()
            | "Write" >> beam.Map(write_clusters, self._path)
        )
