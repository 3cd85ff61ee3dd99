"""The embed stage: each split of the corpus becomes parts of vectors/, and the corpus's totals one file."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.embedding import MAX_CLASSES, EmbedTask, embed_split
from tithe.transforms.errors import InputError
from tithe.transforms.parallel import ReadPlan, SplitDoFn

SKETCH = 100_000
"""Smallest id hashes that are compared across splits to find duplicate ids."""


@dataclass
class EmbedTotals:
    """What the splits add up to.

    Attributes:
        rows: good records.
        parts: number of parts.
        columns: stored components a row.
        bad: dead letters by reason.
        magnitude: largest magnitude of a stored component.
        classes: label texts by hash.
        sketch: the smallest id hashes, with repeats, uint64; ascending once all are together.
        number_magnitude: largest magnitude of a label of kind `number`.
        dead: keys of the splits that have dead letters.
    """

    rows: int = 0
    parts: int = 0
    columns: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    magnitude: float = 0.0
    classes: dict[str, str] = field(default_factory=dict)
    sketch: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    number_magnitude: float = 0.0
    dead: list[str] = field(default_factory=list)


class CombineTotals(beam.CombineFn):
    """EmbedTotals of splits -> EmbedTotals of the corpus."""

    def create_accumulator(self) -> EmbedTotals:
        return EmbedTotals()

    def add_input(self, accumulator: EmbedTotals, element: EmbedTotals) -> EmbedTotals:
        return self.merge_accumulators([accumulator, element])

    def merge_accumulators(self, accumulators: Iterable[EmbedTotals]) -> EmbedTotals:
        total = EmbedTotals()
        for a in accumulators:
            total.rows += a.rows
            total.parts += a.parts
            total.columns = max(total.columns, a.columns)
            total.bad = total.bad + a.bad
            total.magnitude = max(total.magnitude, a.magnitude)
            total.classes = total.classes | a.classes
            total.sketch = smallest(np.concatenate([total.sketch, a.sketch]))
            total.number_magnitude = max(total.number_magnitude, a.number_magnitude)
            total.dead = total.dead + a.dead
        return total

    def extract_output(self, accumulator: EmbedTotals) -> EmbedTotals:
        return replace(accumulator, sketch=np.sort(accumulator.sketch))


def smallest(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns the SKETCH smallest hashes, in no order; repeats count, so that a hash in two splits is seen."""
    return np.partition(hashes, SKETCH - 1)[:SKETCH] if len(hashes) > SKETCH else hashes


class EmbedSplit(SplitDoFn):
    """A split -> its EmbedTotals; the vectors go to disk."""

    def __init__(self, task: EmbedTask, threads: int) -> None:
        super().__init__(threads)
        self._task = task

    def work(self, element: Any, *sides: Any) -> list[EmbedTotals]:
        _, split = element
        done = embed_split(self._task, split)
        totals = EmbedTotals(
            rows=sum(done["parts"]),
            parts=len(done["parts"]),
            columns=done["columns"],
            bad=Counter(done["bad"]),
            magnitude=done["magnitude"],
            classes=done["classes"],
            number_magnitude=done["number_magnitude"],
            dead=[split.key] if done["bad"] else [],
        )
        if self._task.id_field is not None:
            parts = vectors.parts_of(f"{self._task.folder}/{split.key}")
            # The rows lie in hash order, so the smallest are the first.
            heads = [vectors.read_array(f"{p.stem}.rows.npy", 0, min(p.rows, SKETCH))["hash"] for p in parts]
            totals.sketch = smallest(np.concatenate([totals.sketch, *heads]))
        return [totals]


class WriteTotals(beam.DoFn):
    """EmbedTotals of the corpus -> the file that the driver reads."""

    def __init__(self, path: str) -> None:
        self._path = path

    def process(self, totals: EmbedTotals) -> None:
        if len(totals.classes) > MAX_CLASSES:
            raise InputError(f"embed.label has over {MAX_CLASSES:,} classes; use label_kind: text or number")
        repeated = totals.sketch[1:][totals.sketch[1:] == totals.sketch[:-1]]
        vectors.write_json(
            self._path,
            {
                "rows": totals.rows,
                "parts": totals.parts,
                "columns": totals.columns,
                "bad": dict(sorted(totals.bad.items())),
                "magnitude": totals.magnitude,
                "classes": dict(sorted(totals.classes.items())),
                "repeated_ids": [int(h) for h in repeated[:3]],
                "number_magnitude": totals.number_magnitude,
                "dead": sorted(totals.dead),
            },
        )


class EmbedCorpus(beam.PTransform):
    """The plan of splits -> vectors/, and the totals in one file."""

    def __init__(self, plan: str, task: EmbedTask, totals_path: str, threads: int) -> None:
        super().__init__()
        self._plan, self._task, self._totals_path, self._threads = plan, task, totals_path, threads

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        return (
            root
            | "Splits" >> ReadPlan(self._plan)
            | "Embed" >> beam.ParDo(EmbedSplit(self._task, self._threads))
            | "Total" >> beam.CombineGlobally(CombineTotals())
            | "Write" >> beam.ParDo(WriteTotals(self._totals_path))
        )
