"""A selection by hand: the work of `tithe select` on vectors in Parquet, as a loop over files in numpy.

    OPENBLAS_NUM_THREADS=1 python benchmarks/hand_loop.py --files PATTERN --rows N --dimension D --result FILE

Two threads in one process: a copy of the vectors in the order of a hash, so that a batch is a range of each piece;
k-means|| seeding; rounds of mini-batch k-means with exact sums; means rounded to records; one full pass with distances
recomputed; the pareto draw; the chosen records read again. Nothing is checked but what numpy finds for itself, nothing
is kept for a second run, and nothing is told: what a user would write for one corpus. Needs numpy, scipy and pyarrow.
"""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from bench_program import Job, program
from hand_clusters import round_centers, run_rounds, seed
from hand_store import Store, copy_corpus
from numpy.typing import NDArray
from plain import Search, draw, fetch, list_files, write_sample

THREADS = 2


def score(store: Store, anchors: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The full pass: the nearest anchor of each record, in the order of the store, and the squared distance."""
    search = Search(anchors)

    def of_piece(number: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        piece = store.pieces[number]
        index, squared = np.empty(piece.rows, np.int32), np.empty(piece.rows, np.float32)
        for low, x in piece.chunks(0, piece.rows):
            part = slice(low, low + len(x))
            index[part], _ = search.assign(x)
            squared[part] = search.squared(x, index[part])
        return index, squared

    found = list(store.pool.map(of_piece, range(len(store.pieces))))
    return np.concatenate([index for index, _ in found]), np.concatenate([squared for _, squared in found])


def select(job: Job, figures: dict[str, Any]) -> None:
    """Does the whole job, and puts the seconds of each phase into the figures."""
    seconds = figures["phases"] = {}
    start = time.perf_counter()

    def done(phase: str) -> None:
        nonlocal start
        now = time.perf_counter()
        seconds[phase], start = round(now - start, 2), now

    files = list_files(job.files)
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    with ThreadPoolExecutor(THREADS) as pool:
        store = copy_corpus(files, job.folder, pool)
        done("copy")
        centers = seed(store, job.seed_rows, job.clusters)
        done("seeding")
        centers, assigned = run_rounds(store, centers, job.rounds, job.batch_rows)
        np.save(job.folder / "means.npy", centers)
        done("rounds")
        anchors = round_centers(store, centers, assigned, job.rounds, job.batch_rows)
        done("rounding")
        cluster, squared = score(store, anchors)
        done("score")
        chosen, probability = draw(squared, store.hashes, job.size)
        done("draw")
        order = np.argsort(store.positions[chosen])
        chosen, probability = chosen[order], probability[order]
        records = fetch(files, store.positions[chosen], pool)
        write_sample(job.folder / "sample.parquet", records, probability, cluster[chosen], squared[chosen])
        done("fetch")
    figures["cost_of_anchors"] = float(squared.sum(dtype=np.float64))
    figures["clusters"], figures["drawn"] = len(anchors), len(records)


def main() -> None:
    """Reads the command line, selects, and writes the figures."""
    with program("a selection by hand") as (job, figures):
        select(job, figures)


if __name__ == "__main__":
    main()
