"""Records that are lines: JSON lines and text."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tithe.transforms.files import compression, open_bytes
from tithe.transforms.records_batch import (
    BATCH_BYTES,
    HEAD_BYTES,
    NOT_AN_OBJECT,
    NOT_JSON,
    NOT_UNICODE,
    NOT_UTF8,
    TOO_LARGE,
    BadRecord,
    Batch,
    positions_of,
)
from tithe.transforms.splits import Piece

_READ_BYTES = 4 << 20
_BOM = b"\xef\xbb\xbf"
_decode_json = json.JSONDecoder().decode


def lines(stream: io.BufferedReader, start: int, stop: int, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line with its line end) for the lines whose first byte lies in [start, stop); stop = -1: to the end.

    The stream stands at `start`, at the beginning of a line. A line of more than max_bytes comes in parts of about that
    size, each with its own offset: all but the last have no line end. A byte order mark at the file's start is left
    out.
    """
    position = start
    while stop < 0 or position < stop:
        line = stream.readline(max_bytes + 2)  # room for the line end
        if not line:
            return
        if position == 0 and line.startswith(_BOM):
            yield len(_BOM), line[len(_BOM) :]
        else:
            yield position, line
        position += len(line)


def open_lines(piece: Piece) -> tuple[io.BufferedReader, int]:
    """The piece's file, placed on the first line that starts in its range, and that line's offset.

    Where none does, the offset is the range's end or lies behind it.
    """
    stream = open_bytes(piece.path, compression(piece.name), _READ_BYTES)
    if piece.start == 0:
        return stream, 0
    stream.seek(piece.start - 1)
    position = piece.start - 1
    while position < piece.stop:
        part = stream.readline(min(_READ_BYTES, piece.stop - position))
        position += len(part)
        if not part or part.endswith(b"\n"):
            break
    return stream, position


def whole_lines(piece: Piece, max_bytes: int) -> Iterator[tuple[int, bytes, bool]]:
    """(offset, line, whether it is whole) for the lines of a piece that are not blank.

    Of a line that is too large comes its beginning alone, in the place of the line.
    """
    stream, start = open_lines(piece)
    with stream:
        inside = False  # of a line that is too large
        for position, line in lines(stream, start, piece.stop, max_bytes):
            ended = line.endswith(b"\n")
            if inside:
                inside = not ended
                continue
            if len(line) > max_bytes and len(line.rstrip(b"\r\n")) > max_bytes:
                inside = not ended
                yield position, line[:HEAD_BYTES], False
            elif line and not line.isspace():  # empty: a byte order mark alone
                yield position, line, True


def parse_json(line: bytes) -> dict[str, Any] | str:
    """The object that a line holds, or the reason why it is bad."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
    try:
        record = _decode_json(text)
    except (ValueError, RecursionError):
        return NOT_JSON
    if type(record) is not dict:
        return NOT_AN_OBJECT
    if "\\ud" in text or "\\uD" in text:  # an escape that may be half of a pair
        try:
            json.dumps(record, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return NOT_UNICODE
    return record


def parse_text(line: bytes) -> dict[str, Any] | str:
    """{"text": the line}, or the reason why it is bad."""
    try:
        return {"text": line.rstrip(b"\r\n").decode()}
    except UnicodeDecodeError:
        return NOT_UTF8


@dataclass
class LineBatch(Batch):
    """Records with the lines that they were parsed from."""

    lines: list[bytes]
    parsed: list[dict[str, Any]]

    def column(self, name: str) -> list[Any]:
        return [record.get(name) for record in self.parsed]

    def records(self) -> list[dict[str, Any]]:
        return self.parsed

    def raw(self, i: int) -> bytes:
        return self.lines[i].rstrip(b"\r\n")[:HEAD_BYTES]


def read_jsonl(piece: Piece, index: int, max_record_bytes: int, batch_rows: int) -> Iterator[Batch]:
    """The objects of a piece of JSON lines; see `records.read_split`."""
    return _read(piece, index, max_record_bytes, batch_rows, parse_json)


def read_text(piece: Piece, index: int, max_record_bytes: int, batch_rows: int) -> Iterator[Batch]:
    """The lines of a piece of text, each a record with the one field `text`; see `records.read_split`."""
    return _read(piece, index, max_record_bytes, batch_rows, parse_text)


def _read(
    piece: Piece, index: int, max_record_bytes: int, batch_rows: int, parse: Callable[[bytes], dict[str, Any] | str]
) -> Iterator[Batch]:
    positions: list[int] = []
    kept: list[bytes] = []
    parsed: list[dict[str, Any]] = []
    bad: list[BadRecord] = []
    held = 0
    for position, line, whole in whole_lines(piece, max_record_bytes):
        found = parse(line) if whole else TOO_LARGE
        if isinstance(found, str):
            bad.append(BadRecord(piece.name, position, found, line.rstrip(b"\r\n")[:HEAD_BYTES]))
        else:
            positions.append(position)
            kept.append(line)
            parsed.append(found)
            held += len(line)
        if len(kept) == batch_rows or len(bad) == batch_rows or held >= BATCH_BYTES:
            yield LineBatch(index, positions_of(positions), bad, kept, parsed)
            positions, kept, parsed, bad, held = [], [], [], [], 0
    if kept or bad:
        yield LineBatch(index, positions_of(positions), bad, kept, parsed)
