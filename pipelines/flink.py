"""Flink: its options that Beam's Python side does not list, and those that a batch of Python workers needs.

None of this has been run on a cluster.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tithe.transforms.errors import UsageError

if TYPE_CHECKING:
    from tithe.beam_options import BeamRun

# The job server has more options than Beam's Python side knows: these of FlinkPipelineOptions.java concern a batch.
_JAVA_VALUES = (
    "execution_mode_for_batch",
    "execution_retry_delay",
    "flink_conf_dir",
    "max_bundle_size",
    "max_bundle_time_mills",
    "number_of_execution_retries",
)
_JAVA_FLAGS = ("faster_copy", "object_reuse", "use_data_stream_for_batch")

CACHE_MILLIS = 600_000
"""How long a worker without work is kept. Beam's default ends it with each stage of the graph, and a round is several:
the next one would import everything and read the centers again.
"""

_SECONDS = 10.0


@dataclass(frozen=True)
class Cluster:
    """What a Flink cluster says of itself: its version, as in 1.20, its task slots, and its task managers."""

    version: str
    slots: int
    managers: int


def add_java_options(parser: argparse.ArgumentParser) -> None:
    """Makes Flink's own options known to a parser."""
    for name in _JAVA_VALUES:
        parser.add_argument(f"--{name}")
    for name in _JAVA_FLAGS:
        parser.add_argument(f"--{name}", action="store_true")


def is_embedded(master: str) -> bool:
    """Whether the job server runs the cluster inside itself."""
    return master.strip() in ("[local]", "[auto]")


def ask_cluster(master: str) -> Cluster:
    """Returns what the REST interface of a job manager, HOST:PORT or a URL, says.

    Raises UsageError where nothing answers, or something that is no Flink.
    """
    address = master.strip().rstrip("/")
    url = f"{address if '://' in address else f'http://{address}'}/v1/overview"
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            found = json.load(answer)
        version = ".".join(str(found["flink-version"]).split(".")[:2])
        return Cluster(version, int(found["slots-total"]), int(found["taskmanagers"]))
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise UsageError(
            f"Beam option --flink_master={master}: no Flink job manager answers at {url} ({reason}); start the "
            "cluster, or give HOST:PORT of its REST interface"
        ) from error


def check_version(run: BeamRun, cluster: Cluster) -> None:
    """Raises UsageError where Beam has no job server for the cluster, or the options ask for another version's."""
    from apache_beam.options.pipeline_options import FlinkRunnerOptions

    options = run.options().view_as(FlinkRunnerOptions)
    if options.flink_job_server_jar:
        return
    known = FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    if cluster.version not in known:
        raise UsageError(
            f"Beam option --flink_master={options.flink_master}: the cluster runs Flink {cluster.version}, and this "
            f"Beam has job servers for {', '.join(known)}; name one with --flink_job_server_jar, or use such a cluster"
        )
    if run.gives("flink_version") and options.flink_version != cluster.version:
        raise UsageError(
            f"Beam option --flink_version={options.flink_version}: the cluster runs Flink {cluster.version}; leave the "
            "option out"
        )


def batch_options(run: BeamRun, cluster: Cluster | None) -> tuple[str, ...]:
    """Returns the options that a batch of Python workers needs and that the run does not give.

    cluster: None where its job server alone knows it.

    Raises UsageError where the number of task slots can neither be known nor is given.
    """
    wanted: dict[str, object] = {"environment_cache_millis": CACHE_MILLIS}
    if cluster is not None and cluster.slots:
        # Beam's default is the cluster's own, and that is 1 unless somebody has set it.
        wanted["parallelism"] = cluster.slots
        # A task manager starts one Python process by default, for whose lock all of its slots would wait.
        wanted["sdk_worker_parallelism"] = math.ceil(cluster.slots / max(cluster.managers, 1))
    elif not run.gives("parallelism"):
        raise UsageError(
            "Beam option --parallelism: the cluster does not tell its task slots here, and Beam's default is 1; give "
            "their number"
        )
    else:
        wanted["sdk_worker_parallelism"] = 0  # one for each processor of a task manager but one
    if cluster is not None and not run.gives("flink_job_server_jar"):
        wanted["flink_version"] = cluster.version
    if cluster is None or cluster.version.startswith("1."):
        # Splits go to every round, and what a round yields is a side input of the next. Where all exchanges are
        # pipelined, as is the default, such branches can wait for each other for ever. Flink 2, which has no such
        # option, runs a batch stage by stage.
        wanted["execution_mode_for_batch"] = "BATCH_FORCED"
    return tuple(f"--{name}={value}" for name, value in wanted.items() if not run.gives(name))
