"""An engine that dies in the middle: one clear line within seconds, nothing lost, and the same bytes afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from corpora import digest, made, select
from engines import Corpus, Pool, Results, children, free_port, functions, numbers, other_environment, prism_options

pytestmark = pytest.mark.slow

EMBED = ["--runner=PortableRunner", "--job_endpoint=embed"]
SECONDS = 30
"""Within which the command must end when its engine is gone; on a quiet machine it takes one or two."""

WORKER_LOST = re.compile(
    "a worker process (of .*)?ended in the middle of its work|the pool of workers .*does not answer"
)
"""Whichever is seen first: the connection for instructions, that for data, or the pool that is gone."""

Kill = Callable[["subprocess.Popen[str]"], None]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("failures"), functions(1_000))


@pytest.fixture(scope="module")
def expected(corpus: Corpus) -> Results:
    return corpus.run("memory")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return other_environment(tmp_path_factory.mktemp("wheel"))


def interrupted(corpus: Corpus, name: str, options: list[str], kill: Kill) -> list[str]:
    """Runs the command until it asks for losses, kills what it runs on; returns the lines that it tells."""
    config, _ = corpus.configure(name)
    corpus.hold.touch()
    corpus.held.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tithe", "select", config, "--quiet", "--", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not corpus.held.exists() and process.poll() is None:
            time.sleep(0.05)
        kill(process)
        start = time.monotonic()
        printed, told = process.communicate(timeout=2 * SECONDS)
        assert time.monotonic() - start < SECONDS
    finally:
        process.kill()
        corpus.hold.unlink()
    assert (process.returncode, printed) == (1, "")
    assert len(told.splitlines()) == 2, told
    error, remedy = told.splitlines()
    assert remedy.startswith("tithe: to go on from there: tithe select ")
    return [error, remedy]


def assert_goes_on(corpus: Corpus, name: str, options: list[str], expected: Results) -> None:
    """The same command finishes with the same bytes, and makes only what was not done."""
    config, output = corpus.configure(name)
    assert select(config, "--quiet", "--", *options) == 0
    assert (*digest(output), numbers(output)) == expected["systematic"]
    assert made(output) == {"losses", "score", "sample"}


def kill_the_worker(corpus: Corpus) -> Kill:
    return lambda _: os.kill(int(corpus.held.read_text().split()[0]), signal.SIGKILL)


def test_a_killed_pool_of_workers(corpus: Corpus, commands: Path, expected: Results, tmp_path: Path) -> None:
    with Pool(commands, tmp_path, threads=False) as pool:
        options = [*EMBED, *pool.options]
        error, _ = interrupted(corpus, "pool", options, lambda _: pool.kill())
        assert WORKER_LOST.search(error)
    with Pool(commands, tmp_path, threads=True, port=pool.port):
        assert_goes_on(corpus, "pool", options, expected)


def test_a_killed_worker_of_a_pool(corpus: Corpus, commands: Path, expected: Results, tmp_path: Path) -> None:
    with Pool(commands, tmp_path, threads=False) as pool:
        options = [*EMBED, *pool.options]
        error, _ = interrupted(corpus, "worker", options, kill_the_worker(corpus))
        assert WORKER_LOST.search(error)
        assert_goes_on(corpus, "worker", options, expected)


def test_no_pool_of_workers(corpus: Corpus, capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    config, _ = corpus.configure("nothing")
    options = [*EMBED, "--environment_type=EXTERNAL", f"--environment_config=localhost:{port}"]
    arguments = ["select", config, "--quiet", "--", *options]
    done = subprocess.run([sys.executable, "-m", "tithe", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    error, _ = done.stderr.splitlines()
    assert f"no pool of workers answers at localhost:{port}; start one there: python -m " in error
    assert f"--service_port={port}" in error


@pytest.mark.prism
def test_killed_prism(corpus: Corpus, expected: Results) -> None:
    def kill(command: subprocess.Popen[str]) -> None:
        [prism] = children(command.pid, "prism")
        os.kill(prism, signal.SIGKILL)

    error, _ = interrupted(corpus, "prism", prism_options(), kill)
    assert "the job server of PrismRunner does not answer any more" in error
    assert_goes_on(corpus, "prism", prism_options(), expected)


@pytest.mark.prism
def test_a_killed_pool_of_workers_under_prism(
    corpus: Corpus, commands: Path, expected: Results, tmp_path: Path
) -> None:
    with Pool(commands, tmp_path, threads=False) as pool:
        options = [*prism_options(), *pool.options]
        error, _ = interrupted(corpus, "prism-pool", options, lambda _: pool.kill())
        assert WORKER_LOST.search(error)
    with Pool(commands, tmp_path, threads=True, port=pool.port):
        assert_goes_on(corpus, "prism-pool", options, expected)
