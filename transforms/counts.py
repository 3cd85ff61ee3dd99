"""Arrays of integers, added up over splits."""

from collections.abc import Iterable

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray


class CombineCounts(beam.CombineFn):
    """Arrays of int64, all of one shape -> their sum; None where there is none."""

    def create_accumulator(self) -> NDArray[np.int64] | None:
        return None

    def add_input(self, accumulator: NDArray[np.int64] | None, element: NDArray[np.int64]) -> NDArray[np.int64] | None:
        return self.merge_accumulators([accumulator, element])

    def merge_accumulators(self, accumulators: Iterable[NDArray[np.int64] | None]) -> NDArray[np.int64] | None:
        some = [a for a in accumulators if a is not None]
        return np.sum(some, axis=0) if some else None

    def extract_output(self, accumulator: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        return accumulator
