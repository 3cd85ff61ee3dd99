"""Reading chosen records again, by file and position."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tithe.transforms.counters import READ, count
from tithe.transforms.errors import InputError
from tithe.transforms.files import compression, open_bytes, open_source
from tithe.transforms.records_batch import check_columns, reading
from tithe.transforms.records_csv import csv_rows
from tithe.transforms.records_lines import parse_json, parse_text, whole_lines
from tithe.transforms.records_parquet import group_batches, row_group_starts
from tithe.transforms.splits import WHOLE, Piece

_SEEK_BYTES = (
    128 << 10
)  # read at a place of its own; what lies nearer than this to the last one is in the buffer already
_BATCH_ROWS = 8192


def split_chosen(
    path: str, name: str, format: str, positions: npt.NDArray[np.int64], parts: int
) -> tuple[list[npt.NDArray[np.int64]], Any]:
    """Cuts positions as of `read_chosen` in up to `parts` runs that are read side by side, with about as many row
    groups in each; a row group is in one run alone. Files of formats without row groups are read in one go.

    Returns the runs, and the footer of the file for `read_chosen`, which need not read it again; None where it was not
    read. Raises BadFileError where the file cannot be read.
    """
    if parts == 1 or format != "parquet" or len(positions) < 2:
        return [positions], None
    with reading(Piece(path, name, *WHOLE)), open_source(path) as source:
        file = pq.ParquetFile(source)
    group = np.searchsorted(row_group_starts(file), positions, side="right")
    first = np.unique(group, return_index=True)[1]  # of each row group
    borders = [first[len(first) * i // parts] for i in range(1, parts)]
    return [run for run in np.split(positions, borders) if len(run)], file.metadata


def read_chosen(
    path: str,
    name: str,
    format: str,
    positions: npt.NDArray[np.int64],
    max_record_bytes: int,
    columns: Sequence[str] | None = None,
    footer: Any = None,
) -> Any:
    """The records at the given positions (int64 (n,), ascending, without repeats) of one file, in that order.

    Parquet, CSV and text: a pa.Table of n rows with every column of the file (CSV: strings; text: the column `text`).
        jsonl: n lines as they stand in the file, without line end. `columns` are those wanted of a Parquet file, None
        for all; `footer` is its footer, where it is known.

    Raises InputError for a column that the file lacks and where there is no record at a position (the file has
    changed), BadFileError where the file cannot be read.
    """
    piece = Piece(path, name, *WHOLE)
    with reading(piece):
        if format == "parquet":
            return _parquet_rows(piece, positions, columns, footer)
        if format == "csv":
            return _csv_table(piece, positions, max_record_bytes)
        lines = _chosen_lines(piece, positions, max_record_bytes)
    if format == "jsonl":
        return lines
    return pa.table({"text": pa.array([_parsed(piece, line, "text")["text"] for line in lines], pa.string())})


def chosen_records(
    path: str, name: str, format: str, positions: npt.NDArray[np.int64], max_record_bytes: int
) -> list[dict[str, Any]]:
    """The same records as dicts of all their fields, as the functions of a configuration take them."""
    chosen = read_chosen(path, name, format, positions, max_record_bytes)
    if isinstance(chosen, list):
        piece = Piece(path, name, *WHOLE)
        return [_parsed(piece, line, "jsonl") for line in chosen]
    return list(chosen.to_pylist())


def _changed(piece: Piece, position: int) -> InputError:
    return InputError(
        f"{piece.name} has no record at position {position:,} any more: it was changed during the run; run again"
    )


def _parsed(piece: Piece, line: bytes, format: str) -> dict[str, Any]:
    found = parse_json(line) if format == "jsonl" else parse_text(line)
    if isinstance(found, str):
        raise InputError(
            f"{piece.name}: a chosen record is bad now ({found}): it was changed during the run; run again"
        )
    return found


def _parquet_rows(piece: Piece, positions: npt.NDArray[np.int64], columns: Sequence[str] | None, footer: Any) -> Any:
    with open_source(piece.path) as source:
        file = pq.ParquetFile(source, metadata=footer)
        names = check_columns(piece.name, columns, file.schema_arrow.names)
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        bounds = row_group_starts(file)
        if len(positions) and positions[-1] >= bounds[-1]:
            raise _changed(piece, int(positions[-1]))
        found = []
        for group in np.unique(np.searchsorted(bounds, positions, side="right") - 1).tolist():
            start = bounds[group]
            of_group = file.metadata.row_group(group)
            count(READ, sum(c.total_compressed_size for c in map(of_group.column, range(of_group.num_columns))))
            for data in group_batches(file, group, names, _BATCH_ROWS):
                here = positions[(positions >= start) & (positions < start + data.num_rows)]
                if len(here):
                    found.append(data.take(here - start))
                start += data.num_rows
        return pa.Table.from_batches(found, schema)


def _csv_table(piece: Piece, positions: npt.NDArray[np.int64], max_record_bytes: int) -> Any:
    source = csv_rows(piece, max_record_bytes)
    header = next(source, None)
    names = [] if header is None else list(header.found)
    found = ((row.position, row.found) for row in source if not isinstance(row.found, str))
    rows = list(_select(piece, found, positions))
    return pa.table({name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(names)})


def _chosen_lines(piece: Piece, positions: npt.NDArray[np.int64], max_record_bytes: int) -> list[bytes]:
    if compression(piece.name) is None:
        source = _lines_at(piece, positions, max_record_bytes)
    else:
        source = ((position, line) for position, line, whole in whole_lines(piece, max_record_bytes) if whole)
    return [line.rstrip(b"\r\n") for line in _select(piece, source, positions)]


def _lines_at(piece: Piece, positions: npt.NDArray[np.int64], max_record_bytes: int) -> Iterator[tuple[int, bytes]]:
    with open_bytes(piece.path, None, _SEEK_BYTES) as stream:
        for position in positions.tolist():
            stream.seek(position)
            line = stream.readline(max_record_bytes + 2)
            count(READ, len(line))
            if not line or len(line.rstrip(b"\r\n")) > max_record_bytes:
                raise _changed(piece, position)
            yield position, line


def _select(piece: Piece, source: Iterator[tuple[int, Any]], positions: npt.NDArray[np.int64]) -> Iterator[Any]:
    """From (position, record) in ascending order the records at the positions; reads no further than the last."""
    for wanted in positions.tolist():
        found = next(((position, record) for position, record in source if position >= wanted), None)
        if found is None or found[0] != wanted:
            raise _changed(piece, wanted)
        yield found[1]
