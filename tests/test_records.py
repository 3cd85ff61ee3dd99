"""Reading splits: nothing lost, nothing twice, bad rows apart."""

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tithe.transforms.errors import InputError
from tithe.transforms.files import InputFile
from tithe.transforms.records import BadFileError, BadRecord, Batch, read_split
from tithe.transforms.splits import Piece, Split, plan_splits

MAX = 1000


def write(path: Path, data: bytes) -> InputFile:
    path.write_bytes(data)
    return InputFile(str(path), path.name, len(data), 1.0)


def read(file: InputFile, format: str, split_bytes: int = 1 << 20, columns: list[str] | None = None) -> list[Batch]:
    splits, _, _ = plan_splits([file], format, split_bytes, "error")
    return [batch for split in splits for batch in read_split(split, format, columns, MAX, batch_rows=7)]


def found(batches: list[Batch]) -> list[tuple[int, Any]]:
    return [row for b in batches for row in zip(b.positions.tolist(), b.records(), strict=True)]


def bad(batches: list[Batch]) -> list[tuple[int, str, bytes]]:
    return [(r.position, r.reason, r.head) for b in batches for r in b.bad]


def values(data: bytes) -> list[Any]:
    """The obvious reading of JSON lines, all of them good."""
    offset, rows = 0, []
    for line in data.split(b"\n"):
        if line.strip():
            rows.append((offset, json.loads(line)))
        offset += len(line) + 1
    return rows


objects = st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=200), max_size=4)
line_ends = st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\r\n"])


@given(st.lists(st.tuples(objects, line_ends), max_size=60), st.booleans(), st.integers(1, 3000))
def test_json_lines_are_read_once_wherever_the_cuts_fall(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[dict[str, Any], str]], final: bool, split_bytes: int
) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + end for row, end in rows)
    data = (text if final else text.rstrip()).encode("utf-8", "replace")
    batches = read(write(tmp_path_factory.getbasetemp() / "x.jsonl", data), "jsonl", split_bytes)
    assert found(batches) == values(data)
    assert bad(batches) == []
    assert all(len(b) <= 7 and b.positions.dtype == np.int64 for b in batches)


@given(st.lists(st.binary(max_size=40), max_size=60), st.integers(1, 200))
def test_any_bytes_are_text_or_bad_wherever_the_cuts_fall(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], split_bytes: int
) -> None:
    data = b"\n".join(parts)
    file = write(tmp_path_factory.getbasetemp() / "x.txt", data)
    whole, cut = read(file, "text"), read(file, "text", split_bytes)
    assert (found(whole), bad(whole)) == (found(cut), bad(cut))
    kept = {position: row["text"].encode() for position, row in found(cut)} | {p: head for p, _, head in bad(cut)}
    for position, line in kept.items():
        assert data[position : position + len(line)] == line
    assert len(kept) == sum(1 for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip())


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".zst", ".xz"])
def test_compressed_lines_have_the_positions_of_the_plain_ones(suffix: str, tmp_path: Path) -> None:
    data = b"".join(b'{"i": %d}\r\n' % i for i in range(100))
    packed = {
        "": data,
        ".gz": gzip.compress(data),
        ".bz2": bz2.compress(data),
        ".zst": pa.compress(data, "zstd", asbytes=True),
        ".xz": lzma.compress(data),
    }[suffix]
    batches = read(write(tmp_path / f"x.jsonl{suffix}", packed), "jsonl", 100)
    assert found(batches) == values(data)
    assert batches[0].raw(1) == b'{"i": 1}'
    assert batches[0].column("i") == list(range(7))
    assert batches[0].column("other") == [None] * 7


def test_bad_lines_of_json(tmp_path: Path) -> None:
    lines: list[tuple[bytes, str | None]] = [
        (b'{"a": 1}', None),
        (b"{", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b"[" * 100_000, "record too large"),
        (b"[" * 900, "not JSON"),
        (b"[1]", "not an object"),
        (b"null", "not an object"),
        (b'{"a": "\xff"}', "invalid UTF-8"),
        (b'{"a": "\\ud800"}', "lone surrogate"),
        (b'{"a": "\\uD83D\\uDE00"}', None),
        (b'{"a": "\\\\ud800"}', None),
        (b'{"a": "' + b"x" * 991 + b'"}', None),
        (b'{"a": "' + b"x" * 992 + b'"}', "record too large"),
        (b'{"a": 2}', None),
        (b"x" * 5_000_000, "record too large"),
    ]
    for end in (b"\n", b"\r\n"):
        data = end.join(line for line, _ in lines)
        offsets = [sum(len(line) + len(end) for line, _ in lines[:i]) for i in range(len(lines))]
        for split_bytes in (1 << 30, 500_000, 1000):
            batches = read(write(tmp_path / "x.jsonl", data), "jsonl", split_bytes)
            assert [p for p, _ in found(batches)] == [o for o, (_, why) in zip(offsets, lines, strict=True) if not why]
            assert bad(batches) == [
                (o, why, line[:1000]) for o, (line, why) in zip(offsets, lines, strict=True) if why is not None
            ]


