"""Reading chosen records again, and writing them as a part of the sample."""

import csv
import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tithe.transforms.errors import InputError
from tithe.transforms.fetch import chosen_records, read_chosen, split_chosen
from tithe.transforms.files import InputFile
from tithe.transforms.records import BadFileError, read_split
from tithe.transforms.sample_part import write_sample_part
from tithe.transforms.splits import plan_splits

MAX = 300_000


def positions(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(values, np.int64)


def all_records(path: Path, format: str) -> dict[int, dict[str, Any]]:
    splits, _, _ = plan_splits([InputFile(str(path), path.name, path.stat().st_size, 1.0)], format, 5000, "error")
    batches = [batch for split in splits for batch in read_split(split, format, None, MAX)]
    return {p: r for b in batches for p, r in zip(b.positions.tolist(), b.records(), strict=True)}


def corpus(folder: Path, name: str) -> tuple[Path, str]:
    """500 records, some long, in the format that the name tells."""
    path = folder / name
    rng = np.random.default_rng(3)
    rows = [{"i": i, "s": "ä\n" * int(rng.integers(0, 60)) + "x" * (200_000 if i == 250 else 1)} for i in range(500)]
    if "csv" in name:
        text = io.StringIO()
        writer = csv.DictWriter(text, ["i", "s"])
        writer.writeheader()
        writer.writerows(rows)
        data, format = text.getvalue().encode(), "csv"
    elif "jsonl" in name:
        data, format = "".join(json.dumps(r, ensure_ascii=False) + "\r\n" for r in rows).encode(), "jsonl"
    elif "txt" in name:
        data, format = "\n".join(str(r["s"]).replace("\n", " ") + str(r["i"]) for r in rows).encode(), "text"
    else:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=60)
        return path, "parquet"
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path, format


NAMES = ["x.parquet", "x.jsonl", "x.jsonl.gz", "x.csv", "x.csv.gz", "x.txt", "x.txt.gz"]


@pytest.fixture(scope="module", params=NAMES)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path, format = corpus(tmp_path_factory.mktemp("corpus"), request.param)
    return path, format, all_records(path, format)


@given(st.data())
def test_chosen_records_are_those_that_were_read(stored: Any, data: st.DataObject) -> None:
    path, format, known = stored
    assert len(known) == 500
    chosen = sorted(data.draw(st.sets(st.sampled_from(sorted(known)), max_size=20)))
    records = chosen_records(str(path), path.name, format, positions(*chosen), MAX)
    assert records == [known[p] for p in chosen]
    raw = read_chosen(str(path), path.name, format, positions(*chosen), MAX)
    assert len(raw) == len(chosen)
    if format == "jsonl":
        assert [json.dumps(known[p], ensure_ascii=False).encode() for p in chosen] == raw


def test_a_position_without_a_record_is_named(stored: Any) -> None:
    path, format, known = stored
    after = 500 if format == "parquet" else 10**9
    with pytest.raises(InputError, match=rf"{path.name} has no record at position {after:,} any more"):
        read_chosen(str(path), path.name, format, positions(min(known), after), MAX)
    if format == "jsonl":  # the middle of a record
        with pytest.raises(InputError, match=r"changed during the run|any more"):
            chosen_records(str(path), path.name, format, positions(3), MAX)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    for name, format in (("x.parquet", "parquet"), ("x.jsonl", "jsonl"), ("x.csv.gz", "csv")):
        with pytest.raises(BadFileError, match=f"{name} cannot be read"):
            read_chosen(f"{tmp_path}/{name}", name, format, positions(0), MAX)


def test_parquet_keeps_types_and_adds_columns(tmp_path: Path) -> None:
    n = 50
    table = pa.table(
        {
            "half": pa.array(np.arange(n), pa.float16()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(n * 3, dtype="f4")), 3),
            "when": pa.array(range(n), pa.timestamp("us", "Europe/Zurich")),
            "price": pa.array([None, *range(1, n)], pa.int64()).cast(pa.decimal128(30, 2)),
            "kind": pa.array(["x", "y", None, "z", "y"] * 10).dictionary_encode(),
            "nested": [{"a": [i, None], "b": {"c": str(i)}} if i % 3 else None for i in range(n)],
            "map": pa.array([[("k", i)] for i in range(n)], pa.map_(pa.string(), pa.int32())),
            "raw": pa.array([b"\xff"] * n, pa.binary(1)),
            "big": pa.array(["t"] * n, pa.large_string()),
        }
    ).replace_schema_metadata({"pandas": "{}"})
    pq.write_table(table.slice(0, 30), tmp_path / "a.parquet", row_group_size=8)
    pq.write_table(table.slice(30), tmp_path / "b.parquet")
    chunks = [
        read_chosen(f"{tmp_path}/a.parquet", "a.parquet", "parquet", positions(0, 7, 8, 29), MAX),
        read_chosen(f"{tmp_path}/b.parquet", "b.parquet", "parquet", positions(5), MAX),
    ]
    extra = {"tithe_weight": pa.array([1.5, 2, 3, 4, 5]), "tithe_file": pa.array(["a"] * 4 + ["b"])}
    rows, size, digest = write_sample_part(f"{tmp_path}/out/part.parquet", "parquet", chunks, extra)
    data = (tmp_path / "out/part.parquet").read_bytes()
    assert (rows, size, digest) == (5, len(data), hashlib.sha256(data).hexdigest())
    got = pq.read_table(tmp_path / "out/part.parquet")
    assert got.schema.metadata is None
    assert got.drop_columns(list(extra)).schema.equals(table.schema, check_metadata=False)
    assert got.column_names == [*table.column_names, *extra]
    assert got.drop_columns(list(extra)).to_pylist() == table.take([0, 7, 8, 29, 35]).to_pylist()
    assert got["tithe_weight"].to_pylist() == [1.5, 2, 3, 4, 5]
    again = write_sample_part(f"{tmp_path}/again.parquet", "parquet", [pa.concat_tables(chunks)], extra)
    assert again == (rows, size, digest)


