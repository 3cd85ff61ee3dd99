"""The systematic draw over a corpus in splits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tithe.beam_options import parse_beam_options
from tithe.runner import run_pipeline
from tithe.transforms import systematic as steps
from tithe.transforms import vectors
from tithe.transforms.draw import CHOSEN, TotalProxies, gather_draws
from tithe.transforms.kernels import hashing, systematic
from tithe.transforms.score import score_dtype
from tithe.transforms.splits import Split
from tithe.transforms.systematic import DrawSystematic, SystematicTask

pytestmark = pytest.mark.slow  # whole runs

PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
PORTABLE = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")


@dataclass
class Corpus:
    """Scored records in no file: ids, cluster, squared distance; and the loss of each cluster."""

    ids: NDArray[np.int64]
    cluster: NDArray[np.int64]
    squared: NDArray[np.float32]
    losses: NDArray[np.float64]

    @property
    def proxy(self) -> NDArray[np.float64]:
        proxy: NDArray[np.float64] = self.losses[self.cluster] + 0.5 * self.squared.astype(np.float64)
        return proxy


def corpus(n: int, k: int = 20, seed: int = 1) -> Corpus:
    """Heavy losses with ties, a cluster of loss 0 that holds duplicates of its anchor, and two giants."""
    rng = np.random.default_rng(seed)
    cluster, squared = rng.integers(0, k, n), rng.gamma(1, 1, n).astype(np.float32)
    losses = np.round(rng.lognormal(0, 1, k), 1)
    losses[3] = 0
    squared[(cluster == 3) & (rng.random(n) < 0.5)] = 0
    squared[:2] = 50 * n
    return Corpus(np.arange(n), cluster, squared, losses)


def write_folders(folder: Path, some: Corpus, bounds: list[list[int]]) -> Path:
    """Writes vectors/ and scores/ with a split for each list of row numbers, a part between any two; and the plan."""
    hashes = hashing.hash_integers(some.ids)
    for number, cuts in enumerate(bounds):
        parts = [np.arange(low, high) for low, high in itertools.pairwise(cuts)]
        for i, part in enumerate(parts):
            part = part[np.argsort(hashes[part])]
            rows, scores = np.zeros(len(part), vectors.ROW), np.zeros(len(part), score_dtype(1))
            rows["hash"], rows["position"] = hashes[part], some.ids[part]
            scores["anchor"][:, 0], scores["squared"][:, 0] = some.cluster[part], some.squared[part]
            key = f"split-{number}"
            vectors.write_array(f"{vectors.part_stem(f'{folder}/vectors/{key}', i)}.rows.npy", rows)
            vectors.write_array(f"{vectors.part_stem(f'{folder}/scores/{key}', i)}.scores.npy", scores)
        vectors.write_json(vectors.done_path(f"{folder}/vectors/split-{number}"), {"parts": [len(p) for p in parts]})
    plan = "".join(Split(f"split-{number}", ()).to_json() + "\n" for number in range(len(bounds)))
    (folder / "plan.jsonl").write_text(plan)
    vectors.write_array(f"{folder}/losses.npy", some.losses)
    vectors.write_array(f"{folder}/order.npy", systematic.loss_order(some.losses))
    return folder


def evenly(n: int, splits: int) -> list[list[int]]:
    """Bounds of so many splits of two parts each."""
    cuts = [i * n // (2 * splits) for i in range(2 * splits + 1)]
    return [cuts[2 * i : 2 * i + 3] for i in range(splits)]


@dataclass(frozen=True)
class Reader:
    """Reads the proxies of a corpus as written, or equal ones."""

    folder: str
    equal: bool

    def read(self, key: str) -> Iterator[tuple[NDArray[np.void], NDArray[np.void]]]:
        for part, scores in self.scores(key):
            yield vectors.read_array(f"{part.stem}.rows.npy"), scores

    def scores(self, key: str) -> Iterator[tuple[vectors.Part, NDArray[np.void]]]:
        for i, part in enumerate(vectors.parts_of(f"{self.folder}/vectors/{key}")):
            yield part, vectors.read_array(f"{vectors.part_stem(f'{self.folder}/scores/{key}', i)}.scores.npy")

    def proxy(self, scores: NDArray[np.void]) -> NDArray[np.float64]:
        losses = vectors.read_array(f"{self.folder}/losses.npy")
        proxy: NDArray[np.float64] = losses[scores["anchor"][:, 0]] + 0.5 * scores["squared"][:, 0].astype(np.float64)
        return np.ones(len(proxy)) if self.equal else proxy


def run_draw(
    folder: Path, size: int, seed: int, options: tuple[str, ...] = (), equal: bool = False
) -> tuple[NDArray[np.void], dict[str, Any], dict[str, int]]:
    """Returns the drawn records, their facts, and the counters of the draw."""
    run = parse_beam_options(options)
    reader: Any = Reader(str(folder), equal)
    plan, totals_path = f"{folder}/plan.jsonl", f"{folder}/totals.json"
    total = TotalProxies(plan, reader, size, totals_path, run.threads)
    run_pipeline(lambda pipeline: pipeline | total, run, name="total")
    totals = vectors.read_json(totals_path)
    largest = vectors.read_array(totals_path.replace(".json", ".npy"))
    scale = systematic.mass_scale(int(totals["total"], 16), largest, totals["positive"], size)
    task = SystematicTask(reader, f"{folder}/order.npy", scale, seed, str(folder))
    draw = DrawSystematic(plan, task, f"{folder}/chosen.npy", run.threads)
    counters = run_pipeline(lambda pipeline: pipeline | draw, run, name="draw")
    return vectors.read_array(f"{folder}/chosen.npy"), vectors.read_json(f"{folder}/chosen.json"), counters


def plain_draw(some: Corpus, proxy: list[float], size: int, seed: int) -> dict[int, tuple[int, float]]:
    """The draw in plain Python's integers: id -> (number of its point or -1, inclusion probability)."""
    exact = [int(Fraction(p) * 2**1074) for p in proxy]
    left, rest, out = size, sum(exact), {}
    masses = dict(enumerate(exact))
    for i in sorted(masses, key=lambda i: -exact[i]):
        if not left or exact[i] * left < rest or not exact[i]:
            break
        out[int(some.ids[i])] = (-1, 1.0)
        left, rest = left - 1, rest - masses.pop(i)
    # On a power-of-two scale, rounded up; not above the largest, rounded down.
    shift = rest.bit_length() - 61
    cap = max(masses.values()) >> shift
    masses = {i: min(cap, -(-m >> shift)) for i, m in masses.items()}
    total = sum(masses.values())
    hashes = hashing.role_hash(hashing.hash_integers(some.ids), seed, "draw").tolist()
    losses, cluster = some.losses.tolist(), some.cluster.tolist()
    start = (hashing.role_key(seed, "start") * total) >> 64
    points = [(start + j * total) // left for j in range(left)]
    at = number = 0
    for i in sorted(masses, key=lambda i: (losses[cluster[i]], cluster[i], hashes[i])):
        if number < left and points[number] < at + masses[i]:
            out[int(some.ids[i])] = (number, masses[i] * left / total)
            number += 1
            assert number == left or points[number] >= at + masses[i]
        at += masses[i]
    return out


def drawn(rows: NDArray[np.void]) -> dict[int, tuple[int, float]]:
    """id -> (order, inclusion probability)."""
    ids, order, expected = (rows[name].tolist() for name in ("position", "order", "expected"))
    return {i: (j, p) for i, j, p in zip(ids, order, expected, strict=True)}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="memory"),
        pytest.param(PROCESSES, id="processes", marks=pytest.mark.slow),
        pytest.param(PORTABLE, id="portable"),
    ],
)
def test_the_pass_over_splits_is_the_pass_in_python(tmp_path: Path, options: tuple[str, ...]) -> None:
    some, size, seed = corpus(5000), 50, 7
    rows, facts, _ = run_draw(write_folders(tmp_path, some, evenly(5000, 3)), size, seed, options)
    assert drawn(rows) == plain_draw(some, some.proxy.tolist(), size, seed)
    assert rows.dtype == CHOSEN and len(rows) == size and np.array_equal(rows, gather_draws(rows))
    assert np.all(rows["multiplicity"] == 1)
    assert np.array_equal(rows["hash"], hashing.hash_integers(rows["position"]))
    assert np.array_equal(rows["cluster"], some.cluster[rows["position"]])
    assert np.array_equal(rows["proxy"], some.proxy[rows["position"]])
    assert np.array_equal(rows["squared"], some.squared[rows["position"]])
    assert (facts["records"], facts["draws"], facts["certain"]) == (size, size, 2)
    assert sorted(rows["order"].tolist()) == [-1, -1, *range(size - 2)]


