"""The losses stage: the loss of every anchor, from a column or from the user's model; nothing else is asked."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.embedders import load_once, model_call
from tithe.transforms.errors import InputError
from tithe.transforms.fetch import chosen_records, read_chosen
from tithe.transforms.locate import Located, grouped, locate, read_wanted
from tithe.transforms.parallel import ThreadedDoFn
from tithe.transforms.records_batch import check_columns
from tithe.transforms.usercode import UserCode

GROUP = 256
"""Anchors that one element asks for; batches of a model end at its ends, so they are the same on every runner."""

Losses = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Which anchors, and their losses."""


@dataclass(frozen=True)
class ColumnLosses:
    """Losses that are in a column of the input, read at the anchors alone."""

    column: str

    def ask(self, some: Located, format: str, max_record_bytes: int) -> list[Any]:
        """Returns the value for each record, whatever it is."""
        piece = some.piece
        chosen = read_chosen(piece.path, piece.name, format, some.positions, max_record_bytes, columns=[self.column])
        if isinstance(chosen, list):
            records = chosen_records(piece.path, piece.name, format, some.positions, max_record_bytes)
            return [record.get(self.column) for record in records]
        check_columns(piece.name, [self.column], chosen.column_names)
        return list(chosen.column(self.column).to_pylist())


@dataclass(frozen=True)
class ModelLosses:
    """Losses from a function of a list of records, or from a Beam ModelHandler."""

    function: UserCode
    batch: int

    def ask(self, some: Located, format: str, max_record_bytes: int) -> list[Any]:
        """Returns what the model says of each record."""
        call = load_once(repr(self), self._load)
        records = chosen_records(some.piece.path, some.piece.name, format, some.positions, max_record_bytes)
        out: list[Any] = []
        for low in range(0, len(records), self.batch):
            given = records[low : low + self.batch]
            answer = list(np.atleast_1d(np.asarray(call(given), dtype=object)).tolist())
            if len(answer) != len(given):
                where = f"{some.piece.name} at {some.positions[low]}"
                raise InputError(
                    f"{self.function.key}: {self.function.reference!r} gave {len(answer)} losses for {len(given)} records "
                    f"(the first: {where}); it must give one for each, in their order"
                )
            out += answer
        return out

    def _load(self) -> Any:
        loaded = self.function.load()
        is_handler = hasattr(loaded, "run_inference")
        return model_call(self.function) if is_handler else loaded


LossSource = ColumnLosses | ModelLosses


def checked_losses(values: list[Any], some: Located, key: str) -> NDArray[np.float64]:
    """Returns losses as float64, (n,).

    Raises:
        InputError: a loss that is missing, no number, negative, NaN or infinite; it names the record.
    """
    out = np.zeros(len(values))
    for i, value in enumerate(values):
        record = f"{some.piece.name} at {some.positions[i]}"
        if value is None:
            raise InputError(f"{key}: no loss for the record {record}; every anchor needs one")
        try:
            if isinstance(value, bool):
                raise TypeError
            out[i] = float(value)
        except (TypeError, ValueError):
            raise InputError(
                f"{key}: the loss of the record {record} is {str(value)[:80]!r}, which is not a number"
            ) from None
        if not 0 <= out[i] < np.inf:
            raise InputError(f"{key}: the loss of the record {record} is {value}; a loss must be finite and at least 0")
    return out


class AskLosses(ThreadedDoFn):
    """A group of anchors -> which they are and their losses."""

    def __init__(self, source: LossSource, key: str, format: str, max_record_bytes: int, threads: int) -> None:
        super().__init__(threads)
        self._source, self._key, self._format, self._max = source, key, format, max_record_bytes

    def work(self, element: Any, *sides: Any) -> list[Losses]:
        group: list[Located] = element
        return [(s.rows, checked_losses(self._source.ask(s, self._format, self._max), s, self._key)) for s in group]


class GatherLosses(beam.CombineFn):
    """Losses of some anchors -> of all: k numbers."""

    def create_accumulator(self) -> list[Losses]:
        return []

    def add_input(self, accumulator: list[Losses], element: Losses) -> list[Losses]:
        return [*accumulator, element]

    def merge_accumulators(self, accumulators: Iterable[list[Losses]]) -> list[Losses]:
        return [element for accumulator in accumulators for element in accumulator]

    def extract_output(self, accumulator: list[Losses]) -> NDArray[np.float64]:
        out = np.full(sum(len(rows) for rows, _ in accumulator), np.nan)
        for rows, losses in accumulator:
            out[rows] = losses
        return out


def anchor_groups(anchors: str, plan: str) -> Iterator[list[Located]]:
    """Yields the anchors in groups, by file and position."""
    return grouped(locate(plan, read_wanted(anchors)), GROUP)


class AskAnchors(beam.PTransform):
    """The anchors -> their losses, in one file aligned with theirs."""

    def __init__(
        self, anchors: str, plan: str, source: LossSource, key: str, read: tuple[str, int], path: str, threads: int
    ) -> None:
        super().__init__()
        self._anchors, self._plan, self._source, self._key = anchors, plan, source, key
        self._read, self._path, self._threads = read, path, threads

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        return (
            root
            | "Reference" >> beam.Create([self._anchors])
            | "Groups" >> beam.FlatMap(anchor_groups, self._plan)
            | "Spread" >> beam.Reshuffle()
            | "Ask" >> beam.ParDo(AskLosses(self._source, self._key, *self._read, self._threads))
            | "Gather" >> beam.CombineGlobally(GatherLosses())
            | "Write" >> beam.Map(_write_losses, self._path)
        )


def _write_losses(losses: NDArray[np.float64], path: str) -> None:
    vectors.write_array(path, losses)
