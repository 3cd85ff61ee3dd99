"""The loss file: the anchors in full with an empty column `loss`, for somebody to fill by any model, anywhere."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.files import open_source, write_atomically
from tithe.transforms.locate import locate, read_wanted
from tithe.transforms.losses import Reading, checked_loss

ID, LOSS = "tithe_id", "loss"
SUFFIXES = (".parquet", ".csv", ".jsonl")


def suffix_of(path: str) -> str:
    """Returns the suffix of a loss file; UsageError where it tells no format that can be filled."""
    for suffix in SUFFIXES:
        if path.endswith(suffix):
            return suffix
    raise UsageError(f"loss.path: {path} must end in {', '.join(SUFFIXES)}")


def anchor_ids(anchors: NDArray[np.void]) -> list[str]:
    """Returns the ids of anchors in the loss file: their id hash in hexadecimal."""
    return [f"{h:016x}" for h in anchors["hash"].tolist()]


class WriteLossFile(beam.PTransform):
    """The anchors -> the loss file, with every field of the records; k + m records, so one worker writes it."""

    def __init__(self, anchors: str, plan: str, reading: Reading, path: str) -> None:
        super().__init__()
        self._arguments = (plan, reading, path)
        self._anchors = anchors

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        return (
            root | "Reference" >> beam.Create([self._anchors]) | "Write" >> beam.Map(write_loss_file, *self._arguments)
        )


def write_loss_file(anchors: str, plan: str, reading: Reading, path: str) -> None:
    """Reads the anchors' records and writes them with their ids and an empty loss, in the anchors' order."""
    ids = anchor_ids(vectors.read_array(anchors))
    records: list[dict[str, Any]] = [{} for _ in ids]
    for some in locate(plan, read_wanted(anchors)):
        for row, record in zip(some.rows.tolist(), reading.records(some), strict=True):
            clash = [name for name in (ID, LOSS) if name in record]
            if clash:
                raise InputError(
                    f"loss.kind file: the input has {clash[0]!r} already; rename it, or use loss.kind column"
                )
            records[row] = {ID: ids[row], LOSS: None, **record}
    suffix = suffix_of(path)
    if suffix == ".jsonl":
        lines = "".join(json.dumps(r, ensure_ascii=False, default=repr) + "\n" for r in records)
        write_atomically(path, lines.encode("utf-8", "surrogatepass"))
        return
    write = pyarrow.csv.write_csv if suffix == ".csv" else pyarrow.parquet.write_table
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {name: _column([record.get(name) for record in records], write) for name in names}
    columns[LOSS] = pa.nulls(len(records), pa.float64())
    table = pa.table(columns)
    write_atomically(path, lambda stream: write(table, pa.PythonFile(stream, mode="w")))


def _column(values: list[Any], write: Callable[[Any, Any], object]) -> Any:
    """Values as a column: of their own type where the file can hold it, of JSON text where not."""
    if write is pyarrow.parquet.write_table or not any(isinstance(value, bytes) for value in values):
        try:
            column = pa.array(values)
            write(pa.table({"": column}), pa.BufferOutputStream())
            return column
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            pass
    return pa.array([None if value is None else json.dumps(value, default=repr) for value in values], pa.string())


def read_loss_file(path: str) -> dict[str, list[Any]]:
    """Returns the columns tithe_id and loss of a loss file; InputError where it cannot be read or lacks them."""
    suffix = suffix_of(path)
    try:
        with open_source(path) as source:
            if suffix == ".parquet":
                table = pyarrow.parquet.ParquetFile(source).read([ID, LOSS])
            elif suffix == ".csv":
                table = _read_csv(source.read())
            else:
                rows = [json.loads(line) for line in source.read().splitlines() if line.strip()]
                return {name: [row.get(name) for row in rows] for name in (ID, LOSS)}
    except (OSError, ValueError, AttributeError, pa.ArrowException) as error:
        raise InputError(f"loss.path: {path} cannot be read: {str(error).splitlines()[0]}") from error
    for name in (ID, LOSS):
        if name not in table.column_names:
            raise InputError(f"loss.path: {path} has no column {name!r}; keep the columns of the file that tithe wrote")
    columns = {name: table.column(name).to_pylist() for name in (ID, LOSS)}
    if suffix == ".csv":
        columns[LOSS] = [value or None for value in columns[LOSS]]
    return columns


def _read_csv(content: bytes) -> Any:
    """Reads the columns as text: ids may look like numbers, and a bad loss is to be told as it stands."""
    types = pyarrow.csv.ConvertOptions(column_types={ID: pa.string(), LOSS: pa.string()})
    # A record may hold line ends, and be longer than a block.
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    block = pyarrow.csv.ReadOptions(block_size=max(1 << 20, len(content)))
    return pyarrow.csv.read_csv(pa.BufferReader(content), block, parse, types)


def is_filled(columns: dict[str, list[Any]]) -> bool:
    """Returns whether any loss is filled in."""
    return any(value is not None and value != "" for value in columns[LOSS])


def losses_of(columns: dict[str, list[Any]], anchors: NDArray[np.void], path: str) -> NDArray[np.float64]:
    """Returns the losses of the anchors, float64, (k,).

    Raises:
        InputError: rows that are missing, extra or repeated, and losses that are missing, negative, NaN or no number;
            it names them.
    """
    wanted, given = anchor_ids(anchors), [str(i) for i in columns[ID]]
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    repeated = sorted(i for i, times in Counter(given).items() if times > 1)
    for what, some in (("lacks", missing), ("has rows that were not asked for:", extra), ("repeats", repeated)):
        if some:
            raise InputError(
                f"loss.path: {path} {what} {len(some):,} rows ({ID} {', '.join(some[:3])}); keep the rows that "
                "tithe wrote, "
                "or remove the file and run again for those that are wanted now"
            )
    by_id = dict(zip(given, columns[LOSS], strict=True))
    return np.array([checked_loss(by_id[i], f"{ID} {i} of {path}", "loss.path") for i in wanted])
