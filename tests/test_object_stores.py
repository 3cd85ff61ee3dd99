"""Input, work and output on object stores: the sample of local files, by ranges, through failures of the store."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystems import FileSystems
from corpora import configure, digest, fixed_lists, points, select, table, to_lines, write_parquet
from stores import RunningStore, running_store

from tithe.beam_options import parse_beam_options
from tithe.cli import main
from tithe.transforms import stores as stores_module
from tithe.transforms.errors import InputError
from tithe.transforms.fetch import read_chosen
from tithe.transforms.files import exists, list_matching, open_bytes, open_source, write_atomically
from tithe.transforms.vectors import ArrayFile, read_json, write_array
from tithe.workspace import list_files, remove

pytestmark = [pytest.mark.slow, pytest.mark.stores]

N, FILES = 600, 3


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    """A running store, its address in the environment and in Beam's options."""
    with (
        running_store(request.param, tmp_path_factory.mktemp("store")) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in running.environment.items():
            patch.setenv(name, value)
        patch.setattr(FileSystems, "_pipeline_options", None)  # to be put back at the end
        yield running


@pytest.fixture(autouse=True)
def reached(store: RunningStore) -> Iterator[None]:
    """The store is undisturbed at the beginning of a test, and its options are those of this process."""
    store.proxy.clear()
    FileSystems.set_options(parse_beam_options(list(store.beam)).options())
    yield


@dataclass(frozen=True)
class Local:
    """A corpus on local files, with its sample."""

    folder: Path
    digest: tuple[str, str]

    def put(self, store: RunningStore, name: str) -> str:
        """Puts the corpus on a store, once, and gives the glob of its files."""
        for path in sorted((self.folder / "corpus").iterdir()):
            if not exists(store.url(f"{name}/{path.name}")):
                write_atomically(store.url(f"{name}/{path.name}"), path.read_bytes())
        return store.url(f"{name}/*.parquet")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    folder = tmp_path_factory.mktemp("local")
    write_parquet(folder / "corpus", table(N), files=FILES)
    assert select(on_files(folder, f"{folder}/corpus/*", str(folder / "out")), "--quiet") == 0
    return Local(folder, digest(folder / "out"))


def on_files(folder: Path, files: str, output: str, **sections: Any) -> str:
    """Writes the configuration of these tests, and gives its path."""
    sections = {"loss": {"kind": "column", "column": "loss"}, **sections}
    sections.setdefault("cluster", {"count": 10, "rounds": 2})
    return configure(folder, files, output={"path": output}, **sections)


def run(store: RunningStore, config: str, *arguments: str, beam: tuple[str, ...] = ()) -> int:
    return select(config, "--quiet", *arguments, "--", *store.beam, *beam)


def digest_on(output: str) -> tuple[str, str]:
    """What `corpora.digest` gives, of an output folder on a store."""
    found = read_json(f"{output}/manifest.json")
    content = b"".join(open_bytes(f"{output}/{part['name']}").read() for part in found["sample"]["parts"])
    return found["sample_digest"], hashlib.sha256(content).hexdigest()


def made_on(output: str) -> set[str]:
    return {stage["name"] for stage in read_json(f"{output}/manifest.json")["stages"] if not stage["stood"]}


# -- whole selections --------------------------------------------------------------------------------------------------


def test_the_sample_of_local_files_and_what_follows_it(
    store: RunningStore, local: Local, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = store.url("whole/out")
    config = on_files(tmp_path, local.put(store, "corpus"), output)
    assert run(store, config) == 0
    assert digest_on(output) == local.digest

    stages = list_files(f"{output}/work/**")
    capsys.readouterr()
    assert main(["select", config, "--", *store.beam]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert list_files(f"{output}/work/**") == stages

    assert run(store, config, "--set", "sample.size=60") == 0
    assert made_on(output) == {"sample"}
    assert len(list_files(f"{output}/sample/*")) == 1  # the part before it is gone

    FileSystems.set_options(None)  # `tithe estimate` takes no Beam options: the environment has what it needs
    capsys.readouterr()
    assert main(["estimate", output, "--losses", "loss", "--json"]) == 0
    total = json.loads(capsys.readouterr().out)
    assert main(["estimate", _local_copy(output, tmp_path / "copy"), "--losses", "loss", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == total


def test_stages_are_made_again_and_removed(
    store: RunningStore, local: Local, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = store.url("cleaned/out")
    config = on_files(tmp_path, local.put(store, "corpus"), output)
    assert run(store, config) == 0
    assert run(store, config, "--redo", "cluster") == 0
    assert made_on(output) == {"cluster", "losses", "score", "sample"}
    assert digest_on(output) == local.digest

    assert run(store, config, "--set", "cluster.seed=9") == 0
    assert digest_on(output) != local.digest
    folders = _work_folders(output)
    FileSystems.set_options(None)  # as `tithe estimate`, `tithe clean` takes no Beam options
    capsys.readouterr()
    assert main(["clean", output]) == 0
    said, manifest = capsys.readouterr().out, read_json(f"{output}/manifest.json")
    kept = {stage["folder"] for stage in manifest["stages"]} | {manifest["vectors"]}
    assert _work_folders(output) == folders & kept
    gone = folders - kept
    assert gone and all(name in said for name in gone)

    sample = list_files(f"{output}/sample/*")
    assert main(["clean", output, "--all"]) == 0
    assert not _work_folders(output)
    assert list_files(f"{output}/sample/*") == sample and exists(f"{output}/manifest.json")
    assert main(["clean", output, "--all"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def _work_folders(output: str) -> set[str]:
    return {path.removeprefix(f"{output}/work/").split("/")[0] for path in list_files(f"{output}/work/**")}


def _local_copy(output: str, folder: Path) -> str:
    """The manifest and the sample of an output folder on a store, on this disk."""
    names = ["manifest.json", *(part["name"] for part in read_json(f"{output}/manifest.json")["sample"]["parts"])]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(open_bytes(f"{output}/{name}").read())
    return str(folder)


def test_two_processes_while_one_request_in_ten_fails(store: RunningStore, local: Local, tmp_path: Path) -> None:
    output = store.url("failing/out")
    config = on_files(tmp_path, local.put(store, "corpus"), output)
    store.proxy.clear()
    store.proxy.fail_every = 10
    assert run(store, config, beam=("--direct_running_mode=multi_processing", "--direct_num_workers=2")) == 0
    assert store.proxy.failed >= 20
    store.proxy.clear()
    assert digest_on(output) == local.digest


# -- ranges ------------------------------------------------------------------------------------------------------------

LARGE, WIDTH, GROUP = 131_072, 96, 8192  # two parts of 25 MB: more than the 16 MB that Beam's readers read ahead
BATCH = 0.1
FOOTER = 1 << 16  # bytes that a reader of Parquet takes from a file's end


def test_a_round_and_the_fetch_read_what_they_need(store: RunningStore, tmp_path: Path) -> None:
    vectors = points(LARGE, WIDTH)
    records = table(LARGE, vector=fixed_lists(vectors), text=[f"{i:064d}" for i in range(LARGE)])
    [path] = write_parquet(tmp_path / "corpus", records, row_group=GROUP).iterdir()
    source = store.url("ranges/corpus.parquet")
    write_atomically(source, path.read_bytes())
    output = store.url("ranges/out")
    cluster = {"count": 10, "rounds": 3, "batch": BATCH}
    sections = {"cluster": cluster, "sample": {"size": 4}, "loss": {"kind": "constant"}}
    config = on_files(tmp_path, source, output, input={"split_bytes": 30_000_000}, **sections)
    store.proxy.clear()
    assert run(store, config) == 0
    proxy = store.proxy
    # A thread asks for one thing after the other; beside them, the progress of the run is looked up.
    assert proxy.most_at_work <= (os.cpu_count() or 1) + 1

    # A round lies between the first time that the centers before it are read and the first time that its own are.
    share = BATCH * LARGE * (4 * WIDTH + 28)
    for number in (2, 3):
        begins, ends = (proxy.reads(f"round-{r:04d}.npz")[0] for r in (number - 1, number))
        read = sum(proxy.requests[i].received for i in proxy.reads("") if begins < i < ends)
        assert 0.8 * share < read < 1.2 * share, number

    # After the drawn rows are known: the footer of the input, and the row groups that hold them.
    positions = pq.read_table(open_source(*list_files(f"{output}/sample/*")))["tithe_position"].to_pylist()
    drawn = {position // GROUP for position in positions}
    bounds = group_bounds(path)
    assert 0 < len(drawn) < len(bounds) // 2
    known = proxy.reads("chosen.npy")[0]
    ranges = [proxy.requests[i].range or (0, 0) for i in proxy.reads("corpus.parquet") if i > known]
    footer = path.stat().st_size - FOOTER
    read_groups = {
        group
        for group, (start, stop) in enumerate(bounds)
        for low, high in ranges
        if low < stop and start < high and low < footer
    }
    assert read_groups == drawn
    needed = sum(bounds[group][1] - bounds[group][0] for group in drawn)
    assert sum(high - low for low, high in ranges) <= needed + 2 * FOOTER


def group_bounds(path: Path) -> list[tuple[int, int]]:
    """The bytes of each row group: the first, and the one behind the last."""
    metadata = pq.read_metadata(path)
    bounds = []
    for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
        chunks = [group.column(i) for i in range(group.num_columns)]
        start = min(chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks)
        bounds.append((start, start + sum(chunk.total_compressed_size for chunk in chunks)))
    return bounds


def test_rows_of_an_array_take_their_bytes(store: RunningStore) -> None:
    array = np.arange(400_000, dtype=np.int64).reshape(-1, 4)
    path = store.url("units/array.npy")
    write_array(path, array)
    store.proxy.clear()
    with ArrayFile(path) as file:
        np.testing.assert_array_equal(file.read(50_000, 50_100), array[50_000:50_100])
        np.testing.assert_array_equal(file.read(99_999), array[99_999:])
    ranges = [request.range for request in store.proxy.requests]
    assert ranges == [(0, 512), (128 + 50_000 * 32, 128 + 50_100 * 32), (128 + 99_999 * 32, 128 + 100_000 * 32)]


def test_a_chosen_line_takes_a_buffer(store: RunningStore) -> None:
    lines = [line.encode() for line in to_lines(table(20_000, text=["x" * 200] * 20_000))]
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)])
    path = store.url("units/lines.jsonl")
    write_atomically(path, b"".join(line + b"\n" for line in lines))
    store.proxy.clear()
    wanted = [0, 5_000, 5_001, 19_999]
    assert read_chosen(path, "lines.jsonl", "jsonl", starts[wanted].astype(np.int64), 1 << 20) == [
        lines[i] for i in wanted
    ]
    assert sum(request.received for request in store.proxy.requests) <= 3 * (128 << 10)


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_on_a_store_is_like_one_on_disk(store: RunningStore, tmp_path: Path) -> None:
    data = np.random.default_rng(1).bytes(300_000)
    (tmp_path / "file").write_bytes(data)
    path = store.url("units/file")
    write_atomically(path, data)
    with open_bytes(path, buffer_bytes=1000) as there, open(tmp_path / "file", "rb") as here:
        for file_position, whence, size in [(10, 0, 5), (0, 1, 2000), (-7, 2, 100), (400_000, 0, 3), (5, 0, -1)]:
            assert there.seek(file_position, whence) == here.seek(file_position, whence)
            assert there.read(size) == here.read(size)
            assert there.tell() == here.tell()
    assert open_source(path).read() == data
    write_atomically(store.url("units/packed.gz"), gzip.compress(data))
    assert open_bytes(store.url("units/packed.gz"), "gzip").read() == data
    write_atomically(store.url("units/empty"), b"")
    assert open_bytes(store.url("units/empty")).read() == b""


def test_listing_and_removing(store: RunningStore) -> None:
    names = ["a/1.txt", "a/2.txt", "a/b/3.txt", "ab/4.txt"]
    for name in names:
        write_atomically(store.url(f"listed/{name}"), name.encode())
    found = list_matching(store.url("listed/a/*.txt"))
    assert [(file.path, file.size) for file in found] == [(store.url(f"listed/{n}"), len(n)) for n in names[:2]]
    remove(store.url("listed/a"))
    assert list(list_files(store.url("listed/**"))) == [store.url("listed/ab/4.txt")]
    remove(store.url("listed/ab/4.txt"))
    remove(store.url("listed/ab/4.txt"))  # where there is none, nothing
    assert not exists(store.url("listed/ab/4.txt"))


def test_what_is_not_there(store: RunningStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        open_bytes(store.url("units/none")).read()
    nowhere = f"{store.scheme}://no-such-bucket"
    with pytest.raises(InputError, match=r"no-such-bucket/x cannot be written: .*; check output\.path"):
        write_atomically(f"{nowhere}/x", b"")
    config = on_files(tmp_path, f"{nowhere}/*.parquet", str(tmp_path / "out"))
    assert run(store, config) == 1
    assert f"input.files: {nowhere}/*.parquet cannot be listed: there is no such bucket" in capsys.readouterr().err


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_store_that_dies_and_comes_back(
    store: RunningStore,
    local: Local,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stores_module, "_GIVE_UP_SECONDS", 3)
    output = store.url("dying/out")
    config = on_files(tmp_path, local.put(store, "corpus"), output)
    store.proxy.dies_at = ".vectors.npy"  # the input is embedded, and is looked at the first time
    assert run(store, config) == 1
    assert not store.proxy.alive
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"tithe: {output}/work/vectors-") and ": the store gives no answer: " in told[0]
    assert told[1].startswith("tithe: to go on from there: tithe select ") and len(told) == 2
    store.proxy.clear()
    finished = list_files(f"{output}/work/vectors-*/**")
    assert run(store, config) == 0
    assert digest_on(output) == local.digest
    written = {r.path for r in store.proxy.requests if r.method == "PUT" and "/work/vectors-" in r.path}
    assert finished and not written  # nothing is embedded again
