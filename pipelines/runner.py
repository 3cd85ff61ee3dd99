"""Runs one Beam pipeline to its end: its log apart from the terminal, its failures told in one line."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import io
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from tithe.beam_options import BeamRun, silence_root_logger
from tithe.transforms.errors import TitheError

_LOGGER = logging.getLogger(__name__)
# Beam names the step at the end of the message of what a DoFn raises.
_IN_STEP = re.compile(r" \[while running '(?P<step>.*?)'\]")
_STEP_ID = re.compile(r"^ref_AppliedPTransform_(?P<label>.*)_\d+$")
# An exception that Beam could not make again with a longer message, it makes a RuntimeError.
_GRPC_ERROR = re.compile(r'status = StatusCode\.(?P<code>\w+)\s+details = "(?P<details>.*?)"\s', re.DOTALL)
# gRPC writes its errors on five lines.
_GRPC_ERROR = re.compile(
    r'<\w+ of RPC that terminated with:\s+status = StatusCode\.(?P<code>\w+)\s+details = "(?P<details>.*?)"\s+'
    r'debug_error_string = ".*?"\s*>',
    re.DOTALL,
)
_BEAM_WRAPPED = re.compile(r"^RuntimeError: (?=[\w.]*(?:Error|Exception)\b)")


class DryRun(TitheError):
    """The graph of a pipeline was built and checked; there is nothing to go on with, since nothing was run."""

    exit_code = 0


def run_pipeline(build: Callable[[Any], object], run: BeamRun, *, name: str, log: Path | None = None) -> dict[str, int]:
    """Build a pipeline, run it, wait for its end; the sums of the counters that its steps kept, by counter name.

    build: adds the steps to the ``beam.Pipeline`` that it is given.
    name: the stage, lower case with hyphens; part of the job's name where the runner shows one.
    log: the file, in a folder that exists, to which Beam's log, its workers' output and tracebacks are appended.

    Raises the TitheError that a step raised, of its own type and with its own message, in whatever process or under
    whatever runner it was raised; a TitheError in one line for every other failure, that of a killed worker among
    them; DryRun where nothing was to be run; KeyboardInterrupt on Ctrl-C. No worker process is left behind. Call it
    from the main thread: portable runners and Ctrl-C need that.
    """
    with _log_to(log, run), _ctrl_c() as interrupted:
        import apache_beam as beam

        from tithe.quick_beam import quicken

        quicken()
        # What importing made lives for good. The collector runs where a bundle ends, and need not walk all of it there.
        gc.freeze()
        pipeline = None
        try:
            options = run.options()
            _name_job(options, name)
            pipeline = beam.Pipeline(runner=_runner(run, options, log), options=options)
            with _watched(run, options, pipeline), pipeline:
                build(pipeline)
            counters = {} if run.dry else _counters(pipeline.result)
        except BaseException as error:
            # Beam makes a RuntimeError of the KeyboardInterrupt that hits a DoFn.
            if interrupted.is_set() or isinstance(error, KeyboardInterrupt):
                _cancel(pipeline)
                raise KeyboardInterrupt from None
            if not isinstance(error, Exception):
                raise
            _LOGGER.error("the pipeline %r failed", name, exc_info=error)
            raise explain_failure(error, log) from error
        if interrupted.is_set():  # a step swallowed it
            raise KeyboardInterrupt
        if run.dry:
            raise DryRun(
                f"dry run: the options and Dataflow's graph of {name!r} are valid; nothing was run, and the pipelines "
                "after it read what it would have written"
            )
        pipeline = None
        _give_back_memory()
        return counters


def _give_back_memory() -> None:
    """Return what a finished pipeline held to the system.

    Beam's graphs refer to themselves, and the allocator keeps what threads have freed: without this the next pipeline's
    peak comes on top of it.
    """
    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def explain_failure(error: BaseException, log: Path | None = None) -> TitheError:
    """The error to show for what a pipeline raised.

    A TitheError raised in a step is found as an object in the chain of causes, or by its name in the traceback that
    a worker process or a remote runner sends as text. Anything else becomes the last line of that traceback, with
    the step's name.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TitheError):
            return _of_type(type(cause), str(cause)) if _IN_STEP.search(str(cause)) else cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)

    types = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in _with_subclasses(TitheError)}
    text = _GRPC_ERROR.sub(_grpc_error, str(error))
    if "Traceback (most recent call last)" not in text:
        text = _GRPC_ERROR.sub(_grpc_error, "".join(traceback.format_exception_only(type(error), error)))
        text = " ".join(text.split())
    lines = [_BEAM_WRAPPED.sub("", line.strip()) for line in reversed(text.splitlines()) if line.strip()]
    for line in lines:
        kind, _, message = line.partition(": ")
        if kind in types:
            return _of_type(types[kind], message)
    # Prism's words, and those of the local runner where they are seen before the one that watches tells of the death.
    if "SDK worker disconnected" in text or "Channel closed prematurely" in text:
        return TitheError(
            "a worker process ended in the middle of its work (killed?); if memory was short, use fewer "
            "(--direct_num_workers) or larger ones"
        )
    line = next(filter(_IN_STEP.search, lines), lines[0])
    step = _IN_STEP.search(line)
    place = f" (in step {_step_label(step['step'])!r})" if step else ""
    seen = f"; the traceback is in {log}" if log else ""
    return TitheError(_IN_STEP.sub("", line) + place + seen)