@pytest.mark.parametrize("equal", [False, True], ids=["proxies", "equal"])
def test_the_division_into_splits_changes_nothing(tmp_path: Path, equal: bool) -> None:
    some, size = corpus(3000, k=7), 200
    proxy = [1.0] * 3000 if equal else some.proxy.tolist()
    expected = plain_draw(some, proxy, size, 3)
    digests = set()
    divisions = [[[0, 3000]], evenly(3000, 5), [[0, 0, 1], [1, 1], [1, 2999, 3000]]]
    for i, bounds in enumerate(divisions):
        rows, facts, _ = run_draw(write_folders(tmp_path / str(i), some, bounds), size, 3, equal=equal)
        assert drawn(rows) == expected
        digests.add(facts["sample_digest"])
    assert len(digests) == 1


def test_each_cluster_has_its_share(tmp_path: Path) -> None:
    some, size = corpus(4000, k=9), 300
    rows, _, _ = run_draw(write_folders(tmp_path, some, evenly(4000, 2)), size, 5, equal=True)
    share = size * np.bincount(some.cluster, minlength=9) / 4000
    found = np.bincount(rows["cluster"], minlength=9)
    assert np.all((np.floor(share) <= found) & (found <= np.ceil(share)))
    assert np.all(rows["expected"] == size / 4000)
    # Along the pass the clusters follow each other, and hashes inside each.
    rows = rows[np.argsort(rows["order"])]
    ranks = systematic.loss_order(some.losses)[rows["cluster"]]
    assert np.all(np.diff(ranks) >= 0)
    hashes = hashing.role_hash(rows["hash"], 5, "draw")
    assert np.all((np.diff(ranks) > 0) | (hashes[1:] > hashes[:-1]))


