"""Asking for losses: of the anchors and nothing else, from a column or from the user's model."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystem import BeamIOError
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.embedders import load_once, model_call
from tithe.transforms.errors import InputError, TitheError
from tithe.transforms.fetch import chosen_records, read_chosen
from tithe.transforms.locate import Located, grouped, locate, read_wanted
from tithe.transforms.loss_cache import LossCache, record_digest
from tithe.transforms.parallel import ThreadedDoFn
from tithe.transforms.records_batch import check_columns
from tithe.transforms.usercode import UserCode

GROUP = 256
"""Records that one element asks for; batches of a model end at its ends, so they are the same on every runner."""

FIRST_PAUSE = 1.0
"""Seconds before a failed batch is tried again; each further pause is twice as long."""

HOPELESS = 32
"""Failures without a single answer after which a group is given up: it is the model that is broken, not the records."""


@dataclass
class Answers:
    """What was said of some of the wanted records.

    Attributes:
        rows: which of them, int64, (n,).
        losses: float64, (n,); NaN where the model failed.
        failed: the reason for each row on which the model failed.
        calls: records that were given to the model.
    """

    rows: NDArray[np.int64]
    losses: NDArray[np.float64]
    failed: dict[int, str]
    calls: int


@dataclass(frozen=True)
class Reading:
    """How records are read: the format of the input, and the limit on a record's bytes."""

    format: str
    max_record_bytes: int

    def records(self, some: Located) -> list[dict[str, Any]]:
        """Returns the records as dicts."""
        return chosen_records(some.piece.path, some.piece.name, self.format, some.positions, self.max_record_bytes)


@dataclass(frozen=True)
class ColumnLosses:
    """Losses that are in a column of the input, read at the anchors alone."""

    column: str

    def ask(self, some: Located, reading: Reading) -> Answers:
        """Returns the losses; InputError where one cannot be used."""
        piece = some.piece
        chosen = read_chosen(
            piece.path, piece.name, reading.format, some.positions, reading.max_record_bytes, columns=[self.column]
        )
        if isinstance(chosen, list):
            values = [record.get(self.column) for record in reading.records(some)]
        else:
            check_columns(piece.name, [self.column], chosen.column_names)
            values = chosen.column(self.column).to_pylist()
        return Answers(some.rows, checked_losses(values, some, "loss.column"), {}, 0)


@dataclass(frozen=True)
class ModelLosses:
    """Losses from a function of a list of records, or from a Beam ModelHandler.

    Attributes:
        function: the user's.
        batch: records in a call.
        retries: of a failed batch.
        cache: folder of the answers so far.

    A record is given to the function alone where its batch fails in spite of the retries, to find the one at fault.
    """

    function: UserCode
    batch: int
    retries: int
    cache: str

    def ask(self, some: Located, reading: Reading) -> Answers:
        """Returns what the model says of each record, from the cache where it has been asked."""
        cache = load_once(f"cache {self.cache}", self._open_cache)
        records = reading.records(some)
        digests = [record_digest(record) for record in records]
        known = {i: cache.get(digest) for i, digest in enumerate(digests) if cache.get(digest) is not None}
        failed: dict[int, str] = {}
        asked = [i for i in range(len(records)) if i not in known]
        answered = 0
        for low in range(0, len(asked), self.batch):
            rows = asked[low : low + self.batch]
            first = f"{some.piece.name} at {some.positions[rows[0]]}"
            # Where pauses have not helped, and nothing has been answered since, more of them would only take time.
            retries = self.retries if answered or not failed else 0
            answers, reasons = self._ask_batch([records[i] for i in rows], first, retries)
            answered += len(answers)
            said = {rows[j]: value for j, value in answers.items()}
            failed.update({int(some.rows[rows[j]]): reason for j, reason in reasons.items()})
            if not answered and len(failed) >= HOPELESS:
                raise InputError(
                    f"{self.function.key}: {self.function.reference!r} failed on each of the first {len(failed)} "
                    f"records of {some.piece.name}: {next(iter(failed.values()))}"
                )
            if said:
                where = Located(some.piece, some.positions[list(said)], some.rows[list(said)])
                losses = checked_losses(list(said.values()), where, self.function.key)
                known.update(zip(said, losses.tolist(), strict=True))
                cache.keep({digests[i]: known[i] for i in said})
        losses = np.array([known.get(i, np.nan) for i in range(len(records))])
        return Answers(some.rows, losses, failed, len(asked))

    def _ask_batch(
        self, records: list[dict[str, Any]], first: str, retries: int
    ) -> tuple[dict[int, Any], dict[int, str]]:
        """Answers by place in the batch, and reasons for those on which the model failed, each asked alone then."""
        call = load_once(repr(self.function), self._load)
        for attempt in range(retries + 1):
            try:
                return dict(enumerate(self._call(call, records, first))), {}
            except TitheError:
                raise
            except Exception as error:
                last = f"{type(error).__name__}: {error}"
                if attempt < retries:
                    time.sleep(FIRST_PAUSE * 2**attempt)
        if len(records) == 1:
            return {}, {0: last}
        answers: dict[int, Any] = {}
        reasons: dict[int, str] = {}
        for i, record in enumerate(records):
            try:
                [answers[i]] = self._call(call, [record], first)
            except TitheError:
                raise
            except Exception as error:
                reasons[i] = f"{type(error).__name__}: {error}"
        return answers, reasons

    def _call(self, call: Callable[[list[Any]], Any], records: list[dict[str, Any]], first: str) -> list[Any]:
        answer = list(np.atleast_1d(np.asarray(call(records), dtype=object)).tolist())
        if len(answer) != len(records):
            raise InputError(
                f"{self.function.key}: {self.function.reference!r} gave {len(answer)} losses for {len(records)} "
                "records "
                f"(the first: {first}); it must give one for each, in their order"
            )
        return answer

    def _load(self) -> Callable[[list[Any]], Any]:
        loaded = self.function.load()
        is_handler = hasattr(loaded, "run_inference")
        call: Callable[[list[Any]], Any] = model_call(self.function) if is_handler else loaded
        return call

    def _open_cache(self) -> LossCache:
        try:
            return LossCache(self.cache)
        except BeamIOError as error:
            raise InputError(f"{self.cache} cannot be read: {error}") from error