def test_a_file_of_bad_lines_alone_and_a_byte_order_mark(tmp_path: Path) -> None:
    batches = read(write(tmp_path / "x.jsonl", b"x\n" * 20), "jsonl")
    assert [len(b.bad) for b in batches] == [7, 7, 6]
    assert found(read(write(tmp_path / "y.jsonl", b"\xef\xbb\xbf{}\n{}"), "jsonl", 1)) == [(3, {}), (6, {})]
    assert found(read(write(tmp_path / "y.csv", b"\xef\xbb\xbfa\n1\n"), "csv", 1)) == [(5, {"a": "1"})]


def test_a_giant_line_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("wb") as f:
        for _ in range(100):
            f.write(b"x" * (1 << 20))
        f.write(b'\n{"a": 1}\n')
    file = InputFile(str(path), "x.jsonl", path.stat().st_size, 1.0)
    tracemalloc.start()
    batches = read(file, "jsonl", 1 << 40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found(batches) == [((100 << 20) + 1, {"a": 1})]
    assert bad(batches) == [(0, "record too large", b"x" * 1000)]
    assert peak < 20 << 20


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12) | st.just('a "b",\n\n\r\n"')


@given(st.lists(st.tuples(cells, cells, cells), max_size=30), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_csv_gives_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], end: str, quoted: bool
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    offsets = []
    for row in [("id", "a b", ""), *rows]:
        offsets.append(len(text.getvalue().encode()))
        writer.writerow(row)
    batches = read(write(tmp_path_factory.getbasetemp() / "x.csv", text.getvalue().encode()), "csv", 10)
    expected = [dict(zip(("id", "a b", ""), row, strict=True)) for row in rows]
    assert found(batches) == list(zip(offsets[1:], expected, strict=True))
    assert bad(batches) == []


def test_csv_columns_and_blank_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv.gz", gzip.compress(b'\na,b\n1,2\n\n,"x\ny"'))
    [batch] = read(file, "csv", columns=["b"])
    assert batch.column("b").equals(pa.array(["2", "x\ny"]))
    assert batch.records() == [{"b": "2"}, {"b": "x\ny"}]
    assert [batch.raw(0), batch.raw(1)] == [b"1,2", b',"x\ny"']
    assert batch.positions.tolist() == [5, 10]
    with pytest.raises(InputError, match=r"x\.csv\.gz has no column 'B '; did you mean 'b'\?"):
        read(file, "csv", columns=["B "])
    for empty in (b"", b"\n\n", b"a,b\n"):
        assert read(write(tmp_path / "e.csv", empty), "csv") == []


def test_bad_rows_of_csv(tmp_path: Path) -> None:
    rows: list[tuple[bytes, str | None]] = [
        (b"1,2", None),
        (b"1,2,3", "wrong number of columns"),
        (b"1", "wrong number of columns"),
        (b"1,\xff", "invalid UTF-8"),
        (b'1,"a"b', "not CSV"),
        (b"1,a\rb", "not CSV"),
        (b'1,"' + b"x" * 2000 + b'\n\n"', "record too large"),
        (b'1,"' + b"x\n" * 2000 + b'"', "record too large"),
        (b"1," + b"x" * 5000, "record too large"),
        (b"3,4", None),
        (b'1,"open', "unclosed quote"),
        (b"5,6", None),
        (b"7,8", None),
    ]
    data = b"a,b\n" + b"\n".join(row for row, _ in rows)
    batches = read(write(tmp_path / "x.csv", data), "csv")
    offsets = np.cumsum([4] + [len(row) + 1 for row, _ in rows]).tolist()
    assert [p for p, _ in found(batches)] == [o for o, (_, why) in zip(offsets, rows, strict=False) if why is None]
    found_bad = bad(batches)
    assert [b[:2] for b in found_bad] == [(o, why) for o, (_, why) in zip(offsets, rows, strict=False) if why]
    for position, _, head in found_bad:
        assert head.rstrip(b"\n") and data[position:].startswith(head) and len(head) <= 1000


def test_csv_that_cannot_be_used(tmp_path: Path) -> None:
    one_column = read(write(tmp_path / "x.csv", b'a\n1\n"2\n3\n'), "csv")
    assert found(one_column) == [(2, {"a": "1"})]
    assert bad(one_column) == [(4, "unclosed quote", b'"2\n3\n')]
    with pytest.raises(BadFileError, match="the record at byte 8 opens a quote that is not closed"):
        read(write(tmp_path / "x.csv", b'a,b\n1,2\n1,"' + b"3,4\n" * 1000), "csv")
    for header, why in ((b"a,b,a", "names the column 'a' twice"), (b"a,\xff", "is bad"), (b'a,"b', "unclosed")):
        with pytest.raises(BadFileError, match=rf"x\.csv cannot be read to its end: its header .*{why}"):
            read(write(tmp_path / "x.csv", header + b"\n"), "csv")


