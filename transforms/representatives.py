"""The representatives: the last means rounded to rows of the corpus, found in one range of hashes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.kernels import exact, nearest, rounding, rounds
from tithe.transforms.parallel import SplitDoFn
from tithe.transforms.space import Reader


@dataclass
class Near:
    """Candidates for representatives, and what the rows of the range cost.

    Attributes:
        rows: `rounding.near_dtype`.
        cost: exact sum of squared distances to the means.
        count: rows of the range.
    """

    rows: NDArray[np.void]
    cost: int
    count: int


class FindNear(SplitDoFn):
    """A split, and the last centers -> the rows of the range near each mean."""

    def __init__(self, reader: Reader, ranges: list[tuple[int, int]], seed: int, count: int, threads: int) -> None:
        super().__init__(threads, CombineNear(count))
        self._reader, self._ranges, self._seed = reader, ranges, seed

    def work(self, element: Any, *sides: Any) -> list[Near]:
        from tithe.transforms.cluster import prepared

        (number, split), points = element, prepared(sides[0].path)
        k = len(points.exact)
        out = []
        for _, rows, block in self._reader.range_blocks(split.key, self._ranges):
            index, squared = nearest.nearest(block, points)
            near = np.empty(len(rows), rounding.near_dtype(block.shape[1]))
            near["cluster"], near["key"], near["vector"], near["split"] = index[:, 0], squared[:, 0], block, number
            for name in ("hash", "piece", "position", "label"):
                near[name] = rows[name]
            far = rounding.far_members(near, squared[:, 0], self._seed, k)
            members = rounding.nearest_members(near, 0)
            out.append(Near(np.concatenate([far, members]), exact.exact_sum(squared[:, 0]), len(rows)))
        return out


class CombineNear(beam.CombineFn):
    """Near -> the nearest of each cluster, far rows, exact cost; None where no row was read."""

    def __init__(self, count: int) -> None:
        self._far = rounds.far_count(count)

    def create_accumulator(self) -> Near | None:
        return None

    def add_input(self, accumulator: Near | None, element: Near) -> Near | None:
        return self.merge_accumulators([accumulator, element])

    def merge_accumulators(self, accumulators: Iterable[Near | None]) -> Near | None:
        some = [a for a in accumulators if a is not None]
        if not some:
            return None
        rows = rounding.nearest_members(np.concatenate([a.rows for a in some]), self._far)
        return Near(rows, sum(a.cost for a in some), sum(a.count for a in some))

    def extract_output(self, accumulator: Near | None) -> Near | None:
        return accumulator


def write_representatives(near: Near | None, reference: Any, folder: str) -> str:
    """Writes representatives, spares and what they measured; returns the folder."""
    from tithe.transforms.cluster import prepared

    k = len(prepared(reference.path).exact)
    assert near is not None, "the last batch holds at least ten rows a cluster"
    chosen, spares, moved = rounding.choose(near.rows, k)
    vectors.write_array(f"{folder}/representatives.npy", chosen)
    vectors.write_array(f"{folder}/spares.npy", spares)
    facts = {"clusters": len(chosen), "moved": moved, "cost_of_means": exact.to_float(near.cost), "rows": near.count}
    vectors.write_json(f"{folder}/representatives.json", facts)
    return folder


class FindRepresentatives(beam.PTransform):
    """(splits, reference to the last centers) -> the files representatives.npy, spares.npy and representatives.json."""

    def __init__(
        self, reader: Reader, folder: str, ranges: list[tuple[int, int]], seed: int, count: int, threads: int
    ) -> None:
        super().__init__()
        self._reader, self._folder, self._ranges = reader, folder, ranges
        self._seed, self._count, self._threads = seed, count, threads

    def expand(self, inputs: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        splits, reference = inputs
        return (
            splits
            | "Near"
            >> beam.ParDo(
                FindNear(self._reader, self._ranges, self._seed, self._count, self._threads), AsSingleton(reference)
            )
            | "Nearest" >> beam.CombineGlobally(CombineNear(self._count))
            | "Write" >> beam.Map(write_representatives, AsSingleton(reference), self._folder)
        )
