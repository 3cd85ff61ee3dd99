"""Beam's own options: each one checked before anything runs, where Beam itself only warns and goes on."""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from tithe import flink
from tithe.transforms.errors import UsageError

LOCAL_RUNNER = "FnApiRunner"
# DirectRunner picks another runner from pipeline to pipeline (Prism, where it is found), so it is never asked.
_MEANS_LOCAL_RUNNER = ("DirectRunner", "SwitchingDirectRunner", LOCAL_RUNNER)
_REFUSED_RUNNERS = {
    "BundleBasedDirectRunner": "Beam keeps it for tests",
    "DaskRunner": "it drops what a bundle emits at its end",
}
_REFUSED_OPTIONS = {
    "no_wait_until_finish": "each stage reads what the one before it wrote",
    "save_main_session": "nothing that the workers need lives in the main session",
    "streaming": "a corpus on disk is a batch",
    "template_location": "a template holds one pipeline, and a selection is several",
    "output_executable_path": "an executable holds one pipeline, and a selection is several",
}


@dataclass(frozen=True)
class BeamRun:
    """How the pipelines of a run are started.

    arguments: Beam's options as they were given.
    runner: the class name of the runner; ``asked`` is what the options call it, "" where they name none.
    mode: "in_memory" (inside this process) or "multi_processing", for the local runner; "" for all others.
    mode_fixed: the options name the mode, so that no stage may choose another.
    workers: how many threads or processes share the work of the local runner.
    dry: Dataflow builds and checks the graph of a pipeline, and runs nothing.
    added: what a cluster needs beside these options, in the same form.
    """

    arguments: tuple[str, ...]
    runner: str
    asked: str
    mode: str
    mode_fixed: bool
    workers: int
    dry: bool = False
    added: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        return self.runner == LOCAL_RUNNER

    @property
    def processes(self) -> int:
        """Number of worker processes of the local runner; 1 means this process itself."""
        return self.workers if self.mode == "multi_processing" else 1

    @property
    def threads(self) -> int:
        """Size of the thread pool over blocks that a DoFn may use: 1 wherever Beam runs several workers itself."""
        return self.workers if self.mode == "in_memory" else 1

    def gives(self, option: str) -> bool:
        """Whether the options name this one, so that its value is the user's and not Beam's default."""
        return any(argument.partition("=")[0] == f"--{option}" for argument in self.arguments)

    def in_processes(self) -> BeamRun:
        """The same run in several worker processes, for code that holds Python's lock, unless the options forbid it."""
        if not self.is_local or self.mode_fixed or self.workers == 1:
            return self
        return replace(self, mode="multi_processing")

    def describe(self) -> str:
        """One line: the runner, its mode, the number of processes or threads."""
        if not self.is_local:
            return f"{self.runner}, as its options say" + (f", with {' '.join(self.added)}" if self.added else "")
        alias = "" if self.asked.lower() in ("", self.runner.lower()) else f" (what {self.asked} means here)"
        if self.mode == "in_memory":
            return f"{self.runner}{alias}, in_memory: 1 process, {_count(self.threads, 'thread')}"
        return f"{self.runner}{alias}, {self.mode}: {_count(self.processes, 'worker process', 'worker processes')}"

    def options(self) -> Any:
        """A new ``PipelineOptions``; also what ``FileSystems.set_options`` needs before object stores are read."""
        silence_root_logger()
        from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

        from tithe.quick_options import QuickOptions

        options = QuickOptions([*self.arguments, *self.added])
        options.view_as(StandardOptions).runner = self.runner
        if self.is_local:
            direct = options.view_as(DirectOptions)
            direct.direct_num_workers = self.processes
            direct.direct_running_mode = self.mode
        return options


def parse_beam_options(arguments: Sequence[str]) -> BeamRun:
    """Check Beam's options, as they stand behind ``--`` on the command line.

    Raises UsageError for an option that Beam does not know (it names the nearest one), for a value that Beam would
    refuse, for a runner that is unknown or not installed, and for what cannot give a right sample.
    """
    silence_root_logger()
    parser = _beam_parser()
    if {"-h", "--help"} & set(arguments):  # argparse would print hundreds of lines and end the process
        raise UsageError("Beam options: no --help here; Beam's documentation lists them, runner by runner")
    try:
        given, unknown = parser.parse_known_args(list(arguments))
        if unknown and _runner_name(given.runner) in ("FlinkRunner", "PortableRunner"):
            flink.add_java_options(parser)
            given, unknown = parser.parse_known_args(list(arguments))
    except UsageError:
        raise
    except Exception as error:  # some of Beam's converters raise what argparse does not expect
        raise UsageError(f"Beam options {' '.join(arguments)!r}: {error}") from error
    if unknown:
        raise UsageError(_unknown_option(unknown[0], parser))
    for name, reason in _REFUSED_OPTIONS.items():
        if getattr(given, name, False):
            raise UsageError(f"Beam option --{name}: not with tithe, since {reason}; leave it out")

    runner = _runner_name(given.runner)
    local = runner == LOCAL_RUNNER
    if given.dry_run and runner != "DataflowRunner":
        raise UsageError(f"Beam option --dry_run: {runner} would run all the same; only DataflowRunner knows it")
    run = BeamRun(
        arguments=tuple(arguments),
        runner=runner,
        asked=given.runner or "",
        mode=_local_mode(given.direct_running_mode) if local else "",
        mode_fixed=given.direct_running_mode is not None,
        workers=_local_workers(given.direct_num_workers) if local else 1,
        dry=bool(given.dry_run),
    )
    _validate(run)
    return run


