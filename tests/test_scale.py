"""The formulas of benchmarks/scale.py, beside what runs count and what the objects are that they speak of."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tithe.transforms.kernels import exact, far, rounds

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def scale() -> Any:
    """The module of the command; those beside it are found by their bare names, as when it runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("scale")


def rates_of(scale: Any) -> dict[int, Any]:
    """Made-up rates of one core."""
    rates = scale.Rates(1e11, 1e-4, 1e-4, 1e-4, 1.0, 1e-6, 1e-7, 4e9, 6e8, 1e10, 4e9)
    return {k: rates for k, _ in scale.SIZES.values()}


def workers_of(scale: Any, count: int = 1) -> Any:
    return scale.Workers(count, cores=4, processes=4, memory=15e9, network=1e9, store=5e8, latency=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("losses", ["constant", "column"])
def test_formulas_are_within_a_tenth_of_all_that_a_run_counts(scale: Any, losses: str, tmp_path: Path) -> None:
    scale.write_data(tmp_path / "data")
    found = scale.check(scale.run(tmp_path, losses))
    assert {"AssignBatch.sent_bytes", "gathered_bytes"} < set(found)
    # What is not counted, or has no formula, stands as 0 on one side.
    wrong = {name: both for name, both in found.items() if not 0.9 * both[1] <= both[0] <= 1.1 * both[1]}
    assert not wrong


def test_what_is_worked_out_are_the_sizes_that_are_known(scale: Any) -> None:
    job = scale.job_there(10**10, 1000, 1)
    assert job.clusters * job.dimension * 8 == 614_400_000  # sums
    counted = scale.counters(job)
    assert counted["AssignBatch.side_bytes"] == 8 * 1000 * 100_000 * (4 * 768 + 8)  # eight rounds
    assert counted["AssignBatch.read_bytes"] == pytest.approx(8 * 0.1 * 10**10 * (4 * 768 + 28), rel=0.05)
    assert (job.seed_rows, job.batch_rows) == (2_000_000, 10**9)


@pytest.mark.parametrize("blocks", [1, 40])
def test_bytes_of_the_sums_are_those_of_their_pickle(scale: Any, blocks: int) -> None:
    """Once a cluster may have had more than 8,192 rows, limbs are sent too."""
    k, d, rows = 50, 16, 4096
    x = np.random.default_rng(1).standard_normal((rows * blocks, d)).astype(np.float32)
    job = scale.Job(len(x), d, k, 1, 1, 0, 1, 1.0, blocks, 1, 1, 1, 1.0)
    sums = exact.densify(exact.vector_sums(x, np.arange(len(x)) % 12, 3), k)
    assert (sums.limbs is not None) == (job.crowd > exact.ROWS) == (blocks > 1)
    batch = rounds.BatchSums(sums, 1 << 1090, np.zeros(far.far_count(k), far.far_dtype(d)))
    size = len(pickle.dumps(batch, pickle.HIGHEST_PROTOCOL))
    assert size == pytest.approx(job.sums_bytes, rel=0.1)


def test_shuffles_grow_with_processes_and_the_systematic_cells_alone(scale: Any) -> None:
    def sent(records: int, workers: int) -> dict[str, float]:
        counted = scale.counters(scale.job_there(records, workers, 4))
        return {name: value for name, value in counted.items() if name.endswith("sent_bytes")}

    one, two = sent(10**8, 10), sent(10**8, 20)
    for name in ("AssignBatch.sent_bytes", "ScoreSplit.sent_bytes", "TotalSplit.sent_bytes", "FindNear.sent_bytes"):
        assert two[name] == pytest.approx(2 * one[name])
    small, large = (scale.counters(scale.job_there(n, 10, 4))["cell_bytes"] / n for n in (10**9, 10**10))
    assert small == large == 16


def test_what_breaks_first_is_named_in_the_order_of_a_selection(scale: Any) -> None:
    def first(records: int, count: int) -> str:
        job, workers = scale.job_there(records, count, 4), workers_of(scale, count)
        steps = scale.one_place(job, rates_of(scale)[job.clusters])[:-2]
        return str(scale.first_break(job, steps, 1000.0, workers))

    assert first(10**8, 10).startswith("nothing; slowest in one place: ")
    assert first(10**9, 100).startswith("nearest rows of each mean: ")
    assert first(10**10, 1000).startswith("memory in a round, ")


def test_the_page_has_a_row_for_each_number_of_records_and_workers(scale: Any) -> None:
    page = scale.report([{"AssignBatch.read_bytes": (10.0, 11.0)}], rates_of(scale), workers_of(scale))
    rows = [line for line in page.splitlines() if line.startswith("| 10^")]
    assert [row.split(" | ")[1] for row in rows] == ["10", "100", "1,000"] * 3
    assert "| AssignBatch.read_bytes | 10 | 11 | 0.91 |" in page
    assert "{" not in page


def test_a_run_that_counts_nothing_is_refused(scale: Any, tmp_path: Path) -> None:
    manifest = {"configuration": {}, "stages": [], "sample": {"method": "pareto"}, "runner": "1 process"}
    with pytest.raises(SystemExit, match="systematic"):
        scale.job_of(manifest, tmp_path)
    stages = [{"name": "score", "counters": {}}]
    with pytest.raises(SystemExit, match="stood already"):
        scale.job_of({**manifest, "sample": {"method": "systematic"}, "stages": stages}, tmp_path)
