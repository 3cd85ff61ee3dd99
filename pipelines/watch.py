"""Worker processes of the local runner that are watched: the death of one ends the pipeline instead of hanging it.

Beam starts its local workers through a shell, waits for them without end, and waits on when one is killed. Here a
worker is a child of this process, started without a shell (the interpreter's path may hold a space) and with the same
``sys.path``. When it dies before its time, or fails while others have hours of work left, every request that Beam
still waits for is answered with an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.transforms.environments import Environment, python_sdk_capabilities
from google.protobuf import text_format

from tithe.transforms.errors import TitheError

_URN = "tithe:environment:watched_process:v1"
_GRACE_SECONDS = 2.0  # an idle worker ends in a tenth of it; one in the middle of a bundle is not waited for
_START_WORKER = """
import gc, sys
sys.path[:] = sys.argv[1:]
gc.disable()  # what importing makes lives for good
from apache_beam.runners.worker.sdk_worker_main import main
from tithe.quick_beam import quicken
gc.freeze()
gc.enable()
quicken()
main(sys.argv)
"""
_live: set[subprocess.Popen[bytes]] = set()


def watched_processes(options: Any, log: Path | None) -> Any:
    """The Beam environment that runs code in watched worker processes.

    options: the ``PipelineOptions`` that workers get (credentials of object stores, for one).
    log: the file to which their stdout and stderr are appended; None discards both.
    """
    given = {key: value for key, value in options.get_all_options(drop_default=True).items() if value is not None}
    # At Beam's default level, INFO, each worker logs all options, secrets among them.
    given.setdefault("default_sdk_harness_log_level", "WARNING")
    payload = json.dumps({"log": str(log) if log else os.devnull, "options": given}, default=str)
    return _WatchedProcesses(payload, capabilities=python_sdk_capabilities(), artifacts=())


def kill_workers() -> None:
    """Kill every worker process of this process at once."""
    for process in list(_live):
        process.kill()


@Environment.register_urn(_URN, bytes)
class _WatchedProcesses(Environment):
    def __init__(self, payload: str, capabilities: Any = (), artifacts: Any = (), resource_hints: Any = None) -> None:
        super().__init__(capabilities, artifacts, resource_hints)
        self._payload = payload

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
        return _URN, self._payload.encode()

    @staticmethod
    def from_runner_api_parameter(
        payload: bytes, capabilities: Any, artifacts: Any, resource_hints: Any, context: Any
    ) -> _WatchedProcesses:
        return _WatchedProcesses(payload.decode(), capabilities, artifacts, resource_hints)


class WatchedWorker(GrpcWorkerHandler):
    """The runner's side of a worker whose death fails the pipeline; subclasses find out that it died."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.closing = threading.Event()
        take_responses = self.control_conn.set_input
        self.control_conn.set_input = lambda responses: take_responses(self.look_at(responses))

    def close(self) -> None:
        self.closing.set()
        super().close()

    def look_at(self, responses: Iterable[Any]) -> Iterator[Any]:
        """What the worker answers, passed on to Beam, which would wait for the other workers before it looks at it."""
        for response in responses:
            yield response
            if response.error:
                self._fail_requests(response.error)

    def fail(self, message: str) -> None:
        """Fail every request until the pipeline has ended: Beam may send more until it has seen that one failed."""
        # The last line of a traceback, so that it is read as a TitheError.
        text = f"{TitheError.__module__}.{TitheError.__qualname__}: {message}"
        while not self.closing.wait(0.1):
            self._fail_requests(text)

    def _fail_requests(self, message: str) -> None:
        """Answer what Beam waits for from this worker and the others, whose work is lost with this one's."""
        for connection in list(self.control_handler._connections_by_worker_id.values()):
            for request in list(connection._futures_by_id.values()):
                if not request.is_done():
                    answer = beam_fn_api_pb2.InstructionResponse(instruction_id=request.instruction_id, error=message)
                    request.set(answer)


@WorkerHandler.register_environment(_URN, bytes)
class _WatchedProcess(WatchedWorker):
    """A worker process of this one."""

    def __init__(self, payload: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        settings = json.loads(payload)
        self._log: str = settings["log"]
        self._options: dict[str, Any] = settings["options"]

    def start_worker(self) -> None:
        environment = dict(
            os.environ,
            WORKER_ID=self.worker_id,
            CONTROL_API_SERVICE_DESCRIPTOR=text_format.MessageToString(self.control_api_service_descriptor()),
            # Without LOGGING_API_SERVICE_DESCRIPTOR the worker logs to its stderr, in lines that can be read.
            PIPELINE_OPTIONS=json.dumps({"options": self._options}),
        )
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START_WORKER, *sys.path],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        _live.add(self._process)
        self._watcher = threading.Thread(target=self._watch, name=f"watch_{self.worker_id}", daemon=True)
        self._watcher.start()

    def stop_worker(self) -> None:
        self._watcher.join(_GRACE_SECONDS)
        if self._watcher.is_alive():
            self._process.kill()
            self._watcher.join()

    def _watch(self) -> None:
        code = self._process.wait()
        _live.discard(self._process)
        self.fail(_death(code))


def _death(code: int) -> str:
    if code < 0:
        cause = f"was killed (signal {-code}{'; out of memory?' if code == -9 else ''})"
    else:
        cause = f"ended by itself (exit code {code})"
    return f"a worker process {cause}; if memory was short, use fewer (--direct_num_workers)"