def test_few_rows_are_gathered(tmp_path: Path) -> None:
    n = 40_000
    some = corpus(n, k=100)
    rows, _, counters = run_draw(write_folders(tmp_path, some, evenly(n, 4)), n // 100, 1)
    assert len(rows) == n // 100
    assert n // 100 - 2 <= counters["gathered_rows"] <= n // 20
    assert counters["gathered_bytes"] == CHOSEN.itemsize * counters["gathered_rows"]
    assert counters["cell_bytes"] == 16 * counters["cell_rows"] <= 16 * n


def test_a_sample_larger_than_a_key_of_cells(tmp_path: Path) -> None:
    some, size = corpus(20_000, k=4), 5000
    rows, _, _ = run_draw(write_folders(tmp_path, some, evenly(20_000, 2)), size, 2)
    assert drawn(rows) == plain_draw(some, some.proxy.tolist(), size, 2)


def test_fewer_positive_records_than_the_size(tmp_path: Path) -> None:
    some = corpus(300)
    some.losses[:] = 0
    some.squared[5:] = 0
    rows, facts, _ = run_draw(write_folders(tmp_path, some, evenly(300, 2)), 20, 1)
    assert rows["position"].tolist() == [0, 1, 2, 3, 4]
    assert set(rows["expected"].tolist()) == {1.0} and set(rows["order"].tolist()) == {-1}
    assert (facts["records"], facts["certain"], facts["sum_of_weights"]) == (5, 5, 5.0)


def test_no_positive_record_gives_an_empty_file(tmp_path: Path) -> None:
    some = corpus(100)
    some.losses[:], some.squared[:] = 0, 0
    rows, facts, _ = run_draw(write_folders(tmp_path, some, evenly(100, 2)), 20, 1)
    assert len(rows) == 0 and facts["records"] == 0


def test_one_record_holds_nearly_all(tmp_path: Path) -> None:
    some = corpus(500)
    some.squared[7] = 3e38
    rows, _, _ = run_draw(write_folders(tmp_path, some, evenly(500, 2)), 10, 4)
    assert drawn(rows) == plain_draw(some, some.proxy.tolist(), 10, 4)
    assert drawn(rows)[7] == (-1, 1.0)


def test_masses_wait_for_each_other_and_are_then_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "WAITING_MASSES", 10)
    combine = steps.CombineMasses()
    accumulator = combine.create_accumulator()
    held = []
    for i in range(9):
        some = np.array([(cell, 1) for cell in range(i, i + 4)], steps.MASS)
        accumulator = combine.add_input(accumulator, some)
        held.append(sum(map(len, accumulator[0])))
    assert held == [4, 8, 6, 10, 8, 12, 16, 11, 15]
    found = combine.extract_output(accumulator)
    assert found["cell"].tolist() == list(range(12)) and found["mass"].sum() == 36
