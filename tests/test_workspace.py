"""Output folders: whose they are, who holds them, what stands in them, and whether there is room."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from corpora import configure, manifest, select, table, write_parquet

from tithe import room
from tithe.cli import main
from tithe.transforms.embedders import ColumnEmbedder
from tithe.transforms.errors import InputError, TitheError, UsageError
from tithe.transforms.files import match_files
from tithe.workspace import MARK, Workspace, fingerprint, list_files, remove

HOLD = """
import sys, time
from tithe.workspace import Workspace
with Workspace(sys.argv[1]).held():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "corpus", table(20))
    config, out = configure(tmp_path, f"{tmp_path}/corpus/*.parquet"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    assert select(config) == 2
    assert f"{out} holds something else (thesis.txt, ...)" in capsys.readouterr().err
    assert main(["clean", str(out), "--all"]) == 2
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_output_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="is a file"), Workspace(str(tmp_path / "out")).held():
        pass


def test_an_empty_folder_is_taken_and_stays_ours(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    space = Workspace(str(tmp_path / "out"))
    with space.held():
        assert (tmp_path / "out" / MARK).exists()
    (tmp_path / "out" / "note.txt").write_text("added by the user")
    with space.held():
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match=r"output\.path: .*file/out cannot be written"),
        Workspace(f"{tmp_path}/file/out").held(),
    ):
        pass


def test_a_work_folder_elsewhere_is_held_too(tmp_path: Path) -> None:
    one, two = (Workspace(str(tmp_path / out), str(tmp_path / "work")) for out in ("one", "two"))
    with one.held(), pytest.raises(TitheError, match=r"another run holds .*work"), two.held():
        pass
    with two.held():
        pass


def test_one_run_at_a_time_and_a_dead_process_does_not_keep_the_lock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parquet(tmp_path / "corpus", table(20))
    config, out = configure(tmp_path, f"{tmp_path}/corpus/*.parquet", sample={"size": 5}), tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert select(config) == 1
        assert f"another run holds {out}; wait for it, or name another output.path" in capsys.readouterr().err
        assert main(["clean", str(out), "--all"]) == 1
        holder.send_signal(signal.SIGKILL)
    with Workspace(str(out)).held():
        pass


def test_a_stage_is_done_when_its_manifest_is_there(tmp_path: Path) -> None:
    space = Workspace(str(tmp_path / "out"))
    calls: list[str] = []

    def make(folder: str) -> dict[str, int]:
        calls.append(folder)
        Path(folder, "tmp").mkdir(parents=True)
        Path(folder, "tmp", "unfinished").write_text("x")
        Path(folder, "content").write_text("four")
        return {"answer": 42}

    def fail(folder: str) -> dict[str, int]:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "kept").write_text("")
        raise InputError("no")

    with pytest.raises(InputError):
        space.stage("cluster", ["other"], fail)
    first = space.stage("cluster", ["a", 1], make)
    assert not first.stood and first.facts["answer"] == 42 and first.facts["bytes"] >= 4
    assert sorted(path.name for path in Path(first.folder).rglob("*") if path.is_file()) == ["content", "stage.json"]
    again = space.stage("cluster", ["a", 1], make)
    assert again.stood and again.facts == first.facts and len(calls) == 1
    assert not space.stage("cluster", ["a", 1], make, redo=True).stood
    assert not space.stage("cluster", ["a", 2], make).stood
    kept = Path(space.work, f"cluster-{fingerprint(['other'])}", "kept")
    assert kept.exists()  # what a stage that failed has done is there for the next attempt
    assert space.clean({Path(first.folder).name}) == sorted([kept.parent.name, f"cluster-{fingerprint(['a', 2])}"])
    assert space.folders() == [Path(first.folder).name]


def test_fingerprints_tell_values_apart_and_not_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2.5, None]}) == fingerprint({"b": [2.5, None], "a": 1})
    assert len({fingerprint(value) for value in (1, "1", 1.5, [1], None, True, {"a": 1}, "\udc80")}) == 8


def test_listing_and_removing_what_is_not_there(tmp_path: Path) -> None:
    assert list_files(f"{tmp_path}/none/*") == {}
    remove(f"{tmp_path}/none")


def test_without_keep_work_the_stages_go_and_the_result_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parquet(tmp_path / "corpus", table(60))
    output = {"work": str(tmp_path / "work"), "keep_work": False}
    config = configure(tmp_path, f"{tmp_path}/corpus/*.parquet", sample={"size": 10}, output=output)
    assert select(config) == 0
    assert list_files(f"{tmp_path}/work/**") == {}
    assert manifest(tmp_path / "out")["sample"]["records"] == 10
    capsys.readouterr()
    assert select(config) == 0
    assert capsys.readouterr().out.startswith("nothing to do")


def test_cleaning_finds_the_work_folder_in_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "corpus", table(60))
    config = configure(
        tmp_path, f"{tmp_path}/corpus/*.parquet", sample={"size": 10}, output={"work": str(tmp_path / "work")}
    )
    assert select(config, "--quiet") == 0
    (tmp_path / "work" / "cluster-0123456789abcdef").mkdir()
    assert main(["clean", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "removed: cluster-0123456789abcdef\n"


def test_too_little_room_is_told_before_anything_is_embedded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from shutil import disk_usage

    write_parquet(tmp_path / "corpus", table(300))
    monkeypatch.setattr("shutil.disk_usage", lambda path: disk_usage(path)._replace(free=10_000))
    assert select(configure(tmp_path, f"{tmp_path}/corpus/*.parquet")) == 1
    assert f"the vectors need about 0.0 GB and {tmp_path}/out" in capsys.readouterr().err
    assert list_files(f"{tmp_path}/out/work/vectors-*/**") == {}


def test_the_room_that_vectors_need_is_of_their_order(tmp_path: Path) -> None:
    write_parquet(tmp_path / "corpus", table(3000, d=32))
    files = match_files([f"{tmp_path}/corpus/*.parquet"])
    estimate = room.estimated_bytes(files, "parquet", ColumnEmbedder("vector"), 32)
    assert 3000 * (4 * 32 + 28) <= estimate <= 2 * 3000 * (4 * 32 + 28)
