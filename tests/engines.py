"""Engines beside this process, for tests: another environment with nothing but the wheel, pools of workers, Prism."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import corpora
import numpy as np

ROOT = Path(__file__).parent.parent
PRISM = ROOT / ".cache" / "bin" / "prism"

NO_FREEZE = "--experiments=disable_logging_submission_environment"
"""Spares each pipeline that is submitted a `pip freeze` for the log."""

LOSS = """
import os, time, zlib
import tithe

def loss(records):
    if os.path.exists({hold!r}):
        # The loss of a model that takes long, to kill what it runs on in the middle.
        with open({hold!r} + ".held", "a") as file:
            print(os.getpid(), file=file)
    while os.path.exists({hold!r}):
        time.sleep(0.05)
    with open({hold!r} + ".tithe", "a") as file:
        print(tithe.__file__, file=file)
    return [8 * len(zlib.compress(r["source"].encode())) / max(1, len(r["source"])) for r in records]
"""
"""A loss, which waits while a file `hold` exists, and tells in which installation of tithe it was called."""


def functions(count: int) -> list[dict[str, Any]]:
    """The first functions of the standard library, as the demo's corpus has them."""
    made = runpy.run_path(str(ROOT / "benchmarks" / "stdlib_corpus.py"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in the library's own strings
        modules = made["modules"](Path(sysconfig.get_path("stdlib")))
        records = itertools.chain.from_iterable(made["functions"](*module) for module in modules)
        return list(itertools.islice(records, count))


def write_corpus(folder: Path, records: list[dict[str, Any]], files: int) -> str:
    """Writes records as so many files of JSON lines, in their order; returns a pattern for them."""
    for i in range(files):
        share = records[i * len(records) // files : (i + 1) * len(records) // files]
        corpora.write_lines(folder / f"{i:02d}.jsonl", [json.dumps(record) for record in share])
    return str(folder / "*.jsonl")


def numbers(output: Path) -> str:
    """A sha256 over what a run computed: costs, losses, the pilot's choice, totals, centers, and weights drawn."""
    made = corpora.manifest(output)
    facts = [made[section] for section in ("cluster", "losses", "choice", "proxy")]
    facts.append({key: value for key, value in made["sample"].items() if key != "parts"})
    content = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    [clusters] = [output / "work" / stage["folder"] for stage in made["stages"] if stage["name"] == "cluster"]
    for checkpoint in sorted(clusters.glob("round-*.npz")):
        with np.load(checkpoint) as arrays:
            content.update(arrays["points"].tobytes() + arrays["weights"].tobytes())
    content.update(np.load(clusters / "representatives.npy")["vector"].tobytes())
    drawn = sorted(corpora.sample(output), key=lambda record: str(record["name"]))
    columns = ["name", *(column for column in corpora.TITHE_COLUMNS if column not in ("tithe_file", "tithe_position"))]
    content.update(json.dumps([[record[column] for column in columns] for record in drawn]).encode())
    return content.hexdigest()


Results = dict[str, tuple[str, str, str]]
"""By method: the digest of the sample, the sha256 of its parts, and that of all numbers."""


class Corpus:
    """Functions of the standard library in one file, and the configuration that every engine runs."""

    def __init__(self, folder: Path, records: list[dict[str, Any]]) -> None:
        self.folder, self.records = folder, records
        self.hold, self.held, self.told = folder / "hold", folder / "hold.held", folder / "hold.tithe"
        self.code = folder / "waiting.py"
        self.code.write_text(LOSS.format(hold=str(self.hold)), encoding="utf-8")
        self.files = write_corpus(folder / "1", records, 1)

    def configure(
        self, name: str, files: str = "", loss: str = "waiting:loss", code: str | None = "waiting.py", **reading: Any
    ) -> tuple[str, Path]:
        """Writes a configuration with an output folder of its own; returns the paths of both."""
        output = self.folder / name
        model = {"kind": "model", "function": loss, "code": code and str(self.folder / code), "pilot": 50}
        path = corpora.configure(
            self.folder,
            files or self.files,
            f"{name}.yaml",
            input={"id": "name", **reading},
            embed={"kind": "hashing", "fields": ["source"], "dimension": 32},
            cluster={"count": 30, "rounds": 2},
            loss=model,
            sample={"size": 200, "method": "systematic"},
            output={"path": str(output)},
        )
        return path, output

    def run(self, name: str, *beam: str, methods: Sequence[str] = ("systematic",), **changes: Any) -> Results:
        """Draws by each method; the clustering, the losses and the scores are made once, and stand then."""
        config, output = self.configure(name, **changes)
        results: Results = {}
        for method in methods:
            assert corpora.select(config, "--quiet", "--set", f"sample.method={method}", "--", *beam) == 0
            results[method] = (*corpora.digest(output), numbers(output))
        return results


def other_environment(folder: Path) -> Path:
    """Makes a virtual environment that has tithe from its built wheel alone; returns its folder of commands.

    The libraries (Beam, numpy, ...) are those of the tests' own environment, by its site-packages folder on the path.
    The links of an editable install in there are not followed, as .pth files count in an environment's own folder
    only. So what runs here needs no file of the checkout, and no copy of a gigabyte of libraries is made for it.
    """
    source = folder / "source"  # built from a copy: a build would write into the checkout
    source.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("pipelines", "transforms"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(source)], check=True)
    shutil.rmtree(source)
    home = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    packages = site_packages(home / "bin")
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(packages), str(wheel)], check=True)
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin"


