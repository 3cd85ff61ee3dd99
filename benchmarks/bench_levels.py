"""Times the search on two levels beside the exact one, in alternation, and compares what they find.

OPENBLAS_NUM_THREADS=1 python benchmarks/bench_levels.py ROWS CENTERS REPETITIONS RESULT.json
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from bench_data import mixture

from tithe.transforms.kernels import groups, nearest
from tithe.transforms.vectors import chunk_rows


def main() -> None:
    """Reads the command line and writes seconds, and the cost lost, for each dimension and number of neighbours."""
    rows, centers, repetitions, result = *map(int, sys.argv[1:4]), Path(sys.argv[4])
    found: dict[str, dict[str, list[float]]] = {}
    for dimension in (384, 64):
        data = mixture(dimension, 0)(rows + centers)
        points, x = data[::2][:centers].copy(), np.concatenate([data[1::2], data[2 * centers :: 2]])[:rows]
        chunks = [x[low : low + chunk_rows(dimension)] for low in range(0, rows, chunk_rows(dimension))]
        exact, grouped = nearest.prepare(points), groups.prepare(points)
        for q in (1, 5):
            searches = {
                "exact": partial(nearest.nearest, points=exact, q=q),
                "two levels": partial(groups.search, groups=grouped, q=q),
            }
            for _ in range(repetitions):
                cost = {}
                for name, search in searches.items():
                    start = time.perf_counter()
                    with ThreadPoolExecutor(2) as pool:
                        parts = list(pool.map(search, chunks))
                    taken = round(time.perf_counter() - start, 4)
                    cost[name] = sum(float(squared[:, 0].sum()) for _, squared in parts)
                    found.setdefault(f"d = {dimension}, q = {q}", {}).setdefault(name, []).append(taken)
                lost = cost["two levels"] / cost["exact"] - 1
                found[f"d = {dimension}, q = {q}"].setdefault("cost lost", []).append(round(lost, 5))
    result.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
