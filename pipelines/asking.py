"""The losses stage: which records are the anchors, and what their losses are."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tithe.config import AskedLoss, Config, FileLoss
from tithe.transforms import loss_file, vectors
from tithe.transforms.errors import InputError, TitheError
from tithe.transforms.files import absolute, exists, open_bytes, write_atomically
from tithe.transforms.kernels import anchors as anchor_kernel
from tithe.transforms.losses import AskRecords, LossSource, ModelLosses, Reading
from tithe.transforms.parallel import read_plan
from tithe.transforms.pilot import DrawPilot
from tithe.transforms.space import Reader

MAX_FAILURES = 0.1
"""Share of the anchors on which the model may fail, each replaced by another record; beyond it, it is the model that is
broken.
"""


class WaitingForLosses(TitheError):
    """The run has written the records whose losses it needs, and waits for them."""

    exit_code = 3


def loss_file_print(config: Config) -> str:
    """Returns a fingerprint of the loss file's content; empty where there is none yet."""
    if not isinstance(config.loss, FileLoss):
        return ""
    loss_file.suffix_of(config.loss.path)
    if not exists(absolute(config.loss.path)):
        return ""
    with open_bytes(absolute(config.loss.path)) as file:
        return hashlib.sha256(file.read()).hexdigest()


def call_bound(anchors: int, max_calls: int | None) -> int:
    """Returns how many records are given to a model at most for so many anchors, those that it fails on among them."""
    bound = anchors + math.ceil(MAX_FAILURES * anchors)
    return bound if max_calls is None else min(bound, max_calls)


