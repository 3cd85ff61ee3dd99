"""The cost of centers, by one full pass in plain numpy: the sum of squared distances to the nearest.

    OPENBLAS_NUM_THREADS=1 python benchmarks/bench_cost.py --files PATTERN --method CENTERS.npy --result FILE

CENTERS.npy is float32, (k, d), in the space of the input. Distances are taken from x - c, and summed in float64.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
from bench_program import program
from plain import Search, list_files, read_group


def file_cost(path: str, search: Search) -> tuple[float, int]:
    """The cost and the number of the records of one file."""
    file, total, rows = pq.ParquetFile(path), 0.0, 0
    for group in range(file.num_row_groups):
        _, x = read_group(file, group)
        total += float(search.squared(x, search.assign(x)[0]).sum(dtype=np.float64))
        rows += len(x)
    return total, rows


def main() -> None:
    """Reads the command line and writes the cost."""
    with program("the cost of centers") as (job, figures), ThreadPoolExecutor(2) as pool:
        search = Search(np.load(job.method))
        costs = list(pool.map(lambda path: file_cost(path, search), list_files(job.files)))
        figures["cost"] = sum(cost for cost, _ in costs)
        figures["cost_per_record"] = round(figures["cost"] / sum(rows for _, rows in costs), 4)


if __name__ == "__main__":
    main()
