"""A selection as a step of somebody's own pipeline: `tithe.SensitivitySample`."""

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import yaml
from apache_beam.typehints.row_type import RowTypeConstraint

from tithe import config_source
from tithe.beam_options import parse_beam_options
from tithe.config import Config, validated
from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.files import absolute, is_remote, write_atomically
from tithe.transforms.read_selection import (
    DEAD_LETTER_TYPES,
    REPRESENTATIVE_TYPES,
    SAMPLE_TYPES,
    Finished,
    ReadDeadLetters,
    ReadRepresentatives,
    ReadSample,
    Record,
)
from tithe.transforms.write_splits import WriteSplits
from tithe.workspace import Workspace, list_files, remove

_LOGGER = logging.getLogger(__name__)

FROM_PIPELINE = ("files", "format", "on_bad_file")
"""Keys of the section `input` that have no meaning where the records come from a PCollection."""

PATHS = {"embed": ("code",), "loss": ("code", "path"), "output": ("path", "work")}
"""Keys that hold paths: the worker that runs the selection may have another current folder."""

LOCAL_RUNNERS = ("SwitchingDirectRunner", "BundleBasedDirectRunner", "FnApiRunner", "PrismRunner")
"""Runners whose workers are on this machine, by class."""


class Selected(dict[str, beam.PCollection]):
    """The outputs of a selection by name, as keys (for Beam YAML) and as attributes.

    Attributes:
        sample: the drawn records with `tithe_weight` and the other columns of a sample.
        representatives: one record for each cluster, with `tithe_cluster` and `tithe_loss`.
        dead_letters: the records that could not be used, with `tithe_reason`.
    """

    @property
    def sample(self) -> beam.PCollection:
        return self["sample"]

    @property
    def representatives(self) -> beam.PCollection:
        return self["representatives"]

    @property
    def dead_letters(self) -> beam.PCollection:
        return self["dead_letters"]


class SensitivitySample(beam.PTransform):
    """Draws a weighted sample from a bounded PCollection of records.

    A record is a dict, a beam.Row (NamedTuple, dataclass) or a pair (id, vector). What comes out are rows with a schema
    where those that came in have one, and dicts else. A pair becomes a record of the fields `input.id` and
    `embed.column`.

    The size of the corpus and the threshold of the draw decide the later stages, so a selection is several pipelines,
    and not a part of yours. The records are first written to OUT/records/, Parquet; then one step of your pipeline runs
    `python -m tithe select` on them and waits for it; then the result is read from its files. So `output.path` must be
    a place that your workers see. The selection's own pipelines run on the local runner of the worker that has this
    step, unless `beam_options` names another. Its progress goes to the log, and its error is this step's.

    OUT/select.yaml is the configuration of that selection, with which `tithe select` draws again.

    Args of the constructor:
        config: path of a YAML file, a mapping of its sections, or a Config. The section `input` may hold `id` (the
            field of the unique id, "id" where it is not given) and limits; `files` and `format` are refused, and those
            of a Config, which cannot be without, are not looked at.
        beam_options: for the selection's pipelines, as they stand behind `--` of the command.
        shards: number of files that the records are written to; one for each 10,000 records where it is not given. A
            worker holds a shard in memory.

    Raises:
        UsageError: when the pipeline is built, for a configuration or options that cannot be used.
        InputError, UsageError: in its steps, for records or a selection that fails, in the words of the command.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | Config,
        beam_options: Sequence[str] = (),
        shards: int | None = None,
    ) -> None:
        super().__init__()
        if shards is not None and shards < 1:
            raise UsageError(f"shards: {shards} is no number of files; give 1 or more, or leave it out")
        self._config = configuration(config)
        self._options, self._shards = tuple(beam_options), shards
        _check_options(self._options)

    def expand(self, records: beam.PCollection) -> Any:  # Selected, but Beam warns of what is no PCollection
        if not records.is_bounded:
            raise UsageError("SensitivitySample: the PCollection is unbounded, and a sample is of a finite corpus")
        config, row = self._config, RowTypeConstraint.from_user_type(records.element_type) or records.element_type
        fields = dict(row._fields) if isinstance(row, RowTypeConstraint) else None
        if fields is not None and config.input.id not in fields:
            raise UsageError(f"input.id: the rows have no field {config.input.id!r}; there are {', '.join(fields)}")
        _check_workers_see(config, records.pipeline.runner)
        space = Workspace(config.output.path, config.output.work)
        folder = f"{space.output}/records"
        vector = getattr(config.embed, "column", "vector")
        finished = (
            records
            | "Write" >> WriteSplits(folder, config.input.id or "id", vector, self._shards, partial(_claim, space))
            | "Files" >> beam.combiners.ToList()
            | "Select" >> beam.Map(run_selection, config, self._options, space, folder)  # Finished
        )
        order = {"tithe_order": int} if config.sample.method == "systematic" else {}
        return Selected(
            sample=finished | "Sample" >> ReadSample() | "SampleRows" >> _As(fields, {**SAMPLE_TYPES, **order}),
            representatives=finished
            | "Representatives" >> ReadRepresentatives()
            | "RepresentativeRows" >> _As(fields, REPRESENTATIVE_TYPES),
            dead_letters=finished
            | "DeadLetters" >> ReadDeadLetters()
            | "DeadLetterRows" >> _As(fields, DEAD_LETTER_TYPES),
        )


def configuration(given: str | os.PathLike[str] | Mapping[str, Any] | Config) -> Config:
    """Returns the configuration of a selection whose records come from a PCollection, its paths made absolute.

    Raises UsageError with every mistake found.
    """
    mistakes: list[str] = []
    if isinstance(given, Config):
        data, name = given.model_dump(mode="json"), "config"
        data["input"] = {key: value for key, value in data["input"].items() if key not in FROM_PIPELINE}
    elif isinstance(given, Mapping):
        data, name = dict(given), "config"
    else:
        name = os.fspath(given)
        data, mistakes = config_source.read(Path(name), [])
    section = data.get("input") or {}
    if isinstance(section, Mapping):
        mistakes += [
            f"input.{key}: the records come from the pipeline; leave it out" for key in FROM_PIPELINE if key in section
        ]
        kept = {key: value for key, value in section.items() if key not in FROM_PIPELINE}
        data["input"] = {"id": "id", **kept, "files": "the PCollection"}
    config = validated(data, name, mistakes)
    if not config.output.keep_work:
        raise UsageError(
            f"{name}: output.keep_work: the representatives are read from the stages; leave it out, and remove them "
            "afterwards by `tithe clean`"
        )
    whole = config.model_dump(mode="json")
    for part, keys in PATHS.items():
        for key in keys:
            if whole[part].get(key) is not None:
                whole[part][key] = absolute(whole[part][key])
    return Config.model_validate(whole)


def _check_options(options: Sequence[str]) -> None:
    """Raises UsageError for Beam options that the selection would refuse; leaves the root logger as it is."""
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        parse_beam_options(options)
    finally:
        root.handlers[:] = before


def _check_workers_see(config: Config, runner: Any) -> None:
    name, path = type(runner).__name__, config.output.path
    if name not in LOCAL_RUNNERS and not is_remote(path) and not config.output.shared:
        raise UsageError(
            f"output.path: the workers of {name} may be on other machines, where {path} is not this folder; name a "
            "place that all of them see (gs://, s3://, hdfs://), or set output.shared: true if it is a mount that they "
            "have under the same name"
        )


def _claim(space: Workspace) -> None:
    """Makes the output folder tithe's own, before anything is written into it."""
    with space.held():
        pass


