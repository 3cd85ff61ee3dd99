"""The parts of vectors/ and scores/: plain .npy files, aligned row by row, in the order of the id hash.

A split has one folder with, for each part i, `i.rows.npy` (where each record is), `i.vectors.npy`, and, once all of
them stand, `done.json`. Since the rows lie in hash order, those that a hash picks for a batch are one contiguous range,
and only its bytes are read.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tithe.transforms.counters import READ, count
from tithe.transforms.files import open_bytes, write_atomically

ROW = np.dtype([("hash", "<u8"), ("position", "<i8"), ("piece", "<i4"), ("label", "<u8")])
"""Where a record is: id hash, position in its file, which piece of its split; and its label (bits of a float64, or a
hash).
"""

HASHES = 2**64
CHUNK_BYTES = 8 << 20
"""Bytes of vectors read or written at a time: a round's tenth of a full part, with some to spare."""

_HEADER_BYTES = 512  # what is read to learn shape and type; numpy's headers of these files take 128 to 256


@dataclass(frozen=True)
class Part:
    """One part of a split; `stem` is its path without `.rows.npy`."""

    stem: str
    rows: int


def part_stem(folder: str, part: int) -> str:
    """Returns the path of a part without its suffix."""
    return f"{folder}/{part:05d}"


def done_path(folder: str) -> str:
    """Returns the path of what says that a split is finished."""
    return f"{folder}/done.json"


def read_json(path: str) -> Any:
    """Returns the content of a JSON file."""
    with open_bytes(path) as file:
        return json.loads(file.read())


def write_json(path: str, value: Any) -> None:
    """Writes a JSON file under its final name only when it is whole."""
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


class ArrayFile:
    """A .npy file of which ranges of rows are read: their bytes and no others. `shape` is that of the whole array."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open_bytes(path, buffer_bytes=_HEADER_BYTES)
        np.lib.format.read_magic(self._file)
        self.shape, _, self._dtype = np.lib.format.read_array_header_1_0(self._file)
        self._start = self._file.tell()

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Returns rows start .. stop - 1."""
        stop = self.shape[0] if stop is None else stop
        out = np.empty((max(stop - start, 0), *self.shape[1:]), self._dtype)
        if out.nbytes:
            self._file.seek(self._start + start * (out.nbytes // len(out)))
            view, at = out.view(np.uint8).reshape(-1).data, 0
            while at < len(view):
                got = self._file.readinto(view[at:])
                if not got:
                    raise EOFError(f"{self._path} ends {len(view) - at} bytes early; remove its folder and run again")
                at += got
            count(READ, len(view))
        return out


def read_array(path: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Returns rows start .. stop - 1 of a .npy file, reading their bytes only."""
    with ArrayFile(path) as file:
        return file.read(start, stop)


def write_array(path: str, array: NDArray[Any], order: NDArray[np.integer] | None = None) -> int:
    """Writes a .npy file, its rows in the given order; returns the number of bytes. No second copy of the array is
    made.
    """

    def write(file: Any) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(file, header)
        height = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
        for low in range(0, len(array), height):
            some = array[low : low + height] if order is None else array[order[low : low + height]]
            file.write(np.ascontiguousarray(some).view(np.uint8).reshape(-1).data)

    write_atomically(path, write)
    return int(array.nbytes)


def parts_of(folder: str) -> list[Part]:
    """Returns the parts of a finished split."""
    return [Part(part_stem(folder, i), rows) for i, rows in enumerate(read_json(done_path(folder))["parts"])]


def hash_range(part: Part, low: int, high: int) -> tuple[int, int]:
    """Returns which rows, start .. stop - 1, have low <= hash < high (0 <= low <= high <= 2**64)."""
    if low <= 0 and high >= HASHES:
        return 0, part.rows
    with ArrayFile(f"{part.stem}.rows.npy") as rows:
        return _rank(rows, part.rows, low), _rank(rows, part.rows, high)


def _rank(file: ArrayFile, rows: int, bound: int) -> int:
    """The number of rows with a hash below the bound.

    Hashes are uniform, so it is near rows x bound / 2**64: a few standard deviations around that are read, and
    everything only where ids make the hashes uneven.
    """
    if bound <= 0 or bound >= HASHES:
        return 0 if bound <= 0 else rows
    middle, slack = rows * bound // HASHES, 6 * int(rows**0.5) + 16
    start, stop = max(0, middle - slack), min(rows, middle + slack)
    for low, high in ((start, stop), (0, rows)):
        hashes = file.read(low, high)["hash"]
        rank = int(np.searchsorted(hashes, np.uint64(bound)))
        if (low == 0 or rank > 0) and (high == rows or rank < len(hashes)):
            return low + rank
    raise AssertionError("the whole part brackets every bound")


def chunk_rows(d: int) -> int:
    """Returns how many vectors of d components are read at a time at most. The search wants 1,024 rows, and less Python
    for each row where there are more of them; beyond 16,384 what it notes of each row takes the room.
    """
    return min(16_384, max(1024, CHUNK_BYTES // (4 * max(d, 1))))


def chunks(part: Part, start: int, stop: int) -> Iterator[tuple[int, NDArray[np.void], NDArray[np.float32]]]:
    """Yields (first row, rows, vectors) of rows start .. stop - 1, at most `chunk_rows` at a time.

    In pieces of equal size, since each has sums of its own for all clusters, however few its rows.
    """
    if start >= stop:
        return
    with ArrayFile(f"{part.stem}.rows.npy") as rows, ArrayFile(f"{part.stem}.vectors.npy") as stored:
        count = -(-(stop - start) // chunk_rows(stored.shape[1]))
        bounds = [start + i * (stop - start) // count for i in range(count + 1)]
        for low, high in itertools.pairwise(bounds):
            yield low, rows.read(low, high), stored.read(low, high)
