"""Matching, naming, opening and writing of files."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystem import FileMetadata, FileSystem

from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.fetch import read_chosen
from tithe.transforms.files import compression, file_format, match_files, open_bytes, write_atomically, write_measured
from tithe.transforms.records import read_split
from tithe.transforms.splits import plan_splits


class ObjectStore(FileSystem):
    """What Beam's object stores do, in a dict: an object appears, whole or not, when its stream is closed."""

    objects: dict[str, bytes] = {}  # noqa: RUF012  # one store for all instances: Beam makes one for each call

    @classmethod
    def scheme(cls) -> str:
        return "store"

    def has_dirs(self) -> bool:
        return False

    def create(self, path: str, mime_type: str = "", compression_type: str = "auto") -> io.BytesIO:
        assert compression_type == "uncompressed"
        objects = self.objects

        class Upload(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    objects[path] = self.getvalue()
                super().close()

        return Upload()

    def open(self, path: str, mime_type: str = "", compression_type: str = "auto") -> io.BytesIO:
        assert compression_type == "uncompressed"
        if path not in self.objects:
            raise FileNotFoundError(path)
        return io.BytesIO(self.objects[path])

    def _list(self, prefix: str) -> Iterator[FileMetadata]:
        return (FileMetadata(p, len(data), 5.0) for p, data in self.objects.items() if p.startswith(prefix))

    def exists(self, path: str) -> bool:
        return path in self.objects

    def rename(self, sources: list[str], destinations: list[str]) -> None:
        for source, destination in zip(sources, destinations, strict=True):
            assert destination not in self.objects
            self.objects[destination] = self.objects.pop(source)

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            del self.objects[path]

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, len(self.objects[path]), 5.0)

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath, *paths])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None: ...
    def copy(self, sources: list[str], destinations: list[str]) -> None: ...
    def size(self, path: str) -> int:
        return len(self.objects[path])

    def last_updated(self, path: str) -> float:
        return 5.0

    def checksum(self, path: str) -> str:
        return ""


