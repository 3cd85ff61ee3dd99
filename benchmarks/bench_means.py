"""Writes the centers after a round of a selection, in the space of its input.

    python benchmarks/bench_means.py WORK ROUND TARGET.npy

WORK is the work folder of a selection of vectors without labels. Where it holds several clusterings, the newest counts.
"""

import sys
from pathlib import Path

import numpy as np

from tithe.transforms.centers import read_centers
from tithe.transforms.space import read_space


def newest(work: Path, pattern: str) -> str:
    """The newest file of a pattern; SystemExit where there is none."""
    found = sorted(work.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SystemExit(f"{work} holds no {pattern}; run `tithe select` first")
    return str(found[-1])


def main() -> None:
    """Reads the command line and writes the centers, float32, (k, d)."""
    work, number, target = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    space = read_space(newest(work, "embed-*/space.npz"))
    points = read_centers(newest(work, f"cluster-*/round-{number:04d}.npz")).points
    np.save(target, (points.astype(np.float64) + space.origin).astype(np.float32))


if __name__ == "__main__":
    main()
