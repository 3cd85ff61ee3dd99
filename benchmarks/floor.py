"""The bare matrix products of a selection, at the speed of this minute: below it no implementation can come.

    OPENBLAS_NUM_THREADS=1 python benchmarks/floor.py --rows N --dimension D --clusters K --rounds R --result FILE

Multiplies blocks of float32 rows, which stay in the cache, with the clusters: as many rows as seeding, rounds
and the full pass multiply, in two threads. Nothing is read, added up or written.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from bench_program import Job, program

BLOCK = 1024
THREADS = 2


def multiply(blocks: int, dimension: int, clusters: int) -> None:
    """Multiplies a block so many times into a buffer that is kept."""
    random = np.random.default_rng(1)
    x = random.standard_normal((BLOCK, dimension), np.float32)
    centers = random.standard_normal((dimension, clusters), np.float32)
    out = np.empty((BLOCK, clusters), np.float32)
    for _ in range(blocks):
        np.matmul(x, centers, out=out)


def main() -> None:
    """Reads the command line and writes the seconds."""
    with program("the bare products of a selection") as (job, figures):
        blocks = -(-multiplied_rows(job) // BLOCK // THREADS)
        start = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda _: multiply(blocks, job.dimension, job.clusters), range(THREADS)))
        seconds = time.perf_counter() - start
        figures["wall_seconds"] = round(seconds, 2)  # of the products alone: starting Python is no part of the floor
        operations = 2 * THREADS * blocks * BLOCK * job.dimension * job.clusters
        figures["gigaflops_a_second"] = round(operations / seconds / 1e9, 1)


def multiplied_rows(job: Job) -> int:
    """How many rows meet all clusters: 3 steps of seeding and 5 reductions of their candidates, rounds, the full
    pass."""
    return 3 * job.seed_rows + 5 * 3 * job.clusters + job.rounds * job.batch_rows + job.rows


if __name__ == "__main__":
    main()
