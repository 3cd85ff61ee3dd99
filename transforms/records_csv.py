"""Records of CSV (RFC 4180): quoted fields may hold line ends, the first record names the columns, all are strings."""

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from tithe.transforms.records_batch import (
    BATCH_BYTES,
    HEAD_BYTES,
    NOT_CSV,
    NOT_UTF8,
    TOO_LARGE,
    UNCLOSED_QUOTE,
    WRONG_COLUMNS,
    BadRecord,
    Batch,
    bad_file,
    check_columns,
    positions_of,
)
from tithe.transforms.records_lines import lines, open_lines
from tithe.transforms.splits import Piece

# The module's own limit on a field (128 KiB) holds for the whole process; records are held to max_record_bytes here.
csv.field_size_limit(2**31 - 1)


class CsvRow(NamedTuple):
    """One record of a CSV file: its offset, its bytes (the first 1,000 of a bad one), its fields or what is wrong."""

    position: int
    raw: bytes
    found: list[str] | str


class _Overrun(Exception):
    """The record at hand is longer than is allowed."""


class _Feed:
    """Hands lines to csv.reader, which takes as many as a record has, and remembers which it took."""

    def __init__(self, source: Iterator[tuple[int, bytes]], max_bytes: int) -> None:
        self._source = source
        self._returned: deque[tuple[int, bytes]] = deque()
        self._max_bytes = max_bytes
        self.taken: list[tuple[int, bytes]] = []
        self._held = 0

    def begin(self) -> None:
        """Forgets the record before."""
        self.taken = []
        self._held = 0

    def take(self) -> tuple[int, bytes]:
        return self._returned.popleft() if self._returned else next(self._source)

    def give_back(self) -> None:
        """Returns all lines of the record at hand but its first."""
        self._returned.extendleft(reversed(self.taken[1:]))

    def raw(self) -> bytes:
        return self.taken[0][1] if len(self.taken) == 1 else b"".join(line for _, line in self.taken)

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._source)
        self.taken.append(line)
        self._held += len(line[1])
        if self._held > self._max_bytes and len(self.raw().rstrip(b"\r\n")) > self._max_bytes:
            raise _Overrun
        return line[1].decode("utf-8", "surrogateescape")


def csv_rows(piece: Piece, max_record_bytes: int) -> Iterator[CsvRow]:
    """The records of a CSV file: first its header, then those that are not blank.

    A quote that is never closed takes the rest of the file with it. Where that rest was short enough to be held, its
    first line alone is bad and the others are read on their own, unless there is one column, when any line would pass.

    Raises BadFileError where the header cannot be used, or a longer rest is lost.
    """
    stream, start = open_lines(piece)
    with stream:
        feed = _Feed(lines(stream, start, -1, max_record_bytes), max_record_bytes)
        reader = csv.reader(feed, strict=True)
        width = 0
        while True:
            feed.begin()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except _Overrun:
                position = feed.taken[0][0]
                row = CsvRow(position, feed.raw()[:HEAD_BYTES], TOO_LARGE)
                if not _skip_record(feed):
                    raise bad_file(piece, f"the record at byte {position:,} opens a quote that is not closed") from None
            except csv.Error as error:
                position, raw = feed.taken[0][0], feed.raw()
                unclosed = "unexpected end" in str(error)
                if unclosed and width > 1:
                    feed.give_back()
                    raw = feed.taken[0][1]
                row = CsvRow(position, raw[:HEAD_BYTES], UNCLOSED_QUOTE if unclosed else NOT_CSV)
            else:
                if not fields:
                    continue
                row = _checked(CsvRow(feed.taken[0][0], feed.raw(), fields), width)
            if not width:
                width = len(_header(piece, row))
            yield row


def _checked(row: CsvRow, width: int) -> CsvRow:
    if width and len(row.found) != width:
        return CsvRow(row.position, row.raw[:HEAD_BYTES], WRONG_COLUMNS)
    if not row.raw.isascii():
        try:
            row.raw.decode()
        except UnicodeDecodeError:
            return CsvRow(row.position, row.raw[:HEAD_BYTES], NOT_UTF8)
    return row


def _header(piece: Piece, row: CsvRow) -> list[str]:
    if isinstance(row.found, str):
        raise bad_file(piece, f"its header is bad ({row.found})")
    twice = sorted({name for name in row.found if row.found.count(name) > 1})
    if twice:
        raise bad_file(piece, f"its header names the column {twice[0]!r} twice")
    return row.found


def _skip_record(feed: _Feed) -> bool:
    """Reads on to the end of a record that is too large; False where the file ends inside a quoted field."""
    line = feed.taken[-1][1]
    quotes = feed.raw().count(b'"')
    while not (line.endswith(b"\n") and quotes % 2 == 0):
        try:
            _, line = feed.take()
        except StopIteration:
            return quotes % 2 == 0
        quotes += line.count(b'"')
    return True


@dataclass
class CsvBatch(Batch):
    """Columns of strings, with the bytes of the records."""

    data: Any  # pa.RecordBatch
    lines: list[bytes]

    def column(self, name: str) -> Any:
        return self.data.column(name)

    def records(self) -> list[dict[str, Any]]:
        return list(self.data.to_pylist())

    def raw(self, i: int) -> bytes:
        return self.lines[i].rstrip(b"\r\n")[:HEAD_BYTES]


def read_csv(
    piece: Piece, index: int, columns: Sequence[str] | None, max_record_bytes: int, batch_rows: int
) -> Iterator[Batch]:
    """The records of a CSV file as columns of strings; see `records.read_split`."""
    source = csv_rows(piece, max_record_bytes)
    header = next(source, None)
    if header is None:
        return
    names = list(header.found)
    wanted = [(name, names.index(name)) for name in check_columns(piece.name, columns, names)]

    def batch() -> Batch:
        found = [row for row in rows if not isinstance(row.found, str)]
        arrays = [pa.array([row.found[at] for row in found], pa.string()) for _, at in wanted]
        schema = pa.schema([(name, pa.string()) for name, _ in wanted])
        bad = [BadRecord(piece.name, r.position, r.found, r.raw) for r in rows if isinstance(r.found, str)]
        data = pa.RecordBatch.from_arrays(arrays, schema=schema)
        return CsvBatch(index, positions_of([r.position for r in found]), bad, data, [r.raw for r in found])

    rows: list[CsvRow] = []
    held = 0
    for row in source:
        rows.append(row)
        held += len(row.raw)
        if len(rows) == batch_rows or held >= BATCH_BYTES:
            yield batch()
            rows, held = [], 0
    if rows:
        yield batch()
