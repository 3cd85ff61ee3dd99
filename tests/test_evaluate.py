"""`tithe evaluate`: its draws are those of `tithe select`, closed forms are what drawing gives, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, manifest, points, sample, select, table, write_parquet

from tithe import evaluate_errors as errors
from tithe.cli import main
from tithe.evaluate_population import gather_population
from tithe.transforms.draw import ProxyRule
from tithe.transforms.kernels import draws, hashing
from tithe.transforms.kernels.systematic import loss_order

pytestmark = pytest.mark.slow  # whole runs

N = 900


def corpus() -> Any:
    """Losses that follow the vectors, with some noise."""
    noise = np.random.default_rng(5).gamma(1.0, 0.2, N)
    return table(N, loss=np.abs(points(N)[:, 0].astype(np.float64)) ** 2 + noise)


LOSS = {"kind": "column", "column": "loss", "pilot": 60}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """The folder, the configuration, and what `tithe evaluate` wrote."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_parquet(folder / "corpus", corpus(), files=3, row_group=50)
    config = configure(
        folder,
        f"{folder}/corpus/*.parquet",
        input={"split_bytes": 4096},
        cluster={"count": 40},
        loss=LOSS,
        sample={"size": 120, "method": "systematic", "seed": 4},
    )
    files = ["--json", str(folder / "found.json"), "--picture", str(folder / "found.png")]
    assert main(["evaluate", config, "--sizes", "50,150", "--seeds", "60", "--quiet", *files]) == 0
    return folder, config, json.loads((folder / "found.json").read_text())


def test_every_way_at_every_size_in_both_accountings(evaluated: tuple[Path, str, dict[str, Any]]) -> None:
    folder, _, found = evaluated
    assert (found["records"], found["seeds"], found["representatives"]) == (N, 60, 40)
    assert found["total_loss"] == pytest.approx(float(np.sum(corpus()["loss"].to_numpy())))
    rows = {(r["accounting"], r["size"], r["way"]): r for r in found["errors"]}
    ways = ("tithe", "uniform", "equal, along the clusters", "independent, plain proxy")
    assert list(rows) == [(a, s, w) for a in ("draws free", "every loss counts") for s in (50, 150) for w in ways]
    for (accounting, size, way), row in rows.items():
        asks = way in ("tithe", "independent, plain proxy")
        assert row["draws"] == (size if asks or accounting == "draws free" else size + found["anchors"])
        assert row["losses"] == row["draws"] + (found["anchors"] if asks else 0)
        assert 0 < row["low"] <= row["error"] <= row["high"]
        assert row["ratio"] == pytest.approx(rows[accounting, size, "tithe"]["error"] / row["error"])
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"] or row["closed_form"]
    # These losses follow the vectors, so the method beats uniform by far.
    assert rows["draws free", 150, "tithe"]["ratio"] == 1
    assert rows["draws free", 150, "uniform"]["ratio_high"] < 0.8
    assert (folder / "found.png").read_bytes()[:4] == b"\x89PNG"
    assert not (folder / "out/sample").exists() and not (folder / "out/manifest.json").exists()


def test_the_draw_is_that_of_select(evaluated: tuple[Path, str, dict[str, Any]]) -> None:
    folder, config, _ = evaluated
    assert select(config, "--quiet") == 0
    facts, chosen = manifest(folder / "out"), sample(folder / "out").to_pylist()
    stages = {stage["name"]: f"{folder}/out/work/{stage['folder']}" for stage in facts["stages"]}
    assert {s["name"] for s in facts["stages"] if not s["stood"]} == {"sample"}, "the clustering is shared"
    vectors = f"{folder}/out/work/{facts['vectors']}"
    population = gather_population(f"{stages['plan']}/plan.jsonl", vectors, stages["score"])
    anchor_losses = np.load(f"{stages['losses']}/losses.npy")
    rule = {name: value for name, value in facts["proxy"].items() if name not in ("total", "positive")}
    proxy = ProxyRule(**rule).proxy(anchor_losses, population.scores)
    scale = errors.scale_of(proxy, 120)
    order = errors.pass_order(loss_order(anchor_losses)[population.scores["anchor"][:, 0]], population.hashes, 4)
    rows, inclusion = errors.draw_along(order, scale.masses(proxy), scale.draws, 4)
    certain = np.flatnonzero(scale.certain(proxy))
    ids = {int(hashing.hash_text(f"r{i:05d}")): f"r{i:05d}" for i in range(N)}
    found = {ids[int(h)]: p for h, p in zip(population.hashes[rows], inclusion, strict=True)}
    found |= {ids[int(h)]: 1.0 for h in population.hashes[certain]}
    assert found == {row["id"]: row["tithe_probability"] for row in chosen}


def test_another_draw_in_the_configuration_is_a_way_of_its_own(
    evaluated: tuple[Path, str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, config, before = evaluated
    for method, closed in (("multinomial", True), ("pareto", False), ("poisson", True)):
        path = str(folder / f"{method}.json")
        change = ["--set", f"sample.method={method}", "--set", "score.kind=plain", "--set", "score.lipschitz=balanced"]
        assert main(["evaluate", config, *change, "--sizes", "50", "--seeds", "20", "--quiet", "--json", path]) == 0
        rows = {r["way"]: r for r in json.loads(Path(path).read_text())["errors"] if r["accounting"] == "draws free"}
        own = rows[f"configured: {method}, plain"]
        assert own["closed_form"] == closed
        if method == "multinomial":
            assert own["error"] == pytest.approx(rows["independent, plain proxy"]["error"])
        kept = next(r for r in before["errors"] if r["way"] == "uniform" and r["size"] == 50)
        assert rows["uniform"]["error"] == kept["error"]
    told = capsys.readouterr().out
    assert "configured: pareto, plain" in told and "50 draws" in told and "…" not in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--sizes", "many"], "--sizes many: give whole numbers"),
        (["--sizes", "0"], "--sizes: give whole numbers above 0"),
        (["--sizes", "50,900"], "the corpus has 900 records; give sizes below that"),
        (["--seeds", "1"], "--seeds 1: give 2 or more"),
        (["--picture", "x.txt"], "name a .png, .svg or .pdf file"),
        (["--set", "loss={kind: constant}"], "loss.kind: constant does not tell the loss of every record"),
        (["--set", "loss.pilot=0", "--set", "score.kind=plain"], "loss.pilot: 0 is too few"),
    ],
)
def test_wrong_use(
    evaluated: tuple[Path, str, dict[str, Any]], capsys: pytest.CaptureFixture[str], change: list[str], told: str
) -> None:
    assert main(["evaluate", evaluated[1], "--quiet", *change]) == 2
    assert told in capsys.readouterr().err


