"""The benchmarks run, and write what they measured; what they measure is of no interest here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tithe.transforms.kernels import nearest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SECTIONS = ["neighbors", "startup", "hashing", "graph"]
"""Those that need no package to compare with, and little time."""

ROWS, DIMENSION, CLUSTERS, SIZE = 16_000, 32, 20, 200


def run(name: str, *arguments: str) -> None:
    """Runs a program of the benchmarks to its end."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments]
    done = subprocess.run(command, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert not done.returncode, done.stderr


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what `bench.py --quick` wrote, a section that was not named among it."""
    folder = tmp_path_factory.mktemp("bench")
    for sections in (["graph"], [name for name in SECTIONS if name != "graph"]):
        run("bench", *sections, "--quick", "--folder", str(folder), "--results", str(folder / "results"))
    return folder / "results"


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of the hand-written loop, with its data/, and its figures."""
    folder = tmp_path_factory.mktemp("hand")
    run("bench_data", "mixture", str(folder / "data"), "--rows", str(ROWS), "--dimension", str(DIMENSION))
    numbers = {"rows": ROWS, "dimension": DIMENSION, "clusters": CLUSTERS, "size": SIZE}
    options = [part for name, value in numbers.items() for part in (f"--{name}", str(value))]
    files, result = ["--files", f"{folder}/data/*.parquet"], folder / "figures.json"
    run("hand_loop", *files, *options, "--folder", str(folder / "out"), "--result", str(result))
    return folder, json.loads(result.read_text())


def vectors(folder: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """All vectors of the data."""
    table = pq.read_table(folder / "data")
    return np.asarray(table["vector"].combine_chunks().values).reshape(len(table), -1)


def test_each_section_says_what_it_ran_when_and_where(results: Path) -> None:
    sections = json.loads((results / "bench.json").read_text())["sections"]
    assert list(sections) == SECTIONS  # in their order, and those of the earlier run are kept
    for section in sections.values():
        assert section["quick"] and section["about"] and section["date"]
        assert {"processor", "machine", "Python", "tithe", "numpy"} <= set(section["machine"])
        assert section["runs"] and all(run["wall_seconds"] > 0 for some in section["runs"].values() for run in some)
        for ratio in section["ratios"]:
            assert ratio["values"] and all(value > 0 for value in ratio["values"])
            assert ratio["at_most"] is not None or ratio["at_least"] is not None


def test_the_page_has_a_line_for_each_ratio(results: Path) -> None:
    page = (results / "bench.md").read_text()
    for name, section in json.loads((results / "bench.json").read_text())["sections"].items():
        assert f"## {name}\n" in page
        for ratio in section["ratios"]:
            [line] = [line for line in page.splitlines() if line.startswith(f"| {ratio['name']} |")]
            assert line.endswith(("| yes |", "| no |"))


def test_an_unknown_section_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "bench.py"), "speed", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "speed: no such section; there are j1" in done.stderr


def test_the_loop_by_hand_draws_weighted_records_of_the_input(by_hand: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = by_hand
    sample = pq.read_table(folder / "out/sample.parquet")
    ids, x = sample["id"].to_numpy(), vectors(folder)
    assert len(sample) == len(np.unique(ids)) == figures["drawn"] == SIZE
    assert np.array_equal(np.asarray(sample["vector"].combine_chunks().values).reshape(SIZE, -1), x[ids])
    assert sample["weight"].to_numpy().sum() == pytest.approx(ROWS, rel=0.1)


def test_the_loop_by_hand_states_the_cost_of_its_anchors_and_clusters_well(
    by_hand: tuple[Path, dict[str, Any]],
) -> None:
    folder, figures = by_hand
    x, means = vectors(folder), np.load(folder / "out/means.npy")
    run(
        "bench_cost",
        *("--files", f"{folder}/data/*.parquet", "--method", f"{folder}/out/means.npy"),
        *("--result", str(folder / "cost.json")),
    )
    cost = json.loads((folder / "cost.json").read_text())["cost"]
    assert cost == pytest.approx(nearest.nearest(x, nearest.prepare(means))[1].sum(), rel=1e-5)
    random = x[np.random.default_rng(1).choice(ROWS, CLUSTERS, replace=False)]
    assert cost < figures["cost_of_anchors"] < nearest.nearest(x, nearest.prepare(random))[1].sum()
    assert figures["clusters"] == CLUSTERS


def test_sorted_and_shuffled_data_hold_the_same_records(by_hand: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = by_hand
    centers = ["--centers", f"{folder}/out/means.npy"]
    x, index = vectors(folder), nearest.prepare(np.load(folder / "out/means.npy"))
    orders = {}
    for order in ("sorted", "shuffled"):
        run("bench_data", order, str(folder / order), "--files", f"{folder}/data/*.parquet", *centers)
        table = pq.read_table(folder / order)
        ids = table["id"].to_numpy()
        assert np.array_equal(np.sort(ids), np.arange(ROWS))
        assert np.array_equal(np.asarray(table["vector"].combine_chunks().values).reshape(ROWS, -1), x[ids])
        orders[order] = nearest.nearest(x[ids], index)[0][:, 0]
    assert np.mean(np.diff(orders["sorted"]) < 0) < 0.001 < np.mean(np.diff(orders["shuffled"]) < 0)


def test_each_trial_stands_beside_what_is_done(tmp_path: Path) -> None:
    run("trials", "--rows", "12000", "--folder", str(tmp_path), "--results", str(tmp_path))
    lines = [line for line in (tmp_path / "trials.md").read_text().splitlines() if line.startswith("| ")]
    found = {name: float(value.split()[0]) for name, value in (line.strip("| ").split(" | ") for line in lines[1:])}
    assert all(value > 0 for value in found.values())
    costs = [value for name, value in found.items() if name.endswith("cost of the means")]
    # Other constants make other clusters, so they reached the selection; none of them is far off.
    assert len(set(costs)) > 2 and all(0.8 < value < 1.25 for value in costs)
