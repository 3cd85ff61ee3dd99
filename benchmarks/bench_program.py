"""The command line of the programs that bench.py measures, each in a process of its own."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """A selection, as the programs compared with tithe are told of it.

    Attributes:
        files: pattern of the Parquet files, columns id, int64, and vector, fixed-size lists of float32.
        folder: for what the program writes.
        rows: how many records there are.
        dimension: of a vector.
        clusters: k.
        rounds: of mini-batch k-means.
        size: of the sample.
        method: which of several programs in one file.
    """

    files: str
    folder: Path
    rows: int
    dimension: int
    clusters: int
    rounds: int
    size: int
    method: str

    @property
    def batch_rows(self) -> int:
        """Records that a round reads: a tenth, but enough for the clusters."""
        return min(self.rows, max(self.rows // 10, 10_000, 10 * self.clusters))

    @property
    def seed_rows(self) -> int:
        """Records that seeding reads."""
        return min(self.rows, max(10_000, 20 * self.clusters))


@contextmanager
def program(description: str) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Reads the command line; gives the job, and a dict of figures that is written as JSON in the end."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--files", default="", help="pattern of the input files")
    parser.add_argument("--folder", type=Path, default=Path(".cache/bench/program"), help="for what is written")
    for name, default in (("rows", 1_000_000), ("dimension", 384), ("clusters", 1000), ("rounds", 8), ("size", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--method", default="", help="which of several ways")
    parser.add_argument("--result", type=Path, required=True, help="JSON file of what was measured")
    options = vars(parser.parse_args())
    result: Path = options.pop("result")
    figures: dict[str, Any] = {}
    yield Job(**options), figures
    result.write_text(json.dumps(figures, indent=1) + "\n")
