"""From a file of located rows (anchors, drawn records) to the records themselves, read again where they lie."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.parallel import read_plan
from tithe.transforms.splits import Piece


@dataclass(frozen=True)
class Located:
    """Rows of one file, and where they stand among all that are wanted.

    Attributes:
        piece: the file.
        positions: int64, (n,), ascending, without repeats.
        rows: int64, (n,): which rows of the file of located rows these are.
    """

    piece: Piece
    positions: NDArray[np.int64]
    rows: NDArray[np.int64]


def locate(plan: str, wanted: NDArray[np.void]) -> Iterator[Located]:
    """Yields the wanted rows file by file, in the order of file name and position.

    Args:
        plan: path of the plan of splits.
        wanted: structured array with the fields split, piece and position, (n,).
    """
    names: dict[str, Piece] = {}
    numbers = set(np.unique(wanted["split"]).tolist())
    pieces: dict[tuple[int, int], Piece] = {}
    for number, split in read_plan(plan):
        if number in numbers:
            for i, piece in enumerate(split.pieces):
                pieces[number, i] = piece
                names[piece.name] = piece
    order_of_name = {name: i for i, name in enumerate(sorted(names))}
    keys, place = np.unique(wanted[["split", "piece"]], return_inverse=True)
    file = np.array([order_of_name[pieces[int(s), int(p)].name] for s, p in keys], np.int64)[place]
    order = np.lexsort((wanted["position"], file))
    files = np.split(order, np.flatnonzero(np.diff(file[order])) + 1) if len(order) else []
    in_order = sorted(names)
    for rows in files:
        yield Located(names[in_order[file[rows[0]]]], wanted["position"][rows].astype(np.int64), rows)


def grouped(located: Iterator[Located], size: int) -> Iterator[list[Located]]:
    """Yields groups of consecutive rows with `size` rows each (the last with fewer), files cut where a group is
    full.
    """
    group: list[Located] = []
    held = 0
    for some in located:
        start = 0
        while start < len(some.rows):
            stop = min(len(some.rows), start + size - held)
            group.append(Located(some.piece, some.positions[start:stop], some.rows[start:stop]))
            held += stop - start
            start = stop
            if held == size:
                yield group
                group, held = [], 0
    if group:
        yield group


def read_wanted(path: str) -> NDArray[np.void]:
    """Returns the fields split, piece and position of a file of located rows."""
    wanted: NDArray[np.void] = vectors.read_array(path)[["split", "piece", "position"]]
    return wanted
