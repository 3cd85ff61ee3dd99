"""Exact totals of the two terms of the proxy over scores/, from which the pilot's choice is made: no constant needs a
new pass of the vectors.
"""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam

from tithe.transforms import vectors
from tithe.transforms.draw import Proxies, read_losses
from tithe.transforms.kernels import exact
from tithe.transforms.parallel import ReadPlan, SplitDoFn

Terms = tuple[int, int]
"""Exact sums of the suggested losses, and of the distances to the power in use."""


class SumSplit(SplitDoFn):
    """A split -> Terms."""

    def __init__(self, proxies: Proxies, threads: int) -> None:
        super().__init__(threads, CombineTerms())
        self._proxies = proxies

    def work(self, element: Any, *sides: Any) -> list[Terms]:
        losses = read_losses(self._proxies.losses)
        terms = (self._proxies.rule.terms(losses, scores) for _, scores in self._proxies.scores(element[1].key))
        return [(exact.exact_sum(suggested), exact.exact_sum(distance)) for suggested, distance in terms]


class CombineTerms(beam.CombineFn):
    """Terms of parts -> Terms of the corpus."""

    def create_accumulator(self) -> Terms:
        return 0, 0

    def add_input(self, accumulator: Terms, element: Terms) -> Terms:
        return accumulator[0] + element[0], accumulator[1] + element[1]

    def merge_accumulators(self, accumulators: Iterable[Terms]) -> Terms:
        total = self.create_accumulator()
        for some in accumulators:
            total = self.add_input(total, some)
        return total

    def extract_output(self, accumulator: Terms) -> Terms:
        return accumulator


class SumTerms(beam.PTransform):
    """The plan of splits -> the totals of both terms, in one file."""

    def __init__(self, plan: str, proxies: Proxies, path: str, threads: int) -> None:
        super().__init__()
        self._plan, self._proxies, self._path, self._threads = plan, proxies, path, threads

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        return (
            root
            | "Splits" >> ReadPlan(self._plan)
            | "Terms" >> beam.ParDo(SumSplit(self._proxies, self._threads))
            | "Total" >> beam.CombineGlobally(CombineTerms()).without_defaults()
            | "Write" >> beam.Map(_write, self._path)
        )


def _write(terms: Terms, path: str) -> None:
    vectors.write_json(path, {"suggested": exact.to_float(terms[0]), "distances": exact.to_float(terms[1])})
