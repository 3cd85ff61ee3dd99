"""Runs that were killed or interrupted, and go on.

Nothing that was finished is made again, and the bytes are those of an undisturbed run.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from corpora import configure, digest, fixed_lists, made, manifest, points, select, table, to_lines, write_lines

pytestmark = pytest.mark.slow  # whole runs

N, FILES, ROUNDS = 600, 6, 3
SPLIT_BYTES = 15_000  # a file is a bit larger, and so a split of its own

ENCODERS = """
import os, signal, time
import numpy as np

class Vectors:
    'Gives the vectors that are in the records; at a marker it does what that says, once a marker.'

    def load_model(self):
        return None

    def run_inference(self, batch, model, inference_args=None):
        folder = os.environ["TITHE_TEST_FOLDER"]
        for record in batch:
            if record[0] == 1000.0 and os.path.exists(folder + "/deed"):
                with open(folder + "/deed") as file:
                    deed = file.read()
                os.remove(folder + "/deed")
                if deed == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                open(folder + "/sleeping", "w").close()
                time.sleep(30)
        with open(folder + "/calls", "a") as file:
            file.write(str(len(batch)) + "\\n")
        return [np.array(record, np.float32) for record in batch]

handler = Vectors()
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of JSON lines, a split each; the first record of the fourth file is the marker."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "encoders.py").write_text(ENCODERS)
    vectors = points(N)
    vectors[N // 2, 0] = 1000.0
    lines = to_lines(table(N, vector=fixed_lists(vectors)))
    for i in range(FILES):
        write_lines(folder / f"corpus/{i}.jsonl", lines[i * N // FILES : (i + 1) * N // FILES])
    return folder


def prepare(corpus: Path, folder: Path) -> None:
    """Writes a configuration c.yaml of a model embedder and many rounds."""
    configure(
        folder,
        f"{corpus}/corpus/*",
        input={"split_bytes": SPLIT_BYTES},
        embed={"kind": "model", "handler": "encoders:handler", "code": f"{corpus}/encoders.py", "field": "vector"},
        cluster={"count": 10, "rounds": ROUNDS},
        loss={"kind": "column", "column": "loss"},
    )


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts `tithe select` in a process of its own."""
    command = [sys.executable, "-m", "tithe", "select", f"{folder}/c.yaml", "--quiet", *arguments]
    environment = {**os.environ, "TITHE_TEST_FOLDER": str(folder)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(folder: Path, *arguments: str) -> None:
    """Runs `tithe select` to its end."""
    process = start(folder, *arguments)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The digest of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    prepare(corpus, folder)
    finish(folder)
    assert manifest(folder / "out")["input"]["records"] == N
    return digest(folder / "out")


def times(folder: Path, pattern: str) -> dict[Path, int]:
    """When the files that match were written."""
    return {path: path.stat().st_mtime_ns for path in (folder / "out/work").glob(pattern)}


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Waits until something is so, as long as the process runs."""
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < end, "it ended before"
        time.sleep(0.005)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_in_the_middle_of_embedding(corpus: Path, tmp_path: Path, undisturbed: tuple[str, str]) -> None:
    prepare(corpus, tmp_path)
    (tmp_path / "deed").write_text("kill")
    process = start(tmp_path, "--", "--direct_num_workers=1")
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    finished = times(tmp_path, "vectors-*/*/*.npy") | times(tmp_path, "vectors-*/*/done.json")
    splits = len({path.parent for path in finished if path.name == "done.json"})
    assert 0 < splits < FILES
    (tmp_path / "calls").unlink()
    finish(tmp_path)
    assert digest(tmp_path / "out") == undisturbed
    done = {path: when for path, when in finished.items() if (path.parent / "done.json") in finished}
    now = times(tmp_path, "vectors-*/*/*.npy") | times(tmp_path, "vectors-*/*/done.json")
    assert {path: now[path] for path in done} == done
    # Beside the splits that were left, the first records are embedded to learn their dimension.
    embedded = sum(map(int, (tmp_path / "calls").read_text().split()))
    assert embedded <= N - splits * N // FILES + 64


@pytest.mark.slow
def test_killed_in_the_middle_of_the_rounds_and_between_stages(
    corpus: Path, tmp_path: Path, undisturbed: tuple[str, str]
) -> None:
    prepare(corpus, tmp_path)
    process = start(tmp_path)
    wait_for(lambda: times(tmp_path, "cluster-*/round-0001.json"), process)
    kill(process)
    assert not times(tmp_path, "cluster-*/stage.json")
    before = (
        times(tmp_path, "vectors-*/*/*") | times(tmp_path, "cluster-*/round-000[01].*") | times(tmp_path, "embed-*/*")
    )

    process = start(tmp_path)
    wait_for(lambda: times(tmp_path, "score-*/stage.json"), process)
    kill(process)
    assert not (tmp_path / "out/manifest.json").exists()
    stages = times(tmp_path, "[!v]*-*/stage.json") | before

    finish(tmp_path)
    assert digest(tmp_path / "out") == undisturbed
    assert "sample" in made(tmp_path / "out") and "cluster" not in made(tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in stages} == stages


@pytest.mark.slow
def test_a_worker_process_that_is_killed_ends_the_run(corpus: Path, tmp_path: Path) -> None:
    prepare(corpus, tmp_path)
    (tmp_path / "deed").write_text("kill")
    # The first records are embedded in the launcher, the marker lies behind them.
    beam = ("--", "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    process = start(tmp_path, *beam)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and out == ""
    assert "tithe: a worker process " in errors and "(--direct_num_workers)" in errors
    assert (
        f"tithe: to go on from there: tithe select {shlex.quote(f'{tmp_path}/c.yaml')} --quiet -- {' '.join(beam[1:])}"
        in errors
    )
    assert "Traceback" not in errors


@pytest.fixture
def sleeping(corpus: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run whose model sleeps in the middle of the embedding."""
    prepare(corpus, tmp_path)
    (tmp_path / "deed").write_text("sleep")
    process = start(tmp_path)
    wait_for((tmp_path / "sleeping").exists, process)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_prints_the_command_that_goes_on(
    tmp_path: Path, sleeping: subprocess.Popen[str]
) -> None:
    asked = time.monotonic()
    sleeping.send_signal(signal.SIGINT)
    out, errors = sleeping.communicate(timeout=60)
    assert time.monotonic() - asked < 10  # it does not wait for the model
    assert sleeping.returncode == 1 and out == ""
    assert "tithe: interrupted; the finished stages are kept" in errors
    assert f"tithe: to go on from there: tithe select {shlex.quote(f'{tmp_path}/c.yaml')} --quiet\n" in errors
    assert "Traceback" not in errors


def test_new_files_are_embedded_alone(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITHE_TEST_FOLDER", str(tmp_path))
    for i in range(3):
        write_lines(tmp_path / f"corpus/{i}.jsonl", (corpus / f"corpus/{i}.jsonl").read_text().splitlines())
    embed = {"kind": "model", "handler": "encoders:handler", "code": f"{corpus}/encoders.py", "field": "vector"}
    config = configure(tmp_path, f"{tmp_path}/corpus/*", input={"split_bytes": SPLIT_BYTES}, embed=embed)
    assert select(config, "--quiet") == 0
    before = times(tmp_path, "vectors-*/*/done.json")
    (tmp_path / "calls").unlink()
    write_lines(tmp_path / "corpus/3.jsonl", (corpus / "corpus/5.jsonl").read_text().splitlines())
    assert select(config, "--quiet") == 0
    assert manifest(tmp_path / "out")["input"]["records"] == 4 * N // FILES
    assert sum(map(int, (tmp_path / "calls").read_text().split())) <= N // FILES + 64
    after = times(tmp_path, "vectors-*/*/done.json")
    assert len(after) == 4 and {path: after[path] for path in before} == before
