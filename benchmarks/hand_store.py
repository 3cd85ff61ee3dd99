"""The hand-written loop's copy of the vectors: raw float32, the rows of a piece in the order of a hash of their id."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from plain import Floats, Hashes, mix, read_group

PIECE_ROWS = 65_536
"""Rows sorted at a time, so that a file may be larger than memory."""

CHUNK = 8192
"""Rows read at a time; with components of at most 2^40 units, the sum of so many is exact in float64."""


@dataclass(frozen=True)
class Piece:
    """A part of an input file in the order of the hash.

    Attributes:
        path: of the raw vectors.
        dimension: d.
        hashes: of the ids, ascending, uint64, (n,).
        positions: the place of each record, counted through all files, int64, (n,).
        largest: the largest magnitude of a component.
    """

    path: Path
    dimension: int
    hashes: Hashes
    positions: NDArray[np.int64]
    largest: float

    @property
    def rows(self) -> int:
        """How many records there are."""
        return len(self.hashes)

    def chunks(self, start: int, stop: int) -> Iterator[tuple[int, Floats]]:
        """Yields (first row, vectors) of rows start .. stop - 1."""
        for low in range(start, stop, CHUNK):
            rows = min(CHUNK, stop - low)
            x = np.fromfile(self.path, np.float32, rows * self.dimension, offset=4 * low * self.dimension)
            yield low, x.reshape(rows, self.dimension)

    def ranges(self, low: int, width: int) -> list[tuple[int, int]]:
        """The rows whose hashes lie in the `width` ones from `low` on, around the end: one or two ranges."""
        high = low + width
        if width >= 2**64:
            return [(0, self.rows)]
        if high <= 2**64:
            return [(self._rank(low), self._rank(high))]
        return [(0, self._rank(high - 2**64)), (self._rank(low), self.rows)]

    def _rank(self, bound: int) -> int:
        return self.rows if bound >= 2**64 else int(np.searchsorted(self.hashes, np.uint64(bound)))


@dataclass(frozen=True)
class Store:
    """All pieces, the threads that work on them, and hashes and positions of all records in their order."""

    pieces: list[Piece]
    pool: Executor
    hashes: Hashes
    positions: NDArray[np.int64]

    def batch(self, number: int, rows: int) -> tuple[int, int]:
        """The first hash of a batch, and how many hashes follow: about `rows` records, each batch behind the last."""
        width = min(2**64, int(rows / len(self.hashes) * 2.0**64))
        return number * width % 2**64, width


def copy_corpus(files: list[str], folder: Path, pool: Executor) -> Store:
    """Copies the vectors into the folder.

    Raises SystemExit for a vector with NaN or infinity.
    """
    tasks: list[tuple[str, list[int], int]] = []
    first = 0
    for path in files:
        meta = pq.read_metadata(path)
        groups, rows = list[int](), 0
        for group in range(meta.num_row_groups):
            if rows and rows + meta.row_group(group).num_rows > PIECE_ROWS:
                tasks.append((path, groups, first))
                first, groups, rows = first + rows, [], 0
            groups.append(group)
            rows += meta.row_group(group).num_rows
        tasks.append((path, groups, first))
        first += rows

    def copy(task: tuple[int, tuple[str, list[int], int]]) -> Piece:
        return _copy_piece(*task[1], folder / f"{task[0]:05d}.f32")

    pieces = list(pool.map(copy, enumerate(tasks)))
    together = np.concatenate([piece.hashes for piece in pieces])
    return Store(pieces, pool, together, np.concatenate([piece.positions for piece in pieces]))


def _copy_piece(path: str, groups: list[int], first: int, target: Path) -> Piece:
    file = pq.ParquetFile(path)
    rows = sum(file.metadata.row_group(group).num_rows for group in groups)
    ids, vectors, at, largest = np.empty(rows, np.int64), np.empty((0, 0), np.float32), 0, 0.0
    for group in groups:
        some, x = read_group(file, group)
        if not at:
            vectors = np.empty((rows, x.shape[1]), np.float32)
        top = max(float(x.max()), -float(x.min()))  # NaN goes through both
        if not np.isfinite(top):
            raise SystemExit(f"{path}: a vector with NaN or infinity in row group {group}")
        ids[at : at + len(x)], vectors[at : at + len(x)] = some, x
        at, largest = at + len(x), max(largest, top)
    hashes = mix(ids.view(np.uint64))
    order = np.argsort(hashes)
    with open(target, "wb", buffering=0) as out:
        for low in range(0, rows, CHUNK):
            out.write(np.take(vectors, order[low : low + CHUNK], axis=0).data)
    return Piece(target, vectors.shape[1], hashes[order], first + order, largest)
