"""What the pilot chooses and says, from files to the manifest: the gain, sizes from a promise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, digest, fixed_lists, manifest, sample, select, table, write_parquet

from tithe.transforms.kernels.promise import hoeffding_size

pytestmark = pytest.mark.slow  # whole runs

N, PILOT, SIZE = 2000, 200, 200
CLASSES = 8


def corpus() -> Any:
    """Vectors without modes, a label that has nothing to do with them, and losses that follow one of them or none."""
    random = np.random.default_rng(11)
    vectors = random.standard_normal((N, 2)).astype(np.float32)
    label = random.integers(0, CLASSES, N)
    wobble = random.gamma(20, 1 / 20, N)
    return table(
        N,
        vector=fixed_lists(vectors),
        label=[f"class {i}" for i in label],
        by_vector=np.exp(1.5 * vectors[:, 0].astype(np.float64)) * wobble,
        by_label=2.0 ** (label - 4.0) * wobble,
        by_nothing=random.gamma(0.5, 2.0, N),
        none_at_all=np.zeros(N),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus; runs in it share the clustering."""
    base = tmp_path_factory.mktemp("choice")
    write_parquet(base / "corpus", corpus())
    return base


def run(folder: Path, column: str, label: bool = False, **sections: Any) -> dict[str, Any]:
    """The manifest of a selection by a column of losses."""
    embed = {"kind": "column", "column": "vector"} | ({"label": "label"} if label else {})
    base: dict[str, Any] = {
        "cluster": {"count": 60, "rounds": 2},
        "loss": {"kind": "column", "column": column, "pilot": PILOT},
        "sample": {"size": SIZE, "method": "systematic"},
    }
    config = configure(folder, f"{folder}/corpus/*", "choice.yaml", embed=embed, **(base | sections))
    assert select(config) == 0
    return manifest(folder / "out")


NO_GAIN = "no gain shown over uniform"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "label", "gains"),
    [("by_vector", False, True), ("by_nothing", False, False), ("by_label", False, False), ("by_label", True, True)],
    ids=["the loss follows the vectors", "noise", "the loss follows the label", "the label is in the embedding"],
)
def test_the_gain_is_said_where_there_is_one(
    folder: Path, column: str, label: bool, gains: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(folder, column, label)["choice"]
    printed = capsys.readouterr().out
    assert found["sentence"] in printed
    assert found["gain"]["low"] <= found["gain"]["ratio"] <= found["gain"]["high"]
    if gains:
        assert found["gain"]["high"] < 1 and NO_GAIN not in printed
        assert f"is {found['gain']['ratio']:.3g} of that of uniform draws" in found["sentence"]
        assert found["chosen"]["floor"] < 1 and found["correlation"]["spearman"] > 0.5
    else:
        assert found["gain"]["high"] >= 1 and found["sentence"].startswith(NO_GAIN)
        assert "embed.label" in found["sentence"] and "cluster.count" in found["sentence"]


@pytest.mark.slow
def test_the_manifest_says_what_was_chosen_and_from_what(folder: Path) -> None:
    whole = run(folder, "by_vector")
    found = whole["choice"]
    losses = corpus()["by_vector"].to_numpy()
    assert (whole["proxy"]["neighbors"], found["pilot"]) == (5, PILOT)
    assert {key: whole["proxy"][key] for key in ("lipschitz", "floor")} == found["chosen"]
    best, *others = found["candidates"]
    assert best == {**found["chosen"], "variance": found["variance"]} and len(others) == 4
    assert [p["variance"] for p in others] == sorted(p["variance"] for p in others)
    assert best["variance"] <= others[0]["variance"]
    assert [p for p in found["candidates"] if p["floor"] == 1]  # constant probabilities
    for z in ("z=1", "z=2"):
        share = found["share_above_proxy"][z]
        assert 0 <= share["low"] <= share["share"] <= share["high"] <= 1 and share["lipschitz"] > 0
    assert 0.5 < found["correlation"]["pearson"] <= 1
    # The pilot is uniform, so its mean is that of the corpus but for its own error.
    assert abs(found["predicted_total_loss"] - losses.sum()) < 4 * N * losses.std() / math.sqrt(PILOT)
    assert found["predicted_standard_error"] == pytest.approx(math.sqrt(found["variance"] / SIZE))
    chosen = sample(folder / "out")
    drawn = losses[[int(i[1:]) for i in chosen["id"].to_pylist()]]
    error = (chosen["tithe_weight"].to_numpy() * drawn).sum() - losses.sum()
    assert abs(error) < 4 * found["predicted_standard_error"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "chosen", "points"),
    [
        ({"lipschitz": 0.5, "floor": 0.2}, {"lipschitz": 0.5, "floor": 0.2}, 1),
        ({"lipschitz": 0.5}, {"lipschitz": 0.5}, 4),
        ({"floor": 0.2, "neighbors": 3}, {"floor": 0.2}, 3),
        ({"floor": 1}, {"floor": 1.0}, 1),
        ({"kind": "plain"}, {"floor": 0.0}, 1),
        ({"kind": "plain", "power": 1, "lipschitz": 2}, {"lipschitz": 2.0, "floor": 0.0}, 1),
    ],
    ids=str,
)
def test_what_is_pinned_is_not_chosen(folder: Path, score: Any, chosen: dict[str, float], points: int) -> None:
    whole = run(folder, "by_vector", score=score)
    found = whole["choice"]
    assert found["chosen"] == found["chosen"] | chosen and len(found["candidates"]) == points
    plain = score.get("kind") == "plain"
    assert whole["proxy"]["neighbors"] == (1 if plain else score.get("neighbors", 5))
    assert whole["proxy"]["power"] == score.get("power", 2)
    rows = sample(folder / "out")
    if plain:  # the proxy of a row is l(c) + L d^z
        anchors = next(s["folder"] for s in whole["stages"] if s["name"] == "losses")
        losses = np.load(folder / "out/work" / anchors / "losses.npy")[rows["tithe_cluster"].to_numpy()]
        distance = rows["tithe_distance"].to_numpy() ** whole["proxy"]["power"]
        np.testing.assert_allclose(
            rows["tithe_proxy"].to_numpy(), losses + whole["proxy"]["lipschitz"] * distance, rtol=1e-4
        )
    if score == {"floor": 1}:
        np.testing.assert_allclose(rows["tithe_weight"].to_numpy(), N / SIZE)


