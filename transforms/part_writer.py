"""Writes the parts of one split of vectors/."""

import numpy as np
import xxhash
from numpy.typing import NDArray

from tithe.transforms import vectors

PART_ROWS = 262_144
"""Rows of a part at most: what is sorted in memory at once."""

PART_BYTES = 64 << 20
"""Bytes of a part's vectors at most, unless that were fewer than 1,024 rows."""


class PartWriter:
    """Gathers rows and their stored vectors, and writes a part, in the order of the id hash, whenever it is full.

    Args of the constructor:
        folder: of the split.
        columns: stored components of a row.

    Attributes:
        parts: rows of each part written.
        hashes: id hashes of each part.
        magnitude: largest magnitude of a component.
    """

    def __init__(self, folder: str, columns: int) -> None:
        self._folder = folder
        capacity = min(PART_ROWS, max(1024, PART_BYTES // (4 * max(columns, 1))))
        self._rows = np.empty(capacity, vectors.ROW)
        self._stored = np.empty((capacity, columns), np.float32)
        self._count = 0
        self._content = xxhash.xxh3_128()
        self.columns = columns
        self.parts: list[int] = []
        self.hashes: list[NDArray[np.uint64]] = []
        self.magnitude = 0.0

    def add(self, rows: NDArray[np.void], stored: NDArray[np.float32]) -> None:
        """Adds rows, `vectors.ROW`, (n,), and their vectors, (n, columns)."""
        while len(rows):
            some = slice(self._count, self._count + len(rows))
            taken = len(self._rows[some])
            self._rows[some], self._stored[some] = rows[:taken], stored[:taken]
            self._count += taken
            rows, stored = rows[taken:], stored[taken:]
            if self._count == len(self._rows):
                self.flush()

    def flush(self) -> None:
        """Writes what has been gathered as one part."""
        rows, stored = self._rows[: self._count], self._stored[: self._count]
        self._count = 0
        if not len(rows):
            return
        self._content.update(np.ascontiguousarray(rows["hash"]).tobytes())
        self._content.update(stored.data)
        self.magnitude = max(self.magnitude, float(stored.max(initial=0)), -float(stored.min(initial=0)))
        order = np.lexsort((rows["position"], rows["piece"], rows["hash"]))
        stem = vectors.part_stem(self._folder, len(self.parts))
        vectors.write_array(f"{stem}.rows.npy", rows, order)
        vectors.write_array(f"{stem}.vectors.npy", stored, order)
        self.parts.append(len(rows))
        self.hashes.append(rows["hash"].copy())

    def content(self) -> str:
        """Returns a hash of all ids and vectors in the order of the input, for later checks."""
        return self._content.hexdigest()