def run_selection(paths: list[str], config: Config, options: Sequence[str], space: Workspace, folder: str) -> Finished:
    """Runs `tithe select` on the files in a process of its own, and returns where the result is.

    Of its own, since a selection wants the main thread, the signals and the log.

    Args:
        paths: the files to select from, all of them in `folder`.
        config: with anything as `input.files`.
        options: Beam's.
        space: of the configuration.
        folder: in which other Parquet files are removed: of an earlier run with another number of shards.

    Raises:
        InputError, UsageError: what the command ended with.
    """
    if not paths:
        raise InputError("there are no records: the PCollection is empty")
    for path in set(list_files(f"{folder}/*.parquet")) - set(paths):
        remove(path)
    data = config.model_dump(mode="json")
    data["input"] = {**data["input"], "files": sorted(paths), "format": "parquet"}
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    write_atomically(f"{space.output}/select.yaml", text.encode())
    code, lines = _run_command(["select", "/dev/stdin", *(["--", *options] if options else [])], text)
    if code:
        raise _failure(code, lines, space.output)
    return Finished(space.output, space.work, folder, tuple(list_files(f"{space.output}/dead_letter/*.jsonl")))


def _run_command(arguments: list[str], text: str) -> tuple[int, list[str]]:
    """Runs `tithe` with a text on its standard input, logs what it tells; returns its exit code and what it told."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tithe", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdin is not None and process.stderr is not None
    lines: list[str] = []
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # it may end before it reads
            stdin.write(text)
        for line in process.stderr:
            lines.append(line.rstrip())
            _LOGGER.info("%s", lines[-1])
        return process.wait(), lines
    finally:
        process.kill()  # where this step is ended early; nothing, where the process has ended
        process.wait()
        process.stderr.close()


def _failure(code: int, lines: list[str], output: str) -> InputError | UsageError:
    """The error that the command ended with, from what it told."""
    told = [line.removeprefix("tithe: ") for line in lines if line.startswith("tithe: ")]
    told = [line for line in told if not line.startswith("to go on from there")]
    if not told:
        last = lines[-1] if lines else "it said nothing"
        return InputError(f"the selection ended with exit code {code}: {last}; see {output}/beam.log")
    return UsageError(told[-1]) if code == UsageError.exit_code else InputError(told[-1])


@dataclass
class _As(beam.PTransform):
    """Dicts -> rows of the given fields and those that were added; dicts as they are where the fields are not
    known."""

    fields: dict[str, Any] | None
    added: dict[str, type]

    def expand(self, records: beam.PCollection) -> beam.PCollection:
        if self.fields is None:
            return records
        types = {**self.fields, **self.added}
        row = RowTypeConstraint.from_fields(list(types.items()))
        return records | "Row" >> beam.Map(_as_row, list(types)).with_output_types(row)


def _as_row(record: Record, names: list[str]) -> beam.Row:
    return beam.Row(**{name: record[name] for name in names})
