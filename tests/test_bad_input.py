"""Bad input: what becomes a dead letter, what ends the run, and what only earns a warning."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from corpora import (
    configure,
    dead_letters,
    fixed_lists,
    manifest,
    part_paths,
    points,
    sample,
    select,
    table,
    to_lines,
    write_lines,
    write_parquet,
)

from tithe.cli import main
from tithe.runner import explain_failure
from tithe.transforms.records import BadFileError

pytestmark = pytest.mark.slow  # whole runs

N = 120
SMALL = {"cluster": {"count": 4, "rounds": 1}}
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a selection on corpus/ with sections of the configuration; gives the exit code and what it told."""

    def run(**sections: Any) -> tuple[int, str]:
        sections = {**SMALL, "sample": {"size": 20}, **sections}
        code = select(configure(tmp_path, f"{tmp_path}/corpus/*", **sections), "--quiet")
        told = capsys.readouterr().err
        assert "Traceback" not in told
        return code, told

    return run


# -- rows --------------------------------------------------------------------------------------------------------------


def test_bad_lines_become_dead_letters_and_all_others_go_on(tmp_path: Path, run: Run) -> None:
    good = to_lines(table(N))
    whole = json.loads(good[0])
    longer = json.dumps({**whole, "id": "longer", "note": "x" * 5000})
    bad: dict[bytes, str] = {
        b'{"id": "x", "vector": [1, 2': "not JSON",
        b"[1, 2]": "not an object",
        b'{"id": "\xff", "vector": [1, 2, 3, 4, 5, 6]}': "invalid UTF-8",
        longer.encode(): "record too large",
        json.dumps({**whole, "id": None}).encode(): "missing id",
        json.dumps({**whole, "id": 1.5}).encode(): "id is neither text nor an integer",
        json.dumps({"id": "no vector"}).encode(): "missing vector",
        json.dumps({**whole, "id": "short", "vector": [1.0]}).encode(): "another dimension",
        json.dumps({**whole, "id": "word", "vector": ["a"] * 6}).encode(): "vector is not a list of numbers",
        json.dumps({**whole, "id": "nan", "vector": [float("nan")] * 6}).encode(): "NaN or infinity in vector",
        json.dumps({**whole, "id": "wide", "vector": [1e13] * 6}).encode(): "vector out of range",
    }
    lines = [line.encode() for line in good]
    for i, line in enumerate(bad):
        lines.insert(10 * i, line)
    path = tmp_path / "corpus/a.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"\n".join(lines) + b"\n")
    code, told = run(input={"max_bad_fraction": 0.2, "max_record_bytes": 4000})
    assert code == 0 and f"warning: {len(bad)} bad records left out" in told
    found = manifest(tmp_path / "out")
    assert found["input"]["records"] == N and found["warnings"]
    assert found["dead_letters"] == dict(sorted({reason: 1 for reason in bad.values()}.items()))
    content = path.read_bytes()
    letters = dead_letters(tmp_path / "out")
    assert len(letters) == len(bad)
    for letter in letters:
        line = content[letter["position"] :].split(b"\n")[0]
        assert bad[line] == letter["reason"] and letter["file"] == "a.jsonl"
        assert letter["head"] == line[:1000].decode("utf-8", "replace")


def test_bad_rows_of_parquet(tmp_path: Path, run: Run) -> None:
    values: list[Any] = points(N).astype(np.float64).tolist()
    values[3], values[5], values[7], values[9] = None, [1.0], [np.inf] * 6, [1e300] * 6
    ids: list[Any] = [f"r{i}" for i in range(N)]
    ids[11] = None
    write_parquet(tmp_path / "corpus", table(N, id=ids, vector=pa.array(values, pa.list_(pa.float64()))))
    code, told = run(input={"max_bad_fraction": 0.05})
    assert code == 0 and "5 bad records left out" in told
    assert {letter["position"]: letter["reason"] for letter in dead_letters(tmp_path / "out")} == {
        3: "missing vector",
        5: "another dimension",
        7: "NaN or infinity in vector",
        9: "vector out of range",
        11: "missing id",
    }


def test_a_field_that_is_missing(tmp_path: Path, run: Run) -> None:
    write_parquet(tmp_path / "corpus", table(N))
    code, told = run(embed={"kind": "column", "column": "vectr"})
    assert code == 1 and "'vectr'" in told and "vector" in told
    code, told = run(input={"id": "idd"})
    assert code == 1 and "'idd'" in told
    code, told = run(loss={"kind": "column", "column": "lose"})
    assert code == 1 and "'lose'" in told and "loss" in told


def test_too_many_bad_rows_end_the_run_after_the_dead_letters_are_written(tmp_path: Path, run: Run) -> None:
    lines = [*to_lines(table(N)), *["no"] * 3, *["[]"] * 2, "{}", '{"id": 1.5}']
    write_lines(tmp_path / "corpus/a.jsonl", lines)
    code, told = run()
    assert code == 1
    assert "7 of 127 records are bad, more than input.max_bad_fraction 0.01 allows" in told
    assert "(not JSON: 3; missing vector: 2; not an object: 2)" in told
    assert f"see {tmp_path}/out/dead_letter" in told and "to go on from there: tithe select" in told
    assert len(dead_letters(tmp_path / "out")) == 7
    assert not (tmp_path / "out/manifest.json").exists()
    # Nothing is embedded anew once more of them are allowed.
    assert run(input={"max_bad_fraction": 0.1})[0] == 0


