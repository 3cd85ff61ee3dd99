"""Flink: the options of a batch of Python workers, and graphs that hold nothing it lacks.

Not run here: Beam's job server for Flink is a jar that these tests do without, and a cluster is a small web server.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PortableOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_runner_api_pb2
from apache_beam.runners.portability.portable_runner import JobServiceHandle, PortableRunner
from stages import stages

from tithe.beam_options import BeamRun, available_cpus, parse_beam_options
from tithe.clusters import connect
from tithe.transforms.errors import UsageError

pytestmark = pytest.mark.slow  # a graph for each pipeline


class Cluster(HTTPServer):
    """What the REST interface of a job manager says: three task managers with four slots each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Overview)
        self.overview: dict[str, Any] = {"taskmanagers": 3, "slots-total": 12, "flink-version": "1.20.1"}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Overview(BaseHTTPRequestHandler):
    server: Cluster

    def do_GET(self) -> None:
        found = self.path == "/v1/overview"
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps(self.server.overview if found else {}).encode())

    def log_message(self, *_: Any) -> None:
        """Tells nothing."""


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    with Cluster() as cluster:
        thread = threading.Thread(target=cluster.serve_forever)
        thread.start()
        yield cluster
        cluster.shutdown()
        thread.join()


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    before = dict(running.overview)
    yield running
    running.overview = before


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The option that names a job server's jar, and a Java to start it with: neither is started here."""
    monkeypatch.setattr("shutil.which", lambda command: f"/usr/bin/{command}")
    (tmp_path / "server.jar").touch()
    return f"--flink_job_server_jar={tmp_path}/server.jar"


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jars that were to be fetched, none of which is."""
    jars: list[str] = []
    monkeypatch.setattr("shutil.which", lambda command: f"/usr/bin/{command}")
    monkeypatch.setattr(
        "apache_beam.runners.portability.job_server.JavaJarJobServer.local_jar",
        staticmethod(lambda url, *_: jars.append(url)),
    )
    return jars


def flink(*arguments: str) -> BeamRun:
    return connect(parse_beam_options(["--runner=FlinkRunner", *arguments]))


# -- options -----------------------------------------------------------------------------------------------------------


def test_the_cluster_says_what_its_workers_need(cluster: Cluster, fetched: list[str]) -> None:
    run = flink(f"--flink_master={cluster.address}")
    assert run.added == (
        "--environment_cache_millis=600000",
        "--parallelism=12",
        "--sdk_worker_parallelism=4",
        "--flink_version=1.20",
        "--execution_mode_for_batch=BATCH_FORCED",
    )
    assert run.describe() == f"FlinkRunner, as its options say, with {' '.join(run.added)}"
    options = run.options()
    assert options.view_as(FlinkRunnerOptions).parallelism == 12
    assert options.view_as(PortableOptions).sdk_worker_parallelism == "4"
    assert options.view_as(PortableOptions).environment_cache_millis == "600000"
    assert [jar.rpartition("/")[2] for jar in fetched] == ["beam-runners-flink-1.20-job-server-2.77.0.jar"]


@pytest.mark.parametrize(
    "given",
    [
        "--parallelism=2",
        "--parallelism=-1",
        "--sdk_worker_parallelism=1",
        "--environment_cache_millis=0",
        "--flink_version=1.20",
        "--execution_mode_for_batch=PIPELINED",
    ],
)
def test_what_the_user_gives_stays(given: str, cluster: Cluster, fetched: list[str]) -> None:
    name, _, value = given[2:].partition("=")
    run = flink(f"--flink_master={cluster.address}", given)
    everything = flink(f"--flink_master={cluster.address}")
    assert run.added == tuple(some for some in everything.added if not some.startswith(f"--{name}="))
    sent = sent_to_job_server(run)
    assert sent[f"beam:option:{name}:v1"] == value


def sent_to_job_server(run: BeamRun) -> dict[str, Any]:
    """The options as Beam sends them, once the job server has described those that only it knows."""
    own = beam_job_api_pb2.PipelineOptionDescriptor(
        name="execution_mode_for_batch", type=beam_job_api_pb2.PipelineOptionType.STRING
    )

    class Service:
        def DescribePipelineOptions(self, request: Any, timeout: float) -> Any:
            return beam_job_api_pb2.DescribePipelineOptionsResponse(options=[own])

    return dict(JobServiceHandle(Service(), run.options()).get_pipeline_options().items())


def test_the_job_server_is_sent_what_was_added(cluster: Cluster, fetched: list[str]) -> None:
    sent = sent_to_job_server(flink(f"--flink_master={cluster.address}"))
    assert sent["beam:option:execution_mode_for_batch:v1"] == "BATCH_FORCED"
    assert sent["beam:option:parallelism:v1"] == "12"
    assert sent["beam:option:sdk_worker_parallelism:v1"] == "4"


def test_flink_2_has_no_mode_of_exchange_for_batches(cluster: Cluster, fetched: list[str]) -> None:
    cluster.overview["flink-version"] = "2.1.0"
    added = flink(f"--flink_master=http://{cluster.address}/").added
    assert "--flink_version=2.1" in added
    assert not any("execution_mode" in option for option in added)


def test_an_embedded_cluster_has_a_slot_for_each_processor(server: str) -> None:
    added = flink(server).added
    assert f"--parallelism={available_cpus()}" in added and f"--sdk_worker_parallelism={available_cpus()}" in added


def test_a_cluster_that_starts_task_managers_when_asked_needs_a_number(cluster: Cluster, server: str) -> None:
    cluster.overview |= {"taskmanagers": 0, "slots-total": 0}
    with pytest.raises(UsageError, match="--parallelism: the cluster does not tell its task slots"):
        flink(f"--flink_master={cluster.address}", server)
    added = flink(f"--flink_master={cluster.address}", server, "--parallelism=8").added
    assert "--sdk_worker_parallelism=0" in added


def test_options_that_the_job_server_alone_knows_are_passed_on() -> None:
    options = ["--runner=FlinkRunner", "--max_bundle_size=10", "--object_reuse"]
    assert parse_beam_options(options).arguments == tuple(options)
    for runner in ("DataflowRunner", "FnApiRunner"):
        with pytest.raises(UsageError, match="Beam does not know it"):
            parse_beam_options([f"--runner={runner}", "--max_bundle_size=10"])


# -- what is wrong -----------------------------------------------------------------------------------------------------


def refused(*arguments: str) -> str:
    with pytest.raises(UsageError) as error:
        flink(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_cluster_that_does_not_answer() -> None:
    told = refused("--flink_master=127.0.0.1:1")
    assert told == (
        "Beam option --flink_master=127.0.0.1:1: no Flink job manager answers at http://127.0.0.1:1/v1/overview "
        "([Errno 111] Connection refused); start the cluster, or give HOST:PORT of its REST interface"
    )


def test_something_that_is_no_flink(cluster: Cluster) -> None:
    cluster.overview = {"hello": "world"}
    assert "no Flink job manager answers" in refused(f"--flink_master={cluster.address}")
    assert "(Not Found)" in refused(f"--flink_master=http://{cluster.address}/elsewhere")


def test_a_version_that_beam_has_no_job_server_for(cluster: Cluster, server: str) -> None:
    cluster.overview["flink-version"] = "1.17.2"
    told = refused(f"--flink_master={cluster.address}")
    assert "the cluster runs Flink 1.17" in told and "1.19, 1.20, 2.0" in told
    assert not any("flink_version" in option for option in flink(f"--flink_master={cluster.address}", server).added)


def test_another_version_than_the_cluster_has(cluster: Cluster) -> None:
    told = refused(f"--flink_master={cluster.address}", "--flink_version=1.19")
    assert told == "Beam option --flink_version=1.19: the cluster runs Flink 1.20; leave the option out"


def test_a_job_server_that_does_not_answer() -> None:
    told = refused("--job_endpoint=127.0.0.1:1", "--job_server_timeout=1", "--parallelism=2")
    assert told == (
        "Beam option --job_endpoint=127.0.0.1:1: no job server answers there within 1 s; start it, or give its "
        "HOST:PORT (--job_server_timeout=SECONDS waits longer)"
    )


def test_a_jar_that_is_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = refused(f"--flink_job_server_jar={tmp_path}/none.jar")
    assert told == (
        f"Beam option --flink_job_server_jar: the jar of Beam's job server, {tmp_path}/none.jar, is not to be had; "
        "download it where you can, and name the file"
    )
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    told = refused("--flink_version=2.2", f"--jar_cache_dir={tmp_path}")
    assert "beam-runners-flink-2.2-job-server-2.77.0.jar, is not to be had" in told


def no_network(*_: Any, **__: Any) -> None:
    raise OSError("no network")


def test_a_machine_without_java(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda command: None)
    assert "--job_server_java_launcher=java: no such command; install Java" in refused(server)


# -- graphs ------------------------------------------------------------------------------------------------------------

# What the portable runner of Flink translates: FlinkBatchPortablePipelineTranslator and, for Flink 2,
# FlinkStreamingPortablePipelineTranslator in Beam's runners/flink have these and executable stages, ...
NATIVE = {
    "beam:transform:impulse:v1",
    "beam:transform:flatten:v1",
    "beam:transform:group_by_key:v1",
    "beam:transform:reshuffle:v1",
}
# ... and executable stages are fused of these (GreedyPCollectionFusers in runners/core-construction-java).
FUSED = {
    "beam:transform:pardo:v1",
    "beam:transform:combine_per_key_precombine:v1",
    "beam:transform:combine_per_key_merge_accumulators:v1",
    "beam:transform:combine_per_key_extract_outputs:v1",
}
# The Flink column of the portable capabilities (s.apache.org/apache-beam-portability-support-table) has side inputs
# of both kinds for batch. State, timers, splittable DoFns and stable input are in it with exceptions; none is used.
SIDE_INPUTS = {"beam:side_input:iterable:v1", "beam:side_input:multimap:v1"}


@pytest.mark.parametrize("name", list(stages("hdfs://work")))
def test_a_graph_holds_what_flink_has(name: str) -> None:
    graph = portable(stages("hdfs://work")[name])
    assert not graph.requirements
    found = set()
    for transform in leaves(graph):
        found.add(transform.spec.urn)
        if transform.spec.urn == "beam:transform:pardo:v1":
            payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
            assert not payload.state_specs and not payload.timer_family_specs and not payload.restriction_coder_id
            assert {side.access_pattern.urn for side in payload.side_inputs.values()} <= SIDE_INPUTS
    assert found <= NATIVE | FUSED
    assert {"beam:transform:impulse:v1", "beam:transform:pardo:v1"} <= found


def portable(transform: beam.PTransform) -> Any:
    """The graph as the job server is given it."""
    run = parse_beam_options(["--runner=FlinkRunner", "--environment_type=EXTERNAL", "--environment_config=a:50000"])
    pipeline = beam.Pipeline(runner=run.runner, options=run.options())
    pipeline | transform
    return PortableRunner.get_proto_pipeline(pipeline, run.options())


def leaves(graph: Any) -> list[Any]:
    """The steps that a runner executes: those without parts, and those whole that it has a way of its own for."""
    steps, waiting = [], list(graph.root_transform_ids)
    while waiting:
        transform = graph.components.transforms[waiting.pop()]
        if transform.spec.urn in NATIVE or not transform.subtransforms:
            steps.append(transform)
        else:
            waiting += transform.subtransforms
    return steps
