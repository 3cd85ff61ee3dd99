"""A finished selection as PCollections: the sample, the representatives and the dead letters, read from their files.

What crosses the network are paths and positions; a record is read where it goes on.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.fetch import read_chosen
from tithe.transforms.files import open_bytes, open_source
from tithe.transforms.locate import Located, grouped, locate

SAMPLE_TYPES: dict[str, type] = {
    "tithe_weight": float,
    "tithe_probability": float,
    "tithe_multiplicity": int,
    "tithe_cluster": int,
    "tithe_distance": float,
    "tithe_proxy": float,
    "tithe_file": str,
    "tithe_position": int,
}
"""What the sample adds to a record; a systematic draw adds `tithe_order` too."""

REPRESENTATIVE_TYPES: dict[str, type] = {"tithe_cluster": int, "tithe_loss": float}
"""The number of its cluster, and the loss that was asked for it (1 where none was)."""

DEAD_LETTER_TYPES: dict[str, type] = {"tithe_reason": str}
"""Why a record could not be used."""

_GROUP = 1000  # records read by one step

Record = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """Where a finished selection from Parquet files is.

    Attributes:
        output: its folder.
        work: the folder of its stages.
        records: the folder of its input files.
        letters: the paths of its dead letters, JSON lines.
    """

    output: str
    work: str
    records: str
    letters: tuple[str, ...]

    def manifest(self) -> Any:
        """Returns what the manifest holds."""
        return vectors.read_json(f"{self.output}/manifest.json")

    def stage(self, name: str) -> str:
        """Returns the folder of a stage."""
        [folder] = [stage["folder"] for stage in self.manifest()["stages"] if stage["name"] == name]
        return f"{self.work}/{folder}"

    def read(self, name: str, positions: NDArray[np.int64]) -> list[Record]:
        """Returns records of an input file; positions int64, (n,), ascending, without repeats."""
        return list(read_chosen(f"{self.records}/{name}", name, "parquet", positions, 0).to_pylist())


class ReadSample(beam.PTransform):
    """Finished -> the drawn records, dicts with SAMPLE_TYPES added."""

    def expand(self, finished: beam.PCollection) -> beam.PCollection:
        parts = finished | "Parts" >> beam.FlatMap(_parts) | "Spread" >> beam.Reshuffle()
        return parts | "Read" >> beam.FlatMap(_read_part).with_output_types(Record)


def _parts(finished: Finished) -> list[str]:
    return [f"{finished.output}/{part['name']}" for part in finished.manifest()["sample"]["parts"]]


def _read_part(path: str) -> Iterator[Record]:
    with open_source(path) as source:
        for batch in pq.ParquetFile(source).iter_batches(_GROUP):
            yield from batch.to_pylist()


class ReadRepresentatives(beam.PTransform):
    """Finished -> the record that stands for each cluster, dicts with REPRESENTATIVE_TYPES added."""

    def expand(self, finished: beam.PCollection) -> beam.PCollection:
        groups = finished | "Locate" >> beam.FlatMap(_representatives) | "Spread" >> beam.Reshuffle()
        return groups | "Read" >> beam.FlatMap(_read_representatives).with_output_types(Record)


def _representatives(finished: Finished) -> Iterator[tuple[Finished, list[Located]]]:
    anchors = vectors.read_array(f"{finished.stage('losses')}/anchors.npy")
    wanted = anchors[anchors["representative"]]
    for group in grouped(locate(f"{finished.stage('plan')}/plan.jsonl", wanted), _GROUP):
        yield finished, group


def _read_representatives(element: tuple[Finished, list[Located]]) -> Iterator[Record]:
    finished, group = element
    folder = finished.stage("losses")
    clusters = np.flatnonzero(vectors.read_array(f"{folder}/anchors.npy")["representative"])
    losses = vectors.read_array(f"{folder}/losses.npy")
    for some in group:
        for row, record in zip(some.rows, finished.read(some.piece.name, some.positions), strict=True):
            cluster = int(clusters[row])
            yield {**record, "tithe_cluster": cluster, "tithe_loss": float(losses[cluster])}


class ReadDeadLetters(beam.PTransform):
    """Finished -> the records that could not be used, dicts with DEAD_LETTER_TYPES added."""

    def expand(self, finished: beam.PCollection) -> beam.PCollection:
        files = finished | "Files" >> beam.FlatMap(_letter_files) | "Spread" >> beam.Reshuffle()
        return files | "Read" >> beam.FlatMap(_read_letters).with_output_types(Record)


def _letter_files(finished: Finished) -> Iterator[tuple[Finished, str]]:
    for path in finished.letters:
        yield finished, path


def _read_letters(element: tuple[Finished, str]) -> Iterator[Record]:
    finished, path = element
    reasons: dict[str, dict[int, str]] = defaultdict(dict)  # by file and position
    with open_bytes(path) as file:
        for line in file:
            letter = json.loads(line)
            reasons[letter["file"]][letter["position"]] = letter["reason"]
    for name, by_position in sorted(reasons.items()):
        positions = np.array(sorted(by_position), np.int64)
        for position, record in zip(positions.tolist(), finished.read(name, positions), strict=True):
            yield {**record, "tithe_reason": by_position[position]}