def test_json_lines_keep_their_text(tmp_path: Path) -> None:
    lines = [b'{"b":1,  "a" : "\\u00e4"}', "{ 'ä'".replace("'", '"').encode() + b":1e5 } ", b"{}", b"{ }"]
    extra = {"tithe_weight": pa.array([1.0, 0.1, 1e300, 2.5]), "tithe_file": pa.array(["ü", "b", "c", "d"])}
    rows, size, digest = write_sample_part(f"{tmp_path}/p.jsonl", "jsonl", [lines[:1], lines[1:]], extra)
    data = (tmp_path / "p.jsonl").read_bytes()
    assert data.decode().splitlines() == [
        '{"b":1,  "a" : "\\u00e4", "tithe_weight": 1.0, "tithe_file": "ü"}',
        '{ "ä":1e5 , "tithe_weight": 0.1, "tithe_file": "b"}',
        '{"tithe_weight": 1e+300, "tithe_file": "c"}',
        '{ "tithe_weight": 2.5, "tithe_file": "d"}',
    ]
    assert (rows, size, digest) == (4, len(data), hashlib.sha256(data).hexdigest())


def test_csv_files_of_several_headers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.csv").write_text("y,z\n3,4\n")
    chunks = [read_chosen(f"{tmp_path}/{n}", n, "csv", positions(4), MAX) for n in ("a.csv", "b.csv")]
    write_sample_part(f"{tmp_path}/p.parquet", "csv", chunks, {"tithe_weight": pa.array([1, 2])})
    assert pq.read_table(tmp_path / "p.parquet").to_pylist() == [
        {"x": "1", "y": "2", "z": None, "tithe_weight": 1},
        {"x": None, "y": "3", "z": "4", "tithe_weight": 2},
    ]


def test_a_clash_with_a_column_of_the_input(tmp_path: Path) -> None:
    extra = {"tithe_weight": pa.array([1.0])}
    for format, chunk in (("parquet", pa.table({"tithe_weight": [1]})), ("jsonl", [b'{"tithe_\\u0077eight": 1}'])):
        with pytest.raises(InputError, match="'tithe_weight' already"):
            write_sample_part(f"{tmp_path}/p", format, [chunk], extra)
    assert not (tmp_path / "p").exists()


def test_an_empty_part(tmp_path: Path) -> None:
    assert write_sample_part(f"{tmp_path}/p", "jsonl", [], {"tithe_weight": pa.array([], pa.float64())})[:2] == (0, 0)
    assert write_sample_part(f"{tmp_path}/q", "csv", [], {"tithe_weight": pa.array([], pa.float64())})[0] == 0
    assert pq.read_table(tmp_path / "q").column_names == ["tithe_weight"]


@pytest.mark.parametrize(("format", "parts", "groups"), [
    ("parquet", 1, [[0, 1, 2, 4]]),
    ("parquet", 2, [[0, 1], [2, 4]]),
    ("parquet", 3, [[0], [1], [2, 4]]),
    ("parquet", 9, [[0], [1], [2], [4]]),
    ("csv", 9, [[0, 1, 2, 4]]),
])  # fmt: skip
def test_row_groups_are_shared_out_among_those_who_read(
    format: str, parts: int, groups: list[list[int]], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"i": range(50)}), tmp_path / "x.parquet", row_group_size=10)
    wanted = positions(0, 1, 9, 10, 29, 40, 49)  # of the groups 0, 1, 2 and 4
    path = f"{tmp_path}/x.parquet"
    runs, footer = split_chosen(path, "x.parquet", format, wanted, parts)
    assert np.concatenate(runs).tolist() == wanted.tolist()
    assert [np.unique(run // 10).tolist() for run in runs] == groups
    if format == "parquet":
        found = [read_chosen(path, "x.parquet", format, run, MAX, footer=footer) for run in runs]
        assert pa.concat_tables(found)["i"].to_pylist() == wanted.tolist()