@dataclass
class Asking:
    """What the losses stage works with.

    Attributes:
        config: the configuration.
        plan: path of the plan of splits.
        reader: of vectors/.
        records: of the corpus.
        clusters: folder of the cluster stage.
        source: what answers; None where losses are constant, or in a file.
        reading: how records are read.
        pipeline: runs a transform as a pipeline of a name.
        tell: tells one line.
        threads: of a worker.
    """

    config: Config
    plan: str
    reader: Reader
    records: int
    clusters: str
    source: LossSource | None
    reading: Reading
    pipeline: Callable[[str, Any], None]
    tell: Callable[[str], None]
    threads: int

    def make(self, folder: str) -> dict[str, Any]:
        """Writes anchors.npy and losses.npy, aligned, and returns the facts of the stage.

        Raises:
            WaitingForLosses: the losses are in a file that somebody has to fill.
            InputError: losses that cannot be used, or a model that fails too often.
        """
        representatives = vectors.read_array(f"{self.clusters}/representatives.npy")
        failed: dict[tuple[int, int, int], str] = {}
        pilot = self._pilot(folder, representatives)
        self.bound = 0
        if isinstance(self.config.loss, FileLoss):
            anchors = self._assemble(representatives, pilot, set())
            losses, calls = self._from_file(folder, anchors, self.config.loss.path), 0
        elif self.source is None:
            anchors = self._assemble(representatives, pilot, set())
            losses, calls = np.ones(len(anchors)), 0
        else:
            anchors, losses, calls, failed = self._ask(folder, representatives, pilot)
        vectors.write_array(f"{folder}/anchors.npy", anchors)
        vectors.write_array(f"{folder}/losses.npy", losses)
        return {
            "anchors": len(anchors),
            "representatives": int(anchors["representative"].sum()),
            "pilot": int(anchors["pilot"].sum()),
            "model_calls": calls,
            "model_calls_bound": self.bound,
            "failed": len(failed),
            "mean": float(losses.mean()),
            "largest": float(losses.max()),
            "anchors_digest": hashlib.sha256(
                anchors["hash"].tobytes() + anchors["vector"].tobytes() + anchors["pilot"].tobytes()
            ).hexdigest(),
        }

    def _pilot(self, folder: str, representatives: NDArray[np.void]) -> NDArray[np.void]:
        """The pilot and its spares; none where no losses are asked for."""
        size = self._pilot_size()
        if size == 0:
            return representatives[:0]
        path, seed = f"{folder}/pilot.npy", self.config.cluster.seed
        self.pipeline("pilot", DrawPilot(self.plan, self.reader, seed, size, self.records, path, self.threads))
        return vectors.read_array(path)

    def _pilot_size(self) -> int:
        loss = self.config.loss
        return min(loss.pilot, self.records) if isinstance(loss, AskedLoss) else 0

    def _assemble(
        self, representatives: NDArray[np.void], pilot: NDArray[np.void], failed: set[tuple[int, int, int]]
    ) -> NDArray[np.void]:
        spares = vectors.read_array(f"{self.clusters}/spares.npy")
        return anchor_kernel.assemble(representatives, spares, pilot, self._pilot_size(), failed)

    def _ask(
        self, folder: str, representatives: NDArray[np.void], pilot: NDArray[np.void]
    ) -> tuple[NDArray[np.void], NDArray[np.float64], int, dict[tuple[int, int, int], str]]:
        """Asks until every anchor has a loss: in the place of a record on which the model fails comes the next.

        Where no more calls are allowed, such a record is left out, and nothing takes its place.
        """
        losses: dict[tuple[int, int, int], float] = {}
        failed: dict[tuple[int, int, int], str] = {}
        calls = 0
        anchors = self._assemble(representatives, pilot, set())
        allowed = math.ceil(MAX_FAILURES * len(anchors))
        bound = call_bound(len(anchors), getattr(self.config.loss, "max_calls", None))
        if isinstance(self.source, ModelLosses):
            self.bound = bound
            self.tell(f"{len(anchors):,} anchors; at most {bound:,} records are given to the model")
        while True:
            unknown = np.array([key not in losses for key in anchor_kernel.record_keys(anchors)])
            if len(losses) + len(failed) + np.count_nonzero(unknown) > bound:
                anchors, unknown = anchors[~unknown], np.zeros(0, bool)
            if not unknown.any():
                values = [losses[key] for key in anchor_kernel.record_keys(anchors)]
                return anchors, np.array(values), calls, failed
            wanted, path = f"{folder}/tmp/wanted.npy", f"{folder}/tmp/answers.npy"
            vectors.write_array(wanted, anchors[unknown])
            assert self.source is not None
            self.pipeline("losses", AskRecords(wanted, self.plan, self.source, self.reading, path, self.threads))
            answered, facts = vectors.read_array(path), vectors.read_json(path.replace(".npy", ".json"))
            calls += facts["calls"]
            reasons = {int(row): reason for row, reason in facts["failed"].items()}
            for row, key in enumerate(anchor_kernel.record_keys(anchors[unknown])):
                if row in reasons:
                    failed[key] = reasons[row]
                else:
                    losses[key] = float(answered[row])
            self._write_failed(folder, failed)
            if len(failed) > allowed or not losses:
                raise InputError(
                    f"loss.function: the model failed on {len(failed):,} of {len(losses) + len(failed):,} records "
                    f"(the first: {next(iter(failed.values()))}); others stand in for {allowed:,} at most; "
                    f"see {folder}/failed.jsonl"
                )
            anchors = self._assemble(representatives, pilot, set(failed))

    def _write_failed(self, folder: str, failed: dict[tuple[int, int, int], str]) -> None:
        """Writes dead letters for the records on which the model failed."""
        if not failed:
            return
        numbers = {split for split, _, _ in failed}
        pieces = {n: split.pieces for n, split in read_plan(self.plan) if n in numbers}
        letters = [
            {
                "file": pieces[split][piece].name,
                "position": position,
                "reason": f"the model failed: {reason}",
                "head": "",
            }
            for (split, piece, position), reason in failed.items()
        ]
        lines = "".join(json.dumps(letter, ensure_ascii=False) + "\n" for letter in letters)
        write_atomically(f"{folder}/failed.jsonl", lines.encode("utf-8", "replace"))

    def _from_file(self, folder: str, anchors: NDArray[np.void], path: str) -> NDArray[np.float64]:
        path = absolute(path)
        if exists(path):
            columns = loss_file.read_loss_file(path)
            if loss_file.is_filled(columns):
                return loss_file.losses_of(columns, anchors, path)
        wanted = f"{folder}/tmp/wanted.npy"
        vectors.write_array(wanted, anchors)
        self.pipeline("loss-file", loss_file.WriteLossFile(wanted, self.plan, self.reading, path))
        raise WaitingForLosses(
            f"waiting for losses: {path} holds {len(anchors):,} records with an empty column "
            f"{loss_file.LOSS!r}; fill it with the loss of each "
            "under your model (a finite number, at least 0; gradient norms serve too), keep the other "
            "columns, and run the same command again"
        )