def parquet_table(rows: int) -> pa.Table:
    rng = np.random.default_rng(1)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=rows * 4).astype("f4")), 4)
    return pa.table(
        {
            "id": [f"r{i}" for i in range(rows)],
            "vector": vectors,
            "nested": [{"a": [i, None], "b": {"c": str(i)}} if i % 3 else None for i in range(rows)],
            "dotted.name": pa.array([i / 7 for i in range(rows)], pa.float64()),
            "kind": pa.array(["x", "y", None] * rows)[:rows].dictionary_encode(),
        }
    )


@pytest.mark.parametrize("split_bytes", [1, 5000, 1 << 30])
def test_parquet_rows_have_their_numbers_in_the_file(split_bytes: int, tmp_path: Path) -> None:
    table = parquet_table(100)
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=15)
    file = InputFile(f"{tmp_path}/x.parquet", "x.parquet", 20_000, 1.0)
    batches = read(file, "parquet", split_bytes)
    assert found(batches) == list(enumerate(table.to_pylist()))
    # As equal as can be with at most seven rows.
    assert [len(b) for b in batches] == [5, 5, 5] * 6 + [5, 5]
    some = read(file, "parquet", split_bytes, ["dotted.name", "vector"])
    assert some[0].column("vector").equals(table["vector"].chunk(0).slice(0, 5))
    assert list(some[0].records()[0]) == ["vector", "dotted.name"]
    assert json.loads(some[0].raw(2)) == some[0].records()[2]
    assert [b.positions.tolist() for b in read(file, "parquet", split_bytes, [])] == [
        b.positions.tolist() for b in batches
    ]
    with pytest.raises(InputError, match=r"x\.parquet has no column 'vectr'; did you mean 'vector'\?"):
        read(file, "parquet", split_bytes, ["vectr"])


def test_large_rows_of_parquet_are_bad(tmp_path: Path) -> None:
    texts = ["a"] * 20
    texts[3] = texts[9] = "x" * 1001
    pq.write_table(pa.table({"i": range(20), "text": texts}), tmp_path / "x.parquet")
    batches = read(InputFile(f"{tmp_path}/x.parquet", "x.parquet", 1, 1.0), "parquet")
    assert [p for p, _ in found(batches)] == [p for p in range(20) if p not in (3, 9)]
    assert bad(batches) == [
        (i, "record too large", b'{"i": %d, "text": "(1,005 bytes)"}' % i) for i in (3, 9)
    ]  # four of them are the offset


def test_files_that_end_too_early_or_are_gone(tmp_path: Path) -> None:
    lines = b"".join(b'{"i": %d}\n' % i for i in range(10_000))
    cases = [("x.jsonl.gz", gzip.compress(lines)[:-100], "jsonl"), ("x.csv.xz", lzma.compress(lines)[:-100], "csv")]
    for name, data, format in cases:
        file = write(tmp_path / name, data)
        with pytest.raises(BadFileError, match=rf"{name} cannot be read to its end: .*on_bad_file: skip") as error:
            read(file, format)
        assert error.value.name == name
        assert error.value.piece == Piece(file.path, name, 0, -1)
        copy = pickle.loads(pickle.dumps(error.value))
        assert (str(copy), copy.name, copy.piece) == (str(error.value), name, error.value.piece)
    with pytest.raises(BadFileError, match=r"gone\.txt cannot be read"):
        read(InputFile(f"{tmp_path}/gone.txt", "gone.txt", 5, 1.0), "text")


def test_a_parquet_file_with_a_damaged_page(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": np.arange(10_000)}), path, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:40] = b"\xff" * 36  # the header of the first page
    with pytest.raises(BadFileError, match=r"x\.parquet cannot be read to its end"):
        read(write(path, bytes(data)), "parquet")


def test_a_split_of_several_files(tmp_path: Path) -> None:
    pieces = []
    for name, text in (("a.txt", "1\n2"), ("b.txt", ""), ("c.txt", "3\n")):
        file = write(tmp_path / name, text.encode())
        pieces.append(Piece(file.path, name, 0, file.size))
    batches = list(read_split(Split("key", tuple(pieces)), "text", None, MAX))
    assert [(b.piece, b.column("text")) for b in batches] == [(0, ["1", "2"]), (2, ["3"])]


def test_a_bad_record_is_named(tmp_path: Path) -> None:
    [batch] = read(write(tmp_path / "x.jsonl", b"7\n"), "jsonl")
    assert batch.bad == [BadRecord("x.jsonl", 0, "not an object", b"7")]
