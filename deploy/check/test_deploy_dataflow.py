"""The flex template: its metadata against the launcher and the command, and the launcher as Dataflow calls it.

No cloud is asked: the template's own job and the first one of the command are built and checked in dry runs, on an
object store that runs here.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from corpora import table, write_parquet
from google.cloud.dataflow_v1beta3.types import TemplateMetadata
from places import DEPLOY, ROOT, commands, load_json, run_tool
from stores import RunningStore, running_store

from tithe.beam_options import parse_beam_options
from tithe.cli import _parser
from tithe.transforms.files import match_files, write_atomically

DATAFLOW = DEPLOY / "dataflow"
LAUNCHER = DATAFLOW / "launch.py"
README = DATAFLOW / "README.md"
IMAGE = "us-central1-docker.pkg.dev/my-project/my-images/tithe:0.1.0"
CLOUD = ("--project=my-project", "--region=us-central1", "--temp_location=gs://my-bucket/tmp")
DRY = "--dry_run=True --no_auth"


def metadata() -> Any:
    """The metadata as the service's own message; it refuses a key that it does not know."""
    return TemplateMetadata.from_json((DATAFLOW / "metadata.json").read_text(), ignore_unknown_fields=False)


def launcher_parser() -> argparse.ArgumentParser:
    found = runpy.run_path(str(LAUNCHER))["parser"]()
    assert isinstance(found, argparse.ArgumentParser)
    return found


def select_arguments() -> dict[str, argparse.Action]:
    [commands_of] = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return {action.dest: action for action in commands_of.choices["select"]._actions}


def test_the_parameters_are_those_of_the_launcher() -> None:
    described = {parameter.name: parameter for parameter in metadata().parameters}
    known = {action.dest: action for action in launcher_parser()._actions if action.dest != "help"}
    # The launcher gives an image to Beam, which has the option for it.
    assert set(described) == {*known, "sdk_container_image"}
    assert "sdk_container_image" in PipelineOptions([]).get_all_options()
    for name, action in known.items():
        assert described[name].is_optional is not action.required, name
    for parameter in described.values():
        assert parameter.label and parameter.help_text and parameter.regexes, parameter.name


def test_the_parameters_are_those_of_the_command() -> None:
    ours = {parameter.name for parameter in metadata().parameters} - {"sdk_container_image", "beam_options"}
    assert ours == set(select_arguments()) - {"help", "quiet"}  # quiet would leave the job's log empty


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("config", "gs://my-bucket/select.yaml", "select.yaml"),
        ("sdk_container_image", IMAGE, "tithe"),
        ("set", "sample.size=500 sample.seed=2", "sample.size"),
        ("redo", "losses sample", "everything"),
        ("beam_options", "--num_workers=20 --machine_type=n2-standard-4", "20 workers"),
    ],
)
def test_a_parameter_is_checked_by_its_pattern(name: str, right: str, wrong: str) -> None:
    [parameter] = [parameter for parameter in metadata().parameters if parameter.name == name]
    assert all(re.search(pattern, right) for pattern in parameter.regexes)
    assert not any(re.search(pattern, wrong) for pattern in parameter.regexes)


def test_the_page_names_parameters_and_options_that_there_are() -> None:
    known = {parameter.name for parameter in metadata().parameters}
    required = {parameter.name for parameter in metadata().parameters if not parameter.is_optional}
    for line in commands(README, "gcloud dataflow flex-template run"):
        given = dict(re.findall(r"--parameters=(\w+)=(\"[^\"]*\"|\S+)", line))
        assert required <= set(given) <= known
        parse_beam_options(["--runner=DataflowRunner", *CLOUD, *DRY.split(), *given["beam_options"].strip('"').split()])
    for line in commands(README, "tithe select"):
        options = [re.sub(r"\$\{?(\w+)\}?", "my-name", word) for word in shlex.split(line)]
        parse_beam_options([*options[options.index("--") + 1 :], *DRY.split()])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    """An object store with a corpus and a configuration in it, its address in the environment."""
    folder = tmp_path_factory.mktemp("store")
    with running_store("gs", folder) as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        patch.setattr(FileSystems, "_pipeline_options", None)  # to be put back at the end
        FileSystems.set_options(PipelineOptions(["--no_auth"]))
        for path in write_parquet(folder / "corpus", table(200)).iterdir():
            write_atomically(running.url(f"corpus/{path.name}"), path.read_bytes())
        config = {
            "input": {"files": running.url("corpus/*.parquet"), "id": "id"},
            "embed": {"kind": "column", "column": "vector"},
            "sample": {"size": 40},
            "output": {"path": running.url("out")},
        }
        write_atomically(running.url("select.yaml"), json.dumps(config).encode())
        yield running


