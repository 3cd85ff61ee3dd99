"""The pipelines against the oracle on scikit-learn's digits, and the estimated total loss over many seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pyarrow as pa
import pytest
from corpora import configure, fixed_lists, manifest, sample, select, write_parquet
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import tithe.clustering
from tithe.transforms import vectors
from tithe.transforms.cluster import ClusterTask
from tithe.transforms.draw import (
    CHOSEN,
    DrawSplit,
    Multinomial,
    Pareto,
    Proxies,
    ProxyRule,
    Reservoir,
    drawn_of,
    gather_draws,
)
from tithe.transforms.kernels import estimators, exact
from tithe.transforms.kernels.threshold import solve
from tithe.transforms.parallel import read_plan

pytestmark = pytest.mark.slow

SIZE, SEED = 200, 17
METHODS = ("pareto", "multinomial")
PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
ALL_ROWS = oracle.Settings(count=20, rounds=8, batch=1.0, seed=1)
# Few enough rows for some clusters to find none in the last batch, and some centers none in any.
MINI_BATCHES = oracle.Settings(count=60, rounds=3, batch=0.1, seed=3)
RUNS = [
    pytest.param((MINI_BATCHES, METHODS, ()), id="mini-batches"),
    pytest.param((ALL_ROWS, METHODS, ()), id="all rows"),
    pytest.param((MINI_BATCHES, METHODS[:1], PROCESSES), id="in processes"),
]


@dataclass(frozen=True)
class Digits:
    """1,797 handwritten digits; the loss of one is its squared distance to the mean of its class."""

    ids: list[str]
    vectors: NDArray[np.float32]
    losses: NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """What scores/ hold, in the order of the corpus."""

    cluster: NDArray[np.int64]
    squared: NDArray[np.float64]
    proxy: NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """A finished selection by some samplers, and what the oracle says of its clustering."""

    settings: oracle.Settings
    output: Path
    samples: dict[str, Any]
    manifests: dict[str, Any]
    expected: oracle.Clustering

    def folder(self, stage: str, method: str = "pareto") -> Path:
        [found] = [s["folder"] for s in self.manifests[method]["stages"] if s["name"] == stage]
        return self.output / "work" / str(found)

    def proxies(self, method: str = "pareto") -> Proxies:
        """What the draw reads."""
        facts = vectors.read_json(str(self.folder("sample", method) / "stage.json"))
        folders = (str(self.output / "work" / self.manifests[method]["vectors"]), str(self.folder("score")))
        return Proxies(*folders, str(self.folder("losses") / "losses.npy"), ProxyRule(**facts["rule"]))

    def plan(self) -> list[Any]:
        return list(read_plan(str(self.folder("plan") / "plan.jsonl")))


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = load_digits()
    means = np.array([data.data[data.target == digit].mean(0) for digit in range(10)])
    losses = ((data.data - means[data.target]) ** 2).sum(1) / 100
    return Digits([f"digit-{i:04d}" for i in range(len(losses))], data.data.astype(np.float32), losses)


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    settings, methods, options = request.param
    folder = tmp_path_factory.mktemp("digits")
    table = pa.table({"id": digits.ids, "vector": fixed_lists(digits.vectors), "loss": digits.losses})
    write_parquet(folder / "corpus", table, files=2, row_group=300)
    config = configure(
        folder,
        f"{folder}/corpus/*.parquet",
        input={"split_bytes": 20_000},
        cluster={"count": settings.count, "rounds": settings.rounds, "batch": settings.batch, "seed": settings.seed},
        loss={"kind": "column", "column": "loss", "pilot": 0},
        score={"kind": "plain", "lipschitz": "balanced"},
        sample={"size": SIZE, "seed": SEED},
    )
    output, samples, manifests = folder / "out", {}, {}
    with pytest.MonkeyPatch.context() as patch:
        if settings.batch < 1:
            # The corpus is small: let a round read as little as the configuration says.
            few = {"batch": settings.batch}
            patch.setattr(tithe.clustering, "ClusterTask", lambda **given: ClusterTask(**{**given, **few}))
        for method in methods:
            arguments = ["--quiet", "--set", f"sample.method={method}", *(["--", *options] if options else [])]
            assert select(config, *arguments) == 0
            samples[method], manifests[method] = sample(output), manifest(output)
    [cluster] = [s["folder"] for s in manifests["pareto"]["stages"] if s["name"] == "cluster"]
    with np.load(output / "work" / cluster / "round-0000.npz") as seeds:
        expected = oracle.cluster(digits.vectors, oracle.id_hashes(digits.ids), seeds["points"], settings)
    yield Run(settings, output, samples, manifests, expected)


def scored(run: Run, digits: Digits) -> Scored:
    """Reads scores/, and puts them in the order of the corpus."""
    parts = [part for _, split in run.plan() for part in run.proxies().read(split.key)]
    hashes = np.concatenate([rows["hash"] for rows, _ in parts])
    scores = np.concatenate([scores for _, scores in parts])
    proxy = run.proxies().proxy(scores)
    assert len(parts) > 2 and len(hashes) == len(digits.ids)
    place = {h: i for i, h in enumerate(hashes.tolist())}
    order = [place[h] for h in oracle.id_hashes(digits.ids).tolist()]
    return Scored(scores["anchor"][order, 0], scores["squared"][order, 0].astype(np.float64), proxy[order])


def test_the_clusters_are_those_of_the_oracle(run: Run, digits: Digits) -> None:
    expected = run.expected
    with np.load(run.folder("cluster") / f"round-{run.settings.rounds:04d}.npz") as last:
        np.testing.assert_allclose(last["points"], expected.centers, rtol=1e-6, atol=1e-6)
    representatives = np.load(run.folder("cluster") / "representatives.npy")
    hashes = oracle.id_hashes(digits.ids)
    assert representatives["hash"].tolist() == hashes[expected.representatives].tolist()
    # This corpus must try what few rows in a batch bring about.
    assert bool(expected.missing) == (run.settings is MINI_BATCHES)
    found = scored(run, digits)
    np.testing.assert_array_equal(found.cluster, expected.cluster)
    np.testing.assert_allclose(found.squared, expected.squared, rtol=1e-6)


def test_the_proxies_are_those_of_the_oracle(run: Run, digits: Digits) -> None:
    np.testing.assert_allclose(
        scored(run, digits).proxy, oracle.proxies(digits.losses, run.expected), rtol=1e-6, atol=1e-6
    )
    losses = np.load(run.folder("losses") / "losses.npy")
    np.testing.assert_array_equal(losses, digits.losses[run.expected.representatives])


def test_the_draws_are_those_of_the_oracle(run: Run, digits: Digits) -> None:
    proxy = oracle.proxies(digits.losses, run.expected)
    draws = {"pareto": oracle.draw_pareto, "multinomial": oracle.draw_multinomial}
    for method, table in run.samples.items():
        expected = draws[method](proxy, oracle.id_hashes(digits.ids), SEED, SIZE)
        rows = [int(name.removeprefix("digit-")) for name in table.column("id").to_pylist()]
        assert rows == sorted(expected)  # the files follow each other in the order of the corpus
        drawn = [expected[row] for row in rows]
        found = {name: table.column(name).to_numpy() for name in table.column_names if name.startswith("tithe_")}
        assert found["tithe_multiplicity"].tolist() == [d.multiplicity for d in drawn]
        assert found["tithe_multiplicity"].sum() == SIZE
        np.testing.assert_array_equal(found["tithe_cluster"], run.expected.cluster[rows])
        columns: dict[str, NDArray[np.float64]] = {
            "probability": np.array([d.expected for d in drawn]),
            "weight": np.array([d.multiplicity / d.expected for d in drawn]),
            "distance": np.sqrt(run.expected.squared[rows]),
            "proxy": proxy[rows],
        }
        for name, values in columns.items():
            np.testing.assert_allclose(found[f"tithe_{name}"], values, rtol=1e-6, err_msg=f"{method} {name}")


# Over seeds


def draws_over_seeds(run: Run, method: str, seeds: int) -> Iterator[NDArray[np.void]]:
    """The drawn records for each seed, by the pieces of the sample stage over the scores of the finished run."""
    proxies, plan = run.proxies(), run.plan()
    values = np.concatenate([proxies.proxy(scores) for _, split in plan for _, scores in proxies.scores(split.key)])
    total, largest = exact.exact_sum(values), np.sort(values)[::-1][:SIZE].tolist()
    threshold = solve(total, largest, int(np.count_nonzero(values)), SIZE)
    for seed in range(seeds):
        pareto = Pareto(threshold, SIZE, seed)
        sampler = pareto if method == "pareto" else Multinomial(exact.to_float(total), SIZE, seed)
        split_draw, reservoir = DrawSplit(proxies, sampler, 1), Reservoir(SIZE)
        accumulator = reservoir.create_accumulator()
        for element in plan:
            for rows in split_draw.work(element):
                accumulator = reservoir.add_input(accumulator, rows)
        yield gather_draws(reservoir.extract_output(accumulator))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("run", RUNS[:1], indirect=True)
def test_the_estimated_total_loss_over_400_seeds(run: Run, digits: Digits, method: str) -> None:
    loss_of = dict(zip(oracle.id_hashes(digits.ids).tolist(), digits.losses.tolist(), strict=True))
    proxy_total = float(run.manifests[method]["proxy"]["total"])
    totals, errors = [], []
    for rows in draws_over_seeds(run, method, 400):
        assert rows.dtype == CHOSEN and rows["multiplicity"].sum() == SIZE
        losses = np.array([loss_of[h] for h in rows["hash"].tolist()])
        found = estimators.estimate(losses, drawn_of(rows, method, proxy_total))
        assert found.total == pytest.approx(math.fsum(rows["multiplicity"] / rows["expected"] * losses), rel=1e-12)
        totals.append(found.total)
        errors.append(found.standard_error)
    truth, spread = digits.losses.sum(), float(np.std(totals, ddof=1))
    assert abs(np.mean(totals) - truth) < 3 * spread / 400**0.5
    # The standard error that each sample tells of itself is the spread over the samples: 400 of them tell it to 3.5 %.
    assert math.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.12)
