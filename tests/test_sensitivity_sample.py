"""`tithe.SensitivitySample` in somebody's own pipeline: the sample of the command, whatever the records come as."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.typehints.row_type import RowTypeConstraint
from corpora import TITHE_COLUMNS, configure, manifest, sample, select, table, write_parquet

import tithe
from tithe.config import load
from tithe.sensitivity_sample import Selected, run_selection
from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.write_splits import schema_of, shards_for, unify, with_shard, write_shard
from tithe.workspace import Workspace

pytestmark = pytest.mark.slow  # whole runs

RECORDS: list[dict[str, Any]] = table(300).to_pylist()
BAD: list[dict[str, Any]] = [
    {"id": "short", "vector": [1.0], "loss": 1.0},
    {"id": "nan", "vector": [math.nan] * 6, "loss": 1.0},
    {"id": "none", "vector": None, "loss": 1.0},
]
PROCESSES = PipelineOptions(["--direct_running_mode=multi_processing", "--direct_num_workers=2"])


def sections(output: Path, /, **more: Any) -> dict[str, Any]:
    """A configuration like that of `corpora.configure`, without input."""
    base: dict[str, Any] = {
        "embed": {"kind": "column", "column": "vector"},
        "cluster": {"count": 8, "rounds": 1},
        "sample": {"size": 40, "method": "pareto"},
        "output": {"path": str(output)},
    }
    return base | more


def to_row() -> Callable[[Any], Any]:
    """A function whose schema Beam infers, which an annotation would hide."""
    return lambda record: beam.Row(
        id=str(record["id"]), vector=[float(v) for v in record["vector"]], loss=float(record["loss"])
    )


def to_pair(record: dict[str, Any]) -> tuple[str, Any]:
    return record["id"], np.array(record["vector"], np.float32)


def run(
    records: list[Any],
    config: Any,
    results: Path,
    form: Callable[[Any], Any] | None = None,
    options: Any = None,
    **arguments: Any,
) -> dict[str, Any]:
    """Runs a pipeline with the transform; returns the element types of its outputs. `read` gives what came out."""
    with beam.Pipeline(runner="FnApiRunner", options=options) as pipeline:
        given = pipeline | beam.Create(records)
        if form is not None:
            given = given | "Form" >> beam.Map(form)
        selected = given | tithe.SensitivitySample(config, **arguments)
        assert isinstance(selected, Selected)
        outputs = {
            "sample": selected.sample,
            "representatives": selected.representatives,
            "dead_letters": selected.dead_letters,
        }
        for name, output in outputs.items():
            lines = output | f"{name}ToJson" >> beam.Map(to_json)
            lines | f"Write{name}" >> beam.io.WriteToText(f"{results}/{name}", num_shards=1, shard_name_template="")
    return {name: output.element_type for name, output in outputs.items()}


def to_json(record: Any) -> str:
    return json.dumps(record if isinstance(record, dict) else record._asdict())


def read(results: Path, name: str) -> list[dict[str, Any]]:
    """The records of an output, by id."""
    lines = (results / name).read_text(encoding="utf-8").splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda record: str(record["id"]))


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the command on the same records in a file."""
    base = tmp_path_factory.mktemp("command")
    write_parquet(base / "corpus", table(300))
    assert select(configure(base, f"{base}/corpus/*.parquet"), "--quiet") == 0
    return base / "out"


def check_sample(results: Path, output: Path, command: Path, columns: list[str]) -> None:
    """The sample is that of the command, column by column."""
    assert manifest(output)["sample_digest"] == manifest(command)["sample_digest"]
    expected = sorted(sample(command).to_pylist(), key=lambda record: str(record["id"]))
    found = read(results, "sample")
    for name in [*columns, *TITHE_COLUMNS[:-2]]:  # the files are others
        assert [record[name] for record in found] == [record[name] for record in expected], name
    representatives = read(results, "representatives")
    assert sorted(record["tithe_cluster"] for record in representatives) == list(range(8))
    by_id = {record["id"]: record for record in RECORDS}
    for record in representatives:
        assert record["tithe_loss"] == 1
        assert record["vector"] == by_id[record["id"]]["vector"]


