"""Losses as people have them: none, a column, a file that somebody fills, and a model that fails now and then."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import configure, dead_letters, digest, made, manifest, sample, select, table, write_parquet

from tithe.asking import call_bound
from tithe.transforms import loss_file, losses
from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.kernels.anchors import anchor_dtype
from tithe.transforms.locate import Located
from tithe.transforms.splits import WHOLE, Piece
from tithe.transforms.usercode import UserCode

pytestmark = pytest.mark.slow  # whole runs

N = 240
FEW = {"sample": {"size": 30, "method": "systematic"}}


def anchors_of(output: Path) -> Any:
    """The anchors that the current manifest stands on."""
    [folder] = [stage["folder"] for stage in manifest(output)["stages"] if stage["name"] == "losses"]
    return np.load(output / "work" / folder / "anchors.npy")


# -- none and column ---------------------------------------------------------------------------------------------------


def test_without_losses_all_weights_are_equal_and_nothing_is_asked(tmp_path: Path) -> None:
    write_parquet(tmp_path / "corpus", table(N))
    config = configure(tmp_path, f"{tmp_path}/corpus/*", loss={"kind": "none"}, sample=FEW["sample"])
    assert select(config, "--quiet") == 0
    found, chosen = manifest(tmp_path / "out"), sample(tmp_path / "out")
    np.testing.assert_allclose(chosen["tithe_weight"].to_numpy(), N / 30)
    assert (found["losses"]["model_calls"], found["losses"]["pilot"], found["choice"]) == (0, 0, None)
    # Along the pass, a cluster gets its share of the draws, rounded down or up.
    counts = np.load(next((tmp_path / "out/work").glob("score-*/clusters.npy")))["count"]
    drawn = np.bincount(chosen["tithe_cluster"].to_numpy(), minlength=8)
    np.testing.assert_array_less(np.abs(drawn - counts * 30 / N), 1)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.nulls(40, pa.float64()), "loss.column: no loss for the record part-0.parquet at "),
        (np.full(40, -1.0), "is -1.0; a loss must be a finite number, at least 0"),
        (pa.array(["low"] * 40), "is 'low', which is not a number"),
    ],
    ids=["null", "negative", "text"],
)
def test_a_loss_of_an_anchor_that_cannot_be_used_names_the_record(
    tmp_path: Path, column: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parquet(tmp_path / "corpus", table(40, loss=column))
    loss = {"kind": "column", "column": "loss", "pilot": 20}
    assert select(configure(tmp_path, f"{tmp_path}/corpus/*", loss=loss), "--quiet") == 1
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error


def test_a_corpus_of_one_record_has_a_sample(tmp_path: Path) -> None:
    """Its pilot has no other anchor to be measured by."""
    write_parquet(tmp_path / "corpus", table(1))
    loss = {"kind": "column", "column": "loss"}
    config = configure(tmp_path, f"{tmp_path}/corpus/*", loss=loss, cluster={"count": 1}, sample={"size": 1})
    assert select(config, "--quiet") == 0
    assert sample(tmp_path / "out")["tithe_weight"].to_pylist() == [1]


# -- a file ------------------------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a loss file, whatever its format."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    with path.open(newline="", encoding="utf-8") as file:
        return [json.loads(line) for line in file] if path.suffix == ".jsonl" else list(csv.DictReader(file))


def rewrite(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes a loss file anew, as its user would."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.slow
def test_a_run_waits_for_the_loss_file_and_goes_on_when_it_is_filled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = table(N, text=[f"line\nand line {i}, 'quoted \"{i}\"'" for i in range(N)]).drop_columns("loss")
    write_parquet(tmp_path / "corpus", records)
    truth = table(N)["loss"].to_pylist()
    path = tmp_path / "by hand" / "losses.parquet"
    loss = {"kind": "file", "path": str(path), "pilot": 40}
    config = configure(tmp_path, f"{tmp_path}/corpus/*", loss=loss, **FEW)
    assert select(config, "--quiet") == 3
    error = capsys.readouterr().err
    assert f"waiting for losses: {path} holds 4" in error and "fill it with" in error and "to go on" in error
    assert not (tmp_path / "out/manifest.json").exists()
    rows = rows_of(path)
    by_id = {record["id"]: record for record in records.to_pylist()}
    for row in rows:
        assert list(row) == ["tithe_id", "loss", *records.column_names] and row["loss"] is None
        assert {name: row[name] for name in records.column_names} == by_id[row["id"]]

    content = path.read_bytes()
    assert select(config, "--quiet") == 3 and path.read_bytes() == content
    filled = [{**row, "loss": truth[int(row["id"][1:])]} for row in rows]
    rewrite(path, [*filled[:-1], rows[-1]])
    capsys.readouterr()
    assert select(config, "--quiet") == 1
    assert f"no loss for the record {loss_file.ID} {rows[-1]['tithe_id']} of {path}" in capsys.readouterr().err

    rewrite(path, filled[::-1])  # in any order
    assert select(config, "--quiet") == 0
    found = digest(tmp_path / "out")
    assert manifest(tmp_path / "out")["losses"]["anchors"] == len(rows)
    assert manifest(tmp_path / "out")["losses"]["mean"] == pytest.approx(np.mean([row["loss"] for row in filled]))
    assert select(config, "--quiet") == 0 and digest(tmp_path / "out") == found
    # Other losses are another selection; they need no new clustering.
    rewrite(path, [{**row, "loss": row["loss"] ** 3} for row in filled])
    assert select(config, "--quiet") == 0
    assert made(tmp_path / "out") == {"losses", "sample"} and digest(tmp_path / "out") != found

    capsys.readouterr()
    assert select(config, "--quiet", "--set", "cluster.count=9") == 1
    error = capsys.readouterr().err
    assert f"loss.path: {path} lacks" in error and "remove the file and run again" in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("corpus", "suffix"),
    [
        ("jsonl", ".parquet"),
        ("jsonl", ".csv"),
        ("jsonl", ".jsonl"),
        ("csv", ".csv"),
        ("csv", ".parquet"),
        ("text", ".csv"),
    ],
)
def test_every_format_of_input_passes_through_every_loss_file(tmp_path: Path, corpus: str, suffix: str) -> None:
    words = np.random.default_rng(3).choice(["red", "green", "blue", "black", "white", "one"], (60, 5))
    texts = [" ".join(some) for some in words.tolist()]
    (tmp_path / "corpus").mkdir()
    if corpus == "jsonl":
        odd = {"nested": {"a": [1, None]}, "empty": {}, "long": 10**30, "mixed": None}
        lines = [json.dumps({"text": t, **odd, "mixed": "x" if i % 2 else 3}) for i, t in enumerate(texts)]
        (tmp_path / "corpus/a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    elif corpus == "csv":
        with (tmp_path / "corpus/a.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["text"], *([f"{t}\n\"second\" line, 'and'"] for t in texts)])
    else:
        (tmp_path / "corpus/a.txt").write_text("\n".join(texts))
    path = tmp_path / f"losses{suffix}"
    config = configure(
        tmp_path,
        f"{tmp_path}/corpus/*",
        input={"id": None, "format": corpus},
        embed={"kind": "hashing", "fields": ["text"], "dimension": 16},
        loss={"kind": "file", "path": str(path), "pilot": 20},
        sample={"size": 10},
    )
    assert select(config, "--quiet") == 3
    rows = rows_of(path)
    assert all(row["loss"] in (None, "") and row["text"].split("\n")[0] in texts for row in rows)
    rewrite(path, [{**row, "loss": i / 7} for i, row in enumerate(rows)])
    assert select(config, "--quiet") == 0
    assert manifest(tmp_path / "out")["losses"]["mean"] == pytest.approx((len(rows) - 1) / 14)


def two_anchors() -> Any:
    anchors = np.zeros(2, anchor_dtype(1))
    anchors["hash"] = [10, 11]
    return anchors


A, B, C = f"{10:016x}", f"{11:016x}", f"{12:016x}"


@pytest.mark.parametrize("suffix", loss_file.SUFFIXES)
def test_losses_are_found_by_id(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"l{suffix}"
    rewrite(path, [{"tithe_id": B, "loss": 2.5, "text": "a\nb"}, {"tithe_id": A, "loss": 1.0, "text": '"'}])
    columns = loss_file.read_loss_file(str(path))
    assert loss_file.is_filled(columns)
    assert loss_file.losses_of(columns, two_anchors(), str(path)).tolist() == [1.0, 2.5]


@pytest.mark.parametrize("suffix", loss_file.SUFFIXES)
@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([(A, 1.0)], f"lacks 1 rows (tithe_id {B})"),
        ([(A, 1.0), (B, 1.0), (C, 1.0)], f"has rows that were not asked for: 1 rows (tithe_id {C})"),
        ([(A, 1.0), (B, 1.0), (B, 1.0)], f"repeats 1 rows (tithe_id {B})"),
        ([(A, 1.0), (B, None)], f"no loss for the record tithe_id {B}"),
        ([(A, 1.0), (B, -0.5)], f"tithe_id {B} of PATH is -0.5; a loss must be a finite number, at least 0"),
        ([(A, 1.0), (B, math.nan)], f"tithe_id {B} of PATH is nan; a loss must be"),
        ([(A, 1.0), (B, math.inf)], f"tithe_id {B} of PATH is inf; a loss must be"),
        ([(A, "0.5"), (B, "high")], f"tithe_id {B} of PATH is high, which is not a number"),
    ],
)
def test_rows_of_a_loss_file_that_cannot_be_used_name_themselves(
    tmp_path: Path, suffix: str, rows: list[tuple[str, Any]], told: str
) -> None:
    path = tmp_path / f"l{suffix}"
    rewrite(path, [{"tithe_id": i, "loss": value} for i, value in rows])
    with pytest.raises(InputError) as caught:
        loss_file.losses_of(loss_file.read_loss_file(str(path)), two_anchors(), str(path))
    message = str(caught.value).replace(str(path), "PATH").replace("'", "")
    assert told in message and message.startswith("loss.path: ")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("l.csv", b"tithe_id,value\na,1\n", "has no column 'loss'"),
        ("l.csv", b"", "cannot be read"),
        ("l.csv", b"tithe_id,loss\na,1,2\n", "cannot be read"),
        ("l.jsonl", b"{", "cannot be read"),
        ("l.jsonl", b"[1]\n", "cannot be read"),
        ("l.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_loss_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        loss_file.read_loss_file(str(tmp_path / name))


def test_a_loss_file_needs_a_format_that_can_be_filled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "corpus", table(40))
    loss = {"kind": "file", "path": f"{tmp_path}/losses.txt"}
    assert select(configure(tmp_path, f"{tmp_path}/corpus/*", loss=loss), "--quiet") == 2
    assert f"loss.path: {tmp_path}/losses.txt must end in .parquet, .csv, .jsonl" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("work/*"))
    with pytest.raises(UsageError):
        loss_file.suffix_of("losses")


def test_an_input_that_has_the_columns_of_a_loss_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parquet(tmp_path / "corpus", table(40))
    loss = {"kind": "file", "path": f"{tmp_path}/losses.csv", "pilot": 20}
    assert select(configure(tmp_path, f"{tmp_path}/corpus/*", loss=loss), "--quiet") == 1
    assert "the input has 'loss' already; rename it, or use loss.kind column" in capsys.readouterr().err


# -- a model -----------------------------------------------------------------------------------------------------------

MODEL = """
import json
from pathlib import Path

