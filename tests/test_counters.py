"""The counters of a run: what passes through shuffles depends on splits, clusters and draws, not on the corpus."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, select, table, write_parquet

from tithe.transforms.counters import READ, count, counting
from tithe.transforms.files import write_atomically
from tithe.transforms.parallel import once_a_process

pytestmark = pytest.mark.slow


def counters(folder: Path, records: int, *options: str) -> dict[str, dict[str, int]]:
    """Of each stage, in a run on so many records in 4 files, each file a split."""
    folder.mkdir()
    corpus = write_parquet(folder / "corpus", table(records), files=4, row_group=records)
    config = configure(folder, f"{corpus}/*.parquet", cluster={"count": 20, "rounds": 2}, sample={"size": 100})
    assert select(config, *options) == 0
    stages: list[dict[str, Any]] = json.loads((folder / "out/manifest.json").read_text())["stages"]
    return {stage["name"]: stage["counters"] for stage in stages}


def test_what_passes_through_shuffles_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    small, large = counters(tmp_path / "small", 2_000), counters(tmp_path / "large", 16_000)
    assert small.keys() == large.keys()
    sent = 0
    for stage, counted in large.items():
        for name, amount in counted.items():
            if name.endswith("sent_bytes"):
                sent += amount
                assert amount <= 1.1 * small[stage][name] + 512, (stage, name)
    assert sent > 0
    reads = "ScoreSplit.read_bytes"
    assert 7 * small["score"][reads] < large["score"][reads] < 9 * small["score"][reads]
    assert large["cluster"]["AssignBatch.side_bytes"] > 0


def test_counters_are_those_of_all_worker_processes(tmp_path: Path) -> None:
    here = counters(tmp_path / "here", 2_000, "--", "--direct_num_workers=1")
    apart = ("--", "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    there = counters(tmp_path / "there", 2_000, *apart)
    assert there["score"]["ScoreSplit.read_bytes"] == here["score"]["ScoreSplit.read_bytes"]


def test_a_thread_counts_for_the_step_that_it_works_for() -> None:
    count(READ, 5)  # for none
    with counting() as outer:
        count(READ, 1)
        with counting() as inner:
            count(READ, 2)
        thread = threading.Thread(target=count, args=(READ, 100))
        thread.start()
        thread.join()
        count(READ, 4)
    assert (outer[READ], inner[READ]) == (5, 2)


def test_once_a_process_reads_a_file_once_until_it_is_written_anew(tmp_path: Path) -> None:
    read: list[str] = []

    @once_a_process(2)
    def make(path: str, suffix: str) -> str:
        count(READ, 10)
        read.append(Path(path).name)
        return Path(path).read_text() + suffix

    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    write_atomically(one, b"1")
    write_atomically(two, b"2")
    with counting() as counts:
        assert [make(one, "."), make(one, "."), make(two, ".")] == ["1.", "1.", "2."]
        assert read == ["one", "two"] and counts["side_bytes"] == 20 and READ not in counts
        write_atomically(one, b"3")
        assert [make(one, "."), make(two, "."), make(one, ".")] == ["3.", "2.", "3."]
    assert read == ["one", "two", "one"] and counts["side_bytes"] == 30


def test_once_a_process_leaves_it_to_the_function_to_say_that_there_is_no_file(tmp_path: Path) -> None:
    @once_a_process(2)
    def make(path: str) -> bytes:
        return Path(path).read_bytes()

    with pytest.raises(FileNotFoundError):
        make(str(tmp_path / "gone"))
