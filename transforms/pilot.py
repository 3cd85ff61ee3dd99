"""The pilot: records drawn uniformly whose losses are asked too, so that the proxy can be checked where distances are
not 0.
"""

from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.centering import hash_width
from tithe.transforms.cluster import CombineFar
from tithe.transforms.kernels import hashing, rounding
from tithe.transforms.parallel import ReadPlan, SplitDoFn
from tithe.transforms.space import Reader, read_space

SPARES = 2
"""Records kept for each one of the pilot: the next by hash take the place of those on which the model fails."""


class FindPilot(SplitDoFn):
    """A split -> its rows with the smallest hashes in the role of the pilot, as `rounding.near_dtype`.

    Only rows are read, and the vectors of the few whose hash is below a limit that leaves enough of them in the corpus.
    """

    def __init__(self, reader: Reader, seed: int, size: int, records: int, threads: int) -> None:
        super().__init__(threads, CombineFar(SPARES * size))
        self._reader, self._seed = reader, seed
        self._limit = hash_width((2 * SPARES * size + 100) / records)

    def work(self, element: Any, *sides: Any) -> list[NDArray[np.void]]:
        number, split = element
        space = read_space(self._reader.space_path)
        out = []
        for part in self._reader.parts(split.key):
            rows = vectors.read_array(f"{part.stem}.rows.npy")
            key = hashing.role_hash(rows["hash"], self._seed, "pilot")
            few = np.flatnonzero(key <= np.uint64(self._limit - 1))
            near = np.zeros(len(few), rounding.near_dtype(space.dimension))
            near["key"], near["cluster"], near["split"] = key[few], -1, number
            for name in ("hash", "piece", "position", "label"):
                near[name] = rows[name][few]
            for i, row in enumerate(few.tolist()):
                stored = vectors.read_array(f"{part.stem}.vectors.npy", row, row + 1)
                near["vector"][i] = space.apply(rows[row : row + 1], stored)[0]
            out.append(near)
        return out


def write_pilot(rows: NDArray[np.void] | None, path: str) -> None:
    """Writes the records of the pilot and their spares, in the order of their hash in that role."""
    assert rows is not None, "the corpus has a record"
    vectors.write_array(path, rows)


class DrawPilot(beam.PTransform):
    """The plan of splits -> the pilot and its spares, in one file."""

    def __init__(self, plan: str, reader: Reader, seed: int, size: int, records: int, path: str, threads: int) -> None:
        super().__init__()
        self._plan, self._find, self._path = plan, FindPilot(reader, seed, size, records, threads), path
        self._size = size

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        return (
            root
            | "Splits" >> ReadPlan(self._plan)
            | "Find" >> beam.ParDo(self._find)
            | "Smallest" >> beam.CombineGlobally(CombineFar(SPARES * self._size)).without_defaults()
            | "Write" >> beam.Map(write_pilot, self._path)
        )