LossSource = ColumnLosses | ModelLosses


def checked_losses(values: list[Any], some: Located, key: str) -> NDArray[np.float64]:
    """Returns losses as float64, (n,).

    Raises:
        InputError: a loss that is missing, no number, negative, NaN or infinite; it names the record.
    """
    places = [f"{some.piece.name} at {position}" for position in some.positions.tolist()]
    return np.array([checked_loss(value, place, key) for value, place in zip(values, places, strict=True)], np.float64)


def checked_loss(value: Any, place: str, key: str) -> float:
    """Returns one loss; InputError where it cannot be used, naming the record by its place."""
    if value is None:
        raise InputError(f"{key}: no loss for the record {place}; every anchor needs one")
    try:
        loss = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{key}: the loss of the record {place} is {str(value)[:80]!r}, which is not a number"
        ) from None
    if not 0 <= loss < np.inf:
        raise InputError(
            f"{key}: the loss of the record {place} is {value!r}; a loss must be a finite number, at least 0"
        )
    return loss


class AskLosses(ThreadedDoFn):
    """A group of records -> Answers."""

    def __init__(self, source: LossSource, reading: Reading, threads: int) -> None:
        super().__init__(threads, GatherAnswers())
        self._source, self._reading = source, reading

    def work(self, element: Any, *sides: Any) -> list[list[Answers]]:
        group: list[Located] = element
        return [[self._source.ask(some, self._reading) for some in group]]


class GatherAnswers(beam.CombineFn):
    """Answers for some records -> for all of them: a few numbers a record."""

    def create_accumulator(self) -> list[Answers]:
        return []

    def add_input(self, accumulator: list[Answers], element: list[Answers]) -> list[Answers]:
        return [*accumulator, *element]

    def merge_accumulators(self, accumulators: Iterable[list[Answers]]) -> list[Answers]:
        return [element for accumulator in accumulators for element in accumulator]

    def extract_output(self, accumulator: list[Answers]) -> Answers:
        rows = np.concatenate([np.empty(0, np.int64), *(a.rows for a in accumulator)])
        losses = np.concatenate([np.empty(0), *(a.losses for a in accumulator)])
        order = np.argsort(rows)
        failed = {row: reason for a in accumulator for row, reason in a.failed.items()}
        return Answers(rows[order], losses[order], dict(sorted(failed.items())), sum(a.calls for a in accumulator))


def wanted_groups(wanted: str, plan: str) -> Iterator[list[Located]]:
    """Yields the wanted records in groups, by file and position."""
    return grouped(locate(plan, read_wanted(wanted)), GROUP)


class AskRecords(beam.PTransform):
    """A file of located rows -> their losses (.npy) and what was asked (.json), in files aligned with it."""

    def __init__(self, wanted: str, plan: str, source: LossSource, reading: Reading, path: str, threads: int) -> None:
        super().__init__()
        self._wanted, self._plan, self._source = wanted, plan, source
        self._reading, self._path, self._threads = reading, path, threads

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        return (
            root
            | "Reference" >> beam.Create([self._wanted])
            | "Groups" >> beam.FlatMap(wanted_groups, self._plan)
            | "Spread" >> beam.Reshuffle()
            | "Ask" >> beam.ParDo(AskLosses(self._source, self._reading, self._threads))
            | "Gather" >> beam.CombineGlobally(GatherAnswers())
            | "Write" >> beam.Map(write_answers, self._path)
        )


def write_answers(answers: Answers, path: str) -> None:
    """Writes losses as .npy, and which records failed and how many were given to the model as .json."""
    vectors.write_array(path, answers.losses)
    failed = {str(row): reason for row, reason in answers.failed.items()}
    vectors.write_json(path.replace(".npy", ".json"), {"failed": failed, "calls": answers.calls})
