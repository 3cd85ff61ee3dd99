"""Runs the command `tithe` and writes the seconds of each of its Beam pipelines, and their counters.

python benchmarks/bench_pipelines.py RESULT.json select CONFIG [ARGUMENT ...]
"""

import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from tithe import cli
from tithe.runner import run_pipeline


def main() -> int:
    """Reads the command line, runs, and writes {"phases": ..., "counters": ...}; returns the exit code."""
    result, arguments = Path(sys.argv[1]), sys.argv[2:]
    phases: dict[str, float] = {}
    counters: dict[str, int] = {}

    def timed(build: Any, run: Any, *, name: str, log: Path | None = None) -> dict[str, int]:
        start = time.perf_counter()
        found = run_pipeline(build, run, name=name, log=log)
        phases[name] = round(time.perf_counter() - start, 3)
        counters.update(found)
        return found

    with mock.patch("tithe.select.run_pipeline", timed):
        code = cli.main(arguments)
    result.write_text(json.dumps({"phases": phases, "counters": counters}) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
