"""Whether the workers see the paths of a configuration, and whether there is a library for those that are URLs."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystem import FileSystem
from apache_beam.io.filesystems import FileSystems
from corpora import configure, select, table, write_parquet

from tithe.beam_options import parse_beam_options
from tithe.cli import main
from tithe.config import load
from tithe.paths import check_path, check_paths
from tithe.transforms.errors import UsageError
from tithe.visibility import check_workers_see, worker_paths, workers_are_here

DATAFLOW = (
    "--runner=DataflowRunner --project=my-project --region=us-central1 --temp_location=gs://my-bucket/tmp "
    "--dry_run=True --no_auth"
)
EMBED = "--runner=PortableRunner --job_endpoint=embed"
FLINK = "--runner=FlinkRunner"
SPARK = "--runner=SparkRunner"
PRISM = "--runner=PrismRunner"
POOL = "--environment_type=EXTERNAL --environment_config"
SPAWN = "--environment_type=PROCESS --environment_option=process_command=/boot"


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--direct_running_mode=multi_processing",
        f"{EMBED} --environment_type=LOOPBACK",
        "--runner=PortableRunner --job_endpoint=far.example:8099 --environment_type=LOOPBACK",
        f"{EMBED} {POOL}=localhost:50000",
        f"{EMBED} {POOL}=127.0.0.1:50000",
        f"{EMBED} {POOL}=[::1]:50000",
        f"{EMBED} {POOL}={socket.gethostname()}:50000",
        f"{EMBED} {POOL}=unix:/tmp/pool",
        f'{EMBED} {POOL}={{"url":"localhost:50000"}}',
        f"{EMBED} --environment_type=EXTERNAL --environment_option=external_service_address=localhost:50000",
        f"{EMBED} {SPAWN}",
        f"--runner=PortableRunner --job_endpoint=localhost:8099 {POOL}=localhost:50000",
        PRISM,
        f"{PRISM} {POOL}=localhost:50000",
        FLINK,
        f"{FLINK} {POOL}=localhost:50000",
        SPARK,
        f"{SPARK} {SPAWN}",
    ],
)
def test_workers_that_are_here(options: str) -> None:
    run = parse_beam_options(options.split())
    assert workers_are_here(run)
    check_workers_see(run, "/work", shared=False)


@pytest.mark.parametrize(
    "options",
    [
        DATAFLOW,
        EMBED,  # a container
        f"{EMBED} --environment_type=DOCKER",
        f"{EMBED} {POOL}=far.example:50000",
        f"--runner=PortableRunner --job_endpoint=far.example:8099 {POOL}=localhost:50000",
        f"--runner=PortableRunner --job_endpoint=far.example:8099 {SPAWN}",
        f"{PRISM} --environment_type=DOCKER",
        f"{FLINK} --flink_master=far.example:8081",
        f"{FLINK} --flink_master=localhost:8081 {POOL}=localhost:50000",  # it may be forwarded
        f"{FLINK} --job_endpoint=localhost:8099 {POOL}=localhost:50000",
        f"{SPARK} --spark_master_url=spark://far.example:7077 {SPAWN}",
    ],
)
def test_workers_that_may_be_elsewhere(options: str) -> None:
    run = parse_beam_options(options.split())
    assert not workers_are_here(run)
    with pytest.raises(UsageError) as error:
        check_workers_see(run, "/work", shared=False)
    assert str(error.value) == (
        f"output.work: the workers of {run.runner} may be on other machines, where /work is not this folder; name a "
        "place that all of them see (gs://, s3://, hdfs://), or set output.shared: true if it is a mount that they "
        "have under the same name"
    )
    check_workers_see(run, "/work", shared=True)
    check_workers_see(run, "gs://bucket/work", shared=False)


def test_every_path_that_workers_touch_is_named(tmp_path: Path) -> None:
    whole: dict[str, Any] = {
        "input": {"files": ["s3://b/a.jsonl", f"{tmp_path}/b.jsonl"]},
        "embed": {"kind": "tfhub", "handle": "models/encoder", "field": "text"},
        "loss": {"kind": "file", "path": "losses.csv"},
        "output": {"path": "gs://bucket/out", "work": "gs://bucket/work"},
    }
    paths = worker_paths(load(configure(tmp_path, "", **whole)))
    assert paths == {
        "output.path": "gs://bucket/out",
        "input.files": f"{tmp_path}/b.jsonl",
        "embed.handle": f"{Path.cwd()}/models/encoder",
        "loss.path": f"{Path.cwd()}/losses.csv",
    }
    run = parse_beam_options(DATAFLOW.split())
    with pytest.raises(UsageError, match=r"^input.files \(and embed.handle, loss.path\): the workers of Dataflow"):
        check_workers_see(run, "gs://bucket/work", False, paths)
    whole["input"]["files"] = ["s3://b/a.jsonl"]
    whole["embed"]["handle"] = "https://tfhub.dev/google/nnlm/2"
    whole["loss"]["path"] = "gs://bucket/losses.csv"
    check_workers_see(run, "gs://bucket/work", False, worker_paths(load(configure(tmp_path, "", **whole))))


# -- libraries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("gs://bucket/x", "google.cloud.storage", "tithe[gcp]"),
        ("s3://bucket/x", "boto3", "tithe[aws]"),
        ("hdfs://host/x", "hdfs", "tithe[hadoop]"),
        ("azfs://account/x", "azure.storage.blob", "apache-beam[azure]"),
    ],
)
@pytest.mark.parametrize("key", ["input.files", "output.path", "output.work", "loss.path"])
def test_a_library_that_is_missing(
    key: str, url: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    section, name = key.split(".")
    loss = {"kind": "file", "path": f"{url}.csv" if section == "loss" else "losses.csv"}
    sections: dict[str, Any] = {"loss": loss} if section == "loss" else {section: {name: url}}
    with pytest.raises(UsageError) as error:
        check_paths(load(configure(tmp_path, "x.parquet", **sections)))
    assert str(error.value).startswith(f"{key}: {url}")
    assert f" needs `pip install '{extra}'` (" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_scheme_that_nobody_knows() -> None:
    with pytest.raises(UsageError) as error:
        check_path("output.path", "ftp://host/out")
    assert str(error.value) == (
        "output.path: ftp://host/out: ftp:// cannot be read; use a local path, or one of gs://, s3://, hdfs://, azfs://"
    )


def test_a_file_system_that_lacks_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdfs", sys)  # any module: it is only looked for

    def lacks(path: str) -> FileSystem:
        raise ValueError("hdfs_host is not set")

    monkeypatch.setattr(FileSystems, "get_filesystem", staticmethod(lacks))
    with pytest.raises(UsageError, match="hdfs://host/x: hdfs_host is not set; give Beam's options for hdfs:// behind"):
        check_path("input.files", "hdfs://host/x")


def test_local_paths_and_those_with_a_library_pass() -> None:
    check_path("output.path", "/out/with:colon")
    check_path("output.path", "gs://bucket/out")


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["estimate", "s3://bucket/out", "--losses=x"], ["clean", "s3://bucket/out"]])
def test_commands_on_an_output_folder_name_the_library(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("tithe: OUT: s3://bucket/out needs `pip install 'tithe[aws]'` (")


def test_a_missing_library_ends_the_command_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    corpus = write_parquet(tmp_path / "corpus", table(20))
    config = configure(tmp_path, f"{corpus}/*.parquet", output={"work": "s3://bucket/work"})
    assert select(config) == 2
    told = capsys.readouterr()
    assert told.err.startswith("tithe: output.work: s3://bucket/work needs `pip install 'tithe[aws]'` (")
    assert told.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
