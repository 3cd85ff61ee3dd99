"""Records of Parquet: ranges of row groups, of each the columns asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tithe.transforms.files import open_source
from tithe.transforms.records_batch import (
    BATCH_BYTES,
    TOO_LARGE,
    BadRecord,
    Batch,
    check_columns,
    head_of_row,
)
from tithe.transforms.splits import Piece


@dataclass
class ParquetBatch(Batch):
    """Rows as Arrow holds them."""

    data: Any  # pa.RecordBatch

    def column(self, name: str) -> Any:
        return self.data.column(name)

    def records(self) -> list[dict[str, Any]]:
        return list(self.data.to_pylist())

    def raw(self, i: int) -> bytes:
        return head_of_row(self.data.slice(i, 1).to_pylist()[0])


def read_parquet(
    piece: Piece, index: int, columns: Sequence[str] | None, max_record_bytes: int, batch_rows: int
) -> Iterator[Batch]:
    """The rows of a piece's row groups; see `records.read_split`."""
    with open_source(piece.path) as source:
        file = pq.ParquetFile(source)
        wanted = check_columns(piece.name, columns, file.schema_arrow.names)
        starts = row_group_starts(file)
        for group in range(piece.start, file.num_row_groups if piece.stop < 0 else piece.stop):
            first = starts[group]
            for data in group_batches(file, group, wanted, batch_rows):
                positions = np.arange(first, first + data.num_rows, dtype=np.int64)
                first += data.num_rows
                large = _large_rows(data, max_record_bytes)
                bad = [
                    BadRecord(piece.name, int(positions[i]), TOO_LARGE, _head_of_large(data, i, max_record_bytes))
                    for i in large
                ]
                if large:
                    good = np.setdiff1d(np.arange(data.num_rows), large)
                    positions, data = positions[good], data.take(good)
                yield ParquetBatch(index, positions, bad, data)


def row_group_starts(file: Any) -> list[int]:
    """The row number with which each row group of a pq.ParquetFile begins, and the number of rows at the end."""
    starts = [0]
    for group in range(file.num_row_groups):
        starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
    return starts


def group_batches(file: Any, group: int, columns: Sequence[str], batch_rows: int) -> Iterator[Any]:
    """One row group as pa.RecordBatches of at most batch_rows rows and about 4 MB, as equal as can be.

    Row group by row group, so that where a batch ends does not depend on the range that is read; and not in one piece,
    which is three times slower for vectors in row groups of 65,536.
    """
    metadata = file.metadata.row_group(group)
    chunks = [metadata.column(i) for i in range(metadata.num_columns)]
    held = sum(c.total_uncompressed_size for c in chunks if _belongs(c.path_in_schema, columns))
    batches = max(round(held / BATCH_BYTES), -(-metadata.num_rows // batch_rows), 1)
    rows = -(-max(metadata.num_rows, 1) // batches)
    return file.iter_batches(rows, row_groups=[group], columns=list(columns), use_threads=False)  # type: ignore[no-any-return]


def _belongs(path: str, columns: Sequence[str]) -> bool:
    """Whether a leaf such as a.list.element lies under one of the columns, whose names may hold dots themselves."""
    return any(path == column or path.startswith(f"{column}.") for column in columns)


def _large_rows(data: Any, max_bytes: int, start: int = 0) -> list[int]:
    """The rows that hold more than max_bytes, found by halving: a batch that is small is looked at once."""
    if data.num_rows == 0 or data.nbytes <= max_bytes:
        return []
    if data.num_rows == 1:
        return [start]
    half = data.num_rows // 2
    return _large_rows(data.slice(0, half), max_bytes, start) + _large_rows(data.slice(half), max_bytes, start + half)


def _head_of_large(data: Any, i: int, max_bytes: int) -> bytes:
    """The head of a row whose large values are named by their size alone: in Python they would take many times it."""
    row = data.slice(i, 1)
    return head_of_row(
        {
            name: column[0].as_py() if column.nbytes <= max(1, max_bytes // 16) else f"({column.nbytes:,} bytes)"
            for name, column in zip(row.schema.names, row.columns, strict=True)
        }
    )
