"""A PCollection of records as Parquet files: from there on it is a corpus like any other, cut into splits.

Records are dealt out to shards by a hash of their id, and a shard is one file with its rows in the order of the id. So
neither how the records were bundled nor a step that runs twice changes a byte, and no record is left twice.
"""

import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from apache_beam.pvalue import AsSingleton
from apache_beam.transforms.window import GlobalWindows

from tithe.transforms.errors import InputError
from tithe.transforms.files import exists, open_bytes, write_atomically

SHARD_ROWS = 10_000
"""Records of a shard on average, where the number of shards is not given."""

_ROW_GROUP = 8192  # rows; more makes vectors slow to read

Record = dict[str, Any]


class WriteSplits(beam.PTransform):
    """A bounded PCollection of records -> the path of each file, in no order.

    A record is a dict, a beam.Row (NamedTuple, dataclass), or a pair (id, vector). Its values are what Parquet can
    hold: text, numbers, bytes, dates, lists, dicts, numpy arrays of one dimension. A field that a record lacks is null.
    The type of a field is that of its values in all records together. One worker holds a shard in memory.

    Args of the constructor:
        folder: of the files.
        id_field: the field of the unique id, text or integers.
        vector_field: what a pair's vector is called; its id is called `id_field`.
        shards: number of files, at least 1; None for one for each 10,000 records.
        prepare: called before the first file is written, perhaps more than once.

    Raises in its steps:
        InputError: an element that is no record, a field of values that Parquet cannot hold together, no record with
            an id, an id that is neither text nor an integer.
    """

    def __init__(
        self, folder: str, id_field: str, vector_field: str, shards: int | None, prepare: Callable[[], object]
    ) -> None:
        super().__init__()
        self._folder, self._id, self._vector = folder, id_field, vector_field
        self._shards, self._prepare = shards, prepare

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        records = (
            elements
            | "Window" >> beam.WindowInto(GlobalWindows())
            | "Record" >> beam.Map(as_record, self._id, self._vector).with_output_types(Record)
        )
        if self._shards is None:
            shards = records | "Count" >> beam.combiners.Count.Globally() | "Shards" >> beam.Map(shards_for)
        else:
            shards = elements.pipeline | "Shards" >> beam.Create([self._shards])
        grouped = (
            records
            | "Shard" >> beam.Map(with_shard, self._id, AsSingleton(shards)).with_output_types(tuple[int, Record])
            | "Gather" >> beam.GroupByKey()  # (shard, its records)
        )
        schema = (
            grouped
            | "Schema" >> beam.Map(schema_of)
            | "Unify" >> beam.CombineGlobally(unify)
            | "Prepare" >> beam.Map(_prepared, self._id, self._prepare)  # pa.Schema
        )
        return grouped | "Write" >> beam.Map(
            write_shard, self._folder, self._id, AsSingleton(shards), AsSingleton(schema)
        ).with_output_types(str)


def as_record(element: Any, id_field: str, vector_field: str) -> Record:
    """Returns an element of the PCollection as a dict of its fields."""
    if isinstance(element, Mapping):
        return dict(element)
    if hasattr(element, "_asdict"):  # beam.Row and NamedTuple
        return dict(element._asdict())
    if dataclasses.is_dataclass(element):
        return {field.name: getattr(element, field.name) for field in dataclasses.fields(element)}
    if isinstance(element, tuple) and len(element) == 2:
        return {id_field: element[0], vector_field: element[1]}
    raise InputError(f"{type(element).__name__} is no record; give dicts, beam.Row, or pairs (id, vector)")


def shards_for(records: int) -> int:
    """Returns the number of shards for so many records, at least 1."""
    return max(1, math.ceil(records / SHARD_ROWS))


def with_shard(record: Record, id_field: str, shards: int) -> tuple[int, Record]:
    """Returns a record with its shard, 0 .. shards - 1. Those without an id share one; the embedding sets them
    aside."""
    return xxhash.xxh64_intdigest(_id_text(record, id_field).encode("utf-8", "surrogatepass")) % shards, record


def _id_text(record: Record, id_field: str) -> str:
    return str(record.get(id_field))


def schema_of(shard: tuple[int, Iterable[Record]]) -> pa.Schema:
    """Returns the schema of a shard's records; InputError where the values of a field have no common type."""
    values: dict[str, list[Any]] = {}
    for record in shard[1]:
        for name, value in record.items():
            values.setdefault(name, []).append(value)
    return pa.schema([(name, _column(name, some, None).type) for name, some in sorted(values.items())])


def unify(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Returns a schema that holds what any of the schemas holds, fields by name."""
    try:
        together = pa.unify_schemas([pa.schema([]), *schemas], promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"the records do not agree: {error}; give a field values of one type") from error
    return pa.schema(sorted(together, key=lambda field: field.name))


def _prepared(schema: pa.Schema, id_field: str, prepare: Callable[[], object]) -> pa.Schema:
    """Returns the schema once it is known to be usable and the folder is ready."""
    if not schema.names:
        raise InputError("there are no records: the PCollection is empty")
    if id_field not in schema.names:
        raise InputError(f"input.id: no record has a field {id_field!r}; there are {', '.join(schema.names)}")
    kind = schema.field(id_field).type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
        raise InputError(f"input.id: {id_field!r} holds {kind}; an id is text or an integer")
    prepare()
    return schema


def write_shard(shard: tuple[int, Iterable[Record]], folder: str, id_field: str, shards: int, schema: pa.Schema) -> str:
    """Writes the records of a shard in the order of their ids; returns the path.

    A file that holds the same bytes already is left alone: its time is part of what later stages depend on.
    """
    number, records = shard
    rows = sorted(records, key=lambda record: _id_text(record, id_field))
    columns = {field.name: _column(field.name, [row.get(field.name) for row in rows], field.type) for field in schema}
    stream = io.BytesIO()
    pq.write_table(pa.table(columns, schema), stream, compression="zstd", row_group_size=_ROW_GROUP)
    path = f"{folder}/records-{number:05d}-of-{shards:05d}.parquet"
    if not _holds(path, stream.getvalue()):
        write_atomically(path, stream.getvalue())
    return path


def _column(name: str, values: list[Any], kind: pa.DataType | None) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"field {name!r} cannot be written to Parquet: {reason}; give it values of one type: text, numbers, bytes, "
            "dates, lists, dicts or arrays"
        ) from error


def _holds(path: str, content: bytes) -> bool:
    if not exists(path):
        return False
    with open_bytes(path) as file:
        return bool(file.read() == content)
