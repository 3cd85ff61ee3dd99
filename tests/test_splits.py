"""The plan of splits."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tithe.transforms.errors import InputError
from tithe.transforms.files import InputFile, match_files
from tithe.transforms.splits import BadFile, Split, plan_splits


def files_of(sizes: dict[str, int]) -> list[InputFile]:
    return [InputFile(f"/corpus/{name}", name, size, 1.0) for name, size in sizes.items()]


def ranges(splits: list[Split]) -> list[list[tuple[str, int, int]]]:
    return [[(p.name, p.start, p.stop) for p in s.pieces] for s in splits]


def test_large_files_are_cut_and_files_that_cannot_be_are_whole() -> None:
    sizes = {"a.jsonl": 3000, "b.jsonl.gz": 5000, "c.jsonl": 0}
    splits, bad, schema = plan_splits(files_of(sizes), "jsonl", 1024, "error")
    assert ranges(splits) == [
        [("a.jsonl", 0, 1000)],
        [("a.jsonl", 1000, 2000)],
        [("a.jsonl", 2000, 3000)],
        [("b.jsonl.gz", 0, -1)],
    ]
    assert (bad, schema) == ([], None)
    assert ranges(plan_splits(files_of({"a.csv": 3000}), "csv", 1024, "error")[0]) == [[("a.csv", 0, -1)]]
    assert plan_splits([], "text", 1024, "error") == ([], [], None)


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 9000), max_size=40),
    st.integers(1024, 8000),
)
def test_every_byte_is_in_one_split(sizes: dict[str, int], split_bytes: int) -> None:
    splits, _, _ = plan_splits(files_of(sizes), "text", split_bytes, "error")
    covered: dict[str, int] = dict.fromkeys(sizes, 0)
    for split in splits:
        assert sum(p.stop - p.start for p in split.pieces) <= 4 * split_bytes
        for piece in split.pieces:
            assert covered[piece.name] == piece.start < piece.stop
            covered[piece.name] = piece.stop
    assert covered == sizes
    assert len({split.key for split in splits}) == len(splits)


def test_a_new_file_changes_few_splits() -> None:
    sizes = {f"part-{i:04d}.txt": 300 + 7 * (i % 50) for i in range(2000)}
    before = {s.key for s in plan_splits(files_of(sizes), "text", 10_000, "error")[0]}
    for added in ("part-0000a.txt", "part-0777a.txt", "zzz.txt"):
        after = {s.key for s in plan_splits(files_of(sizes | {added: 400}), "text", 10_000, "error")[0]}
        assert len(after - before) <= 4
        assert len(before - after) <= 4
    assert 2000 * 475 / 10_000 / 2 < len(before) < 2000 * 475 / 10_000 * 2


def test_many_tiny_files() -> None:
    splits, _, _ = plan_splits(files_of({f"{i:05d}.txt": 1 for i in range(10_000)}), "text", 1 << 40, "error")
    assert [len(s.pieces) for s in splits] == [4096, 4096, 1808]


def test_the_key_tells_names_sizes_times_and_ranges_apart() -> None:
    def key(file: InputFile, split_bytes: int = 10_000) -> str:
        return plan_splits([file], "text", split_bytes, "error")[0][0].key

    base = key(InputFile("/a/x", "x", 2000, 1.0))
    assert base == key(InputFile("/elsewhere/x", "x", 2000, 1.0))
    others = [InputFile("/a/x", "y", 2000, 1.0), InputFile("/a/x", "x", 2001, 1.0), InputFile("/a/x", "x", 2000, 1.5)]
    assert len({base, key(InputFile("/a/x", "x", 2000, 1.0), 1024), *map(key, others)}) == 5
    assert len(base) == 32


def test_a_split_is_one_line() -> None:
    [split] = plan_splits(files_of({"ü\n.txt": 5, "b.txt": 6}), "text", 1024, "error")[0]
    line = split.to_json()
    assert "\n" not in line
    assert Split.from_json(line) == split


def test_parquet_is_cut_between_row_groups(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array(range(10_000), pa.int64())})
    pq.write_table(table, tmp_path / "large.parquet", row_group_size=1000, compression="none", use_dictionary=False)
    pq.write_table(table.slice(0, 10), tmp_path / "small.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    splits, bad, schema = plan_splits(match_files([f"{tmp_path}/*"]), "parquet", 20_000, "error")
    assert ranges(splits) == [
        [("large.parquet", 0, 3)],
        [("large.parquet", 3, 6)],
        [("large.parquet", 6, 9)],
        [("large.parquet", 9, 10)],
        [("small.parquet", 0, 1)],
    ]
    assert (bad, schema) == ([], table.schema)


def test_files_that_are_not_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-30])
    (tmp_path / "c.parquet").write_text("hello")
    (tmp_path / "d.parquet").write_text("")
    files = match_files([f"{tmp_path}/*"])
    with pytest.raises(InputError) as error:
        plan_splits(files, "parquet", 10_000, "error")
    assert str(error.value).startswith("b.parquet: cannot be read as Parquet: ")
    assert "(and 2 more files)" in str(error.value)
    assert "input.on_bad_file: skip" in str(error.value)
    splits, bad, schema = plan_splits(files, "parquet", 10_000, "skip")
    assert ranges(splits) == [[("a.parquet", 0, 1)]]
    assert [b.name for b in bad] == ["b.parquet", "c.parquet", "d.parquet"]
    assert isinstance(bad[0], BadFile)
    assert schema.names == ["x"]
    assert plan_splits(files[1:], "parquet", 10_000, "skip")[2] is None


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (pa.table({"x": [1], "y": [1.0]}), "field 2 is y: string in the first and y: double in the second"),
        (pa.table({"x": [1]}), "field 2 is y: string in the first and missing in the second"),
        (pa.table({"y": ["a"], "x": [1]}), "field 1 is x: int64 in the first and y: string in the second"),
    ],
)
def test_schemas_that_differ(other: pa.Table, text: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1], "y": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1], "y": ["b"]}).replace_schema_metadata({"k": "v"}), tmp_path / "b.parquet")
    pq.write_table(other, tmp_path / "c.parquet")
    with pytest.raises(InputError) as error:
        plan_splits(match_files([f"{tmp_path}/*"]), "parquet", 10_000, "skip")
    assert str(error.value).startswith(f"a.parquet and c.parquet have different schemas: {text};")
