"""Whether the workers see what the configuration names: a path on this machine means nothing on another one."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tithe import flink
from tithe.beam_options import BeamRun
from tithe.transforms.errors import UsageError
from tithe.transforms.files import absolute, is_remote

if TYPE_CHECKING:
    from tithe.config import Config


def check_workers_see(run: BeamRun, work: str, shared: bool, others: Mapping[str, str] | None = None) -> None:
    """Raises UsageError where the workers may run elsewhere and a path is of this machine; says which key to set.

    Args:
        run: where the workers are.
        work: the work folder, absolute or a URL.
        shared: `output.shared`, with which the user vouches for local paths.
        others: further paths that workers read or write, by key, as `worker_paths` gives them.
    """
    local = {key: path for key, path in {"output.work": work, **(others or {})}.items() if not is_remote(path)}
    if shared or not local or workers_are_here(run):
        return
    key, path = next(iter(local.items()))
    if len(local) > 1:
        key = f"{key} (and {', '.join(list(local)[1:])})"
    raise UsageError(
        f"{key}: the workers of {run.runner} may be on other machines, where {path} is not this folder; name a place "
        "that all of them see (gs://, s3://, hdfs://), or set output.shared: true if it is a mount that they have "
        "under the same name"
    )


def worker_paths(config: Config) -> dict[str, str]:
    """Returns what workers read and write beside the work folder, by key: absolute paths and URLs.

    Code that the configuration names is read by the command and travels with the pipeline.
    """
    paths = {"output.path": config.output.path}
    local = [pattern for pattern in config.input.patterns if not is_remote(pattern)]
    if local:
        paths["input.files"] = local[0]
    if config.embed.kind == "tfhub":
        paths["embed.handle"] = config.embed.handle
    if config.loss.kind == "file":
        paths["loss.path"] = config.loss.path
    return {key: absolute(path) for key, path in paths.items()}


def workers_are_here(run: BeamRun) -> bool:
    """Whether all workers are known to run on this machine and to see its files."""
    if run.is_local:
        return True
    if run.runner not in ("FlinkRunner", "SparkRunner", "PortableRunner", "PrismRunner"):
        return False
    from apache_beam.options.pipeline_options import PortableOptions

    options = run.options()
    portable = options.view_as(PortableOptions)
    embedded = _has_embedded_engine(run, options)
    # Beam's defaults: this process where the engine is embedded, else a container, which has files of its own.
    kind = portable.environment_type or ("LOOPBACK" if embedded else "DOCKER")
    if kind == "LOOPBACK":
        return True
    endpoint = portable.job_endpoint
    if endpoint is None:
        engine_is_here = embedded
    else:
        # The job server of a cluster may be here, and its workers elsewhere.
        portable_engine = run.runner in ("PortableRunner", "PrismRunner")
        engine_is_here = endpoint == "embed" or (portable_engine and _is_this_machine(endpoint))
    return engine_is_here and (kind == "PROCESS" or (kind == "EXTERNAL" and _is_this_machine(_pool(portable))))


def _has_embedded_engine(run: BeamRun, options: Any) -> bool:
    """Whether the runner starts its engine on this machine; the address of a cluster does not tell where it is."""
    from apache_beam.options.pipeline_options import FlinkRunnerOptions, SparkRunnerOptions

    if run.runner == "FlinkRunner":
        return flink.is_embedded(options.view_as(FlinkRunnerOptions).flink_master)
    if run.runner == "SparkRunner":
        return str(options.view_as(SparkRunnerOptions).spark_master_url).startswith("local")
    return run.runner == "PrismRunner"


def _pool(options: Any) -> str:
    """The address of a pool of workers: it stands alone, in JSON, or in an option of its own."""
    given = options.environment_config
    if not given:
        return str(options.lookup_environment_option("external_service_address"))
    return str(json.loads(given)["url"]) if given.strip().startswith("{") else str(given)


def _is_this_machine(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    host = address.rpartition("/")[2].rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1", socket.gethostname()) or host.startswith("127.")
