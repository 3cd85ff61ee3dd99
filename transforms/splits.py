"""The plan of splits: which parts of which files are read together.

A large file is cut into several splits, small files share one. Where the cuts between small files fall depends on
their own names and sizes, so that a file that comes or goes changes only the split it is in, and perhaps a neighbour.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tithe.transforms.errors import InputError
from tithe.transforms.files import InputFile, compression, open_source

WHOLE = (0, -1)  # the range of a file that cannot be read from the middle

_MAX_GROUP = 4  # small files share a split up to this multiple of split_bytes
_MAX_FILES = 4096  # and up to this many
_READERS = 16  # footers read at a time


@dataclass(frozen=True)
class Piece:
    """A range of one file: row groups [start, stop) of Parquet, the records whose first byte lies in [start, stop) of
    uncompressed lines, or all of it (0, -1)."""

    path: str
    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Split:
    """What one worker reads at a time. The key tells its files' names, sizes, modification times and ranges apart."""

    key: str
    pieces: tuple[Piece, ...]

    def to_json(self) -> str:
        """The split as one line."""
        return json.dumps([self.key, [[p.path, p.name, p.start, p.stop] for p in self.pieces]], ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "Split":
        key, pieces = json.loads(line)
        return cls(key, tuple(Piece(*piece) for piece in pieces))


class BadFile(NamedTuple):
    """A file that is set aside as a whole."""

    name: str
    reason: str


class _Range(NamedTuple):
    file: InputFile
    start: int
    stop: int


class _Footer(NamedTuple):
    schema: Any  # pa.Schema
    weights: list[int]  # bytes of each row group, before compression


def plan_splits(
    files: Sequence[InputFile], format: str, split_bytes: int, on_bad_file: str
) -> tuple[list[Split], list[BadFile], Any]:
    """The splits of the files, the files set aside, and the pa.Schema of Parquet files (without metadata; else None).

    `on_bad_file` is `error` or `skip`. Of the files only Parquet footers are read. Files without rows are in no split.

    Raises InputError for a Parquet file that cannot be read, unless these are skipped, and for two whose schemas
    differ.
    """
    files = sorted(files, key=lambda file: file.name)
    bad: list[BadFile] = []
    schema = None
    if format == "parquet":
        footers = _read_footers(files)
        bad = [BadFile(file.name, found) for file, found in zip(files, footers, strict=True) if isinstance(found, str)]
        if bad and on_bad_file != "skip":
            more = f" (and {len(bad) - 1} more files)" if len(bad) > 1 else ""
            raise InputError(f"{bad[0].name}: {bad[0].reason}{more}; mend it, or set input.on_bad_file: skip")
        good = [(file, found) for file, found in zip(files, footers, strict=True) if not isinstance(found, str)]
        schema = _common_schema(good)
        cuts = [(file, _cut_row_groups(file, footer.weights, split_bytes)) for file, footer in good]
    else:
        cuts = [(file, _cut_bytes(file, format, split_bytes)) for file in files]
    return list(_group(cuts, split_bytes)), bad, schema


def _cut_bytes(file: InputFile, format: str, split_bytes: int) -> list[tuple[int, int]]:
    if file.size == 0:
        return []
    if format == "csv" or compression(file.name) is not None:
        return [WHOLE]
    parts = max(1, round(file.size / split_bytes))
    bounds = [i * file.size // parts for i in range(parts + 1)]
    return list(itertools.pairwise(bounds))


def _cut_row_groups(file: InputFile, weights: list[int], split_bytes: int) -> list[tuple[int, int]]:
    """Ranges of row groups that hold about split_bytes of the file each."""
    scale = file.size / max(1, sum(weights))
    ranges, start, held = [], 0, 0.0
    for i, weight in enumerate(weights):
        held += weight * scale
        if held >= split_bytes or i == len(weights) - 1:
            ranges.append((start, i + 1))
            start, held = i + 1, 0.0
    return ranges


def _group(cuts: Sequence[tuple[InputFile, list[tuple[int, int]]]], split_bytes: int) -> Iterator[Split]:
    group: list[_Range] = []
    held = 0
    for file, ranges in cuts:
        if len(ranges) > 1 or file.size >= split_bytes:
            yield from (_split([_Range(file, *bounds)]) for bounds in ranges)
            continue
        if group and (held + file.size > _MAX_GROUP * split_bytes or len(group) == _MAX_FILES):
            yield _split(group)
            group, held = [], 0
        group += [_Range(file, *bounds) for bounds in ranges]
        held += file.size
        if group and _hash(file.name) < file.size / split_bytes * 2**64:
            yield _split(group)
            group, held = [], 0
    if group:
        yield _split(group)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def _split(ranges: Sequence[_Range]) -> Split:
    known = [[r.file.name, r.file.size, r.file.modified, r.start, r.stop] for r in ranges]
    key = hashlib.blake2b(json.dumps(known).encode(), digest_size=16).hexdigest()
    return Split(key, tuple(Piece(r.file.path, r.file.name, r.start, r.stop) for r in ranges))


def _read_footers(files: Sequence[InputFile]) -> list[_Footer | str]:
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(_read_footer, files))


def _read_footer(file: InputFile) -> _Footer | str:
    try:
        with open_source(file.path) as source:
            metadata = pq.read_metadata(source)
            schema = metadata.schema.to_arrow_schema().remove_metadata()
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read as Parquet: {str(error).splitlines()[0]}"
    groups = metadata.num_row_groups if metadata.num_rows else 0  # a file without rows may have an empty group
    return _Footer(schema, [metadata.row_group(i).total_byte_size for i in range(groups)])


def _common_schema(footers: Sequence[tuple[InputFile, _Footer]]) -> Any:
    if not footers:
        return None
    first, reference = footers[0]
    for file, footer in footers[1:]:
        if not footer.schema.equals(reference.schema, check_metadata=False):
            difference = _first_difference(reference.schema, footer.schema)
            raise InputError(
                f"{first.name} and {file.name} have different schemas: {difference}; "
                "make the files alike, or select from each kind on its own"
            )
    return reference.schema


def _first_difference(left: Any, right: Any) -> str:
    for i in range(max(len(left), len(right))):
        a = left.field(i) if i < len(left) else None
        b = right.field(i) if i < len(right) else None
        if a is None or b is None or not a.equals(b, check_metadata=False):
            break
    return f"field {i + 1} is {_describe(a)} in the first and {_describe(b)} in the second"


def _describe(field: Any) -> str:
    if field is None:
        return "missing"
    return f"{field.name}: {field.type}{'' if field.nullable else ' not null'}"
