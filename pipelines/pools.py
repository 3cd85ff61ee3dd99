"""Engines beside this process that may be lost while they work: pools of Beam workers, and job servers such as Prism.

Beam waits without end for the answer of a worker that is gone, so what is lost must be noticed here. A pool is told by
``--environment_type=EXTERNAL --environment_config=HOST:PORT``. Under ``--job_endpoint=embed`` the server that its
workers connect to is in this process, and a broken connection tells. Prism is another process, so the pool is asked
every second whether it still answers. Elsewhere (Flink, Spark) the address means nothing on this machine, and the
cluster itself watches its workers.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import ExternalWorkerHandler, WorkerHandler
from apache_beam.transforms.environments import ExternalEnvironment

from tithe.beam_options import BeamRun
from tithe.transforms.errors import EngineLost
from tithe.watch import WatchedWorker

_PROBES = 3  # a busy machine may let one connection wait
_PROBE_SECONDS = 3.0
_CONNECT_SECONDS = 300.0  # for a worker that was asked for: it imports Beam, on a busy machine beside many others


@contextlib.contextmanager
def watched_engine(run: BeamRun, options: Any, pipeline: Any) -> Iterator[None]:
    """While a ``beam.Pipeline`` with these ``PipelineOptions`` runs, raise EngineLost where its engine is lost."""
    pool = _pool_on_this_machine(run, options)
    if pool:
        _check_pool(pool)
    ended, lost = threading.Event(), threading.Event()

    def probe() -> None:
        while not ended.wait(1):
            if lost.is_set() or not _answers(pool):
                lost.set()
                if pipeline.result is not None:  # the job was accepted
                    with contextlib.suppress(Exception):  # told by what the pipeline raises
                        pipeline.result.cancel()

    if pool and run.runner == "PrismRunner":
        threading.Thread(target=probe, name="watch_pool", daemon=True).start()
    try:
        yield
    except Exception as error:
        if lost.is_set():
            raise EngineLost(_pool_gone(pool)) from error
        if isinstance(error, grpc.RpcError) and error.code() == grpc.StatusCode.UNAVAILABLE:
            raise EngineLost(
                f"the job server of {run.runner} does not answer any more; it ended or was killed in the middle of its "
                "work"
            ) from error
        raise
    finally:
        ended.set()


@WorkerHandler.register_environment(common_urns.environments.EXTERNAL.urn, beam_runner_api_pb2.ExternalPayload)
class _PoolWorker(WatchedWorker, ExternalWorkerHandler):
    """The runner's side of a worker of a pool, in the place of Beam's own, under ``--job_endpoint=embed``."""

    def start_worker(self) -> None:
        self._pool: str = self._external_payload.endpoint.url
        self._connected = threading.Event()
        try:
            super().start_worker()
        except grpc.RpcError as error:
            raise EngineLost(_pool_gone(self._pool)) from error
        threading.Thread(target=self._watch_start, name=f"watch_{self.worker_id}", daemon=True).start()

    def look_at(self, responses: Iterable[Any]) -> Iterator[Any]:
        self._connected.set()
        with contextlib.suppress(grpc.RpcError):  # a broken connection
            yield from super().look_at(responses)
        self.fail(
            f"a worker process of the pool at {self._pool} ended in the middle of its work (killed?); if memory was "
            "short, use fewer of them"
        )

    def _watch_start(self) -> None:
        for _ in range(int(_CONNECT_SECONDS)):
            if self._connected.wait(1) or self.closing.is_set():
                return
            if not _answers(self._pool):
                break
        self.fail(f"the pool of workers at {self._pool} started none that connects; look at what it printed")


def _pool_on_this_machine(run: BeamRun, options: Any) -> str:
    """The address of the pool whose workers the engine uses, where this process can reach it as well; else ""."""
    portable = options.view_as(PortableOptions)
    prism = run.runner == "PrismRunner" and not portable.job_endpoint
    if portable.environment_type != "EXTERNAL" or not (prism or portable.job_endpoint == "embed"):
        return ""
    return str(ExternalEnvironment.from_options(portable).url)


def _check_pool(address: str) -> None:
    if not _answers(address):  # Prism would end with a stack trace
        port = address.rpartition(":")[2]
        raise EngineLost(
            f"Beam option --environment_config: no pool of workers answers at {address}; start one there: "
            f"python -m apache_beam.runners.worker.worker_pool_main --service_port={port}"
        )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    for _ in range(_PROBES):
        with contextlib.suppress(OSError, ValueError):
            socket.create_connection((host.strip("[]"), int(port)), _PROBE_SECONDS).close()
            return True
    return False


def _pool_gone(address: str) -> str:
    return f"the pool of workers at {address} (--environment_config) does not answer any more; start it again"
