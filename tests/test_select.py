"""`tithe select` from files of every kind to a sample: formats, labels, losses, and the same bytes from every
way to run it.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import (
    TITHE_COLUMNS,
    configure,
    digest,
    fixed_lists,
    made,
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

from tithe.transforms.files import match_files

pytestmark = pytest.mark.slow  # whole runs

N = 300


def keys_of(output: Path) -> list[tuple[str, int]]:
    """(file, position) of the sample's rows, in their order."""
    found = sample(output)
    rows = found if isinstance(found, list) else found.to_pylist()
    return [(row["tithe_file"], row["tithe_position"]) for row in rows]


# -- formats -----------------------------------------------------------------------------------------------------------


def test_parquet_keeps_every_column_and_type(tmp_path: Path) -> None:
    records = table(
        N,
        day=pa.array(np.arange(N).astype("datetime64[D]")),
        tags=pa.array([[str(i)] * (i % 3) for i in range(N)]),
        nested=pa.array([{"a": i, "b": None} for i in range(N)], pa.struct([("a", pa.int16()), ("b", pa.string())])),
        kind=pa.array(["x", "y", None] * (N // 3)).dictionary_encode(),
        big=pa.array([10**20 + i for i in range(N)], pa.decimal128(30)),
        half=pa.array(np.arange(N).astype(np.float16)),
    )
    write_parquet(tmp_path / "corpus" / "deep", records, files=3, row_group=40)
    config = configure(tmp_path, f"{tmp_path}/corpus/**/*.parquet", input={"split_bytes": 2048})
    assert select(config, "--quiet") == 0
    chosen = sample(tmp_path / "out")
    assert chosen.column_names == [*records.column_names, *TITHE_COLUMNS]
    for name in records.column_names:
        assert chosen.schema.field(name).type == records.schema.field(name).type, name
    assert [chosen.schema.field(name).type for name in TITHE_COLUMNS] == [
        *(pa.float64(), pa.float64(), pa.int64(), pa.int64(), pa.float64(), pa.float64(), pa.string(), pa.int64())
    ]
    # Every row is the row of the input that it names, and rows lie in the order of file and position.
    places = keys_of(tmp_path / "out")
    assert places == sorted(places) and {file for file, _ in places} == {f"deep/part-{i}.parquet" for i in range(3)}
    expected = [100 * int(file[10]) + position for file, position in places]
    for name in records.column_names:
        assert chosen[name].to_pylist() == records[name].take(expected).to_pylist(), name

    weights, probabilities = chosen["tithe_weight"].to_numpy(), chosen["tithe_probability"].to_numpy()
    np.testing.assert_allclose(weights * probabilities, 1)
    assert chosen["tithe_multiplicity"].to_pylist() == [1] * 40
    clusters = np.load(next((tmp_path / "out/work").glob("cluster-*/representatives.npy")))
    far = np.linalg.norm(
        points(N)[expected].astype(np.float64)
        - points(N)[representative_rows(clusters, records)][chosen["tithe_cluster"].to_numpy()],
        axis=1,
    )
    np.testing.assert_allclose(chosen["tithe_distance"].to_numpy(), far, rtol=1e-5, atol=1e-5)


def representative_rows(representatives: Any, records: Any) -> list[int]:
    """Rows of the corpus that the representatives are: found by vector, since all are distinct."""
    origin = np.median(points(N).astype(np.float64), axis=0)
    gaps = np.linalg.norm(points(N)[None] - origin - representatives["vector"][:, None], axis=2)
    return [int(row) for row in gaps.argmin(1)]


@pytest.fixture(scope="module")
def by_format(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs the selection on the same records in a format, and gives the folder; each format once."""
    base = tmp_path_factory.mktemp("formats")
    records = table(N)
    lines = to_lines(records)

    def run(kind: str) -> Path:
        folder = base / kind
        if folder.exists():
            return folder
        corpus = folder / "corpus"
        if kind == "parquet":
            write_parquet(corpus, records)
        elif kind == "jsonl":
            write_lines(corpus / "a.jsonl", lines)
        else:
            corpus.mkdir(parents=True)
            with gzip.open(corpus / "a.jsonl.gz", "wt") as file:
                file.write("\n".join(lines))  # the last line has no end
        assert select(configure(folder, f"{corpus}/*"), "--quiet") == 0
        return folder

    return run


@pytest.mark.parametrize("kind", ["jsonl", "gz"])
def test_json_lines_give_the_same_sample_as_parquet_and_stay_as_they_were(
    by_format: Callable[[str], Path], kind: str
) -> None:
    folder = by_format(kind)
    assert digest(folder / "out")[0] == digest(by_format("parquet") / "out")[0]
    original = {json.loads(line)["id"]: line for line in to_lines(table(N))}
    for path in part_paths(folder / "out"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            assert list(record) == ["id", "vector", "loss", *TITHE_COLUMNS]
            assert line.startswith(original[record["id"]][:-1] + ", ")
    assert [p for _, p in keys_of(folder / "out")] == sorted(p for _, p in keys_of(folder / "out"))
    if kind == "jsonl":
        content = (folder / "corpus/a.jsonl").read_bytes()
        for record in sample(folder / "out"):
            assert json.loads(content[record["tithe_position"] :].splitlines()[0])["id"] == record["id"]


def texts(n: int) -> list[str]:
    words = ["red", "green", "blue", "black", "white", "one", "two", "three", "four", "five"]
    return [" ".join(np.random.default_rng(i).choice(words, 6)) + f' "quoted", {i}' for i in range(n)]


def test_csv_with_quoted_line_ends_becomes_parquet_of_strings(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    rows = [[f"r{i}", f"{text}\nsecond line", str(i / 7)] for i, text in enumerate(texts(N))]
    with open(tmp_path / "corpus/a.csv", "w", newline="") as file:
        csv.writer(file).writerows([["id", "text", "loss"], *rows])
    embed = {"kind": "hashing", "fields": ["text"], "dimension": 32}
    config = configure(tmp_path, f"{tmp_path}/corpus/*.csv", embed=embed, loss={"kind": "column", "column": "loss"})
    assert select(config, "--quiet") == 0
    chosen = sample(tmp_path / "out")
    assert chosen.column_names == ["id", "text", "loss", *TITHE_COLUMNS]
    assert {chosen.schema.field(name).type for name in ("id", "text", "loss")} == {pa.string()}
    for record in chosen.to_pylist():
        assert [record["id"], record["text"], record["loss"]] == rows[int(record["id"][1:])]


def test_plain_text_is_known_by_file_and_position(tmp_path: Path) -> None:
    lines = texts(N)
    write_lines(tmp_path / "corpus/a.txt", lines[:200])
    write_lines(tmp_path / "corpus/b.txt", [*lines[200:], lines[0]])  # equal records at two places are two records
    embed = {"kind": "hashing", "fields": ["text"], "dimension": 32}
    config = configure(tmp_path, f"{tmp_path}/corpus/*.txt", embed=embed, input={"id": None, "split_bytes": 1024})
    assert select(config, "--quiet") == 0
    assert manifest(tmp_path / "out")["input"]["records"] == N + 1
    chosen = sample(tmp_path / "out")
    assert chosen.column_names == ["text", *TITHE_COLUMNS]
    for record in chosen.to_pylist():
        content = (tmp_path / "corpus" / record["tithe_file"]).read_bytes()[record["tithe_position"] :]
        assert content.split(b"\n")[0].decode() == record["text"]
    assert keys_of(tmp_path / "out") == sorted(keys_of(tmp_path / "out"))


def test_a_column_of_a_name_that_the_sample_adds_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(tmp_path / "corpus/a.jsonl", to_lines(table(60, tithe_weight=np.ones(60))))
    assert select(configure(tmp_path, f"{tmp_path}/corpus/*"), "--quiet") == 1
    assert "the input has 'tithe_weight' already" in capsys.readouterr().err
    assert not (tmp_path / "out/manifest.json").exists()


def test_schemas_that_differ_are_an_error_that_names_both_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parquet(tmp_path / "corpus", table(60))
    write_parquet(tmp_path / "corpus/more", table(60, loss=["x"] * 60))
    assert select(configure(tmp_path, f"{tmp_path}/corpus/**"), "--quiet") == 1
    told = capsys.readouterr().err
    assert "more/part-0.parquet and part-0.parquet have different schemas: field 3 is loss: string" in told


def test_files_of_two_formats_or_of_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "corpus/a.jsonl", ["{}"])
    write_lines(tmp_path / "corpus/b.txt", ["x"])
    assert select(configure(tmp_path, f"{tmp_path}/corpus/*")) == 2
    assert "a.jsonl is jsonl and b.txt is text" in capsys.readouterr().err
    write_lines(tmp_path / "corpus/c.dat", ["x"])
    assert select(configure(tmp_path, f"{tmp_path}/corpus/*.dat")) == 2
    assert "set input.format to parquet, jsonl, csv or text" in capsys.readouterr().err


def test_the_output_may_have_brackets_and_spaces_in_its_path(tmp_path: Path) -> None:
    write_parquet(tmp_path / "corpus", table(60))
    config = configure(tmp_path, f"{tmp_path}/corpus/*", sample={"size": 10}, output={"path": f"{tmp_path}/a [b] *c"})
    out = tmp_path / "a [b] *c"
    assert select(config, "--quiet") == 0
    old = part_paths(out)
    assert select(config, "--quiet", "--set", "sample.seed=5") == 0
    assert [path for path in (out / "sample").iterdir() if path.is_file()] == part_paths(out) != old
    assert all(stage["bytes"] > 0 for stage in manifest(out)["stages"])
    before = (out / "manifest.json").stat().st_mtime_ns
    assert select(config, "--quiet", "--set", "sample.seed=5") == 0
    assert (out / "manifest.json").stat().st_mtime_ns == before


# -- labels ------------------------------------------------------------------------------------------------------------


def clusters_of(output: Path) -> dict[str, int]:
    """The cluster of each record, by id, where the sample is the whole corpus."""
    chosen = sample(output)
    return dict(zip(chosen["id"].to_pylist(), chosen["tithe_cluster"].to_pylist(), strict=True))


def run_labelled(folder: Path, label: Any, embed: dict[str, Any], count: int) -> list[int]:
    """Clusters of 60 records that differ in their label alone."""
    same = np.random.default_rng(3).standard_normal((60, 4)) * 1e-3 + 1
    write_parquet(folder / "corpus", table(60, vector=fixed_lists(same), label=label, text=["the same text"] * 60))
    config = configure(
        folder, f"{folder}/corpus/*", embed=embed, cluster={"count": count, "rounds": 2}, sample={"size": 60}
    )
    assert select(config, "--quiet") == 0
    found = clusters_of(folder / "out")
    return [found[f"r{i:05d}"] for i in range(60)]


def test_records_of_one_class_share_a_cluster(tmp_path: Path) -> None:
    embed = {"kind": "column", "column": "vector", "label": "label", "label_weight": 3.0}
    found = run_labelled(tmp_path, [i % 3 for i in range(60)], embed, 3)
    assert found[:3] * 20 == found and len(set(found)) == 3


def test_records_of_near_numbers_share_a_cluster(tmp_path: Path) -> None:
    numbers = np.repeat([0.0, 10.0, 1000.0], 20) + np.tile(np.arange(20) / 1000, 3)
    embed = {"kind": "column", "column": "vector", "label": "label", "label_kind": "number", "label_weight": 10.0}
    found = run_labelled(tmp_path, numbers, embed, 2)
    assert found == [found[0]] * 40 + [found[59]] * 20 and found[0] != found[59]


def test_records_of_like_texts_share_a_cluster(tmp_path: Path) -> None:
    embed: dict[str, Any] = {"kind": "hashing", "fields": ["text"], "dimension": 64}
    embed |= {"label": "label", "label_kind": "text"}
    said = ["the same text", "the same word"] * 30
    write_parquet(tmp_path / "corpus", table(60, text=said, label=["an answer"] * 30 + ["other words"] * 30))
    embed |= {"label_weight": 5.0}
    config = configure(tmp_path, f"{tmp_path}/corpus/*", embed=embed, cluster={"count": 2}, sample={"size": 60})
    assert select(config, "--quiet") == 0
    found = clusters_of(tmp_path / "out")
    assert [found[f"r{i:05d}"] for i in range(60)] == [found["r00000"]] * 30 + [found["r00059"]] * 30
    assert found["r00000"] != found["r00059"]


def test_a_record_without_its_label_is_a_dead_letter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "corpus", table(120, label=[None if i == 7 else "ab"[i % 2] for i in range(120)]))
    embed = {"kind": "column", "column": "vector", "label": "label"}
    assert select(configure(tmp_path, f"{tmp_path}/corpus/*", embed=embed), "--quiet") == 0
    assert manifest(tmp_path / "out")["dead_letters"] == {"missing field 'label'": 1}
    assert "1 bad records left out (missing field 'label': 1)" in capsys.readouterr().err


# -- losses ------------------------------------------------------------------------------------------------------------

LOSSES = """
import json, os

def note(records):
    with open(os.environ["TITHE_TEST_CALLS"], "a") as file:
        file.writelines(record["id"] + "\\n" for record in records)

def loss(records):
    note(records)
    return [record["loss"] for record in records]

class Handler:
    def load_model(self):
        return 1.0

    def run_inference(self, batch, model, inference_args=None):
        note(batch)
        return [record["loss"] * model for record in batch]

handler = Handler()

def broken(answer):
    return lambda records: [answer if record["id"] == "r00007" else 1.0 for record in records]

negative, nan, infinite = broken(-0.5), broken(float("nan")), broken(float("inf"))
missing, word = broken(None), broken("high")

def too_few(records):
    return [1.0] * (len(records) - 1)
"""


@pytest.mark.slow
def test_every_source_of_losses_gives_the_same_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column, a function, a handler object and class, an installed module; each model is given exactly the
    representatives, once.
    """
    write_parquet(tmp_path / "corpus", table(N))
    (tmp_path / "losses.py").write_text(LOSSES)
    monkeypatch.setenv("TITHE_TEST_CALLS", f"{tmp_path}/calls")
    (tmp_path / "installed_losses.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(tmp_path)
    out, plain = tmp_path / "out", {"kind": "plain"}  # without a pilot
    loss: dict[str, Any] = {"kind": "column", "column": "loss", "pilot": 0}
    column = configure(tmp_path, f"{tmp_path}/corpus/*", "column.yaml", loss=loss, score=plain)
    assert select(column, "--quiet") == 0
    expected = digest(out)
    told = manifest(out)["losses"]
    assert (told["model_calls"], told["anchors"]) == (0, 8) and told["largest"] > told["mean"] > 0
    representatives = np.load(next((out / "work").glob("cluster-*/representatives.npy")))
    ids = sorted(f"r{position:05d}" for position in representatives["position"])
    for name in ("losses:loss", "losses:handler", "losses:Handler", "installed_losses:handler"):
        loss = {"kind": "model", "function": name, "batch": 3, "pilot": 0}
        loss |= {"code": f"{tmp_path}/losses.py"} if name.startswith("losses") else {}
        assert select(configure(tmp_path, f"{tmp_path}/corpus/*", "model.yaml", loss=loss, score=plain), "--quiet") == 0
        assert digest(out)[0] == expected[0], name
        assert manifest(out)["losses"]["model_calls"] == 8
        assert sorted((tmp_path / "calls").read_text().split()) == ids
        (tmp_path / "calls").unlink()
    # The losses decide: without them another sample is drawn.
    assert select(configure(tmp_path, f"{tmp_path}/corpus/*", "constant.yaml"), "--quiet") == 0
    assert digest(out) != expected and manifest(out)["losses"]["mean"] == 1


def test_multinomial_draws_with_repeats(by_format: Callable[[str], Path], tmp_path: Path) -> None:
    folder = by_format("parquet")  # whose stages serve
    draw = {"size": N - 1, "method": "multinomial"}
    output = {"path": f"{tmp_path}/out", "work": f"{folder}/out/work"}
    mark = folder / "out/work/.tithe"
    mark.touch()
    assert select(configure(tmp_path, f"{folder}/corpus/*", sample=draw, output=output), "--quiet") == 0
    mark.unlink()
    assert made(tmp_path / "out") == {"sample"}
    chosen = sample(tmp_path / "out")
    times, weights = chosen["tithe_multiplicity"].to_numpy(), chosen["tithe_weight"].to_numpy()
    assert times.sum() == N - 1 == manifest(tmp_path / "out")["sample"]["draws"]
    assert len(chosen) < N - 1 and times.max() > 1
    np.testing.assert_allclose(weights * chosen["tithe_probability"].to_numpy(), times)


@pytest.fixture(scope="module")
def every_record_a_cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished selection in which every record is a representative."""
    folder = tmp_path_factory.mktemp("broken losses")
    write_parquet(folder / "corpus", table(20))
    (folder / "losses.py").write_text(LOSSES)
    assert select(configure(folder, f"{folder}/corpus/*", cluster={"count": 20}, sample={"size": 5}), "--quiet") == 0
    return folder


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("negative", "part-0.parquet at 7 is -0.5; a loss must be"),
        ("nan", "part-0.parquet at 7 is nan"),
        ("infinite", "part-0.parquet at 7 is inf"),
        ("missing", "no loss for the record part-0.parquet at 7"),
        ("word", "part-0.parquet at 7 is 'high'"),
        ("too_few", "gave 19 losses for 20 records (the first: part-0.parquet at 0)"),
        ("nothing", "'losses' has no 'nothing'"),
    ],
)
def test_losses_that_cannot_be_used_name_the_record(
    every_record_a_cluster: Path, name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = every_record_a_cluster
    before = digest(folder / "out")
    loss = {"kind": "model", "function": f"losses:{name}", "code": f"{folder}/losses.py", "retries": 0}
    config = configure(
        folder, f"{folder}/corpus/*", f"{name}.yaml", cluster={"count": 20}, sample={"size": 5}, loss=loss
    )
    assert select(config, "--quiet") == (2 if name == "nothing" else 1)
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error and "loss.function" in error
    assert digest(folder / "out") == before


def test_a_redone_stage_takes_those_that_follow_from_it_along(tmp_path: Path) -> None:
    """The losses come from outside: what they were cannot be seen from the configuration."""
    write_parquet(tmp_path / "corpus", table(N))
    (tmp_path / "losses.py").write_text(
        f"import pathlib\n\ndef loss(records):\n    level = float(pathlib.Path({str(tmp_path)!r}, "
        "'level').read_text())\n"
        "    return [record['loss'] ** level for record in records]\n"
    )
    loss = {"kind": "model", "function": "losses:loss", "code": f"{tmp_path}/losses.py"}
    configure(tmp_path, f"{tmp_path}/corpus/*", loss=loss)
    command = [sys.executable, "-m", "tithe", "select", f"{tmp_path}/c.yaml", "--quiet"]
    (tmp_path / "level").write_text("1")
    subprocess.run(command, check=True, timeout=120)
    first = digest(tmp_path / "out")
    (tmp_path / "level").write_text("4")
    # Its answers are kept, so that none is asked twice.
    [cache] = (tmp_path / "out/work").glob("loss-cache-*")
    shutil.rmtree(cache)
    subprocess.run([*command, "--redo", "losses"], check=True, timeout=120)
    assert digest(tmp_path / "out") != first


# -- the same everywhere -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_bytes_in_one_and_several_processes_and_in_1_and_5_files(tmp_path: Path) -> None:
    records = table(1500, d=12)
    one, five = (
        write_parquet(tmp_path / "one", records),
        write_parquet(tmp_path / "five", records, files=5, row_group=77),
    )
    found: dict[str, Any] = {}
    multinomial: dict[str, str] = {}
    for name, corpus, split_bytes, beam in [
        ("threads", five, 8192, []),
        ("processes", five, 8192, ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]),
        ("one file", one, 1 << 20, ["--direct_num_workers=1"]),
    ]:
        folder = tmp_path / name
        folder.mkdir()
        sections: dict[str, Any] = {"cluster": {"count": 25, "rounds": 2}, "loss": {"kind": "column", "column": "loss"}}
        config = configure(folder, f"{corpus}/*", input={"split_bytes": split_bytes}, sample={"size": 150}, **sections)
        assert select(config, "--quiet", "--", *beam) == 0
        found[name] = digest(folder / "out")
        assert ("2 worker processes" in manifest(folder / "out")["runner"]) == (name == "processes")
        if name != "processes":
            columns = [c for c in sample(folder / "out").column_names if c not in ("tithe_file", "tithe_position")]
            found[f"rows of {name}"] = sample(folder / "out").select(columns).sort_by("id")
            assert select(config, "--quiet", "--set", "sample.method=multinomial", "--", *beam) == 0
            multinomial[name] = digest(folder / "out")[0]
    assert found["rows of one file"].equals(found["rows of threads"])
    assert found["threads"] == found["processes"]
    assert found["one file"][0] == found["threads"][0]
    assert multinomial["one file"] == multinomial["threads"]


def test_the_manifest_says_how_the_sample_was_made(by_format: Callable[[str], Path]) -> None:
    folder = by_format("parquet")
    found = manifest(folder / "out")
    [file] = match_files([f"{folder}/corpus/*"])
    assert found["input"]["files"] == [{"name": file.name, "bytes": file.size, "modified": file.modified}]
    assert (found["input"]["records"], found["input"]["dimension"]) == (N, 6)
    assert {"tithe", "python", "platform", "apache-beam", "numpy"} <= set(found["versions"])
    assert found["configuration"]["cluster"] == {"count": 8, "rounds": 1, "batch": 0.1, "seed": 1}
    assert found["cluster"]["clusters"] == 8 == found["losses"]["anchors"]
    assert 0 < found["cluster"]["cost_of_means"]["cost"] <= found["cluster"]["cost_of_anchors"]["cost"]
    assert found["cluster"]["cost_of_anchors"]["records"] == N
    assert [stage["name"] for stage in found["stages"]] == ["plan", "embed", "cluster", "losses", "score", "sample"]
    assert all(stage["bytes"] > 0 and stage["seconds"] >= 0 for stage in found["stages"])
    chosen = sample(folder / "out")
    weights = chosen["tithe_weight"].to_numpy()
    assert found["sample"]["records"] == len(chosen) == 40
    assert found["sample"]["sum_of_weights"] == pytest.approx(weights.sum())
    assert abs(weights.sum() - N) < 5 * found["sample"]["sum_of_weights_standard_error"]
    assert found["proxy"]["total"] == pytest.approx(2 * N)  # losses of 1, and as much again from the distances
    for part in found["sample"]["parts"]:
        content = (folder / "out" / part["name"]).read_bytes()
        assert (part["bytes"], part["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert part["rows"] == pq.read_metadata(folder / "out" / part["name"]).num_rows