def launch(store: RunningStore, *options: str, beam_options: str = DRY) -> subprocess.CompletedProcess[str]:
    """Calls the launcher as Dataflow does: a file, and each parameter and option as --NAME=VALUE."""
    parameters = [f"--config={store.url('select.yaml')}", f"--sdk_container_image={IMAGE}"]
    given = [*parameters, f"--beam_options={beam_options}", *CLOUD, "--job_name=my-job", "--no_auth", *options]
    return subprocess.run(
        [sys.executable, str(LAUNCHER), *given], cwd=ROOT, capture_output=True, text=True, env={**os.environ}
    )


def test_the_job_of_the_template_is_valid(store: RunningStore) -> None:
    done = launch(store, "--runner=DataflowRunner", "--dry_run=True", "--set=sample.size=50", "--redo=sample")
    assert done.returncode == 0, done.stderr
    [told] = re.findall("submitted my-job: (.*)", done.stderr)
    options = [*CLOUD, f"--sdk_container_image={IMAGE}", "--job_name=my-job", *DRY.split()]
    assert shlex.split(told) == [
        *("tithe", "select", "select.yaml", "--set", "sample.size=50", "--redo", "sample"),
        *("--", "--runner=DataflowRunner", *options),
    ]


def test_the_step_runs_the_command(store: RunningStore) -> None:
    """The template's pipeline runs here; the command in it makes the plan, and its first graph in a dry run."""
    done = launch(store, "--runner=DirectRunner")
    assert done.returncode == 0, done.stderr
    assert len(match_files([store.url("out/work/plan-*/plan.jsonl")])) == 1
    assert "graph of 'embed' are valid; nothing was run" in done.stderr


def test_a_command_that_fails_ends_the_job_with_its_last_line(store: RunningStore) -> None:
    """In a worker process, which has the step by its pickle alone."""
    local = ("--runner=DirectRunner", "--direct_running_mode=multi_processing")
    done = launch(store, *local, f"--set=input.files={store.url('elsewhere/*.parquet')}")
    assert done.returncode != 0
    assert re.search("RuntimeError: tithe ended with exit code [12]: .*elsewhere", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--set=sample.size=none"], "sample.size"),
        (["--set='sample"], "--set='sample: No closing quotation; close the quotes"),
        (["--beam_options=--num_worker=3"], "Beam option --num_worker: Beam does not know it; the nearest one is"),
        (["--config=gs://bucket/none.yaml"], "--config=gs://bucket/none.yaml: cannot be read"),
    ],
)
def test_a_mistake_ends_the_launch(store: RunningStore, options: list[str], told: str) -> None:
    done = launch(store, "--runner=DataflowRunner", "--dry_run=True", *options)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert "submitted" not in done.stderr


def test_what_it_costs(tmp_path: Path) -> None:
    """At the measured sizes the work is what was measured; ten times the records are ten times the work."""
    measured = load_json(DATAFLOW / "measured.json")
    script = runpy.run_path(str(DATAFLOW / "cost.py"))
    prices = load_json(DATAFLOW / "prices.json")

    def found(*arguments: str) -> Any:
        return script["estimate"](measured, prices, script["parser"]().parse_args(arguments))

    same = [f"--{name}={measured[name]}" for name in ("clusters", "dimension")]
    once = found(f"--records={measured['records']}", "--slower=1", *same)
    assert sum(once.work_hours.values()) * 3600 == pytest.approx(2 * sum(measured["stage_seconds"].values()))
    tenfold = found(f"--records={10 * measured['records']}", "--slower=1", *same)
    assert sum(tenfold.work_hours.values()) == pytest.approx(10 * sum(once.work_hours.values()), rel=0.01)
    assert tenfold.dollars > once.dollars > 0
    for line in commands(README, "python deploy/dataflow/cost.py"):
        printed = run_tool(sys.executable, *line.split()[1:])
        assert "dollars a month" in printed and prices["date"] in printed
