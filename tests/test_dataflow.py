"""The graphs that Dataflow is given, built and checked by its own runner in a dry run, without a cloud.

A whole selection cannot go through a dry run, since its stages read what those before them wrote.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import translations
from corpora import configure, select, table, write_parquet
from stages import ROUNDS, stages

from tithe.beam_options import parse_beam_options
from tithe.runner import DryRun, run_pipeline
from tithe.transforms.errors import TitheError

pytestmark = pytest.mark.slow  # each graph lists the packages of this environment

OPTIONS = (
    *("--runner=DataflowRunner", "--dry_run=True", "--no_auth"),
    *("--project=my-project", "--region=us-central1", "--temp_location=gs://my-bucket/tmp"),
    "--experiments=disable_logging_submission_environment",  # a list of what is installed here, made for each graph
)
NAMES = list(stages("gs://my-bucket/work"))
MAX_LITERAL = 100_000
"""Bytes that a step's own payload may have: its DoFn, its side inputs, and the elements of a Create among them."""

FUSED = {"cluster": 32, "cluster, resumed": 14, "draw systematic": 18, "loss file": 1}
"""Stages of code that a worker runs, each between two shuffles; those that are not named here have at most 5."""


def build(transform: beam.PTransform) -> Any:
    """The graph of a job, a proto, as Dataflow would be given it."""
    run = parse_beam_options(OPTIONS)
    pipeline = beam.Pipeline(runner=run.runner, options=run.options())
    with pipeline:
        pipeline | transform
    assert pipeline.result.state == "DONE"
    return pipeline.result.job.proto_pipeline


def fused(graph: Any) -> int:
    """How many stages of code remain when steps are fused as a runner fuses them."""
    _, found = translations.create_and_optimize_stages(
        copy.deepcopy(graph),
        phases=translations.standard_optimize_phases(),
        known_runner_urns=frozenset({"beam:transform:flatten:v1", "beam:transform:group_by_key:v1"}),
        use_state_iterables=False,
    )
    return sum(stage.environment is not None for stage in found)


def labels(graph: Any) -> set[str]:
    return {transform.unique_name for transform in graph.components.transforms.values()}


@pytest.fixture(scope="module")
def graphs() -> dict[str, Any]:
    return {name: build(transform) for name, transform in stages("gs://my-bucket/work").items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_is_small_whatever_the_corpus(name: str, graphs: dict[str, Any]) -> None:
    graph = graphs[name]
    assert 1 <= fused(graph) <= FUSED.get(name, 5)
    for key, transform in graph.components.transforms.items():
        assert len(transform.spec.payload) < MAX_LITERAL, key
    for key, coder in graph.components.coders.items():
        assert len(coder.spec.payload) < MAX_LITERAL, key
    assert graph.ByteSize() < 10 * MAX_LITERAL
    assert not graph.requirements


def test_a_round_of_clustering_is_a_few_stages_of_code(graphs: dict[str, Any]) -> None:
    longer = build(stages("gs://my-bucket/work", rounds=ROUNDS + 4)["cluster"])
    assert fused(longer) - fused(graphs["cluster"]) <= 4 * 3
    assert longer.ByteSize() - graphs["cluster"].ByteSize() < 4 * 20_000


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_those_of_any_other_run(name: str, graphs: dict[str, Any]) -> None:
    other = build(stages("gs://other-bucket/elsewhere", seed=2)[name])
    assert labels(other) == labels(graphs[name])
    assert len(labels(other)) == len(other.components.transforms)


def test_a_dry_run_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(DryRun, match="graph of 'embed' are valid; nothing was run"):
        run_pipeline(
            lambda pipeline: pipeline | stages("gs://my-bucket/work")["embed"],
            parse_beam_options(OPTIONS),
            name="embed",
            log=tmp_path / "log.txt",
        )


def test_a_graph_that_cannot_be_built_is_one_line(tmp_path: Path) -> None:
    def build(pipeline: Any) -> None:
        pipeline | beam.Create([1]) | "Twice" >> beam.Map(str)
        pipeline | "Again" >> beam.Create([1]) | "Twice" >> beam.Map(str)

    with pytest.raises(TitheError) as error:
        run_pipeline(build, parse_beam_options(OPTIONS), name="twice", log=tmp_path / "log.txt")
    assert "\n" not in str(error.value) and not isinstance(error.value, DryRun)


def test_the_command_checks_what_it_can_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Local paths, said to be shared, stand for a bucket."""
    corpus = write_parquet(tmp_path / "corpus", table(200))
    config = configure(tmp_path, f"{corpus}/*.parquet", output={"shared": True})
    assert select(config, "--", *OPTIONS) == 0
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == (
        "tithe: dry run: the options and Dataflow's graph of 'embed' are valid; nothing was run, and the pipelines "
        "after it read what it would have written"
    )
    assert "to go on from there" not in told.err
    assert not (tmp_path / "out" / "manifest.json").exists()
