"""A corpus whose losses are all known, gathered in one process from the stages of a selection."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.errors import InputError
from tithe.transforms.locate import locate
from tithe.transforms.losses import AskRecords, ColumnLosses, LossSource, Reading
from tithe.transforms.parallel import read_plan

WHERE = np.dtype([("split", "<i8"), ("piece", "<i4"), ("position", "<i8")])
"""Where a record is."""


@dataclass(frozen=True)
class Population:
    """All records, in the order of splits, parts and id hashes.

    Attributes:
        where: WHERE, (n,).
        hashes: id hashes, uint64, (n,).
        scores: `score_dtype`, (n,).
    """

    where: NDArray[np.void]
    hashes: NDArray[np.uint64]
    scores: NDArray[np.void]


def gather_population(plan: str, vectors_folder: str, scores_folder: str) -> Population:
    """Reads all rows and scores; about 24 + 8 q bytes a record."""
    where, hashes, scores = [], [], []
    for number, split in read_plan(plan):
        for i, part in enumerate(vectors.parts_of(f"{vectors_folder}/{split.key}")):
            rows = vectors.read_array(f"{part.stem}.rows.npy")
            some = np.empty(len(rows), WHERE)
            some["split"], some["piece"], some["position"] = number, rows["piece"], rows["position"]
            where.append(some)
            hashes.append(rows["hash"])
            scores.append(vectors.read_array(f"{vectors.part_stem(f'{scores_folder}/{split.key}', i)}.scores.npy"))
    return Population(np.concatenate(where), np.concatenate(hashes), np.concatenate(scores))


def ask_everything(
    population: Population,
    plan: str,
    source: LossSource,
    reading: Reading,
    pipeline: Callable[[str, Any], None],
    folder: str,
    threads: int,
) -> NDArray[np.float64]:
    """Returns the loss of each record, float64, (n,): a column is read, a model is asked in a pipeline.

    Raises:
        InputError: a loss that cannot be used, or a record on which the model fails.
    """
    if isinstance(source, ColumnLosses):
        losses = np.empty(len(population.where))
        for some in locate(plan, population.where):
            losses[some.rows] = source.ask(some, reading).losses
        return losses
    wanted, path = f"{folder}/tmp/wanted.npy", f"{folder}/tmp/answers.npy"
    vectors.write_array(wanted, population.where)
    pipeline("everything", AskRecords(wanted, plan, source, reading, path, threads))
    failed = vectors.read_json(path.replace(".npy", ".json"))["failed"]
    if failed:
        row, reason = next(iter(failed.items()))
        raise InputError(
            f"evaluate needs the loss of every record, and the model failed on {len(failed):,} of them "
            f"(the first: position {population.where['position'][int(row)]}: {reason})"
        )
    return vectors.read_array(path)
