"""Small corpora, configurations and runs of the command, for the tests of the whole way from files to a sample."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tithe.cli import main

TITHE_COLUMNS = [
    "tithe_weight",
    "tithe_probability",
    "tithe_multiplicity",
    "tithe_cluster",
    "tithe_distance",
    "tithe_proxy",
    "tithe_file",
    "tithe_position",
]


def points(n: int, d: int = 6, modes: int = 8, seed: int = 1) -> NDArray[np.float32]:
    """Vectors around a few modes that lie far apart, float32, (n, d); the first rows do not depend on n."""
    centers = np.random.default_rng(seed).standard_normal((modes, d)) * 4
    noise = np.random.default_rng(seed + 1).standard_normal((n, d)) * 0.5
    return (centers[np.arange(n) % modes] + noise).astype(np.float32)


def fixed_lists(values: NDArray[Any]) -> Any:
    """A fixed-size list column of an (n, d) array."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])


def table(n: int = 300, d: int = 6, seed: int = 1, **columns: Any) -> Any:
    """A table of n records: id, vector, loss; further columns replace these or come behind them."""
    base = {
        "id": [f"r{i:05d}" for i in range(n)],
        "vector": fixed_lists(points(n, d, seed=seed)),
        "loss": np.random.default_rng(seed + 2).gamma(1.0, 1.0, n),
    }
    return pa.table(base | columns)


def write_parquet(folder: Path, records: Any, files: int = 1, row_group: int = 100) -> Path:
    """Writes a table as so many files of nearly equal size, rows in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    bounds = [i * len(records) // files for i in range(files + 1)]
    for i in range(files):
        part = records.slice(bounds[i], bounds[i + 1] - bounds[i])
        pq.write_table(part, folder / f"part-{i}.parquet", row_group_size=row_group)
    return folder


def to_lines(records: Any) -> list[str]:
    """A table as JSON lines."""
    return [json.dumps(record) for record in records.to_pylist()]


def write_lines(path: Path, lines: list[str]) -> Path:
    """Writes lines, each with a line end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def configure(folder: Path, files: str, name: str = "c.yaml", /, **sections: Mapping[str, Any]) -> str:
    """Writes a configuration for vectors in a column, and gives its path; a section's keys replace those given here.

    `embed` and `loss` replace the whole section, since their keys depend on their kind.
    """
    whole: dict[str, Any] = {
        "input": {"files": files, "id": "id"},
        "embed": {"kind": "column", "column": "vector"},
        "cluster": {"count": 8, "rounds": 1},
        "sample": {"size": 40, "method": "pareto"},
        "output": {"path": str(folder / "out")},
    }
    for section, keys in sections.items():
        whole[section] = dict(keys) if section in ("embed", "loss") else {**whole.get(section, {}), **keys}
    path = folder / name
    path.write_text(json.dumps(whole, indent=1), encoding="utf-8")  # JSON is YAML
    return str(path)


def select(config: str, *arguments: str) -> int:
    """The exit code of `tithe select` in this process."""
    return main(["select", config, *arguments])


def manifest(output: Path) -> dict[str, Any]:
    """The manifest of an output folder."""
    found: dict[str, Any] = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    return found


def part_paths(output: Path) -> list[Path]:
    """The parts of the sample, in the manifest's order."""
    return [output / part["name"] for part in manifest(output)["sample"]["parts"]]


def sample(output: Path) -> Any:
    """The sample of an output folder: a table (Parquet), or a list of records (JSON lines)."""
    paths = part_paths(output)
    if paths[0].suffix == ".parquet":
        return pa.concat_tables([pq.read_table(path) for path in paths])
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def digest(output: Path) -> tuple[str, str]:
    """What must not change from run to run: the manifest's digest, and the sha256 over the bytes of the parts."""
    content = hashlib.sha256(b"".join(path.read_bytes() for path in part_paths(output))).hexdigest()
    return manifest(output)["sample_digest"], content


def made(output: Path) -> set[str]:
    """The stages that the last run made and did not find."""
    return {stage["name"] for stage in manifest(output)["stages"] if not stage["stood"]}


def dead_letters(output: Path) -> list[dict[str, Any]]:
    """The dead letters of an output folder."""
    paths = sorted((output / "dead_letter").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
