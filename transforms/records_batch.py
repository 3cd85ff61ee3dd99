"""What reading a split gives: a batch of records, a record that could not be read, a file that could not."""

import difflib
import json
import lzma
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tithe.transforms.errors import InputError
from tithe.transforms.splits import Piece

HEAD_BYTES = 1000  # of a bad record, kept for its dead letter
BATCH_BYTES = 4 << 20  # a batch is closed at this size, whatever its number of rows: it stays in the processor's cache

NOT_JSON = "not JSON"
NOT_AN_OBJECT = "not an object"
NOT_UTF8 = "invalid UTF-8"
NOT_UNICODE = "lone surrogate"  # "\ud800" is JSON, and yet no text that can be written
NOT_CSV = "not CSV"
UNCLOSED_QUOTE = "unclosed quote"
WRONG_COLUMNS = "wrong number of columns"
TOO_LARGE = "record too large"


class BadRecord(NamedTuple):
    """A row that could not be read: its file, position, the reason (one of the above) and its first 1,000 bytes."""

    name: str
    position: int
    reason: str
    head: bytes


class BadFileError(InputError):
    """A file that cannot be read to its end; `name` and `piece` say which, and what of it was being read."""

    def __init__(self, message: str, name: str, piece: Piece) -> None:
        super().__init__(message, name, piece)  # all of them, so that pickle can make it again
        self.name = name
        self.piece = piece

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def reading(piece: Piece) -> Iterator[None]:
    """Turns what the libraries raise over a damaged or vanished file into a BadFileError."""
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise bad_file(piece, reason) from error


def bad_file(piece: Piece, reason: str) -> BadFileError:
    message = f"{piece.name} cannot be read to its end: {reason}; mend it, or set input.on_bad_file: skip"
    return BadFileError(message, piece.name, piece)


@dataclass
class Batch(ABC):
    """Some consecutive records of one piece.

    `piece` is its index in the split. `positions` is int64 (n,), ascending: the row number in the file (Parquet) or the
    offset of the record's first byte in the decompressed file. `bad` holds the rows met on the way that could not be
    read; they have no place among the n.
    """

    piece: int
    positions: npt.NDArray[np.int64]
    bad: list[BadRecord]

    def __len__(self) -> int:
        return len(self.positions)

    @abstractmethod
    def column(self, name: str) -> Any:
        """One value a record: a pa.Array (Parquet, CSV), or a list with None for what is missing (jsonl, text)."""

    @abstractmethod
    def records(self) -> list[dict[str, Any]]:
        """The records as dicts: of the columns asked for (Parquet, CSV), of all keys (jsonl), `text` alone (text)."""

    @abstractmethod
    def raw(self, i: int) -> bytes:
        """The first 1,000 bytes of record i as it stands in the file; of Parquet, of the row as JSON."""


def positions_of(values: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)


def head_of_row(row: dict[str, Any]) -> bytes:
    """The first 1,000 bytes of a row as JSON."""
    return json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")[:HEAD_BYTES]


def check_columns(name: str, columns: Sequence[str] | None, present: Sequence[str]) -> list[str]:
    """The columns to read, in the order of the file.

    Raises InputError for one that the file lacks, with the nearest that it has.
    """
    for column in columns or ():
        if column not in present:
            near = difflib.get_close_matches(column, present, 1, 0.0)
            hint = f"did you mean {near[0]!r}?" if near else "it has no columns"
            raise InputError(f"{name} has no column {column!r}; {hint}")
    return [column for column in present if columns is None or column in columns]
