"""Steps of a selection in plain numpy, for the programs that tithe is compared with. Nothing here is tithe's.

Run with OPENBLAS_NUM_THREADS=1 where several threads call these: numpy lets go of Python's lock in products.
"""

import glob
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

BLOCK = 1024
"""Rows of a product: with its buffer of BLOCK x k float32 it stays in the processor's cache."""

Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]


def list_files(pattern: str) -> list[str]:
    """The files that a pattern names, in order; SystemExit where there is none."""
    found = sorted(glob.glob(pattern))
    if not found:
        raise SystemExit(f"{pattern}: no such file; write the data first")
    return found


def read_group(file: pq.ParquetFile, group: int) -> tuple[NDArray[np.int64], Floats]:
    """The ids, int64, (n,), and vectors, float32, (n, d), of a row group."""
    table = file.read_row_group(group, use_threads=False)
    values = table["vector"].combine_chunks().values.to_numpy()
    return table["id"].to_numpy(), values.reshape(len(table), -1)


def mix(z: Hashes) -> Hashes:
    """The finaliser of SplitMix64: 64 bits that look random, for 64 that need not."""
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(hashes: Hashes, use: int) -> NDArray[np.float64]:
    """A number strictly between 0 and 1 for each hash; another one for each use."""
    with np.errstate(over="ignore"):
        mixed = mix(hashes ^ mix(np.array([use], np.uint64)))
    return ((mixed >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


class Search:
    """The nearest of k centers, by one product a block."""

    def __init__(self, centers: Floats) -> None:
        self.centers = np.ascontiguousarray(centers, np.float32)
        self._transposed = np.ascontiguousarray(self.centers.T)
        self._half_norms = np.einsum("ij,ij->i", self.centers, self.centers) / 2

    def assign(self, x: Floats) -> tuple[NDArray[np.int32], Floats]:
        """The nearest center of each row, (n,), and x c - |c|^2 / 2 there, (n,)."""
        index, best = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
        buffer = np.empty((min(BLOCK, len(x)), len(self.centers)), np.float32)
        for low in range(0, len(x), BLOCK):
            rows = x[low : low + BLOCK]
            scores = buffer[: len(rows)]
            np.matmul(rows, self._transposed, out=scores)
            scores -= self._half_norms
            nearest = scores.argmax(1)
            index[low : low + BLOCK] = nearest
            best[low : low + BLOCK] = scores[np.arange(len(rows)), nearest]
        return index, best

    def squared(self, x: Floats, index: NDArray[np.int32]) -> Floats:
        """The squared distance of each row to the center named beside it, from x - c, float32, (n,)."""
        out = np.empty(len(x), np.float32)
        buffer = np.empty((min(BLOCK, len(x)), x.shape[1]), np.float32)
        for low in range(0, len(x), BLOCK):
            rows = x[low : low + BLOCK]
            difference = buffer[: len(rows)]
            np.take(self.centers, index[low : low + BLOCK], axis=0, out=difference, mode="clip")
            np.subtract(rows, difference, out=difference)
            np.einsum("ij,ij->i", difference, difference, out=out[low : low + BLOCK])
        return out


def draw(squared: Floats, hashes: Hashes, size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pareto sampling in proportion to 1 + squared distance / its mean: the rows, (m,), and their probabilities.

    Args:
        squared: float32, (n,).
        hashes: of the ids, uint64, (n,).
        size: of the sample, less than n.
    """
    proxy = 1 + squared.astype(np.float64) / max(float(squared.mean(dtype=np.float64)), 1e-300)
    probability = proxy * (size / proxy.sum())
    while (above := probability > 1).any():  # these are certain, and the others share what is left
        certain = probability >= 1
        probability[~certain] = proxy[~certain] * ((size - certain.sum()) / proxy[~certain].sum())
        probability[above] = 1
    u = uniform(hashes, 1 << 32)
    keys = u * (1 - probability) / ((1 - u) * probability)
    rows = np.sort(np.argpartition(keys, size)[:size])
    return rows, probability[rows]


def fetch(files: list[str], rows: NDArray[np.int64], pool: Executor) -> pa.Table:
    """The records at the given places, counted through all files, ascending; only row groups that hold one are read."""
    counts = [pq.read_metadata(path).num_rows for path in files]
    bounds = np.searchsorted(rows, np.cumsum([0, *counts]))
    starts = np.cumsum([0, *counts])

    def from_file(number: int) -> pa.Table:
        return _rows_of(files[number], rows[bounds[number] : bounds[number + 1]] - starts[number])

    return pa.concat_tables(pool.map(from_file, range(len(files))))


def _rows_of(path: str, positions: NDArray[np.int64]) -> pa.Table:
    file = pq.ParquetFile(path)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    bounds = np.cumsum([0, *sizes])
    found = []
    for group in np.unique(np.searchsorted(bounds, positions, side="right") - 1).tolist():
        here = positions[(positions >= bounds[group]) & (positions < bounds[group + 1])] - bounds[group]
        found.append(file.read_row_group(group, use_threads=False).take(here))
    return pa.concat_tables(found) if found else file.schema_arrow.empty_table()


def write_sample(
    path: Path,
    records: pa.Table,
    probability: NDArray[np.float64],
    cluster: NDArray[np.integer],
    squared: NDArray[np.floating],
) -> None:
    """Writes the drawn records with weight, probability, cluster and distance."""
    for name, values in (
        ("weight", 1 / probability),
        ("probability", probability),
        ("cluster", cluster),
        ("distance", np.sqrt(squared)),
    ):
        records = records.append_column(name, pa.array(values))
    pq.write_table(records, path, compression="none")
