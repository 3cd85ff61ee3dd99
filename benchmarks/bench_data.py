"""Writes vectors for bench.py: 8 Parquet files with the columns id, int64, and vector, fixed-size lists of float32.

    python benchmarks/bench_data.py mixture FOLDER --rows N --dimension D
    python benchmarks/bench_data.py sorted FOLDER --files PATTERN --centers CENTERS.npy
    python benchmarks/bench_data.py shuffled FOLDER --files PATTERN

mixture: 2,000 normal clusters of different sizes and spreads, as those of j1.py, in any dimension. sorted, shuffled:
the same records as in other files, in the order of their nearest center, or in none.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from j1 import CLUSTERS, FILES, ROW_GROUP, SEED
from numpy.typing import NDArray
from peers import read_all
from plain import Floats, Search, list_files

Rows = Callable[[int, int], tuple[NDArray[np.int64], Floats]]
"""From a first row and the one behind the last to ids and vectors."""


def mixture(dimension: int, number: int) -> Callable[[int], Floats]:
    """Returns a source of vectors, float32, (rows, dimension), of file `number`; the clusters are the same in all."""
    shared, own = np.random.default_rng(SEED), np.random.default_rng([SEED, number])
    centers = shared.standard_normal((CLUSTERS, dimension), np.float32)
    spread = shared.uniform(0.3, 1.3, CLUSTERS).astype(np.float32)
    share = shared.lognormal(0.0, 1.5, CLUSTERS)

    def more(rows: int) -> Floats:
        which = own.choice(CLUSTERS, rows, p=share / share.sum())
        x: Floats = own.standard_normal((rows, dimension), np.float32)
        x *= spread[which, None]
        x += centers[which]
        return x

    return more


def write(path: Path, dimension: int, rows: int, read: Rows) -> None:
    """Writes a file, which has its name only when it is whole."""
    schema = pa.schema({"id": pa.int64(), "vector": pa.list_(pa.float32(), dimension)})
    part = path.with_suffix(".part")
    with pq.ParquetWriter(part, schema, compression="none", use_dictionary=False) as writer:
        for low in range(0, rows, ROW_GROUP):
            ids, x = read(low, min(low + ROW_GROUP, rows))
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), dimension)
            writer.write_table(pa.table([pa.array(ids), vectors], schema=schema))
    part.replace(path)


def write_mixture(path: Path, number: int, rows: int, dimension: int) -> None:
    """Writes one file of a mixture: a function of its number, rows and dimension alone."""
    source = mixture(dimension, number)
    write(path, dimension, rows, lambda low, high: (number * rows + np.arange(low, high), source(high - low)))


def reorder(files: list[str], folder: Path, centers: Path | None) -> None:
    """Writes the records of the files sorted by their nearest center, or shuffled; holds them all in memory."""
    dimension = pq.ParquetFile(files[0]).schema_arrow.field("vector").type.list_size
    ids, x = read_all(files, dimension)
    if centers is None:
        order = np.random.default_rng(SEED).permutation(len(x))
    else:
        order = np.argsort(Search(np.load(centers)).assign(x)[0], kind="stable")
    bounds = np.linspace(0, len(x), FILES + 1).astype(int)
    for number, some in enumerate(np.split(order, bounds[1:-1])):
        write(
            folder / f"{number}.parquet",
            dimension,
            len(some),
            lambda low, high, some=some: (ids[some[low:high]], x[some[low:high]]),  # type: ignore[misc]
        )


def main() -> None:
    """Reads the command line and writes what is missing."""
    parser = argparse.ArgumentParser(description="Writes vectors for bench.py.")
    parser.add_argument("what", choices=("mixture", "sorted", "shuffled"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--files", default="")
    parser.add_argument("--centers", type=Path)
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if options.what != "mixture":
        reorder(list_files(options.files), folder, options.centers if options.what == "sorted" else None)
        return
    rows = options.rows // FILES
    paths = [folder / f"{number}.parquet" for number in range(FILES)]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        jobs = [
            pool.submit(write_mixture, path, number, rows, options.dimension)
            for number, path in enumerate(paths)
            if not path.exists()
        ]
        for job in jobs:
            job.result()


if __name__ == "__main__":
    main()
