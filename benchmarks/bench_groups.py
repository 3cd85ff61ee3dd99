"""Reads the row groups that hold the records of a sample, with pyarrow, in two threads, and writes how long it took.

python benchmarks/bench_groups.py PATTERN SAMPLE RESULT.json
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from plain import list_files

THREADS = 2


def main() -> None:
    """Reads the command line, reads the row groups, and writes the seconds of that."""
    files, sample, result = list_files(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    drawn = pq.read_table(sample, columns=["tithe_file", "tithe_position"])
    names = np.array([Path(name).name for name in drawn["tithe_file"].to_pylist()])
    positions = drawn["tithe_position"].to_numpy()

    def read(path: str) -> int:
        file = pq.ParquetFile(path)
        ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
        groups = np.unique(np.searchsorted(ends, positions[names == Path(path).name], side="right"))
        for group in groups.tolist():
            file.read_row_group(group, use_threads=False)
        return len(groups)

    start = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        groups = sum(pool.map(read, files))
    # Of the reading alone: starting Python and finding the groups is no part of it.
    figures = {"wall_seconds": round(time.perf_counter() - start, 3), "row_groups": groups}
    result.write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
