"""Measures what was tried and decided by its cost: ways to keep, read, compare and cluster vectors.

    python benchmarks/trials.py [--rows N] [--folder FOLDER] [--results FOLDER]

Each trial stands beside what is done in its place, in alternation in one process with one thread; 1.00 is what is done.
The clusterings are those of `tithe select`, with constants replaced, on --rows (250,000) vectors of 64 numbers, and
1,000 clusters (fewer for few rows), some of which starve; what is compared there is the cost of the means after 8
rounds, over three seeds.

Prints a table and writes it to trials.md in benchmarks/results. Some three minutes.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench_data import mixture, write_mixture
from measure import machine
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tithe import cli, clustering
from tithe.transforms import cluster, vectors
from tithe.transforms.kernels import far, groups, nearest, rounds, seeding

REPETITIONS = 7
CLUSTERINGS = {
    "as it is done": (3, 20, 4, None),
    "seeding in 4 steps from 100 records a cluster": (4, 100, 4, None),
    "seeding from 60 records a cluster": (3, 60, 4, None),
    "seeding from 12 records a cluster": (3, 12, 4, None),
    "seeding in 2 steps": (2, 20, 4, None),
    "seeding with one draw for a center": (3, 20, 1, None),
    "seeding with 8 draws for a center": (3, 20, 8, None),
    "8 far rows for each center without rows, 256 at least": (3, 20, 4, 8),
}
"""Steps, records a cluster, and draws for a center of k-means++; far rows for each center that chooses among them, None
for all.
"""

LEVELS = ((32, 4), (64, 8), (128, 4))
"""Points of a group at most, and groups in which a row looks."""

Floats = NDArray[np.float32]


def ratio(trial: Callable[[], object], done: Callable[[], object]) -> str:
    """The time of a trial beside that of what is done: the median of the ratios, the least and the largest."""
    ratios = []
    for _ in range(REPETITIONS):
        taken = []
        for work in (trial, done):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
        ratios.append(taken[0] / taken[1])
    return f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def distances(x: Floats) -> str:
    """A search in which the distances that are kept come from differences in float32, beside float64."""
    points = nearest.prepare(x[:1000].copy())
    centers = x[:1000].copy()

    def narrow(rows: Floats, _: NDArray[np.float64], index: NDArray[np.integer]) -> NDArray[np.float64]:
        out = np.empty(index.shape)
        for j in range(index.shape[1]):
            difference = rows - np.take(centers, index[:, j], axis=0)
            out[:, j] = np.einsum("ij,ij->i", difference, difference)
        return out

    def trial() -> None:
        with mock.patch.object(nearest, "squared_distances", narrow):
            nearest.nearest(x, points)

    return ratio(trial, lambda: nearest.nearest(x, points))


def float16(x: Floats, folder: Path) -> str:
    """Vectors that lie on disk as float16 and are widened when they are read, beside float32."""
    half, single = f"{folder}/half.npy", f"{folder}/single.npy"
    vectors.write_array(half, x.astype(np.float16))
    vectors.write_array(single, x)
    return ratio(lambda: vectors.read_array(half).astype(np.float32), lambda: vectors.read_array(single))


def levels(x: Floats, size: int, looked: int) -> tuple[str, str]:
    """The search on two levels for 1,000 centers, which are means, in groups of `size`, of which each row looks in the
    `looked` nearest: its time beside that of the exact search, and its cost.
    """
    points, rows = nearest.prepare(seeding.reduce_candidates(x[:8000], np.ones(8000), 1000, 1)), x[8000:]
    with mock.patch.object(groups, "SIZE", size), mock.patch.object(groups, "NEAREST", looked):
        grouped = groups.prepare(points.exact.astype(np.float32))
        taken = ratio(lambda: groups.search(rows, grouped), lambda: nearest.nearest(rows, points))
        cost = groups.search(rows, grouped)[1].sum() / nearest.nearest(rows, points)[1].sum()
    return taken, f"{cost:.3f}"


def batches(path: Path, megabytes: int, mapped: bool = False) -> str:
    """The vectors of a Parquet file read in batches of another size, or from mapped memory, beside batches of 4 MB."""
    width = 4 * pq.ParquetFile(path).schema_arrow.field("vector").type.list_size

    def read(size: int, source: pa.NativeFile) -> None:
        for batch in pq.ParquetFile(source).iter_batches((size << 20) // width, columns=["vector"], use_threads=False):
            batch.column(0).flatten().to_numpy()

    opened = pa.memory_map if mapped else pa.OSFile
    return ratio(lambda: read(megabytes, opened(str(path))), lambda: read(4, pa.OSFile(str(path))))


def clusterings(data: Path, folder: Path, clusters: int) -> dict[str, str]:
    """The cost of the means with other constants of seeding and rounds, beside tithe's."""
    config = {
        "input": {"files": f"{data}/*.parquet", "id": "id"},
        "embed": {"kind": "column", "column": "vector"},
        "cluster": {"count": clusters, "rounds": 8},
        "loss": {"kind": "constant"},
        "sample": {"size": 100},
        "output": {"path": f"{folder}/out"},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))
    costs: dict[str, list[float]] = {}
    for seed in ("1", "2", "3"):
        for number, (name, (steps, rows, draws, offered)) in enumerate(CLUSTERINGS.items()):

            def choose(some: NDArray[np.void], count: int, offered: int | None = offered) -> Floats:
                return far.choose(some if offered is None else some[: max(256, offered * count)], count)

            with (
                mock.patch.object(cluster, "SEED_STEPS", steps),
                mock.patch.object(clustering, "SEED_ROWS", rows),
                mock.patch.object(clustering, "MIN_BATCH", 10 * clusters),  # else it would decide how much is read
                mock.patch.object(seeding, "TRIALS", draws),
                mock.patch.object(rounds, "choose", choose),
            ):
                # A folder for each: what a process has read of centers it keeps by their path.
                out = folder / f"out-{seed}-{number}"
                shutil.rmtree(out, ignore_errors=True)
                given = ("--set", f"cluster.seed={seed}", "--set", f"output.path={out}")
                code = cli.main(["select", str(path), "--quiet", *given])
            assert code == 0, "the selection failed"
            found = json.loads((out / "manifest.json").read_text())["cluster"]["cost_of_means"]
            shutil.rmtree(out)
            costs.setdefault(name, []).append(found["cost"] / found["records"])
    ratios = {name: np.divide(some, costs["as it is done"]) for name, some in costs.items() if name != "as it is done"}
    return {
        f"{name}: cost of the means": f"{some.mean():.3f} ({some.min():.3f} to {some.max():.3f})"
        for name, some in ratios.items()
    }


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description="Measures what was tried and decided by its cost.")
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--folder", type=Path, default=Path(".cache/trials"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    folder, rows = options.folder.resolve(), options.rows
    (folder / "data").mkdir(parents=True, exist_ok=True)
    options.results.mkdir(parents=True, exist_ok=True)
    write_mixture(folder / "wide.parquet", 0, min(rows, 65_536), 384)
    write_mixture(folder / "data/0.parquet", 0, rows, 64)
    x = mixture(384, 0)(min(rows, 16_384))
    threadpool_limits(1)
    two_levels = {}
    for size, looked in LEVELS:
        name = f"two levels for 1,000 centers, {looked} groups of {size} at most"
        two_levels[f"{name}: time of a search"], two_levels[f"{name}: cost"] = levels(x, size, looked)
    found = {
        "distances from differences in float32: time of a search": distances(x),
        "vectors on disk as float16: time to read them from the system's cache": float16(x, folder),
        "Parquet in batches of 32 MB: time to read": batches(folder / "wide.parquet", 32),
        "Parquet in batches of 1 MB: time to read": batches(folder / "wide.parquet", 1),
        "Parquet in batches of 4 MB from mapped memory: time to read": batches(folder / "wide.parquet", 4, mapped=True),
        **two_levels,
        **clusterings(folder / "data", folder, min(1000, rows // 250)),
    }
    lines = [
        "# Trials",
        "",
        f"`python benchmarks/trials.py`, {time.strftime('%Y-%m-%d')}, {machine()}. 1.00 is what is done in its place;",
        "in brackets the least and the largest.",
        "",
        "| trial | beside what is done |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in found.items()),
    ]
    page = "\n".join(lines) + "\n"
    print(page)
    (options.results / "trials.md").write_text(page)


if __name__ == "__main__":
    main()