def _grpc_error(match: re.Match[str]) -> str:
    return f"gRPC {match['code']}: {' '.join(match['details'].split())}"


def exit_now(code: int) -> NoReturn:
    """End the process with this exit code without waiting for threads that a cancelled pipeline has left behind.

    The threads of a job server inside this process (``--job_endpoint=embed``) go on after Ctrl-C until their pipeline
    is done, and an ordinary exit would wait for them.
    """
    if "tithe.watch" in sys.modules:
        sys.modules["tithe.watch"].kill_workers()
    atexit._run_exitfuncs()  # Beam's stop the servers that it has started
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _runner(run: BeamRun, options: Any, log: Path | None) -> Any:
    if not run.is_local:
        return run.runner
    from apache_beam.options.pipeline_options import DirectOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    if run.mode == "in_memory":
        return FnApiRunner()
    from tithe.watch import watched_processes

    environment = watched_processes(options, log)
    # With no mode named, Beam keeps the environment that it is given.
    options.view_as(DirectOptions).direct_running_mode = None
    return FnApiRunner(default_environment=environment)


def _watched(run: BeamRun, options: Any, pipeline: Any) -> contextlib.AbstractContextManager[None]:
    if run.is_local:
        return contextlib.nullcontext()
    from tithe.pools import watched_engine

    return watched_engine(run, options, pipeline)


def _name_job(options: Any, name: str) -> None:
    """Put the stage's name behind the job's name that the options give; without one, runners make up their own."""
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    cloud = options.view_as(GoogleCloudOptions)
    if cloud.job_name:
        cloud.job_name = f"{cloud.job_name}-{name}"


def _cancel(pipeline: Any) -> None:
    """Stop a job that runs elsewhere; what can go wrong now is of no interest to who wants to leave."""
    result = getattr(pipeline, "result", None)
    if result is not None:
        with contextlib.suppress(Exception):
            result.cancel()


def _counters(result: Any) -> dict[str, int]:
    sums: dict[str, int] = {}
    for counter in result.metrics().query()["counters"]:
        if counter.key.metric.namespace == "beam":  # Prism's own
            continue
        value = counter.committed if counter.committed is not None else counter.attempted
        sums[counter.key.metric.name] = sums.get(counter.key.metric.name, 0) + int(value or 0)
    return sums


def _with_subclasses(kind: type[TitheError]) -> list[type[TitheError]]:
    return [kind, *(deeper for subclass in kind.__subclasses__() for deeper in _with_subclasses(subclass))]


def _of_type(kind: type[TitheError], message: str) -> TitheError:
    """An error of a type that is made of its message alone, whatever else its constructor asks for."""
    return kind.__new__(kind, _IN_STEP.sub("", message))


def _step_label(step: str) -> str:
    """The label of a step; worker processes name it by an id that is made of the label."""
    match = _STEP_ID.match(step)
    return match["label"] if match else step


@contextlib.contextmanager
def _log_to(path: Path | None, run: BeamRun) -> Iterator[None]:
    """Send all logging, and what Beam's threads print and die of, to a file (or nowhere) instead of the terminal."""
    silence_root_logger()
    root = logging.getLogger()

    def log_thread(death: threading.ExceptHookArgs) -> None:
        _LOGGER.warning("a thread failed", exc_info=death.exc_value)

    before = root.handlers[:], root.level, threading.excepthook
    with open(path or os.devnull, "a", encoding="utf-8") as file:
        handler: logging.StreamHandler[Any] = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.handlers[:] = [handler]
        # Elsewhere, the name of the job is what one looks for.
        root.setLevel(logging.WARNING if run.is_local else logging.INFO)
        threading.excepthook = log_thread
        try:
            # The threads that serve other runners print tracebacks.
            with contextlib.nullcontext() if run.is_local else contextlib.redirect_stderr(file):
                yield
        finally:
            root.handlers[:] = before[0]
            root.setLevel(before[1])
            # Threads that serve an engine which has died may die of it a moment later.
            if run.is_local:
                threading.excepthook = before[2]
            handler.setStream(io.StringIO())  # some threads log a moment longer


@contextlib.contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """An event that says whether Ctrl-C was pressed; the workers are killed at once, and the usual handler goes on."""
    interrupted = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield interrupted
        return

    def interrupt(number: int, frame: Any) -> None:
        interrupted.set()
        if "tithe.watch" in sys.modules:
            sys.modules["tithe.watch"].kill_workers()
        before(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