@pytest.mark.slow
def test_losses_of_zero_leave_constant_probabilities(folder: Path) -> None:
    found = run(folder, "none_at_all")["choice"]
    assert found["chosen"]["floor"] == 1 and found["sentence"].startswith(NO_GAIN)
    np.testing.assert_allclose(sample(folder / "out")["tithe_weight"].to_numpy(), N / SIZE)


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_size_from_a_promise_prints_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promise = {"size": None, "epsilon": 0.1, "delta": 0.05, "method": "multinomial"}
    whole = run(folder, "by_vector", sample=promise, score={"kind": "plain", "lipschitz": 3.0, "floor": 0.2})
    size = hoeffding_size(0.1, 0.05, 0.2)
    assert whole["sample"]["draws"] == size == math.ceil(math.log(40) / (2 * (0.1 * 0.8) ** 2))
    said = whole["guarantee"]
    assert said in capsys.readouterr().out
    assert "if loss <= proxy for every record" in said and f"{size:,} draws" in said and "95 %" in said
    losses = corpus()["by_vector"].to_numpy()
    rows = sample(folder / "out")
    drawn = losses[[int(i[1:]) for i in rows["id"].to_pylist()]]
    assert abs((rows["tithe_weight"].to_numpy() * drawn).sum() - losses.sum()) < 0.1 * whole["proxy"]["total"]


@pytest.mark.slow
def test_a_size_from_a_standard_error(folder: Path) -> None:
    whole = run(folder, "by_vector", sample={"size": None, "standard_error": 0.05, "method": "pareto"})
    found = whole["choice"]
    size = math.ceil(found["variance"] / (0.05 * found["predicted_total_loss"]) ** 2)
    assert whole["sample"]["records"] == size and whole["guarantee"] is None
    assert found["predicted_standard_error"] <= 0.05 * found["predicted_total_loss"]


@pytest.mark.slow
def test_clusters_from_the_calls_that_are_allowed(folder: Path) -> None:
    loss = {"kind": "column", "column": "by_vector", "pilot": 100, "max_calls": 170}
    whole = run(folder, "by_vector", loss=loss, cluster={"count": "auto", "rounds": 1})
    assert whole["cluster"]["clusters"] == whole["losses"]["representatives"] == 70
    assert whole["losses"]["anchors"] <= 170


# -- the same everywhere -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_draw_is_the_same_in_threads_and_in_processes(folder: Path) -> None:
    found: dict[str, list[tuple[str, str]]] = {}
    processes = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    for name, beam in [("threads", []), ("processes", processes)]:
        here = folder / name
        here.mkdir()
        config = configure(
            here,
            f"{folder}/corpus/*",
            input={"split_bytes": 16384},
            cluster={"count": 40, "rounds": 1},
            loss={"kind": "column", "column": "by_vector", "pilot": 60},
            sample={"size": 80},
        )
        found[name] = []
        for method in ("systematic", "pareto", "multinomial", "poisson"):
            assert select(config, "--quiet", "--set", f"sample.method={method}", "--", *beam) == 0
            found[name].append(digest(here / "out"))
        assert manifest(here / "out")["choice"]["chosen"]["floor"] < 1
    assert found["threads"] == found["processes"]
    assert len({first for first, _ in found["threads"]}) == 4