class SharedDisk(ObjectStore):
    """The same with folders, where a file shows as it grows, as on HDFS."""

    @classmethod
    def scheme(cls) -> str:
        return "disk"

    def has_dirs(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def empty_store() -> Iterator[None]:
    ObjectStore.objects.clear()
    yield
    ObjectStore.objects.clear()


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_names_are_below_the_fixed_part_of_the_glob(tmp_path: Path) -> None:
    put(tmp_path, "corpus/b.jsonl", "corpus/a.jsonl", "corpus/deep/er/c.jsonl", "corpus/d.txt")
    files = match_files([f"{tmp_path}/corpus/*.jsonl"])
    assert [(f.name, f.path, f.size) for f in files] == [
        ("a.jsonl", f"{tmp_path}/corpus/a.jsonl", 14),
        ("b.jsonl", f"{tmp_path}/corpus/b.jsonl", 14),
    ]
    assert files[0].modified == (tmp_path / "corpus/a.jsonl").stat().st_mtime
    assert [f.name for f in match_files([f"{tmp_path}/corpus/**.jsonl"])] == ["a.jsonl", "b.jsonl", "deep/er/c.jsonl"]
    assert [f.name for f in match_files([f"{tmp_path}/c*/a.jsonl"])] == ["corpus/a.jsonl"]
    assert [f.name for f in match_files([f"{tmp_path}/corpus/a.jsonl"])] == ["a.jsonl"]


def test_relative_globs_and_folders_with_wildcards_in_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "odd [name] *"
    put(here, "x/a.jsonl", "b.jsonl", "c[1].jsonl")
    monkeypatch.chdir(here)
    assert [f.path for f in match_files(["x/*.jsonl"])] == [f"{here}/x/a.jsonl"]
    assert [f.name for f in match_files(["*.jsonl"])] == ["b.jsonl", "c[1].jsonl"]
    assert [f.name for f in match_files(["c[1].jsonl"])] == ["c[1].jsonl"]
    monkeypatch.chdir(here / "x")
    assert [f.path for f in match_files(["../*.jsonl"])] == [f"{here}/b.jsonl", f"{here}/c[1].jsonl"]


def test_a_file_is_taken_once_under_its_first_name(tmp_path: Path) -> None:
    put(tmp_path, "c/a.jsonl", "c/b.jsonl")
    files = match_files([f"{tmp_path}/c/a*", f"{tmp_path}/*/*.jsonl"])
    assert [f.name for f in files] == ["a.jsonl", "c/b.jsonl"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "x/a.jsonl", "y/a.jsonl")
    with pytest.raises(UsageError) as error:
        match_files([f"{tmp_path}/x/*", f"{tmp_path}/y/*"])
    assert f"{tmp_path}/x/a.jsonl and {tmp_path}/y/a.jsonl" in str(error.value)


def test_a_glob_without_files_is_named(tmp_path: Path) -> None:
    put(tmp_path, "x/a.jsonl")
    with pytest.raises(InputError, match=r"nothing/\*\.jsonl matches no file$"):
        match_files([f"{tmp_path}/x/*", f"{tmp_path}/nothing/*.jsonl"])
    with pytest.raises(InputError, match=r"it is a folder: did you mean .*/x/\*\?"):
        match_files([f"{tmp_path}/x"])
    with pytest.raises(UsageError, match="nosuch://bucket"):
        match_files(["nosuch://bucket/*"])


def test_remote_files() -> None:
    ObjectStore.objects.update({"store://b/c/x.jsonl": b"{}\n", "store://b/c/d/y.jsonl": b"", "store://b/c/": b""})
    assert [(f.path, f.name, f.size, f.modified) for f in match_files(["store://b/c/*.jsonl"])] == [
        ("store://b/c/x.jsonl", "x.jsonl", 3, 5.0)
    ]
    assert [f.name for f in match_files(["store://b/c/**"])] == ["d/y.jsonl", "x.jsonl"]
    with open_bytes("store://b/c/x.jsonl") as stream:
        assert (stream.seek(1), stream.read()) == (1, b"}\n")


def test_a_remote_parquet_file_is_planned_read_and_fetched() -> None:
    table = pa.table({"i": range(100), "s": [str(i) for i in range(100)]})
    written = write_measured("store://b/x.parquet", lambda stream: pq.write_table(table, stream, row_group_size=30))
    files = match_files(["store://b/*.parquet"])
    assert files[0].size == written.bytes
    splits, _, schema = plan_splits(files, "parquet", 1024, "error")
    batches = [b for split in splits for b in read_split(split, "parquet", ["i"], 1 << 20)]
    assert schema == table.schema
    assert [r["i"] for b in batches for r in b.records()] == list(range(100))
    chosen = read_chosen(files[0].path, "x.parquet", "parquet", np.array([3, 99]), 1 << 20)
    assert chosen.equals(table.take([3, 99]))


def test_formats_by_suffix() -> None:
    names = ["a.parquet", "a.PQ", "a.jsonl", "a.json", "a.ndjson.zst", "a.csv.gz", "b/a.txt", "a.text.xz"]
    assert [file_format(n) for n in names] == ["parquet", "parquet", *["jsonl"] * 3, "csv", "text", "text"]
    assert [compression(n) for n in names] == [None] * 4 + ["zstd", "gzip", None, "xz"]
    for name in ("a", "a.gz", "a.dat", "jsonl"):
        with pytest.raises(UsageError, match=r"set input\.format to"):
            file_format(name)
    with pytest.raises(UsageError, match="unpack it first"):
        file_format("a.parquet.gz")


def packed(data: bytes, how: str) -> bytes:
    if how == "zstd":
        return bytes(pa.compress(data, "zstd", asbytes=True))
    if how == "xz":
        return lzma.compress(data)
    return gzip.compress(data) if how == "gzip" else bz2.compress(data)


@pytest.mark.parametrize("how", ["gzip", "bz2", "zstd", "xz"])
def test_compressed_files_are_read_through_joins_and_found_to_be_truncated(how: str, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "two").write_bytes(packed(data, how) + packed(b"end\n", how))
    with open_bytes(f"{tmp_path}/two", how) as stream:
        assert stream.read() == data + b"end\n"
    (tmp_path / "cut").write_bytes(packed(data, how)[:-3])
    with open_bytes(f"{tmp_path}/cut", how) as stream, pytest.raises((OSError, EOFError)):
        while stream.read(10_000):
            pass


@pytest.mark.parametrize("scheme", ["", "store://", "disk://"])
def test_a_file_is_written_whole_or_not_at_all(scheme: str, tmp_path: Path) -> None:
    path = f"{scheme}{tmp_path}/new/part.bin"

    def content() -> bytes | None:
        if scheme:
            return ObjectStore.objects.get(path)
        return Path(path).read_bytes() if os.path.exists(path) else None

    def broken(stream: Any) -> None:
        stream.write(b"half")
        raise KeyError("broken")

    with pytest.raises(KeyError):
        write_atomically(path, broken)
    assert content() is None
    assert write_measured(path, b"first") == (5, hashlib.sha256(b"first").hexdigest())
    with pytest.raises(KeyError):
        write_atomically(path, broken)
    assert content() == b"first"

    def twice(stream: Any) -> None:
        stream.write(b"sec")
        stream.write(memoryview(b"ond"))

    assert write_measured(path, twice) == (6, hashlib.sha256(b"second").hexdigest())
    assert content() == b"second"
    assert set(ObjectStore.objects) <= {path}
    if not scheme:
        assert not list((Path(path).parent / "tmp").iterdir())


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/part cannot be written: .*; check output\.path"):
        write_atomically(f"{tmp_path}/file/part", b"x")