def test_dead_letters_are_those_of_the_last_run(tmp_path: Path, run: Run) -> None:
    write_lines(tmp_path / "corpus/a.jsonl", [*to_lines(table(N)), "no"])
    assert run()[0] == 0
    assert len(dead_letters(tmp_path / "out")) == 1
    write_lines(tmp_path / "corpus/a.jsonl", to_lines(table(N)))
    assert run()[0] == 0
    assert dead_letters(tmp_path / "out") == [] and manifest(tmp_path / "out")["dead_letters"] == {}


# -- files -------------------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


@pytest.mark.parametrize("kind", ["parquet", "gz"])
def test_a_truncated_file(tmp_path: Path, run: Run, kind: str) -> None:
    """It is an error that names the file, or set aside as a whole, though it is the largest."""
    records = table(2 * N)
    corpus = tmp_path / "corpus"
    if kind == "parquet":
        write_parquet(corpus / "good", records.slice(0, N - 20))
        broken = write_parquet(corpus / "broken", records.slice(N - 20)) / "part-0.parquet"
        name = "broken/part-0.parquet"
    else:
        write_lines(corpus / "a.jsonl", to_lines(records.slice(0, N - 20)))
        broken, name = corpus / "b.jsonl.gz", "b.jsonl.gz"
        broken.write_bytes(gzip.compress("\n".join(to_lines(records.slice(N - 20))).encode()))
    truncate(broken)
    config = configure(tmp_path, f"{corpus}/**", **SMALL, sample={"size": 20})
    assert main(["select", config, "--quiet"]) == 1
    assert main(["select", config, "--quiet", "--set", "input.on_bad_file=skip"]) == 0
    found = manifest(tmp_path / "out")
    assert found["input"]["records"] == N - 20
    assert found["dead_letters"] == {"unreadable file": 1}
    [letter] = dead_letters(tmp_path / "out")
    assert letter["file"] == name and letter["position"] is None and "cannot be read" in letter["reason"]


def test_a_file_that_cannot_be_read_in_a_worker_process_is_told_like_any_error() -> None:
    message = "b.jsonl.gz cannot be read to its end: Truncated compressed stream"
    last = f"{BadFileError.__module__}.BadFileError: {message} [while running 'Embed']"
    told = explain_failure(RuntimeError(f"Traceback (most recent call last):\n  ...\n{last}"))
    assert isinstance(told, BadFileError) and str(told) == message


def test_an_unreadable_file_is_named(tmp_path: Path, run: Run) -> None:
    write_parquet(tmp_path / "corpus", table(N))
    (tmp_path / "corpus/part-9.parquet").write_text("hello")
    code, told = run()
    assert code == 1 and "part-9.parquet: cannot be read as Parquet" in told and "input.on_bad_file: skip" in told


def test_no_match_no_good_rows_and_an_empty_file(tmp_path: Path, run: Run) -> None:
    code, told = run()
    assert code == 1 and "corpus/* matches no file" in told
    write_lines(tmp_path / "corpus/a.jsonl", ["no", "[]"])
    code, told = run()
    assert code == 1 and "no good records among 2 (not JSON: 1; not an object: 1)" in told
    (tmp_path / "corpus/a.jsonl").write_text("")
    code, told = run()
    assert code == 1 and "no good records: the files are empty" in told
    write_lines(tmp_path / "corpus/b.jsonl", to_lines(table(N)))
    code, told = run()
    assert (code, told) == (0, "")
    assert manifest(tmp_path / "out")["input"]["records"] == N


def test_vectors_that_are_all_nan_are_said_to_be_so(tmp_path: Path, run: Run) -> None:
    write_parquet(tmp_path / "corpus", table(N, vector=fixed_lists(np.full((N, 6), np.nan))))
    code, told = run()
    assert code == 1 and f"no good records among {N} (NaN or infinity in vector: {N})" in told


def test_an_empty_parquet_file_among_good_ones(tmp_path: Path, run: Run) -> None:
    records = table(N)
    write_parquet(tmp_path / "corpus", records)
    write_parquet(tmp_path / "corpus", records.slice(0, 0)).joinpath("part-0.parquet").rename(
        tmp_path / "corpus/empty.parquet"
    )
    write_parquet(tmp_path / "corpus", records)
    assert run() == (0, "")


