"""What the sections of bench.py share: commands that are measured, in alternation, and what comes of them."""

import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from j1 import CONFIGURATION
from measure import measure

HERE = Path(__file__).parent
Figures = dict[str, Any]
"""What one run gave: wall_seconds, cpu_seconds, largest_process_gb, and more."""

Runs = dict[str, list[Figures]]
"""The name of a variant -> its runs."""


@dataclass(frozen=True)
class Ratio:
    """A quotient of figures, one for each repetition, beside what is aimed at (None: nothing is)."""

    name: str
    values: list[float]
    at_most: float | None = None
    at_least: float | None = None

    @property
    def middle(self) -> float:
        """The median."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Section:
    """What a section measured: a line about it, runs of its variants, ratios, and other figures by name."""

    about: str
    runs: Runs
    ratios: list[Ratio]
    figures: dict[str, float | str]


@dataclass(frozen=True)
class Corpus:
    """Vectors in Parquet files, and how they are selected from."""

    files: str
    out: Path
    rows: int
    dimension: int
    clusters: int
    size: int


@dataclass(frozen=True)
class Bench:
    """How sections run.

    Attributes:
        folder: for data and outputs.
        results: for what is kept: tables and pictures.
        quick: everything at a twentieth of its size, once.
        flame: whether tithe runs once more under a profiler.
    """

    folder: Path
    results: Path
    quick: bool
    flame: bool

    def scaled(self, size: int) -> int:
        """A size, or a twentieth of it."""
        return size // 20 if self.quick else size

    @property
    def repetitions(self) -> int:
        """Runs of each variant."""
        return 1 if self.quick else 3

    def alternate(self, variants: Mapping[str, Callable[[], Figures]], repetitions: int | None = None) -> Runs:
        """Runs each variant once, then each again, so that what the machine does meets them all alike."""
        runs: Runs = {name: [] for name in variants}
        for _ in range(repetitions or self.repetitions):
            for name, run in variants.items():
                runs[name].append(run())
                told = {key: value for key, value in runs[name][-1].items() if not isinstance(value, dict)}
                print(f"  {name}: {', '.join(f'{key} {value}' for key, value in told.items())}", flush=True)
        return runs

    def tiny(self) -> Corpus:
        """A corpus whose selection takes next to nothing but start-up; written unless it stands."""
        return self.mixture(16_000, 128, 100, 100)

    def mixture(self, rows: int, dimension: int, clusters: int, size: int) -> Corpus:
        """A corpus of normal clusters, written unless it stands."""
        folder = self.folder / f"mixture-{rows}-{dimension}"
        run_python("bench_data", "mixture", str(folder), "--rows", str(rows), "--dimension", str(dimension))
        return Corpus(f"{folder}/*.parquet", self.folder / f"out-{folder.name}", rows, dimension, clusters, size)


def clean_environment() -> None:
    """Takes away what would make the matrix products of the programs slower or faster than they are."""
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)


def run_python(name: str, *arguments: str) -> Figures:
    """Runs a program of this folder and returns what it took."""
    return measure([sys.executable, str(HERE / f"{name}.py"), *arguments])


def one_blas_thread() -> list[str]:
    """What stands before the command of a program with threads of its own."""
    return ["env", "OPENBLAS_NUM_THREADS=1"]


def run_program(name: str, corpus: Corpus, method: str = "", *, threads_of_blas: bool = False) -> Figures:
    """Runs one of the programs that take a `Job`, and returns what it took and what it told."""
    folder = corpus.out.parent / f"by-{name}-{method if '/' not in method else ''}"
    result = corpus.out.parent / f"{name}.json"
    command = [] if threads_of_blas else one_blas_thread()
    command += [sys.executable, str(HERE / f"{name}.py"), "--files", corpus.files, "--folder", str(folder)]
    for option, value in (
        ("rows", corpus.rows),
        ("dimension", corpus.dimension),
        ("clusters", corpus.clusters),
        ("size", corpus.size),
        ("method", method),
    ):
        command += [f"--{option}", str(value)]
    used = measure([*command, "--result", str(result)])
    return {**used, **json.loads(result.read_text())}


def write_config(corpus: Corpus) -> Path:
    """Writes J1's configuration for a corpus beside its output folder; returns the path."""
    settings: Mapping[str, Any] = CONFIGURATION
    sections = {
        "input": {"files": corpus.files, "format": "parquet", "id": "id"},
        **settings,
        "cluster": {**settings["cluster"], "count": corpus.clusters},
        "sample": {**settings["sample"], "size": corpus.size},
        "output": {"path": str(corpus.out)},
    }
    path = corpus.out.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sections))  # JSON is YAML
    return path


def tithe(*arguments: str) -> list[str]:
    """The command."""
    return [sys.executable, "-m", "tithe", *arguments]


def silent(command: list[str]) -> list[str]:
    """A command whose output is of no interest."""
    return ["sh", "-c", 'exec "$@" > /dev/null', "sh", *command]


def select(corpus: Corpus, *arguments: str, anew: bool = True) -> Figures:
    """Runs `tithe select`, from the input on or from what stands, and returns what it took, with what the manifest
    says."""
    if anew:
        shutil.rmtree(corpus.out, ignore_errors=True)
    used = measure(tithe("select", str(write_config(corpus)), "--quiet", *arguments))
    manifest = read_manifest(corpus)
    return {
        **used,
        "phases": {stage["name"]: round(stage["seconds"], 2) for stage in manifest["stages"]},
        "cost_of_anchors": manifest["cluster"]["cost_of_anchors"]["cost"],
        "clusters": manifest["cluster"]["clusters"],
        "drawn": manifest["sample"]["records"],
        "sample_digest": manifest["sample_digest"],
    }


def read_manifest(corpus: Corpus) -> Figures:
    """The manifest of a finished selection."""
    manifest: Figures = json.loads((corpus.out / "manifest.json").read_text())
    return manifest


def cost_of(corpus: Corpus, centers: Path) -> float:
    """The cost of centers in the space of the input for each record, by one full pass."""
    return float(run_program("bench_cost", corpus, str(centers.resolve()))["cost_per_record"])


def values(runs: Iterable[Figures], figure: str = "wall_seconds") -> list[float]:
    """One figure of each run; that of a phase by `phases.NAME`, and several added up by `phases.A+B`."""
    first, _, names = figure.partition(".")
    if not names:
        return [run[first] for run in runs]
    return [sum(run[first][name] for name in names.split("+")) for run in runs]


def divided(above: Iterable[float], below: Iterable[float]) -> list[float]:
    """The quotients, repetition by repetition."""
    return [round(a / b, 4) if b else float("inf") for a, b in zip(above, below, strict=True)]
