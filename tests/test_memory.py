"""The allocator of a worker process."""

import platform
import subprocess
import sys

import pytest

from tithe.transforms.memory import keep_freed_memory

SCRIPT = """
import ctypes, sys, threading
from tithe.transforms.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory(2)
together = threading.Barrier(8)
def work():
    together.wait()
    blocks = [bytearray(50_000) for _ in range(20)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


def heaps(mode: str) -> int:
    told = subprocess.run([sys.executable, "-c", SCRIPT, mode], check=True, capture_output=True, text=True).stderr
    return sum(line.startswith("Arena ") for line in told.splitlines())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another")
def test_threads_share_as_many_heaps_as_are_allowed() -> None:
    assert heaps("keep") <= 2 < heaps("as it is")


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []

    def other(name: None) -> object:
        asked.append(name)
        return object()

    monkeypatch.setattr("tithe.transforms.memory.ctypes.CDLL", other)
    keep_freed_memory(2)
    assert asked == [None]
