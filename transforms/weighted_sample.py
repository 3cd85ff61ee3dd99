"""A weighted sample of a PCollection of (id, score), inside its own graph: the parts of the draw without clusters.

The same totals, samplers and reservoir as those of a selection, over batches of scores in the place of scores/. What
crosses the network besides the scores is of the size of the sample.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton
from apache_beam.transforms.window import GlobalWindows
from apache_beam.typehints.row_type import RowTypeConstraint
from apache_beam.typehints.typehints import TupleConstraint
from numpy.typing import NDArray

from tithe.transforms import ids
from tithe.transforms.draw import (
    CHOSEN,
    CombineProxyTotals,
    Everything,
    ProxyTotals,
    Reservoir,
    Sampler,
    gather_draws,
    make_sampler,
    proxy_totals,
)
from tithe.transforms.errors import InputError, UsageError

METHODS = ("pareto", "multinomial", "poisson")

_BATCH = 8192  # scores at a time
_UNBOUNDED = 2**62


@dataclass(frozen=True)
class Scores:
    """A batch: ids as they came, their hashes uint64, (n,), and scores float64, (n,)."""

    ids: list[Any]
    hashes: NDArray[np.uint64]
    scores: NDArray[np.float64]


class WeightedSample(beam.PTransform):
    """A bounded PCollection of (id, score) -> rows (id, weight, probability) of the drawn ids.

    An id is drawn with probability in proportion to its score, up to 1. A weight is the multiplicity of the id over its
    expected multiplicity, so that weighted sums over the sample estimate sums over the PCollection. The draw is the
    same as that of `tithe select` for equal ids, scores and seed. With a size that is no smaller than the PCollection,
    all are taken with weight 1. An id with score 0 is never drawn.

    Args of the constructor:
        size: number of draws, at least 1; for poisson on average.
        method: pareto (each id once at most), multinomial (independent draws; `probability` is then the expected
            multiplicity), or poisson (each id for itself). The systematic draw needs clusters, so SensitivitySample.
        seed: of the draw, 0 .. 2^63 - 1.

    Raises:
        UsageError: when the pipeline is built, for arguments that cannot be used.
        InputError: in its steps, for an id that is neither text nor an integer, a score that is negative, NaN or
            infinite, an id among the drawn that is given twice, a total of 0.
    """

    def __init__(self, size: int, method: str = "pareto", seed: int = 17) -> None:
        super().__init__()
        if size < 1:
            raise UsageError(f"size: {size} draws nothing; give 1 or more")
        if method not in METHODS:
            hint = "; it needs clusters, use SensitivitySample" if method == "systematic" else ""
            raise UsageError(f"method: {method!r} is none of {', '.join(METHODS)}{hint}")
        if not 0 <= seed < 2**63:
            raise UsageError(f"seed: {seed} is not in 0 .. 2^63 - 1")
        self._size, self._method, self._seed = size, method, seed

    def expand(self, scored: beam.PCollection) -> beam.PCollection:
        if not scored.is_bounded:
            raise UsageError("WeightedSample: the PCollection is unbounded, and a sample is of a finite corpus")
        batches = (
            scored
            | "Window" >> beam.WindowInto(GlobalWindows())
            | "Batch" >> beam.BatchElements(min_batch_size=_BATCH, max_batch_size=_BATCH)
            | "Check" >> beam.Map(check_scores)  # Scores
        )
        records = batches | "Count" >> beam.Map(lambda batch: len(batch.ids)) | "Sum" >> beam.CombineGlobally(sum)
        sampler = (
            batches
            | "Totals" >> beam.Map(lambda batch, size: proxy_totals(batch.scores, size), self._size)
            | "Total" >> beam.CombineGlobally(CombineProxyTotals(self._size))
            | "Sampler" >> beam.Map(choose_sampler, AsSingleton(records), self._method, self._size, self._seed)
        )
        reservoir = _UNBOUNDED if self._method == "poisson" else self._size
        drawn = (
            batches
            | "Draw" >> beam.Map(lambda batch, sampler: [draw(batch, sampler)], AsSingleton(sampler))  # [CHOSEN]
            | "Reservoir" >> beam.CombineGlobally(Reservoir(reservoir))
            | "Gather" >> beam.Map(gather_draws)
        )
        hint = scored.element_type
        id_type = hint.tuple_types[0] if isinstance(hint, TupleConstraint) else Any
        row = RowTypeConstraint.from_fields([("id", id_type), ("weight", float), ("probability", float)])
        return (
            batches
            | "Pick" >> beam.FlatMap(pick, AsSingleton(drawn))  # (hash, row)
            | "ById" >> beam.GroupByKey()
            | "Once" >> beam.Map(once).with_output_types(row)
        )


def check_scores(pairs: list[tuple[Any, Any]]) -> Scores:
    """Returns a batch of pairs (id, score); InputError where one cannot be used, which it names."""
    names = [name for name, _ in pairs]
    plain = [int(name) if isinstance(name, np.integer) else name for name in names]
    hashes, wrong = ids.id_hashes(plain)
    if wrong:
        row, reason = next(iter(wrong.items()))
        raise InputError(f"id {names[row]!r}: {reason}; an id is text or an integer")
    scores = np.empty(len(pairs))
    for row, (name, score) in enumerate(pairs):
        try:
            scores[row] = score
        except (TypeError, ValueError):
            scores[row] = math.nan
        if not 0 <= scores[row] < math.inf:
            raise InputError(f"id {name!r}: the score {score!r} is not a finite number of at least 0")
    return Scores(names, hashes, scores)


def choose_sampler(totals: ProxyTotals, records: int, method: str, size: int, seed: int) -> Sampler:
    """Returns the sampler for the whole PCollection; InputError where there is nothing to draw from."""
    if size >= records:
        return Everything(records)
    if totals.total == 0:
        raise InputError("every score is 0, so nothing can be drawn; give some id a score above 0")
    return make_sampler(method, totals, size, seed)


def draw(batch: Scores, sampler: Sampler) -> NDArray[np.void]:
    """Returns the rows of a batch that may be in the sample, as CHOSEN; a record is known by its hash alone."""
    rows, keys, expected = sampler.draw(batch.scores, batch.hashes)
    chosen = np.zeros(len(rows), CHOSEN)
    chosen["key"], chosen["expected"], chosen["multiplicity"] = keys, expected, 1
    chosen["hash"], chosen["proxy"], chosen["order"] = batch.hashes[rows], batch.scores[rows], -1
    chosen["position"] = batch.hashes[rows].view(np.int64)
    return chosen


def pick(batch: Scores, drawn: NDArray[np.void]) -> Iterator[tuple[int, beam.Row]]:
    """Yields (hash, row) of the ids of a batch that were drawn, each with its weight."""
    drawn = np.sort(drawn, order="hash")
    place = np.minimum(np.searchsorted(drawn["hash"], batch.hashes), max(len(drawn) - 1, 0))
    for row in np.flatnonzero(drawn["hash"][place] == batch.hashes) if len(drawn) else ():
        some = drawn[place[row]]
        weight = float(some["multiplicity"] / some["expected"])
        yield (
            int(some["position"]),  # the hash as a signed integer, which coders take
            beam.Row(id=batch.ids[row], weight=weight, probability=float(some["expected"])),
        )


def once(rows: tuple[int, Iterable[beam.Row]]) -> beam.Row:
    """Returns the only row of an id; InputError where the id was given twice."""
    row, *others = rows[1]
    if others:
        raise InputError(f"id {row.id!r} is given {1 + len(others)} times; an id must be unique")
    return row
