"""What is asked of a cluster before a run: whether it answers, and what it needs to be told."""

from __future__ import annotations

import shutil
from dataclasses import replace

from tithe import flink
from tithe.beam_options import BeamRun, available_cpus
from tithe.transforms.errors import UsageError

_SECONDS = 10
"""How long a job server may take to answer, where the options do not say."""


def connect(run: BeamRun) -> BeamRun:
    """Returns the run with the options that its cluster needs and the user has not given.

    Raises UsageError, which names the option that says where it is, where a cluster or its job server does not answer
    or cannot be started.
    """
    from apache_beam.options.pipeline_options import PortableOptions

    options = run.options().view_as(PortableOptions)
    endpoint = None if options.job_endpoint == "embed" else options.job_endpoint
    if endpoint:
        _check_answer(endpoint, options.job_server_timeout if run.gives("job_server_timeout") else _SECONDS)
    if run.runner == "FlinkRunner":
        cluster = None if endpoint else _flink_cluster(run)
        run = replace(run, added=flink.batch_options(run, cluster))
    if run.runner in ("FlinkRunner", "SparkRunner") and not endpoint:
        _check_job_server(run)
    return run


def _check_answer(endpoint: str, seconds: int) -> None:
    import grpc

    with grpc.insecure_channel(endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=seconds)
        except grpc.FutureTimeoutError:
            raise UsageError(
                f"Beam option --job_endpoint={endpoint}: no job server answers there within {seconds} s; start it, or "
                "give its HOST:PORT (--job_server_timeout=SECONDS waits longer)"
            ) from None


def _flink_cluster(run: BeamRun) -> flink.Cluster:
    from apache_beam.options.pipeline_options import FlinkRunnerOptions

    options = run.options().view_as(FlinkRunnerOptions)
    if flink.is_embedded(options.flink_master):
        return flink.Cluster(options.flink_version, available_cpus(), 1)
    cluster = flink.ask_cluster(options.flink_master)
    flink.check_version(run, cluster)
    return cluster


def _check_job_server(run: BeamRun) -> None:
    """Fetches the jar of the job server into Beam's cache, where it is not given, and looks for Java."""
    from apache_beam.options.pipeline_options import FlinkRunnerOptions, JobServerOptions, SparkRunnerOptions
    from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
    from apache_beam.runners.portability.spark_runner import SparkJarJobServer

    options, name = run.options(), run.runner.removesuffix("Runner").lower()
    settings = options.view_as(JobServerOptions)
    server = FlinkJarJobServer(options) if name == "flink" else SparkJarJobServer(options)
    jar = options.get_all_options()[f"{name}_job_server_jar"]
    try:
        jar = server.path_to_jar()
        server.local_jar(jar, settings.jar_cache_dir)
    except Exception as error:  # a path that is none, and each way to fetch, have errors of their own
        raise UsageError(
            f"Beam option --{name}_job_server_jar: the jar of Beam's job server, {jar}, is not to be had; download it "
            "where you can, and name the file"
        ) from error
    submits = options.view_as(FlinkRunnerOptions).flink_submit_uber_jar
    submits = submits or options.view_as(SparkRunnerOptions).spark_submit_uber_jar
    if not submits and shutil.which(settings.job_server_java_launcher) is None:
        raise UsageError(
            f"Beam option --job_server_java_launcher={settings.job_server_java_launcher}: no such command; install "
            "Java, or name its command"
        )
