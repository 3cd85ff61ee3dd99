"""Checkpoints of the centers, and the reference to one that travels through the graph."""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from tithe.transforms import vectors
from tithe.transforms.counters import READ, count
from tithe.transforms.files import open_bytes, write_atomically
from tithe.transforms.kernels import rounds, search
from tithe.transforms.parallel import once_a_process


@dataclass(frozen=True)
class Reference:
    """What one round hands to the next: where its centers are, and whether another round would change nothing."""

    path: str
    converged: bool = False


def write_centers(path: str, centers: rounds.Centers, **facts: Any) -> None:
    """Writes a checkpoint: the centers, and a .json beside it with what the round measured."""
    buffer = BytesIO()
    np.savez(buffer, points=centers.points, weights=centers.weights)
    write_atomically(path, buffer.getvalue())
    vectors.write_json(path.replace(".npz", ".json"), facts)


def read_centers(path: str) -> rounds.Centers:
    """Returns the centers of a checkpoint."""
    with open_bytes(path) as file:
        stored = file.read()
    count(READ, len(stored))
    with np.load(BytesIO(stored)) as data:
        return rounds.Centers(data["points"], data["weights"])


@once_a_process(2)
def prepared(path: str) -> search.Prepared:
    """Returns the centers of a checkpoint ready for search, read once in a process."""
    return search.prepare(read_centers(path).points)
