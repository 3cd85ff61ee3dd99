"""Times the kernel of the full pass with several nearest anchors and with one, in alternation.

OPENBLAS_NUM_THREADS=1 python benchmarks/bench_neighbors.py ROWS REPETITIONS RESULT.json
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench_data import mixture

from tithe.transforms.kernels import nearest
from tithe.transforms.vectors import chunk_rows

CASES = {"one of 1,000": (1, 1000), "five of 1,200": (5, 1200)}


def main() -> None:
    """Reads the command line and writes the seconds of each case."""
    rows, repetitions, result = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    seconds: dict[str, list[float]] = {}
    for dimension in (384, 64):
        x = mixture(dimension, 0)(rows)
        chunks = [x[low : low + chunk_rows(dimension)] for low in range(0, rows, chunk_rows(dimension))]
        anchors = {name: nearest.prepare(x[:: rows // k][:k].copy()) for name, (_, k) in CASES.items()}
        for _ in range(repetitions):
            for name, (q, _) in CASES.items():
                start = time.perf_counter()
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(partial(nearest.nearest, points=anchors[name], q=q), chunks))
                taken = round(time.perf_counter() - start, 4)
                seconds.setdefault(f"d = {dimension}, {name}", []).append(taken)
    result.write_text(json.dumps(seconds, indent=1) + "\n")


if __name__ == "__main__":
    main()