here = Path({folder!r})

def note(records):
    with (here / "calls").open("a") as file:
        file.writelines(record["id"] + "\\n" for record in records)

def loss(records):
    note(records)
    return [record["loss"] for record in records]

def killed(records):
    "Is stopped in its third batch, for as long as the file `stop` is there."
    note(records)
    if (here / "stop").exists() and len((here / "calls").read_text().split()) > 10:
        return []
    return [record["loss"] for record in records]

def picky(records):
    note(records)
    bad = (here / "bad").read_text().split()
    for record in records:
        if record["id"] in bad:
            raise ValueError("cannot take " + record["id"])
    return [record["loss"] for record in records]

def never(records):
    note(records)
    raise RuntimeError("no such model")
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes a configuration whose losses come from a function of MODEL; pauses take no time."""
    monkeypatch.setattr(losses, "FIRST_PAUSE", 0.0)
    write_parquet(tmp_path / "corpus", table(N))
    (tmp_path / "m.py").write_text(MODEL.format(folder=str(tmp_path)))

    def make(function: str, **keys: Any) -> str:
        loss = {"kind": "model", "function": f"m:{function}", "code": f"{tmp_path}/m.py", "batch": 5, "pilot": 20}
        return configure(tmp_path, f"{tmp_path}/corpus/*", f"{function}.yaml", loss=loss | keys, **FEW)

    return make


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().split() if (folder / "calls").exists() else []


def test_calls_are_bounded_told_counted_and_never_repeated(
    tmp_path: Path, model: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert select(model("loss")) == 0
    captured = capsys.readouterr()
    out = tmp_path / "out"
    asked, found = calls(tmp_path), manifest(out)["losses"]
    assert len(set(asked)) == len(asked) == found["model_calls"] == found["anchors"] <= 28
    bound = call_bound(found["anchors"], None)
    assert f"{found['anchors']} anchors; at most {bound} records are given to the model" in captured.out + captured.err
    first = digest(out)
    # Made again, and of another configuration that needs the same losses: nothing is asked twice.
    assert select(model("loss"), "--quiet", "--redo", "losses") == 0
    assert calls(tmp_path) == asked and digest(out) == first
    assert manifest(out)["losses"]["model_calls"] == 0
    assert select(model("loss", batch=7, pilot=25), "--quiet") == 0
    asked = calls(tmp_path)
    assert len(set(asked)) == len(asked) == manifest(out)["losses"]["anchors"]


def test_a_run_that_was_stopped_asks_nothing_twice(tmp_path: Path, model: Callable[..., str]) -> None:
    (tmp_path / "stop").touch()
    assert select(model("killed"), "--quiet") == 1
    before = calls(tmp_path)
    (tmp_path / "stop").unlink()
    assert select(model("killed"), "--quiet") == 0
    asked = calls(tmp_path)
    assert len(before) == 15  # the answers of the last batch were lost, and only those
    assert sorted(set(asked)) == sorted([*before[:10], *asked[15:]])
    assert len(asked) == manifest(tmp_path / "out")["losses"]["anchors"] + 5


def test_where_the_model_fails_another_record_takes_the_place(tmp_path: Path, model: Callable[..., str]) -> None:
    out = tmp_path / "out"
    assert select(model("loss"), "--quiet") == 0
    before = anchors_of(out)
    representative = before[before["representative"] & ~before["pilot"]][0]
    asked = before[before["pilot"] & ~before["representative"]][0]
    bad = [f"r{row['position']:05d}" for row in (representative, asked)]
    (tmp_path / "bad").write_text("\n".join(bad))
    (tmp_path / "calls").unlink()
    assert select(model("picky", retries=1), "--quiet") == 0
    after, found = anchors_of(out), manifest(out)
    letters = {letter["position"]: letter for letter in dead_letters(out)}
    assert set(letters) == {int(representative["position"]), int(asked["position"])}
    for position, letter in letters.items():
        assert letter["file"] == "part-0.parquet"
        assert letter["reason"] == f"the model failed: ValueError: cannot take r{position:05d}"
    assert (out / "dead_letter/losses.jsonl").exists()
    assert found["losses"]["failed"] == found["dead_letters"]["the model failed"] == 2
    assert any("others took their place" in warning for warning in found["warnings"])
    # Nothing but these two has changed: as many representatives, as large a pilot.
    assert (after["representative"].sum(), after["pilot"].sum()) == (8, 20)
    gone = set(before["position"].tolist()) - set(after["position"].tolist())
    assert gone == {int(representative["position"]), int(asked["position"])}
    assert len(set(calls(tmp_path))) <= call_bound(len(before), None)


def test_where_no_more_calls_are_allowed_nothing_takes_the_place(tmp_path: Path, model: Callable[..., str]) -> None:
    out = tmp_path / "out"
    assert select(model("loss"), "--quiet") == 0
    before = anchors_of(out)
    both = len(before[before["pilot"] & before["representative"]])
    (tmp_path / "bad").write_text("\n".join(f"r{row['position']:05d}" for row in before[: both + 2]))
    assert len(before) + both == 28
    (tmp_path / "calls").unlink()
    assert select(model("picky", retries=0, max_calls=28), "--quiet") == 0
    assert len(set(calls(tmp_path))) <= 28
    found = manifest(out)["losses"]
    assert found["anchors"] + found["failed"] <= 28 and found["failed"] >= both + 2


def test_a_model_that_always_fails_is_one_clear_error(
    tmp_path: Path, model: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert select(model("never"), "--quiet") == 1
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("tithe: to go on")]
    assert len(told) == 1 and "RuntimeError: no such model" in told[0] and "loss.function" in told[0]
    assert not (tmp_path / "out/manifest.json").exists()
    # A batch with its retries, and each record once alone; nothing was asked in the place of a failed one.
    assert len(set(calls(tmp_path))) <= 28 and max(map(calls(tmp_path).count, calls(tmp_path))) <= 5


class Flaky:
    """A model that fails on each of its first calls, and then on some records."""

    def __init__(self, failures: int, bad: tuple[int, ...] = ()) -> None:
        self.failures, self.bad = failures, bad
        self.asked: list[list[int]] = []

    def __call__(self, records: list[dict[str, Any]]) -> list[float]:
        self.asked.append([record["n"] for record in records])
        if len(self.asked) <= self.failures or set(self.asked[-1]) & set(self.bad):
            raise ConnectionError("busy")
        return [record["n"] / 2 for record in records]


Ask = Callable[..., tuple[losses.Answers, list[float], Flaky]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Asks a model for the losses of n records, and gives the answers, the pauses that were made, and the model."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)

    def ask(model: Flaky, n: int, batch: int, retries: int, folder: str = "cache [1]*") -> Any:
        pauses.clear()
        path = tmp_path / f"{n}.jsonl"
        lines = [json.dumps({"n": i}) + "\n" for i in range(n)]
        path.write_text("".join(lines))
        positions = np.cumsum([0, *map(len, lines[:-1])]).astype(np.int64)
        some = Located(Piece(str(path), path.name, *WHOLE), positions, np.arange(n))
        source = losses.ModelLosses(UserCode("a:b", "", "loss.function"), batch, retries, f"{tmp_path}/{folder}")
        monkeypatch.setattr(losses.ModelLosses, "_load", lambda self: model)
        monkeypatch.setattr(losses, "load_once", lambda key, load: load())
        return source.ask(some, losses.Reading("jsonl", 1 << 20)), list(pauses), model

    return ask


def test_a_batch_is_tried_again_after_pauses_that_double(ask: Ask) -> None:
    answers, pauses, model = ask(Flaky(3), 10, 4, 3)
    assert answers.losses.tolist() == [i / 2 for i in range(10)] and not answers.failed and answers.calls == 10
    assert pauses == [1, 2, 4]
    assert model.asked == [[0, 1, 2, 3]] * 4 + [[4, 5, 6, 7], [8, 9]]


def test_of_a_batch_that_keeps_failing_each_record_is_asked_alone(ask: Ask) -> None:
    answers, pauses, model = ask(Flaky(0, bad=(5, 9)), 10, 4, 1)
    assert set(answers.failed) == {5, 9} and answers.failed[5] == "ConnectionError: busy"
    assert np.flatnonzero(np.isnan(answers.losses)).tolist() == [5, 9]
    assert pauses == [1, 1] and answers.calls == 10
    # What is known is not asked again; what failed is.
    again, _, model = ask(Flaky(0), 10, 4, 1)
    assert model.asked == [[5, 9]] and again.calls == 2 and not again.failed


def test_a_model_that_answers_nothing_is_given_up(ask: Ask) -> None:
    model = Flaky(10**6)
    with pytest.raises(InputError, match=r"'a:b' failed on each of the first 32 records of 100.jsonl: ConnectionError"):
        ask(model, 100, 1, 2)
    assert len(model.asked) == 32 + 2  # pauses were made for the first alone
    answers, _, _ = ask(Flaky(10**6), 3, 1, 0, folder="other")
    assert list(answers.failed) == [0, 1, 2]
