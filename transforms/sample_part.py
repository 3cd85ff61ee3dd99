"""Writing chosen records as a part of the sample: every original column, and behind them the tithe_ ones."""

import json
from collections.abc import Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tithe.transforms.errors import InputError
from tithe.transforms.files import write_measured

_ROW_GROUP = 8192  # rows; more makes vectors slow to read


def write_sample_part(path: str, format: str, chunks: Sequence[Any], extra: dict[str, Any]) -> tuple[int, int, str]:
    """Writes what `read_chosen` gave, chunk after chunk, and gives its (rows, bytes, sha256).

    `extra` holds a pa.Array of one value a row for each column to be added. jsonl becomes JSON lines, in which the text
    of each record is kept and the new keys stand before its closing brace; any other format becomes Parquet. The bytes
    are a function of the rows, their order and the versions of the libraries alone.

    Raises InputError where a record has a column or key of the same name already.
    """
    rows = sum(len(chunk) for chunk in chunks)
    for name, values in extra.items():
        if len(values) != rows:
            raise ValueError(f"{name} has {len(values)} values for {rows} rows")
    if format == "jsonl":
        written = write_measured(path, lambda stream: _write_lines(stream, chunks, extra))
    else:
        table = _table(chunks, extra)
        written = write_measured(path, lambda stream: _write_parquet(stream, table))
    return rows, written.bytes, written.sha256


def _clash(name: str) -> InputError:
    return InputError(f"the input has {name!r} already, and the sample adds one of that name; rename it in the input")


def _write_lines(stream: IO[bytes], chunks: Sequence[Sequence[bytes]], extra: dict[str, Any]) -> None:
    columns = [values.to_pylist() for values in extra.values()]
    keys = [json.dumps(name, ensure_ascii=False) for name in extra]
    lines = (line for chunk in chunks for line in chunk)
    for line, *values in zip(lines, *columns, strict=True):
        record = json.loads(line)
        for name in extra:
            if name in record:
                raise _clash(name)
        added = ", ".join(f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in zip(keys, values, strict=True))
        comma = ", " if record and added else ""
        stream.write(line.rstrip()[:-1] + f"{comma}{added}}}\n".encode())


def _table(chunks: Sequence[Any], extra: dict[str, Any]) -> Any:
    """The chunks as one table, with the extra columns.

    Metadata of the schema (pandas' index, a data set's features) describes the original and not the sample: dropped.
    """
    if chunks:
        # CSV files of different headers: what a file has no column for is null.
        plain = [chunk.replace_schema_metadata() for chunk in chunks]
        table = pa.concat_tables(plain, promote_options="default")
    else:
        table = pa.table({})
    for name, values in extra.items():
        if name in table.column_names:
            raise _clash(name)
        table = table.append_column(name, values)
    # In one chunk, so that pages end where they would had all been read at once.
    return table.unify_dictionaries().combine_chunks()


def _write_parquet(stream: IO[bytes], table: Any) -> None:
    pq.write_table(table, pa.PythonFile(stream, mode="w"), compression="zstd", row_group_size=_ROW_GROUP)
