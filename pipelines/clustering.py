"""The cluster stage: how many clusters, how much of the corpus seeding and rounds read, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tithe.config import AskedLoss, Config
from tithe.progress import Progress
from tithe.transforms import vectors
from tithe.transforms.cluster import ClusterCorpus, ClusterTask
from tithe.transforms.files import exists
from tithe.transforms.kernels.promise import auto_clusters
from tithe.transforms.space import Reader
from tithe.workspace import list_files

MIN_BATCH = 10_000
"""Records that seeding and a round read at least, a round ten a cluster where that is more: fewer would leave centers
without rows.
"""

SEED_ROWS = 20
"""Records for each cluster that seeding reads, though MIN_BATCH at least: with more of them, the centers are no better
after some rounds.
"""


@dataclass
class Clustering:
    """What the cluster stage works with.

    Attributes:
        config: the configuration.
        plan: path of the plan of splits.
        reader: of vectors/.
        records: of the corpus.
        pipeline: runs a transform as a pipeline of a name.
        progress: what is told.
        threads: of a worker.
    """

    config: Config
    plan: str
    reader: Reader
    records: int
    pipeline: Callable[[str, Any], None]
    progress: Progress
    threads: int

    def make(self, folder: str) -> dict[str, Any]:
        """Clusters from the last checkpoint on, and returns the facts of the stage."""
        task = self.task(folder)
        done = max((r for r in range(task.rounds + 1) if exists(task.checkpoint(r))), default=None)
        with self.progress.watch("cluster", task.rounds + 1, lambda: _rounds(folder)):
            self.pipeline("cluster", ClusterCorpus(self.plan, task, done, self.threads))
        facts: dict[str, Any] = vectors.read_json(f"{folder}/representatives.json")
        rounds = [vectors.read_json(task.checkpoint(r).replace(".npz", ".json")) for r in range(1, task.rounds + 1)]
        return {**facts, "rounds": rounds, "batch": task.batch, "wanted": self._wanted()}

    def task(self, folder: str) -> ClusterTask:
        """Returns what the workers need to cluster."""
        cluster, rows = self.config.cluster, self.records
        count = min(self._wanted(), rows)
        return ClusterTask(
            folder=folder,
            reader=self.reader,
            count=count,
            rounds=cluster.rounds,
            batch=min(1.0, max(cluster.batch, MIN_BATCH / rows, 10 * count / rows)),
            seed_share=min(1.0, max(MIN_BATCH, SEED_ROWS * count) / rows),
            seed=cluster.seed,
        )

    def _wanted(self) -> int:
        count, loss, size = self.config.cluster.count, self.config.loss, self.config.sample.size
        if count != "auto":
            return count
        assert isinstance(loss, AskedLoss) and loss.max_calls is not None and size is not None
        return auto_clusters(loss.max_calls, loss.pilot, size, self.records)


def _rounds(folder: str) -> tuple[int, str]:
    """How many checkpoints stand, and the cost of the last round."""
    found = sorted(list_files(f"{folder}/round-*.json"))
    facts = vectors.read_json(found[-1]) if found else {}
    word = f"rounds, cost {facts['cost'] / facts['rows']:.5g} a record" if facts.get("rows") else "seeding"
    return len(found), word
