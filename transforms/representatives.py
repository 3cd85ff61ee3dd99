"""The representatives: the last means rounded to rows of the corpus, found in the last round's range of hashes.

A row of the range belongs to the cluster that the last round put it in, so that no row is compared with all means
again; how far it is from the new mean of that cluster decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.centers import Reference, prepared, read_centers, write_centers
from tithe.transforms.files import exists
from tithe.transforms.kernels import exact, nearest, rounding, rounds, search
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


def assignment_path(folder: str, key: str) -> str:
    """Returns the path of the centers that the last round found nearest to a split's rows of its batch, in their order,
    int32. There is none where the rounds had converged before: then the last centers are those of any round since.
    """
    return f"{folder}/tmp/assignment/{key}.npy"


class FindNear(SplitDoFn):
    """A split, and a reference to centers -> its rows in the ranges near each center.

    Args of the constructor:
        folder: of the cluster stage.
        numbered: a reference's centers are some of the clusters only, those that found no row before: beside the
            checkpoint lie their numbers. Then nothing is added to the cost, and rows are compared with them alone.
    """

    def __init__(
        self,
        reader: Reader,
        folder: str,
        ranges: list[tuple[int, int]],
        seed: int,
        count: int,
        threads: int,
        numbered: bool = False,
    ) -> None:
        super().__init__(threads, CombineNear(count))
        self._reader, self._folder, self._ranges = reader, folder, ranges
        self._seed, self._numbered = seed, numbered

    def work(self, element: Any, *sides: Any) -> list[Near]:
        number, split = element
        reference: Reference = sides[0]
        if self._numbered and reference.converged:
            return []
        points = prepared(reference.path)
        clusters = vectors.read_array(_numbers_path(reference.path)) if self._numbered else np.arange(len(points.exact))
        kept = np.empty(0, rounding.near_dtype(points.exact.shape[1]))
        far, cost, count = [kept], 0, 0
        # Another thread may add to the total: its rows are replaced as a whole, and the limits only get smaller.
        others = kept if self._numbered or self._total is None else self._total.rows
        limit, far_limit = rounding.limits(others, len(clusters))
        path, at = assignment_path(self._folder, split.key), 0
        assigned = None if self._numbered or not exists(path) else vectors.read_array(path)
        for _, rows, block in self._reader.range_blocks(split.key, self._ranges):
            if assigned is None:
                index, squared = search.search(block, points)
                center, key = index[:, 0], squared[:, 0]
            else:
                center = assigned[at : at + len(rows)]
                key = nearest.squared_distances(block, points.exact, center[:, None])[:, 0]
                at += len(rows)
            close = np.flatnonzero(key <= limit[center])
            # Few of them stay, and only those are worth their vectors.
            close = close[rounding.first_of_clusters(center[close], key[close], rows["hash"][close], 0)]
            near = rounding.candidates(rows[close], block[close], number, center[close], key[close])
            kept = rounding.nearest_members(np.concatenate([kept, near]), 0)
            limit = np.minimum(limit, rounding.limits(kept, len(clusters))[0])
            if not self._numbered:
                few, keys = rounding.far_members(rows["hash"], key, self._seed, len(clusters), far_limit)
                far.append(rounding.candidates(rows[few], block[few], number, -1, keys))
                cost, count = cost + exact.exact_sum(key), count + len(rows)
        kept["cluster"] = clusters[kept["cluster"]]
        return [Near(np.concatenate([*far, kept]), cost, count)]


def _numbers_path(centers: str) -> str:
    return centers.replace(".npz", "-numbers.npy")


class CombineNear(beam.CombineFn):
    """Near -> the nearest of each cluster, far rows, exact cost; None where no row was read."""

    def __init__(self, count: int) -> None:
        self._far = rounding.far_count(count)

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


def write_missing(near: Near | None, reference: Reference, folder: str, complete: bool) -> Reference:
    """Writes the centers that found no row in the range; a converged reference where there is none, or where there are
    no other rows to look among.
    """
    assert near is not None, "the last batch holds at least ten rows a cluster"
    centers = read_centers(reference.path)
    missing = np.setdiff1d(np.arange(len(centers.points)), near.rows["cluster"])
    path = f"{folder}/tmp/missing.npz"
    if complete or not len(missing):
        return Reference(path, converged=True)
    write_centers(path, rounds.Centers(centers.points[missing], centers.weights[missing]))
    vectors.write_array(_numbers_path(path), missing)
    return Reference(path)


def write_representatives(late: Near | None, near: Near, reference: Reference, folder: str) -> str:
    """Writes representatives, spares and what they measured; returns the folder."""
    k = len(read_centers(reference.path).points)
    later = near.rows[:0] if late is None else late.rows
    chosen, spares, moved = rounding.choose(near.rows, later, k)
    vectors.write_array(f"{folder}/representatives.npy", chosen)
    vectors.write_array(f"{folder}/spares.npy", spares)
    facts = {"clusters": len(chosen), "moved": moved, "cost_of_means": exact.to_float(near.cost), "rows": near.count}
    vectors.write_json(f"{folder}/representatives.json", facts)
    return folder


class FindRepresentatives(beam.PTransform):
    """(splits, reference to the last centers) -> the files representatives.npy, spares.npy and representatives.json.

    A cluster may have no row in the last round's range; those few look for one in a wider range, in a pass that
    compares rows with these centers alone.
    """

    def __init__(
        self,
        reader: Reader,
        folder: str,
        ranges: list[tuple[int, int]],
        wider: list[tuple[int, int]],
        seed: int,
        count: int,
        threads: int,
    ) -> None:
        super().__init__()
        self._reader, self._folder, self._ranges, self._wider = reader, folder, ranges, wider
        self._seed, self._count, self._threads = seed, count, threads

    def _find(self, ranges: list[tuple[int, int]], numbered: bool) -> FindNear:
        return FindNear(self._reader, self._folder, ranges, self._seed, self._count, self._threads, numbered)

    def expand(self, inputs: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        splits, reference = inputs
        near = (
            splits
            | "Near" >> beam.ParDo(self._find(self._ranges, False), AsSingleton(reference))
            | "Nearest" >> beam.CombineGlobally(CombineNear(self._count)).without_defaults()
        )
        missing = near | "Missing" >> beam.Map(
            write_missing, AsSingleton(reference), self._folder, self._ranges == self._wider
        )
        return (
            splits
            | "Late" >> beam.ParDo(self._find(self._wider, True), AsSingleton(missing))
            | "LateNearest" >> beam.CombineGlobally(CombineNear(self._count)).without_defaults()
            | "Write" >> beam.Map(write_representatives, AsSingleton(near), AsSingleton(reference), self._folder)
        )
