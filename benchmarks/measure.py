"""Runs a command and says what it took.

    python benchmarks/measure.py COMMAND [ARGUMENT ...]

After the command's own output it prints the machine, the wall-clock time, the processor time, and the memory of the
largest process. Other benchmarks import `measure` and `machine`. Needs the standard library alone; POSIX systems.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence


def measure(arguments: Sequence[str]) -> dict[str, float]:
    """Runs a command to its end and returns wall_seconds, cpu_seconds and largest_process_gb.

    The largest process is the largest among the command and the processes that it started and waited for. Keep the
    process that calls this small: until the command is loaded, its process counts as large as the one it came from.

    Raises SystemExit where the command fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen(arguments)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return {
        "wall_seconds": round(wall, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "largest_process_gb": round(usage.ru_maxrss * unit / 1e9, 3),
    }


def machine() -> str:
    """The cores that this process may use, and the machine's memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{cores} cores, {memory / 2**30:.0f} GB"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: python benchmarks/measure.py COMMAND [ARGUMENT ...]")
    used = measure(sys.argv[1:])
    print(f"\n{'date':<28}{time.strftime('%Y-%m-%d')}\n{'machine':<28}{machine()}")
    for name, value in used.items():
        print(f"{name.replace('_', ' '):<28}{value:,}")
