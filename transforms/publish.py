"""The fetch: the drawn records are read from the input again and written with what the draw says of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tithe.transforms import ids, vectors
from tithe.transforms.counters import count, counting
from tithe.transforms.errors import InputError
from tithe.transforms.fetch import read_chosen, split_chosen
from tithe.transforms.locate import Located, grouped, locate, read_wanted
from tithe.transforms.parallel import ThreadedDoFn
from tithe.transforms.sample_part import write_sample_part

PART_ROWS = 1000
"""Records of a part: enough that parts are few, few enough that a sample of thousands is fetched by all cores."""


@dataclass(frozen=True)
class FetchTask:
    """What the workers need to fetch the sample.

    Attributes:
        chosen: path of the drawn records.
        plan: path of the plan of splits.
        folder: sample/ of the output.
        stem: what the names of the parts begin with.
        format: of the input.
        id_field: or None.
        max_record_bytes: of a record.
        with_order: whether the draw has a pass, and its rows a rank in it.
    """

    chosen: str
    plan: str
    folder: str
    stem: str
    format: str
    id_field: str | None
    max_record_bytes: int
    with_order: bool


def part_groups(task: FetchTask) -> Iterator[tuple[int, list[Located]]]:
    """Yields the parts of the sample: a number, and the records."""
    return enumerate(grouped(locate(task.plan, read_wanted(task.chosen)), PART_ROWS))


def sample_columns(chosen: NDArray[np.void], group: list[Located], with_order: bool) -> dict[str, pa.Array]:
    """Returns the tithe_ columns of a part, in their order."""
    names = [some.piece.name for some in group for _ in some.rows]
    columns = {
        "tithe_weight": pa.array(chosen["multiplicity"] / chosen["expected"]),
        "tithe_probability": pa.array(chosen["expected"]),
        "tithe_multiplicity": pa.array(chosen["multiplicity"]),
        "tithe_cluster": pa.array(chosen["cluster"]),
        "tithe_distance": pa.array(np.sqrt(chosen["squared"])),
        "tithe_proxy": pa.array(chosen["proxy"]),
        "tithe_file": pa.array(names, pa.string()),
        "tithe_position": pa.array(chosen["position"]),
    }
    return {**columns, "tithe_order": pa.array(chosen["order"])} if with_order else columns


class FetchPart(ThreadedDoFn):
    """A part of the sample -> (number, name, rows, bytes, sha256); the records go to disk."""

    def __init__(self, task: FetchTask, threads: int) -> None:
        super().__init__(threads)
        self._task = task

    def setup(self) -> None:
        super().setup()
        # A part's files are read side by side, by threads that all parts share: those of the parts wait for them.
        self._readers = ThreadPoolExecutor(self._threads)

    def teardown(self) -> None:
        super().teardown()
        self._readers.shutdown(wait=False, cancel_futures=True)

    def work(self, element: Any, *sides: Any) -> list[dict[str, Any]]:
        number, group = element
        task = self._task
        chosen = vectors.read_array(task.chosen)[np.concatenate([some.rows for some in group])]
        # Many files keep all threads at work as they are, and to read all their footers first would hold that up.
        parts = self._threads if len(group) <= 2 * self._threads else 1
        runs, footers = zip(*(run for some in group for run in self._runs(some, parts)), strict=True)
        chunks = []
        for chunk, counts in self._readers.map(self._read, runs, footers):
            chunks.append(chunk)
            for counter, amount in counts.items():
                count(counter, amount)
        if task.id_field is not None:
            self._check_ids(runs, chunks, chosen["hash"])
        suffix = "jsonl" if task.format == "jsonl" else "parquet"
        name = f"{task.stem}-{number:05d}.{suffix}"
        rows, size, sha256 = write_sample_part(
            f"{task.folder}/{name}", task.format, chunks, sample_columns(chosen, group, task.with_order)
        )
        return [{"number": number, "name": name, "rows": rows, "bytes": size, "sha256": sha256}]

    def _runs(self, some: Located, parts: int) -> Iterator[tuple[Located, Any]]:
        """The rows of a file in up to `parts` runs that are read side by side, each with the file's footer where it was
        read: the last part must not keep a thread alone at work.
        """
        piece = some.piece
        runs, footer = split_chosen(piece.path, piece.name, self._task.format, some.positions, parts)
        ends = np.cumsum([len(run) for run in runs[:-1]], dtype=np.int64)
        for run, rows in zip(runs, np.split(some.rows, ends), strict=True):
            yield Located(piece, run, rows), footer

    def _read(self, some: Located, footer: Any) -> tuple[Any, Counter[str]]:
        task, piece = self._task, some.piece
        with counting() as counts:
            found = read_chosen(
                piece.path, piece.name, task.format, some.positions, task.max_record_bytes, footer=footer
            )
        return found, counts

    def _check_ids(self, runs: Sequence[Located], chunks: list[Any], hashes: NDArray[np.uint64]) -> None:
        """Raises where a record read now is not the one that was embedded."""
        at = 0
        for some, chunk in zip(runs, chunks, strict=True):
            found, _ = ids.id_hashes(ids.field_values(chunk, self._task.id_field or ""))
            wrong = np.flatnonzero(found != hashes[at : at + len(found)])
            if len(wrong):
                place = f"{some.piece.name} at {some.positions[wrong[0]]}"
                raise InputError(
                    f"the record {place} is not the one that was embedded: the file was changed during the run; run "
                    "again"
                )
            at += len(found)


def write_listing(parts: list[dict[str, Any]], path: str) -> None:
    """Writes what the parts are, in the order of their numbers."""
    vectors.write_json(path, sorted(parts, key=lambda part: part["number"]))


class FetchSample(beam.PTransform):
    """The drawn records -> parts of the sample, and a listing of them."""

    def __init__(self, task: FetchTask, path: str, threads: int) -> None:
        super().__init__()
        self._task, self._path, self._threads = task, path, threads

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        return (
            root
            | "Reference" >> beam.Create([self._task])
            | "Groups" >> beam.FlatMap(part_groups)
            | "Spread" >> beam.Reshuffle()
            | "Fetch" >> beam.ParDo(FetchPart(self._task, self._threads))
            | "Gather" >> beam.combiners.ToList()
            | "Write" >> beam.Map(write_listing, self._path)
        )