CODE = """
def loss(records):
    return [record["loss"] for record in records]

def picky(records):
    if any(record["id"] == "r00007" for record in records):
        raise ValueError("not this one")
    return [record["loss"] for record in records]
"""


def test_a_function_is_asked_for_every_record_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluated: tuple[Path, str, dict[str, Any]]
) -> None:
    write_parquet(tmp_path / "corpus", corpus(), files=3, row_group=50)
    (tmp_path / "code.py").write_text(CODE)
    keys = {"kind": "model", "code": str(tmp_path / "code.py"), "pilot": 60, "retries": 0}
    found: dict[str, Any] = {}
    for function in ("loss", "picky"):
        config = configure(
            tmp_path,
            f"{tmp_path}/corpus/*.parquet",
            f"{function}.yaml",
            input={"split_bytes": 4096},
            cluster={"count": 40},
            loss={**keys, "function": f"code:{function}"},
            sample={"size": 120, "method": "systematic", "seed": 4},
        )
        path = tmp_path / f"{function}.json"
        code = main(["evaluate", config, "--quiet", "--sizes", "50", "--seeds", "60", "--json", str(path)])
        found[function] = json.loads(path.read_text()) if code == 0 else capsys.readouterr().err
    assert "the model failed on 1 of them" in found["picky"] and "not this one" in found["picky"]
    # The same losses, so the same errors as those of the column.
    of_column = [r["error"] for r in evaluated[2]["errors"] if r["size"] == 50]
    assert [r["error"] for r in found["loss"]["errors"]] == pytest.approx(of_column)


# -- errors ------------------------------------------------------------------------------------------------------------


def population(n: int = 400) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(2)
    losses = rng.gamma(1.0, 1.0, n)
    proxy = losses * rng.uniform(0.5, 2, n) + 0.1
    proxy[:3], losses[:3] = 0, 0.5  # never drawn where probabilities follow the proxy: a bias
    return losses, proxy, hashing.hash_integers(np.arange(n))


def simulated(draw: Callable[[int], float], truth: float, seeds: int = 3000) -> float:
    return float(np.sqrt(np.mean([(draw(seed) / truth - 1) ** 2 for seed in range(seeds)])))


def test_closed_forms_are_what_drawing_gives() -> None:
    losses, proxy, hashes = population()
    truth, size = losses.sum(), 40
    rng = np.random.default_rng(3)
    uniform = simulated(lambda _: losses[rng.permutation(400)[:size]].sum() * 400 / size, truth)
    assert errors.uniform_error(losses, size).rmse == pytest.approx(uniform, rel=0.05)
    p = proxy / proxy.sum()

    def independent(_: int) -> float:
        rows = rng.choice(400, size, p=p)
        return float((losses[rows] / (size * p[rows])).sum())

    assert errors.independent_error(losses, proxy, size).rmse == pytest.approx(simulated(independent, truth), rel=0.05)
    pi = errors._threshold(proxy, size).inclusion_probability(proxy)

    def poisson(seed: int) -> float:
        rows = draws.poisson_drawn(pi, hashes, seed)
        return float((losses[rows] / pi[rows]).sum())

    assert errors.poisson_error(losses, proxy, size).rmse == pytest.approx(simulated(poisson, truth), rel=0.05)


def test_simulated_draws_are_unbiased_and_beat_uniform() -> None:
    losses, proxy, hashes = population()
    proxy[:3] = 0.5
    ranks = loss_order(losses[:20])[np.arange(400) % 20]
    seeds = range(400)
    for found in (
        errors.systematic_errors(losses, proxy, ranks, hashes, [20, 60], seeds),
        errors.pareto_errors(losses, proxy, hashes, [20, 60], seeds),
    ):
        for size, error in zip((20, 60), found, strict=True):
            low, high = error.interval()
            assert low < error.rmse < high < errors.uniform_error(losses, size).rmse
            assert len(error.squared) == 400


def test_intervals_of_errors_and_ratios() -> None:
    rng = np.random.default_rng(1)
    first = errors.Errors(rng.standard_normal(400) ** 2)
    low, high = first.interval()
    assert low < first.rmse < high and 0.05 < high - low < 0.25
    twice = errors.Errors(4 * first.squared)
    assert errors.ratio_interval(first, twice) == pytest.approx((0.5, 0.5)), "draws of one seed stay together"
    exact = errors.Errors(np.array([4.0]), True)
    assert exact.interval() == (2.0, 2.0) and exact.rmse == 2
    assert errors.ratio_interval(first, exact) == pytest.approx((low / 2, high / 2))


def test_nothing_is_left_to_chance_in_a_draw_of_everything() -> None:
    losses, _, _ = population(50)
    assert errors.uniform_error(losses, 50).rmse == 0
