"""The parts of vectors/ and scores/: plain .npy files, aligned row by row, in the order of the id hash.

A split has one folder with, for each part i, `i.rows.npy` (where each record is), `i.vectors.npy`, and, once all of
them stand, `done.json`. Since the rows lie in hash order, those that a hash picks for a batch are one contiguous range,
and only its bytes are read.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from apache_beam.io.filesystems import FileSystems
from numpy.typing import NDArray

from tithe.transforms.files import write_atomically

ROW = np.dtype([("hash", "<u8"), ("position", "<i8"), ("piece", "<i4"), ("label", "<u8")])
"""Where a record is: id hash, position in its file, which piece of its split; and its label (bits of a float64, or a
hash).
"""

HASHES = 2**64
CHUNK = 4096
"""Rows read at a time."""


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
    with FileSystems.open(path) as file:
        return json.loads(file.read())


def write_json(path: str, value: Any) -> None:
    """Writes a JSON file under its final name only when it is whole."""
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_array(path: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Returns rows start .. stop - 1 of a .npy file, reading their bytes only."""
    with FileSystems.open(path) as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        stop = shape[0] if stop is None else stop
        out = np.empty((max(stop - start, 0), *shape[1:]), dtype)
        if out.nbytes:
            file.seek(file.tell() + start * (out.nbytes // len(out)))
            view, at = out.view(np.uint8).reshape(-1).data, 0
            while at < len(view):
                data = file.read(len(view) - at) if not hasattr(file, "readinto") else None
                got = file.readinto(view[at:]) if data is None else len(data)
                if not got:
                    raise EOFError(f"{path} ends {len(view) - at} bytes early; remove its folder and run again")
                if data is not None:
                    view[at : at + got] = data
                at += got
    return out


def write_array(path: str, array: NDArray[Any], order: NDArray[np.integer] | None = None) -> int:
    """Writes a .npy file, its rows in the given order; returns the number of bytes. No second copy of the array is
    made.
    """

    def write(file: Any) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for low in range(0, len(array), CHUNK):
            some = array[low : low + CHUNK] if order is None else array[order[low : low + CHUNK]]
            file.write(np.ascontiguousarray(some).view(np.uint8).reshape(-1).data)

    write_atomically(path, write)
    return int(array.nbytes)


def parts_of(folder: str) -> list[Part]:
    """Returns the parts of a finished split."""
    return [Part(part_stem(folder, i), rows) for i, rows in enumerate(read_json(done_path(folder))["parts"])]


def hash_range(part: Part, low: int, high: int) -> tuple[int, int]:
    """Returns which rows, start .. stop - 1, have low <= hash < high (0 <= low <= high <= 2**64)."""
    return _rank(part, low), _rank(part, high)


def _rank(part: Part, bound: int) -> int:
    """The number of rows with a hash below the bound.

    Hashes are uniform, so it is near rows x bound / 2**64: a few standard deviations around that are read, and
    everything only where ids make the hashes uneven.
    """
    if bound <= 0 or bound >= HASHES:
        return 0 if bound <= 0 else part.rows
    middle, slack = part.rows * bound // HASHES, 6 * int(part.rows**0.5) + 16
    start, stop = max(0, middle - slack), min(part.rows, middle + slack)
    for low, high in ((start, stop), (0, part.rows)):
        hashes = read_array(f"{part.stem}.rows.npy", low, high)["hash"]
        rank = int(np.searchsorted(hashes, np.uint64(bound)))
        if (low == 0 or rank > 0) and (high == part.rows or rank < len(hashes)):
            return low + rank
    raise AssertionError("the whole part brackets every bound")


def chunks(part: Part, start: int, stop: int) -> Iterator[tuple[int, NDArray[np.void], NDArray[np.float32]]]:
    """Yields (first row, rows, vectors) of rows start .. stop - 1, at most CHUNK at a time."""
    for low in range(start, stop, CHUNK):
        high = min(low + CHUNK, stop)
        yield low, read_array(f"{part.stem}.rows.npy", low, high), read_array(f"{part.stem}.vectors.npy", low, high)
