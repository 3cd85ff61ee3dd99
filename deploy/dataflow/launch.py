"""What the flex template starts: it submits a job of one worker whose one step is the command `tithe select`.

A template is one pipeline, and a selection is several, each of which reads what those before it wrote. So the pipeline
of this template only runs the command, on a small worker, and the command starts a job for each of its pipelines, with
the project, region, service account, network and image of this one. The command writes to the log of this job.

The launcher calls it with the template's parameters and Beam's options, as --NAME=VALUE. The configuration and the
options are checked here, so that a mistake ends the launch (exit code 2) before a job exists.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, WorkerOptions

from tithe import config_source
from tithe.beam_options import parse_beam_options
from tithe.config import validated
from tithe.transforms.errors import UsageError
from tithe.transforms.files import open_bytes

MACHINE = "e2-standard-2"
"""For the command, which reads manifests and never a record."""

SHARED = (
    *("project", "region", "temp_location", "service_account_email", "impersonate_service_account"),
    *("network", "subnetwork", "use_public_ips", "dataflow_kms_key", "sdk_container_image"),
)
"""Beam options that the command's jobs take over from the template's."""


def parser() -> argparse.ArgumentParser:
    """The template's parameters; metadata.json describes the same ones."""
    parser = argparse.ArgumentParser(prog="launch.py", allow_abbrev=False)
    parser.add_argument("--config", required=True, help="the configuration, a YAML file on gs://")
    parser.add_argument("--set", default="", help="overrides, as in `sample.size=500 sample.seed=2`")
    parser.add_argument("--redo", default="", help="stages to make again, as in `losses sample`")
    parser.add_argument("--beam_options", default="", help="Beam options of the command's jobs, as on a command line")
    return parser


def command(parameters: argparse.Namespace, options: PipelineOptions) -> list[str]:
    """Returns the arguments of `tithe`, with the configuration in the current folder, under its own name.

    Raises:
        UsageError: a parameter has unbalanced quotes.
    """
    given = options.get_all_options(drop_default=True)
    shared = [_as_argument(name, given[name]) for name in SHARED if name in given]
    if given.get("job_name"):
        shared.append(f"--job_name={given['job_name']}")  # the command adds the name of the pipeline
    return [
        *("select", Path(parameters.config).name),
        *(argument for override in _words(parameters, "set") for argument in ("--set", override)),
        *(argument for stage in _words(parameters, "redo") for argument in ("--redo", stage)),
        *("--", "--runner=DataflowRunner", *shared, *_words(parameters, "beam_options")),
    ]


def _as_argument(name: str, value: Any) -> str:
    return f"--no_{name}" if value is False else f"--{name}={value}"


def _words(parameters: argparse.Namespace, name: str) -> list[str]:
    try:
        return shlex.split(getattr(parameters, name))
    except ValueError as error:
        raise UsageError(f"--{name}={getattr(parameters, name)}: {error}; close the quotes") from None


def read_config(path: str) -> str:
    """The text of the configuration. Raises UsageError where it cannot be read."""
    try:
        with open_bytes(path) as file:
            return file.read().decode("utf-8-sig")
    except Exception as error:  # each store has errors of its own
        told = " ".join(str(error).split())
        raise UsageError(f"--config={path}: cannot be read: {told}; give a file that this account sees") from error


def check(arguments: Sequence[str], text: str, name: str) -> None:
    """Raises UsageError where the configuration, which errors call by a name, or a Beam option is wrong."""
    split = arguments.index("--")
    own, options = arguments[:split], arguments[split + 1 :]
    overrides = [value for flag, value in pairwise(own) if flag == "--set"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, own[1])
        path.write_text(text, encoding="utf-8")
        data, mistakes = config_source.read(path, overrides)
    validated(data, name, mistakes)
    parse_beam_options(options)


def select(arguments: list[str], text: str) -> None:
    """The step: runs the command in a process of its own, since it wants the main thread, the signals and the log.

    Raises:
        RuntimeError: the command failed, with its last lines. Dataflow then runs the step again, three times at most;
            the command goes on after what stands.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, arguments[1]).write_text(text, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "tithe", *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        lines: list[str] = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                logging.info("%s", lines[-1])
            code = process.wait()
        finally:
            process.kill()  # where this step is ended early; nothing, where the process has ended
            process.wait()
    if code:
        raise RuntimeError(f"tithe ended with exit code {code}: {' | '.join(lines[-3:])}")


def main(given: Sequence[str] | None = None) -> int:
    """Submits the job and does not wait for it; returns the exit code."""
    parameters, flags = parser().parse_known_args(given)
    options = PipelineOptions(flags)
    try:
        FileSystems.set_options(options)
        arguments, text = command(parameters, options), read_config(parameters.config)
        check(arguments, text, parameters.config)
    except UsageError as error:
        print(f"tithe: {error}", file=sys.stderr)
        return error.exit_code
    worker = options.view_as(WorkerOptions)
    worker.num_workers = worker.max_num_workers = 1  # one step with one element
    worker.machine_type = worker.machine_type or MACHINE
    pipeline = beam.Pipeline(options=options)
    pipeline | "Command" >> beam.Create([arguments]) | "Select" >> beam.Map(select, text)
    pipeline.run()
    logging.info("submitted %s: tithe %s", options.view_as(GoogleCloudOptions).job_name, shlex.join(arguments))
    return 0


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.INFO)
    sys.exit(main())
