"""`tithe estimate`: totals and means of columns and loss files from a sample."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import configure, manifest, sample, select, table, to_lines, write_lines, write_parquet

from tithe.cli import main
from tithe.estimate import estimate_from

pytestmark = pytest.mark.slow  # whole runs

N = 600


def corpus() -> Any:
    values = np.arange(N) % 7 + 1.0
    return table(N, words=np.arange(N) % 5, twice=2 * values, name=[f"n{i}" for i in range(N)], value=values)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Draws from the corpus by a method, with the ids of a field or none; each once."""
    base = tmp_path_factory.mktemp("estimate")
    made: dict[tuple[str, str | None, str], Path] = {}

    def draw(method: str = "systematic", id_field: str | None = "id", suffix: str = "parquet", size: int = 150) -> Path:
        key = (f"{method}{size}", id_field, suffix)
        if key not in made:
            folder = base / f"{len(made)}"
            if suffix == "parquet":
                write_parquet(folder / "corpus", corpus(), files=2)
            else:
                write_lines(folder / "corpus" / "a.jsonl", to_lines(corpus()))
            loss = {"kind": "column", "column": "value"}
            sizes = {"size": size, "method": method}
            files = f"{folder}/corpus/*"
            assert select(configure(folder, files, input={"id": id_field}, loss=loss, sample=sizes), "--quiet") == 0
            made[key] = folder / "out"
        return made[key]

    return draw


@pytest.mark.parametrize("method", ["systematic", "pareto", "multinomial", "poisson"])
def test_the_total_of_a_column(run: Callable[..., Path], method: str) -> None:
    out = run(method)
    found = estimate_from(str(out), "value")
    truth = float(np.sum(np.arange(N) % 7 + 1.0))
    total, mean = found["total"], found["mean"]
    assert total["low"] < total["estimate"] < total["high"]
    assert abs(total["estimate"] - truth) < 4 * total["standard_error"]
    assert mean["estimate"] == pytest.approx(total["estimate"] / N)
    assert (found["corpus_records"], found["method"]) == (N, method)
    # Twice the value has twice the total and twice the error.
    double = estimate_from(str(out), "twice")["total"]
    assert double["estimate"] == pytest.approx(2 * total["estimate"])
    assert double["standard_error"] == pytest.approx(2 * total["standard_error"])


def test_the_proxy_itself_is_known_without_error(run: Callable[..., Path]) -> None:
    out = run("systematic")
    found = estimate_from(str(out), "tithe_proxy")
    total = manifest(out)["proxy"]["total"]
    assert found["total"]["estimate"] == pytest.approx(total, rel=1e-9)
    assert found["total"]["standard_error"] < 1e-6 * total


def test_a_sample_of_everything_has_no_error(run: Callable[..., Path]) -> None:
    for method in ("multinomial", "systematic"):
        found = estimate_from(str(run(method, size=N)), "words")
        assert found["total"] == {"estimate": 1200.0, "standard_error": 0.0, "low": 1200.0, "high": 1200.0}


def test_json_lines_and_the_command(run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    lines, parquet = run("systematic", suffix="jsonl"), run("systematic")
    assert main(["estimate", str(lines), "--losses", "value", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    second = estimate_from(str(parquet), "value")
    assert first["total"]["estimate"] == pytest.approx(second["total"]["estimate"])
    assert main(["estimate", str(lines), "--losses", "value"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("value over 600 records, estimated from 150 of them (systematic)\n  total  2,3")
    assert "95% interval" in told and "+-" in told


def rows_of(out: Path, keys: list[str]) -> list[dict[str, Any]]:
    """The ids of the sample and its values, in another order."""
    found = sample(out)
    rows = found if isinstance(found, list) else found.to_pylist()
    return [{**{key: row[key] for key in keys}, "loss": row["value"]} for row in rows][::-1]


def write_file(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        write_lines(path, [json.dumps(row) for row in rows])
    return str(path)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("id_field", ["id", None])
def test_a_loss_file_gives_what_the_column_gives(
    run: Callable[..., Path], tmp_path: Path, suffix: str, id_field: str | None
) -> None:
    out = run("systematic", id_field)
    keys = [id_field] if id_field else ["tithe_file", "tithe_position"]
    path = write_file(tmp_path / f"losses.{suffix}", rows_of(out, keys))
    assert estimate_from(str(out), path)["total"] == estimate_from(str(out), "value")["total"]


def test_another_column_of_the_file(run: Callable[..., Path], tmp_path: Path) -> None:
    out = run()
    rows = [{"id": row["id"], "norm": row["loss"]} for row in rows_of(out, ["id"])]
    path = write_file(tmp_path / "norms.csv", rows)
    assert estimate_from(str(out), path, "norm")["total"] == estimate_from(str(out), "value")["total"]


def broken(run: Callable[..., Path], tmp_path: Path, change: Callable[[list[dict[str, Any]]], None]) -> list[str]:
    rows = rows_of(run(), ["id"])
    change(rows)
    return [str(run()), "--losses", write_file(tmp_path / "losses.jsonl", rows)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows.pop(), "lacks 1 records (id r"),
        (
            lambda rows: rows.append({"id": "r99999", "loss": 1}),
            "has, though they are not in the sample, 1 records (id r99999)",
        ),
        (lambda rows: rows.append(rows[0]), "repeats 1 records (id r"),
        (lambda rows: rows[3].update(loss=None), "has no value"),
        (lambda rows: rows[3].update(loss="high"), "has 'high', which is not a finite number"),
        (lambda rows: rows[3].update(loss=float("nan")), "has 'nan', which is not a finite number"),
        (lambda rows: [row.update(los=row.pop("loss")) for row in rows], "has no column 'loss'; did you mean 'los'?"),
    ],
    ids=["missing", "extra", "repeated", "null", "text", "nan", "column"],
)
def test_files_that_do_not_fit(
    run: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[dict[str, Any]]], None],
    told: str,
) -> None:
    assert main(["estimate", *broken(run, tmp_path, change)]) in (1, 2)
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("valu", "has no column 'valu'; did you mean 'value'?"),
        ("name", "the record r"),
        ("vector", "which is not a finite number"),
        ("nothing.csv", "nothing.csv: no such file"),
    ],
)
def test_columns_that_cannot_be_used(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str], column: str, told: str
) -> None:
    assert main(["estimate", str(run()), "--losses", column]) in (1, 2)
    assert told in capsys.readouterr().err


def test_no_sample_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", str(tmp_path), "--losses", "x"]) == 2
    assert "has no manifest.json" in capsys.readouterr().err
