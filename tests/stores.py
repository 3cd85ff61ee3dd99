"""Real object stores on this machine, each behind a proxy that counts what is asked of it, and can make it fail."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

BINARIES = Path(__file__).parent.parent / ".cache/bin"
BUCKET = "bucket"
_HOP_BY_HOP = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True)
class Request:
    """One request and its answer: the bytes of its body, and, where a range was asked for, which of the object's
    bytes they are (the first, and the one behind the last).
    """

    method: str
    path: str
    range: tuple[int, int] | None
    status: int
    received: int


@dataclass
class Proxy:
    """What passed a proxy, and how it is to disturb: `fail_every` n answers each n-th request with 503; once a GET
    asks for a path that holds `dies_at`, no request gets an answer until `alive` is set again.
    """

    upstream: int
    requests: list[Request] = field(default_factory=list)
    fail_every: int = 0
    failed: int = 0
    dies_at: str = ""
    alive: bool = True
    at_work: int = 0
    most_at_work: int = 0
    _number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self) -> None:
        """Forgets what passed, and disturbs no more."""
        with self._lock:
            self.requests.clear()
            self.fail_every, self.failed, self._number = 0, 0, 0
            self.dies_at, self.alive = "", True
            self.most_at_work = 0

    def disturbance(self, method: str, path: str) -> str:
        """What happens to this request: nothing (""), "fail" or "die"."""
        with self._lock:
            if self.dies_at and method == "GET" and self.dies_at in path:
                self.alive, self.dies_at = False, ""
            if not self.alive:
                return "die"
            self._number += 1
            if self.fail_every and self._number % self.fail_every == 0:
                self.failed += 1
                return "fail"
            return ""

    def reads(self, name: str) -> list[int]:
        """The numbers of the requests so far that read bytes of an object whose path holds this name, in order."""
        return [i for i, r in enumerate(self.requests) if r.method == "GET" and r.range and name in r.path]

    def count(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Counts the requests that are at work at once."""
        with self._lock:
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            yield
        finally:
            with self._lock:
                self.at_work -= 1


class _Handler(BaseHTTPRequestHandler):
    """Passes on one connection's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body behind its headers must not wait for the client's acknowledgement
    proxy: Proxy

    def setup(self) -> None:
        super().setup()
        self._upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream, timeout=60)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def _pass_on(self) -> None:
        # Not at work any more when the answer begins: its last byte lets the client ask on another connection.
        with self.proxy.working():
            answer = self._ask()
        if answer is None:
            self.close_connection = True
        else:
            self._answer(*answer)

    def _ask(self) -> tuple[int, list[tuple[str, str]], bytes] | None:
        """Status, headers and body that the client is to get; None for no answer at all."""
        body = self._read_body()
        path = unquote(self.path)
        disturbance = self.proxy.disturbance(self.command, path)
        if disturbance:
            return None if disturbance == "die" else (503, [], b"")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        if body or self.command in ("POST", "PUT"):
            headers["Content-Length"] = str(len(body))
        self._upstream.request(self.command, self.path, body, headers)
        answer = self._upstream.getresponse()
        content = answer.read()
        asked = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", ""))
        bounds = (int(asked[1]), int(asked[1]) + len(content)) if asked else None
        self.proxy.count(Request(self.command, path, bounds, answer.status, len(content)))
        return answer.status, answer.getheaders(), content

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _pass_on

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                length = value
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """The terminal is the tests'."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that goes away, or a store that is gone, is part of the tests."""


@dataclass(frozen=True)
class RunningStore:
    """A store with one bucket: its scheme, the Beam options and the environment that it takes to reach it."""

    scheme: str
    proxy: Proxy
    beam: tuple[str, ...]
    environment: dict[str, str]

    def url(self, name: str) -> str:
        return f"{self.scheme}://{BUCKET}/{name}"


@contextmanager
def running_store(scheme: str, folder: Path) -> Iterator[RunningStore]:
    """Starts a store that keeps its objects in a folder, and its proxy; stops both at the end."""
    upstream = _free_port()
    proxy = Proxy(upstream)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    address = f"127.0.0.1:{server.server_address[1]}"
    command, store = {"s3": _s3, "gs": _gs}[scheme](proxy, address, folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = {**os.environ, "ROOT_ACCESS_KEY": "test", "ROOT_SECRET_KEY": "testtest"}
    with open(folder / "store.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        _wait_for(upstream, process, folder / "store.log")
        yield store
    finally:
        process.terminate()
        process.wait(30)
        server.shutdown()
        server.server_close()
        thread.join(30)


def _s3(proxy: Proxy, address: str, folder: Path) -> tuple[list[str], RunningStore]:
    (folder / "objects" / BUCKET).mkdir(parents=True)
    command = [_binary("versitygw"), "--port", f"127.0.0.1:{proxy.upstream}", "posix", str(folder / "objects")]
    beam = (
        f"--s3_endpoint_url=http://{address}",
        "--s3_access_key_id=test",
        "--s3_secret_access_key=testtest",
        "--s3_region_name=us-east-1",
    )
    environment = {
        "AWS_ENDPOINT_URL_S3": f"http://{address}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "testtest",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return command, RunningStore("s3", proxy, beam, environment)


def _gs(proxy: Proxy, address: str, folder: Path) -> tuple[list[str], RunningStore]:
    (folder / "objects" / BUCKET).mkdir(parents=True)
    command = [_binary("fake-gcs-server"), "-scheme", "http", "-host", "127.0.0.1", "-port", str(proxy.upstream)]
    command += ["-public-host", address, "-external-url", f"http://{address}"]
    command += ["-backend", "filesystem", "-filesystem-root", str(folder / "objects")]
    environment = {
        "STORAGE_EMULATOR_HOST": f"http://{address}",
        "GOOGLE_CLOUD_PROJECT": "test",
        "NO_GCE_CHECK": "true",  # what runs without --no_auth must not look for this machine's account
    }
    return command, RunningStore("gs", proxy, ("--no_auth",), environment)


def _binary(name: str) -> str:
    path = BINARIES / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: make stores")
    return str(path)


def _free_port() -> int:
    with closing(socket.socket()) as some:
        some.bind(("127.0.0.1", 0))
        return int(some.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{json.dumps(process.args)} does not listen: {log.read_text()}") from error
            time.sleep(0.05)
