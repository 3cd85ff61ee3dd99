"""The same bytes on every engine: each draw of one configuration, on all engines that run on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from corpora import manifest
from engines import Corpus, Pool, Results, functions, install, other_environment, prism_options, write_corpus

pytestmark = pytest.mark.slow

METHODS = ["systematic", "pareto", "multinomial", "poisson"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("engines"), functions(2_000))


@pytest.fixture(scope="module")
def expected(corpus: Corpus) -> Results:
    """What every other engine must give: the local runner, in memory, one split."""
    results = corpus.run("memory", methods=METHODS)
    assert len({result[0] for result in results.values()}) == len(METHODS)  # the draws differ
    return results


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return other_environment(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def workers(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(commands, tmp_path_factory.mktemp("elsewhere"), threads=True) as pool:
        yield pool


def test_splits_of_another_size(corpus: Corpus, expected: Results) -> None:
    assert corpus.run("splits", methods=METHODS, split_bytes=1 << 18) == expected
    assert manifest(corpus.folder / "splits")["input"] == manifest(corpus.folder / "memory")["input"]


@pytest.mark.parametrize(("files", "methods"), [(7, METHODS), (64, ["systematic"])])
def test_a_corpus_in_more_files(files: int, methods: list[str], corpus: Corpus, expected: Results) -> None:
    """The parts name the file of a record, so they differ; all else is equal."""
    pattern = write_corpus(corpus.folder / str(files), corpus.records, files)
    results = corpus.run(f"files-{files}", methods=methods, files=pattern)
    for method in methods:
        assert results[method][::2] == expected[method][::2]
        assert results[method][1] != expected[method][1]


@pytest.mark.parametrize(("processes", "methods"), [(1, ["systematic"]), (2, METHODS), (3, ["systematic"])])
def test_worker_processes(processes: int, methods: list[str], corpus: Corpus, expected: Results) -> None:
    options = ["--direct_running_mode=multi_processing", f"--direct_num_workers={processes}"]
    results = corpus.run(f"processes-{processes}", *options, methods=methods, split_bytes=1 << 18)
    assert results == {method: expected[method] for method in methods}


def test_a_pool_of_workers_in_another_environment(
    corpus: Corpus, commands: Path, workers: Pool, expected: Results
) -> None:
    """No state of the launching process and no file of the checkout is needed; single-file code travels along."""
    corpus.told.unlink()
    options = ["--runner=PortableRunner", "--job_endpoint=embed", *workers.options]
    assert corpus.run("pool", *options, methods=METHODS) == expected
    assert_only_in(commands.parent, corpus.told)


def test_code_that_is_installed_where_the_workers_are(
    corpus: Corpus, commands: Path, workers: Pool, expected: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`module:name`, installed here, where its fingerprint is taken, and there; each side imports its own."""
    install(commands, "installed_waiting", corpus.code.read_text())
    here = corpus.folder / "here"
    here.mkdir()
    (here / "installed_waiting.py").write_text(
        "def loss(records):\n    raise AssertionError('called in the launcher')\n"
    )
    monkeypatch.syspath_prepend(here)
    options = ["--runner=PortableRunner", "--job_endpoint=embed", *workers.options]
    results = corpus.run("installed", *options, methods=["systematic"], loss="installed_waiting:loss", code=None)
    assert results == {"systematic": expected["systematic"]}


@pytest.mark.prism
def test_prism(corpus: Corpus, expected: Results) -> None:
    assert corpus.run("prism", *prism_options(), methods=METHODS) == expected


@pytest.mark.prism
def test_prism_with_a_pool_of_workers(corpus: Corpus, commands: Path, workers: Pool, expected: Results) -> None:
    corpus.told.unlink()
    assert corpus.run("prism-pool", *prism_options(), *workers.options) == {"systematic": expected["systematic"]}
    assert_only_in(commands.parent, corpus.told)


def assert_only_in(environment: Path, told: Path) -> None:
    """The loss was called, and wherever it was, tithe was that of an environment."""
    places = told.read_text().splitlines()
    assert places
    assert all(Path(place).is_relative_to(environment) for place in places)
