"""Splits as the elements of a graph, and the DoFn that works on them in a small thread pool."""

import gc
import pickle
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue
from threadpoolctl import threadpool_limits

from tithe.transforms.counters import SENT, SIDE, count, counting
from tithe.transforms.files import open_bytes, version
from tithe.transforms.memory import keep_freed_memory
from tithe.transforms.splits import Split

P = ParamSpec("P")
T = TypeVar("T")


def once_a_process(
    size: int,
) -> Callable[[Callable[Concatenate[str, P], T]], Callable[Concatenate[str, P], T]]:
    """Keeps the last `size` results of a function of what stands in a file, whose path is the first argument.

    Threads that ask for the same at the same time wait for the first, and do not all make it. A file that was written
    anew is read anew: the process may outlive a run.
    """

    def decorate(make: Callable[Concatenate[str, P], T]) -> Callable[Concatenate[str, P], T]:
        lock = threading.Lock()

        @lru_cache(size)
        def kept(_: Any, path: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
            return make(path, *args, **kwargs)

        @wraps(make)
        def call(path: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
            with lock, counting() as counts:
                made = kept(version(path), path, *args, **kwargs)  # type: ignore[arg-type]  # hashable by contract
            count(SIDE, sum(counts.values()))
            return made

        return call

    return decorate


class ReadPlan(beam.PTransform):
    """Reads the plan of splits: one reference -> (number, Split) -> spread over the workers."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        return (
            root
            | "Reference" >> beam.Create([self._path])
            | "Splits" >> beam.FlatMap(read_plan)
            | "Spread" >> beam.Reshuffle()
        )


def read_plan(path: str) -> Iterator[tuple[int, Split]]:
    """Yields the splits of a plan, a JSON line each, with their numbers from 0 on."""
    with open_bytes(path) as file:
        for number, line in enumerate(file):
            yield number, Split.from_json(line.decode())


class ThreadedDoFn(beam.DoFn):
    """Calls `work` on each element, up to `threads` at a time, one BLAS thread each; outputs keep the order of the
    inputs.

    numpy lets go of Python's lock in the products, so threads over splits use the cores of a process with no copy of
    anything. At most `threads` elements and their results are held.
    """

    def __init__(self, threads: int, fold: beam.CombineFn | None = None) -> None:
        """Takes the number of threads, and a CombineFn whose accumulators are also its inputs: with it the outputs of a
        bundle, but for tagged ones, are one accumulator.

        Beam's own combining before a shuffle would do the same, but in the one thread that feeds the pool.
        """
        self._threads = threads
        self._fold = fold

    def setup(self) -> None:
        # For good: another DoFn of this process may be at work when this one ends, and its last bits must not change
        # under it.
        threadpool_limits(1)
        keep_freed_memory(self._threads)
        self._pool = ThreadPoolExecutor(self._threads)
        self._lock = threading.Lock()

    def start_bundle(self) -> None:
        self._pending: deque[Future[list[Any]]] = deque()
        self._total = None if self._fold is None else self._fold.create_accumulator()
        self._counts = Counter[str]()

    def process(self, element: Any, *sides: Any) -> Iterator[Any]:
        self._pending.append(self._pool.submit(self._run, element, *sides))
        while len(self._pending) > self._threads:
            yield from self._pending.popleft().result()

    def finish_bundle(self) -> Iterator[Any]:
        while self._pending:
            for value in self._pending.popleft().result():
                yield _in_global_window(value)
        if self._fold is not None:
            total, self._total = self._fold.compact(self._total), None
            self._counts[SENT] += len(pickle.dumps(total, pickle.HIGHEST_PROTOCOL))
            yield _in_global_window(total)
            del total
            # The runner's records of a bundle refer to each other, and hold what it gave until the collector comes by,
            # which counts objects and not bytes.
            gc.collect()
        for name, amount in self._counts.items():
            Metrics.counter(type(self), f"{type(self).__name__}.{name}").inc(amount)

    def teardown(self) -> None:
        # Not waited for: after Ctrl-C or an error elsewhere a model may be at work for long, for nobody.
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, element: Any, *sides: Any) -> list[Any]:
        with counting() as counts:
            values = self.work(element, *sides)
        with self._lock:
            self._counts.update(counts)
            if self._fold is None:
                return values
            for value in values:
                if not isinstance(value, TaggedOutput):
                    self._total = self._fold.add_input(self._total, value)
        return [value for value in values if isinstance(value, TaggedOutput)]

    def work(self, element: Any, *sides: Any) -> list[Any]:
        """Returns the outputs of one element; runs in a thread."""
        raise NotImplementedError


def _in_global_window(value: Any) -> Any:
    if isinstance(value, TaggedOutput):
        return TaggedOutput(value.tag, _in_global_window(value.value))
    return WindowedValue(value, MIN_TIMESTAMP, [GlobalWindow()])


class SplitDoFn(ThreadedDoFn):
    """A ThreadedDoFn over the plan: each element is (number, Split)."""