def silence_root_logger() -> None:
    """Give the root logger a handler that does nothing, before Beam gives it one that writes to the terminal."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())


def available_cpus() -> int:
    """The number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _beam_parser() -> argparse.ArgumentParser:
    """The parser that Beam builds from all of its options, made to raise where it would end the process."""
    from apache_beam.options.pipeline_options import PipelineOptions

    parsers: list[argparse.ArgumentParser] = []
    PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    parser = parsers[0]
    # Beam's defaults would hide what was given.
    parser.set_defaults(direct_running_mode=None, direct_num_workers=None)

    def refuse(message: str) -> NoReturn:
        raise UsageError(f"Beam options: {message}")

    parser.error = refuse  # type: ignore[method-assign]
    return parser


def _unknown_option(argument: str, parser: argparse.ArgumentParser) -> str:
    if not argument.startswith("-"):
        return f"Beam options: {argument!r} belongs to no option; write --option=value"
    name = argument.split("=", 1)[0]
    nearest = difflib.get_close_matches(name, parser._option_string_actions, n=1, cutoff=0.5)
    return f"Beam option {name}: Beam does not know it" + (f"; the nearest one is {nearest[0]}" if nearest else "")


def _local_mode(mode: str | None) -> str:
    if mode == "multi_threading":
        raise UsageError(
            "Beam option --direct_running_mode=multi_threading: it has given wrong data; "
            "use in_memory, which runs threads of its own, or multi_processing"
        )
    return mode or "in_memory"


def _local_workers(workers: int | None) -> int:
    if workers is not None and workers < 0:
        raise UsageError(f"Beam option --direct_num_workers={workers}: 0 (one for each CPU) or more is allowed")
    return workers or available_cpus()


def _runner_name(name: str | None) -> str:
    """The runner's class name as Beam knows it, or the dotted name of a class that is not Beam's."""
    from apache_beam.options.pipeline_options import StandardOptions

    if not name:
        return LOCAL_RUNNER
    known = {runner.lower(): runner for runner in (*StandardOptions.KNOWN_RUNNER_NAMES, *_REFUSED_RUNNERS)}
    short = name.rpartition(".")[2].lower() if name.startswith("apache_beam.") else name.lower()
    runner = known.get(short) or known.get(short + "runner") or name
    if runner in _MEANS_LOCAL_RUNNER:
        return LOCAL_RUNNER
    if runner in _REFUSED_RUNNERS:
        raise UsageError(
            f"Beam option --runner={name}: not with tithe, since {_REFUSED_RUNNERS[runner]}; use {LOCAL_RUNNER}"
        )
    if "." not in runner and runner not in known.values():
        nearest = difflib.get_close_matches(short, known, n=1, cutoff=0.4)
        hint = f"the nearest one is {known[nearest[0]]}" if nearest else f"known are {', '.join(known.values())}"
        raise UsageError(f"Beam option --runner={name}: Beam does not know it; {hint}")
    return runner


def _validate(run: BeamRun) -> None:
    """Ask Beam itself, with the runner made, so that what is missing is told before a stage has run."""
    from apache_beam.options.pipeline_options import PortableOptions
    from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
    from apache_beam.runners.runner import create_runner

    try:
        if run.runner == "DataflowRunner":  # it can be made without the modules that it needs to run
            importlib.import_module("apache_beam.runners.dataflow.internal.apiclient")
        runner = create_runner(run.runner)
    except ImportError as error:
        extra = "gcp" if "Dataflow" in run.runner else None
        remedy = f"pip install 'tithe[{extra}]'" if extra else "install the package that it is in"
        raise UsageError(f"Beam option --runner={run.asked}: {error}; {remedy}") from error
    except Exception as error:
        raise UsageError(f"Beam option --runner={run.asked}: it cannot be made: {error!r}") from error
    options = run.options()
    if run.runner == "PortableRunner" and not options.view_as(PortableOptions).job_endpoint:
        raise UsageError("Beam option --runner=PortableRunner: it needs --job_endpoint=HOST:PORT as well")
    _check_environment(options.view_as(PortableOptions).environment_type)
    _check_prism(options)
    try:
        problems = PipelineOptionsValidator(options, runner).validate()
    except Exception as error:  # Dataflow's look at its buckets may fail in many ways
        told = " ".join(str(error).split())
        raise UsageError(f"Beam options: {run.runner} cannot check them: {type(error).__name__}: {told}") from error
    if problems:
        raise UsageError(f"Beam options: {' '.join(str(problem) for problem in problems)}")


def _check_environment(kind: str | None) -> None:
    """Beam looks at the name only when a pipeline starts."""
    from apache_beam.portability.common_urns import environments

    known = ["DOCKER", "PROCESS", "EXTERNAL", "LOOPBACK"]
    if kind and kind not in known and not hasattr(environments, kind) and not kind.startswith("beam:env:"):
        raise UsageError(f"Beam option --environment_type={kind}: Beam does not know it; known are {', '.join(known)}")


def _check_prism(options: Any) -> None:
    from apache_beam.options.pipeline_options import PrismRunnerOptions

    path = options.view_as(PrismRunnerOptions).prism_location
    if path and "://" not in path and not os.path.exists(path):
        raise UsageError(f"Beam option --prism_location={path}: there is no such file; name Prism's binary")


def _count(number: int, singular: str, plural: str = "") -> str:
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