def test_dicts_give_the_sample_of_the_command_and_bad_ones_come_out(tmp_path: Path, command: Path) -> None:
    types = run([*RECORDS, *BAD], sections(tmp_path / "out"), tmp_path)
    check_sample(tmp_path, tmp_path / "out", command, ["id", "vector", "loss"])
    letters = read(tmp_path, "dead_letters")
    assert [(record["id"], record["tithe_reason"]) for record in letters] == [
        ("nan", "NaN or infinity in vector"),
        ("none", manifest_reason(tmp_path / "out", {"NaN or infinity in vector", "another dimension"})),
        ("short", "another dimension"),
    ]
    assert letters[2]["vector"] == [1.0] and letters[2]["loss"] == 1.0
    assert not any(isinstance(kind, RowTypeConstraint) for kind in types.values())
    # What is left for the command is this very selection.
    before = (tmp_path / "out/manifest.json").read_bytes()
    assert select(str(tmp_path / "out/select.yaml"), "--quiet") == 0
    assert (tmp_path / "out/manifest.json").read_bytes() == before


def manifest_reason(output: Path, others: set[str]) -> str:
    """The one reason of dead letters beside the others."""
    [reason] = set(manifest(output)["dead_letters"]) - others
    return str(reason)


@pytest.mark.skipif(" " in sys.executable, reason="Beam cuts the interpreter's path of its worker processes at spaces")
def test_rows_in_three_shards_on_two_processes(tmp_path: Path, command: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the workers import this module's functions
    types = run(RECORDS, sections(tmp_path / "out"), tmp_path, to_row(), PROCESSES, shards=3)
    check_sample(tmp_path, tmp_path / "out", command, ["id", "vector", "loss"])
    assert len(list((tmp_path / "out/records").glob("*.parquet"))) == 3
    fields = {name: dict(kind._fields) for name, kind in types.items()}
    assert list(fields["sample"]) == ["id", "vector", "loss", *TITHE_COLUMNS]
    assert fields["representatives"]["tithe_loss"] is float and fields["dead_letters"]["tithe_reason"] is str
    assert read(tmp_path, "dead_letters") == []


def test_pairs_in_another_order_with_a_systematic_draw(tmp_path: Path, command: Path) -> None:
    config = sections(tmp_path / "out", sample={"size": 40})
    run(RECORDS[::-1], config, tmp_path, to_pair, shards=7)
    corpus = command.parent / "corpus/*.parquet"
    again = configure(tmp_path, str(corpus), sample={"method": "systematic"}, output={"path": str(tmp_path / "again")})
    assert select(again, "--quiet") == 0
    assert manifest(tmp_path / "out")["sample_digest"] == manifest(tmp_path / "again")["sample_digest"]
    assert set(read(tmp_path, "sample")[0]) == {"id", "vector", *TITHE_COLUMNS, "tithe_order"}


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_failing_selection_is_one_clear_error(tmp_path: Path) -> None:
    config = sections(tmp_path / "out", embed={"kind": "column", "column": "vectr"})
    with pytest.raises(InputError, match=r"records-00000-of-00001\.parquet has no column 'vectr'; did you mean"):
        run(RECORDS, config, tmp_path)


def test_a_usage_error_of_the_command_keeps_its_type(tmp_path: Path) -> None:
    write_parquet(tmp_path / "records", table(30))
    embed = {"kind": "column", "column": "vector", "label": "id", "label_kind": "text"}
    config = load(configure(tmp_path, "x", embed=embed))
    paths = [str(path) for path in (tmp_path / "records").glob("*")]
    space = Workspace(config.output.path)
    with space.held():
        pass
    with pytest.raises(UsageError, match=r"^embed\.label_kind: text needs an embedder of texts"):
        run_selection(paths, config, [], space, str(tmp_path / "records"))


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"out holds something else \(mine.txt"):
        run(RECORDS, sections(tmp_path / "out"), tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "there are no records"),
        ([{"name": "a"}], "input.id: no record has a field 'id'; there are name"),
        ([{"id": 1.5}], "'id' holds double; an id is text or an integer"),
        ([{"id": 1, "x": 1}, {"id": 2, "x": "a"}], "field 'x' cannot be written to Parquet"),
        (["text"], "str is no record"),
    ],
)
def test_records_that_cannot_be_written(tmp_path: Path, records: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(records, sections(tmp_path / "out"), tmp_path, shards=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"input": {"files": "x/*.parquet"}}, "input.files: the records come from the pipeline; leave it out"),
        ({"sample": {"size": -1}}, "sample.size"),
        ({"output": {"path": "out", "keep_work": False}}, "output.keep_work"),
        ({"clusters": {}}, "clusters"),
    ],
)
def test_a_bad_configuration_is_told_when_the_pipeline_is_built(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tithe.SensitivitySample(sections(Path("out"), **more))


def test_bad_arguments_are_told_when_the_pipeline_is_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--no_such_option"):
        tithe.SensitivitySample(sections(tmp_path), beam_options=["--no_such_option=1"])
    with pytest.raises(UsageError, match="shards"):
        tithe.SensitivitySample(sections(tmp_path), shards=0)
    step = tithe.SensitivitySample(sections(tmp_path, input={"id": "key"}))
    with pytest.raises(UsageError, match=r"input\.id: the rows have no field 'key'; there are id, vector, loss"):
        beam.Pipeline(runner="FnApiRunner") | beam.Create(RECORDS[:2]) | beam.Map(to_row()) | step


def test_a_configuration_may_be_a_file_or_a_config(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(sections(tmp_path / "out", input={"id": "key"})))
    tithe.SensitivitySample(path)
    tithe.SensitivitySample(load(configure(tmp_path, "corpus/*.parquet", "d.yaml")))
    with pytest.raises(UsageError, match=r"d\.yaml: the configuration is not valid\n  input\.files: the records come"):
        tithe.SensitivitySample(str(tmp_path / "d.yaml"))


# -- the files ---------------------------------------------------------------------------------------------------------


def test_a_shard_is_the_same_bytes_in_any_order_and_is_left_alone(tmp_path: Path) -> None:
    schema = unify([schema_of((0, RECORDS[:100])), schema_of((1, RECORDS[100:]))])
    assert schema.names == ["id", "loss", "vector"]
    path = Path(write_shard((0, RECORDS), str(tmp_path), "id", 1, schema))
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert write_shard((0, RECORDS[::-1]), str(tmp_path), "id", 1, schema) == str(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert pq.read_table(path)["id"].to_pylist() == [record["id"] for record in RECORDS]


def test_every_record_is_in_one_shard() -> None:
    shards = [with_shard(record, "id", 4)[0] for record in RECORDS]
    assert shards == [with_shard(record, "id", 4)[0] for record in RECORDS]
    assert set(shards) == {0, 1, 2, 3}
    assert [shards_for(n) for n in (0, 1, 10_000, 10_001)] == [1, 1, 1, 2]


def test_types_are_those_of_all_records_together() -> None:
    some = schema_of((0, [{"id": "a", "x": 1, "tags": []}, {"id": "b", "y": None}]))
    other = schema_of((1, [{"id": "c", "x": 0.5, "y": b"z", "tags": ["t"]}]))
    for together in (unify([some, other]), unify([unify([other]), some])):
        assert {field.name: str(field.type) for field in together} == {
            "id": "string",
            "tags": "list<item: string>",
            "x": "double",
            "y": "binary",
        }
    with pytest.raises(InputError, match=r"the records do not agree: .* x has incompatible types"):
        unify([some, schema_of((1, [{"x": "text"}]))])


def test_tithe_is_imported_without_beam() -> None:
    code = "import sys, tithe; print('apache_beam' in sys.modules, tithe.SensitivitySample.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "SensitivitySample"]
    with pytest.raises(AttributeError, match="no attribute 'Sample'"):
        _ = tithe.Sample
