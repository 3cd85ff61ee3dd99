"""The last step of the embed stage: the origin, the spread of the embeddings, and from them the space of the
clustering.
"""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.parallel import ReadPlan, SplitDoFn
from tithe.transforms.space import Space, write_space

SAMPLE = 4096
"""Records from which origin and spread are taken, about."""

Stored = tuple[NDArray[np.void], NDArray[np.float32]]


def hash_width(share: float) -> int:
    """Returns the width of a range of hashes that holds a share of the records, 1 .. 2**64."""
    return min(vectors.HASHES, max(1, int(share * 2.0**64)))


def make_space(
    rows: NDArray[np.void],
    stored: NDArray[np.float32],
    dimension: int,
    label_kind: str | None,
    label_weight: float,
    totals: dict[str, Any],
) -> Space:
    """Returns the space that a sample of the corpus sets.

    The origin is the median of each component: any fixed vector is right, and one row of 1e12 moves a mean so far that
        float32 has no bits left for the others. A label of weight 1 has the spread of the embeddings: the root mean
        square distance from their mean.

    Args:
        rows: of the sample, (m,), m >= 1, in any order.
        stored: their stored vectors, float32, (m, d + e).
        dimension: d, components of the embedding; the e others are a text label's.
        label_kind: class, text, number or None.
        label_weight: of the label.
        totals: of the embed stage (magnitude, classes).
    """
    order = np.lexsort((rows["position"], rows["piece"], rows["hash"]))
    rows = rows[order]
    wide = stored[order].astype(np.float64)
    origin = np.median(wide, axis=0).astype(np.float32)
    spread = label_weight * _spread(wide[:, :dimension])
    scale = np.ones(wide.shape[1], np.float32)
    classes, number = np.empty(0, np.uint64), np.empty(0)
    if label_kind == "text":
        scale[dimension:] = spread / (_spread(wide[:, dimension:]) or 1.0)
    elif label_kind == "class":
        classes = np.array(sorted(int(h, 16) for h in totals["classes"]), np.uint64)
    elif label_kind == "number":
        values = np.ascontiguousarray(rows["label"]).view(np.float64)
        middle = np.median(values)
        number = np.array([middle, spread / (_spread(values[:, None]) or 1.0)])
    magnitude = float((totals["magnitude"] + np.abs(origin).max(initial=0)) * scale.max(initial=1) * 1.001)
    if label_kind == "number":
        magnitude = max(magnitude, (totals["number_magnitude"] + abs(number[0])) * number[1] * 1.001)
    return Space(
        origin,
        scale,
        classes,
        number,
        spread,
        max(magnitude, spread * 1.001),
        8 * (1 + label_weight) * _spread(wide[:, :dimension]),
    )


def _spread(values: NDArray[np.float64]) -> float:
    """The root mean square distance from the mean; the farthest hundredth is left out, so that no single row
    sets it.
    """
    squared = np.sort(((values - np.median(values, axis=0)) ** 2).sum(1))
    return float(np.sqrt(squared[: max(1, int(0.99 * len(squared)))].mean()))


class SampleRows(SplitDoFn):
    """A split -> rows and stored vectors with a hash below the limit."""

    def __init__(self, folder: str, limit: int, threads: int) -> None:
        super().__init__(threads)
        self._folder, self._limit = folder, limit

    def work(self, element: Any, *sides: Any) -> list[Stored]:
        out = []
        for part in vectors.parts_of(f"{self._folder}/{element[1].key}"):
            out += [
                (rows, stored) for _, rows, stored in vectors.chunks(part, *vectors.hash_range(part, 0, self._limit))
            ]
        return out


class Gather(beam.CombineFn):
    """Arrays of a sample -> all of them; only for samples of a size that does not grow with the corpus."""

    def create_accumulator(self) -> list[Stored]:
        return []

    def add_input(self, accumulator: list[Stored], element: Stored) -> list[Stored]:
        return [*accumulator, element]

    def merge_accumulators(self, accumulators: Iterable[list[Stored]]) -> list[Stored]:
        return [element for accumulator in accumulators for element in accumulator]

    def extract_output(self, accumulator: list[Stored]) -> list[Stored]:
        return accumulator


class CenterCorpus(beam.PTransform):
    """The plan of splits -> the space, in one file.

    Args of the constructor:
        plan: path of the plan of splits.
        folder: of vectors/.
        path: of the space.
        totals: path of the totals of the embed stage: labels of many classes have no place in a graph.
        rows: of the corpus.
        settings: dimension of the embedding, kind of the label (None: there is none) and its weight.
        threads: of a worker.
    """

    def __init__(
        self,
        plan: str,
        folder: str,
        path: str,
        totals: str,
        rows: int,
        settings: tuple[int, str | None, float],
        threads: int,
    ) -> None:
        super().__init__()
        self._plan, self._folder, self._path, self._totals = plan, folder, path, totals
        self._rows, self._settings, self._threads = rows, settings, threads

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        limit = hash_width(SAMPLE / self._rows)
        return (
            root
            | "Splits" >> ReadPlan(self._plan)
            | "Sample" >> beam.ParDo(SampleRows(self._folder, limit, self._threads))
            | "Gather" >> beam.CombineGlobally(Gather()).without_defaults()
            | "Write" >> beam.Map(_write, self._path, self._totals, *self._settings)
        )


def _write(gathered: list[Stored], path: str, totals: str, dimension: int, kind: str | None, weight: float) -> None:
    rows = np.concatenate([rows for rows, _ in gathered])
    stored = np.concatenate([stored for _, stored in gathered])
    write_space(path, make_space(rows, stored, dimension, kind, weight, vectors.read_json(totals)))