def site_packages(commands: Path) -> Path:
    """The folder in which an environment has its own modules."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.check_output([commands / "python", "-c", where], text=True).strip())


def install(commands: Path, module: str, text: str) -> None:
    """Puts a module into an environment."""
    (site_packages(commands) / f"{module}.py").write_text(text, encoding="utf-8")


# Workers in threads of the pool's own process: Beam's command starts a process for each pipeline, of which a run has
# a dozen, and each of them would import everything again.
POOL_OF_THREADS = """
import sys
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
_, server = BeamFnExternalWorkerPoolServicer.start(port=int(sys.argv[1]))
server.wait_for_termination()
"""


class Pool:
    """A pool of Beam workers in another environment and another folder; gone when its context ends.

    threads: the workers are threads of the pool and not processes, as Beam's own command starts them.
    port: 0 picks a free one.
    """

    def __init__(self, commands: Path, folder: Path, *, threads: bool, port: int = 0) -> None:
        self.port = port or free_port()
        module = ["-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={self.port}"]
        self._command = [str(commands / "python"), *(["-c", POOL_OF_THREADS, str(self.port)] if threads else module)]
        # Its worker processes are started by the name `python`.
        self._environment = {"PATH": f"{commands}:/usr/bin:/bin", "HOME": str(folder)}
        self._folder, self._log = folder, folder / "pool.log"

    def __enter__(self) -> Pool:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("localhost", self.port), 1):
                return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the pool of workers did not start: {self._log.read_text()}")
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def options(self) -> list[str]:
        """What Beam is told to use it."""
        return ["--environment_type=EXTERNAL", f"--environment_config=localhost:{self.port}", NO_FREEZE]

    def kill(self) -> None:
        """Kills the pool and all of its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def prism_options() -> list[str]:
    """What Beam is told to run on Prism; an AssertionError with the remedy where it was not built."""
    assert PRISM.exists(), f"{PRISM} is not there; build it with `make prism`"
    return ["--runner=PrismRunner", f"--prism_location={PRISM}", NO_FREEZE]


def children(pid: int, name: str) -> list[int]:
    """The process ids of the children of a process whose command line holds a name."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid and name in (stat.parent / "cmdline").read_text():
                found.append(int(stat.parent.name))
    return found