# -- ids ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", [1, 2], ids=["in one split", "across splits"])
def test_duplicate_ids_are_named(tmp_path: Path, run: Run, files: int) -> None:
    ids = [f"r{i}" for i in range(N)]
    ids[N - 3] = ids[7]
    write_parquet(tmp_path / "corpus", table(N, id=ids), files=files)
    code, told = run(input={"split_bytes": 1024 if files == 2 else 1 << 20})
    assert code == 1 and "input.id: 'id' is not unique: the same id stands in " in told
    assert "part-0.parquet at 7" in told and f"part-{files - 1}.parquet at {N // files - 3}" in told
    code, again = run(input={"split_bytes": 1024 if files == 2 else 1 << 20})
    assert (code, again) == (1, told)  # the finished embedding does not hide it


# -- numbers that do not fit -------------------------------------------------------------------------------------------


def test_fewer_distinct_vectors_than_clusters(tmp_path: Path, run: Run) -> None:
    write_parquet(tmp_path / "corpus", table(N, vector=fixed_lists(np.repeat(points(3), N // 3, axis=0))))
    code, told = run(cluster={"count": 10, "rounds": 1})
    assert code == 0 and "3 clusters and not 10: there are too few distinct vectors" in told
    assert manifest(tmp_path / "out")["cluster"]["clusters"] == 3


def test_all_vectors_the_same(tmp_path: Path, run: Run) -> None:
    write_parquet(tmp_path / "corpus", table(N, vector=fixed_lists(np.ones((N, 6)))))
    code, told = run()
    assert code == 0 and "1 clusters and not 4" in told
    assert sample(tmp_path / "out")["tithe_weight"].to_pylist() == [N / 20] * 20


def test_a_sample_larger_than_the_corpus(tmp_path: Path, run: Run) -> None:
    write_parquet(tmp_path / "corpus", table(N), files=2)
    code, told = run(sample={"size": 5000}, input={"split_bytes": 1024})
    assert code == 0 and f"is more than the {N} records there are" in told and "with weight 1" in told
    chosen = sample(tmp_path / "out")
    assert chosen["id"].to_pylist() == table(N)["id"].to_pylist()
    assert set(chosen["tithe_weight"].to_pylist()) == {1.0} == set(chosen["tithe_probability"].to_pylist())


def test_one_huge_vector_among_unit_ones(tmp_path: Path, run: Run) -> None:
    """The others are clustered as they would be without it."""
    values = points(N).astype(np.float64)
    values[5, 2] = 1e12
    write_parquet(tmp_path / "corpus", table(N, vector=fixed_lists(values)))
    assert run(sample={"size": N}, cluster={"count": 9, "rounds": 2})[0] == 0
    after = sample(tmp_path / "out")["tithe_distance"].to_numpy()
    assert manifest(tmp_path / "out")["dead_letters"] == {}
    # The modes lie ten apart, and a mode's own points some two.
    assert np.isfinite(after).all() and np.median(np.delete(after, 5)) < 3


def test_a_total_of_0(tmp_path: Path, run: Run) -> None:
    write_parquet(tmp_path / "corpus", table(N, loss=np.zeros(N), vector=fixed_lists(np.ones((N, 6)))))
    plain = {"kind": "plain", "lipschitz": 1.0}
    code, told = run(loss={"kind": "column", "column": "loss", "pilot": 0}, score=plain)
    assert code == 1 and "the total of the proxy is 0" in told and "score.lipschitz" in told


def test_fewer_positive_proxies_than_draws(tmp_path: Path, run: Run) -> None:
    # Eight points, of which one has a loss; without distances only its copies count.
    which = np.arange(N) % 8
    write_parquet(tmp_path / "corpus", table(N, vector=fixed_lists(points(8)[which]), loss=(which == 3).astype(float)))
    loss, plain = {"kind": "column", "column": "loss", "pilot": 0}, {"kind": "plain", "lipschitz": 0.0}
    code, told = run(cluster={"count": 8, "rounds": 2}, loss=loss, score=plain)
    assert code == 0 and f"only {N // 8} records have a positive proxy" in told
    chosen = sample(tmp_path / "out")
    assert len(chosen) == N // 8 and set(chosen["tithe_weight"].to_pylist()) == {1.0}
    assert set(chosen["loss"].to_pylist()) == {1.0}


def test_a_record_that_changed_during_the_run_is_noticed(tmp_path: Path, run: Run) -> None:
    """The embedding stands, the file has other records of the same length now."""
    path = write_lines(tmp_path / "corpus/a.jsonl", to_lines(table(N)))
    assert run()[0] == 0
    for part in part_paths(tmp_path / "out"):
        part.unlink()
    status = path.stat()
    path.write_text(path.read_text().replace('"id": "r', '"id": "s'))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    code, told = run()
    assert code == 1 and "is not the one that was embedded: the file was changed" in told


def test_a_corpus_that_was_moved_is_found_where_it_is(tmp_path: Path, run: Run) -> None:
    """Files are known by their name below the glob, their size and time; where the folder lies does not matter."""
    write_parquet(tmp_path / "corpus", table(N))
    assert run()[0] == 0
    (tmp_path / "corpus").rename(tmp_path / "moved")
    config = configure(tmp_path, f"{tmp_path}/moved/*", **SMALL, sample={"size": 20, "seed": 5})
    assert select(config, "--quiet") == 0
