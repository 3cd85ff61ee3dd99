"""The sample stage: the proxy and its constants, the size, the draw, and the records fetched."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tithe.config import Config, NoLoss
from tithe.transforms import vectors
from tithe.transforms.draw import (
    DrawSample,
    Everything,
    Proxies,
    ProxyRule,
    ProxyTotals,
    TotalProxies,
    make_sampler,
)
from tithe.transforms.errors import InputError
from tithe.transforms.kernels import choice, exact, promise
from tithe.transforms.kernels.choice import Choice, Pilot, Totals
from tithe.transforms.kernels.estimators import predicted_standard_error
from tithe.transforms.kernels.proxy import balanced_lipschitz
from tithe.transforms.kernels.systematic import chain_order, loss_order, mass_scale
from tithe.transforms.publish import PART_ROWS, FetchSample, FetchTask
from tithe.transforms.sums import SumTerms
from tithe.transforms.systematic import DrawSystematic, SystematicTask


@dataclass
class Drawing:
    """What the sample stage works with.

    Attributes:
        config: the configuration.
        plan: path of the plan of splits.
        vectors_folder: of vectors/.
        losses: folder of the losses stage, with the anchors.
        scores: folder of the score stage.
        records: of the corpus.
        neighbors: anchors that scores/ holds for each record.
        cost: of the anchors.
        format: of the input.
        sample_folder: where the parts go.
        pipeline: runs a transform as a pipeline of a name.
        watch: runs a block while it tells how many parts of the sample stand.
        threads: of a worker.
    """

    config: Config
    plan: str
    vectors_folder: str
    losses: str
    scores: str
    records: int
    neighbors: int
    cost: float
    format: str
    sample_folder: str
    pipeline: Callable[[str, Any], None]
    watch: Callable[[str, int], Any]
    threads: int

    def make(self, folder: str) -> dict[str, Any]:
        """Draws and fetches the sample, and returns the facts of the stage."""
        proxies, chosen = self.proxies(folder)
        size, warnings = self._size(chosen), []
        self.pipeline("total", TotalProxies(self.plan, proxies, size, f"{folder}/totals.json", self.threads))
        totals = vectors.read_json(f"{folder}/totals.json")
        total, positive = int(totals["total"], 16), totals["positive"]
        drawn, method = f"{folder}/chosen.npy", self.config.sample.method
        if size >= self.records:
            if size > self.records:
                warnings.append(
                    f"a sample of {size:,} is more than the {self.records:,} records there are: every one is taken, "
                    "with weight 1"
                )
            sampler = Everything(self.records)
            self.pipeline("draw", DrawSample(self.plan, proxies, sampler, drawn, self.threads))
        elif total == 0:
            raise InputError(
                "the total of the proxy is 0: every loss asked for is 0, and no distance counts; set "
                "score.lipschitz to "
                "a number above 0, or use loss.kind: none"
            )
        else:
            if positive < size and method != "multinomial":
                warnings.append(
                    f"only {positive:,} records have a positive proxy, and the sample is to be {size:,}: these are "
                    "taken, with weight 1"
                )
            largest = vectors.read_array(f"{folder}/totals.npy")
            self._draw(folder, proxies, (total, largest, positive, size), drawn)
        facts = vectors.read_json(drawn.replace(".npy", ".json"))
        parts = self._fetch(folder, drawn, facts["records"])
        return {
            **facts,
            "method": method,
            "size": size,
            "total": exact.to_float(total),
            "positive": positive,
            "without_probability": self.records - positive,
            "rule": dataclasses.asdict(proxies.rule),
            "choice": self.choice_facts(chosen, size),
            "guarantee": self._guarantee(size, exact.to_float(total)),
            "warnings": warnings,
            "parts": parts,
        }

    # -- the proxy ---------------------------------------------------------------------------------------------------

    def proxies(self, folder: str) -> tuple[Proxies, "Chosen | None"]:
        """Returns the proxies, their constants given or chosen by the pilot, and that choice.

        `folder` is for totals.
        """
        score, losses = self.config.score, f"{self.losses}/losses.npy"
        rule = ProxyRule(self.neighbors, score.power, 0.0)
        proxies = Proxies(self.vectors_folder, self.scores, losses, rule)
        if isinstance(self.config.loss, NoLoss):
            return proxies, None
        pilot_rows = vectors.read_array(f"{self.scores}/pilot.npy")
        totals = self._terms(folder, proxies)
        lipschitz, floor = score.lipschitz, score.floor
        if not (self.config.smoothed and len(pilot_rows)):
            # Nothing is chosen: what is not given has the paper's value.
            lipschitz = "balanced" if lipschitz is None else lipschitz
            floor = floor or 0.0
        if lipschitz == "balanced":
            lipschitz = balanced_lipschitz(totals.suggested, totals.distances)
        assert not isinstance(lipschitz, str)
        if not len(pilot_rows):
            point = choice.Point(lipschitz or 0.0, floor or 0.0)
            return dataclasses.replace(proxies, rule=self._rule(rule, point, totals)), None
        pilot = self._pilot(pilot_rows, rule)
        found = choice.choose(pilot, totals, lipschitz, floor, self.config.cluster.seed)
        made = dataclasses.replace(proxies, rule=self._rule(rule, found.point, totals))
        return made, Chosen(found, pilot, totals, self._hoelder(pilot_rows, found.point))

    def _rule(self, rule: ProxyRule, point: choice.Point, totals: Totals) -> ProxyRule:
        mean = totals.proxy(point.lipschitz) / totals.records
        return dataclasses.replace(rule, lipschitz=point.lipschitz, floor=point.floor, uniform=mean or 1.0)

    def _terms(self, folder: str, proxies: Proxies) -> Totals:
        """The totals of suggested losses and distances: from the clusters where one anchor counts, from a pass over
        scores/ else.
        """
        if proxies.rule.neighbors == 1 and proxies.rule.power == 2:
            counts = vectors.read_array(f"{self.scores}/clusters.npy")["count"]
            suggested = exact.to_float(exact.exact_sum(counts * vectors.read_array(proxies.losses)))
            return choice.Totals(self.records, suggested, self.cost)
        path = f"{folder}/terms.json"
        self.pipeline("terms", SumTerms(self.plan, proxies, path, self.threads))
        return choice.Totals(self.records, **vectors.read_json(path))

    def _pilot(self, rows: Any, rule: ProxyRule) -> Pilot:
        losses = vectors.read_array(f"{self.losses}/losses.npy")
        suggested, distances = rule.terms(losses, rows)
        return choice.Pilot(losses[rows["number"]], suggested, distances, rows["hash"])

    def _hoelder(self, rows: Any, point: choice.Point) -> dict[str, Any]:
        """The share of the pilot above its proxy, for both powers of the distance; the constant in use, or one fitted
        for the other power.
        """
        out = {}
        for power in (1, 2):
            pilot = self._pilot(rows, ProxyRule(self.neighbors, power, 0.0))
            in_use = power == self.config.score.power and not point.constant
            lipschitz = point.lipschitz if in_use else choice.fitted_lipschitz(pilot)
            share = choice.share_above(pilot.losses, pilot.suggested + lipschitz * pilot.distances)
            out[f"z={power}"] = {"lipschitz": lipschitz, **dataclasses.asdict(share)}
        return out

    def choice_facts(self, chosen: "Chosen | None", size: int) -> dict[str, Any] | None:
        """Returns what the manifest says of a choice; None where nothing was chosen."""
        if chosen is None:
            return None
        found, pilot = chosen.choice, chosen.pilot
        # Constant probabilities have no proxy of their own: what is said of it is said of the fitted one.
        lipschitz = choice.fitted_lipschitz(pilot) if found.point.constant else found.point.lipschitz
        proxy = pilot.suggested + lipschitz * pilot.distances
        facts = {
            "chosen": dataclasses.asdict(found.point),
            "variance": found.variance,
            "candidates": [{**dataclasses.asdict(p), "variance": v} for p, v in found.points],
            "share_above_proxy": chosen.hoelder,
            "correlation": choice.correlations(pilot.losses, proxy),
            "gain": dataclasses.asdict(found.gain),
            "sentence": choice.sentence(found),
            "predicted_total_loss": chosen.loss_total,
            "predicted_standard_error": (
                predicted_standard_error(found.variance, size) if size < self.records else 0.0
            ),
            "pilot": len(pilot.losses),
        }
        return {name: _finite(value) for name, value in facts.items()}

    # -- the size ----------------------------------------------------------------------------------------------------

    def _size(self, chosen: "Chosen | None") -> int:
        sample, score = self.config.sample, self.config.score
        if sample.size is not None:
            return sample.size
        if sample.epsilon is not None and sample.delta is not None:
            return promise.hoeffding_size(sample.epsilon, sample.delta, score.floor or 0.0)
        assert chosen is not None and sample.standard_error is not None
        if not chosen.loss_total > 0 or not math.isfinite(chosen.choice.variance):
            raise InputError(
                "sample.standard_error: the pilot's losses cannot tell a size (all of them 0, or of infinite "
                "variance); give sample.size"
            )
        return promise.size_for_standard_error(chosen.choice.variance, chosen.loss_total, sample.standard_error)

    def _guarantee(self, size: int, total: float) -> str | None:
        sample = self.config.sample
        if sample.epsilon is None or sample.delta is None:
            return None
        if size >= self.records:
            return f"the promise takes {size:,} draws, so every record is taken, and totals from the sample are exact"
        return promise.guarantee(sample.epsilon, sample.delta, size, total)

    # -- the draw ----------------------------------------------------------------------------------------------------

    def _draw(self, folder: str, proxies: Proxies, totals: tuple[int, Any, int, int], path: str) -> None:
        total, largest, positive, size = totals
        seed, method = self.config.sample.seed, self.config.sample.method
        if method == "systematic":
            order = f"{folder}/order.npy"
            vectors.write_array(order, self.order(proxies.losses))
            task = SystematicTask(proxies, order, mass_scale(total, largest, positive, size), seed, folder)
            self.pipeline("draw", DrawSystematic(self.plan, task, path, self.threads))
            return
        sampler = make_sampler(method, ProxyTotals(total, positive, largest), size, seed)
        self.pipeline("draw", DrawSample(self.plan, proxies, sampler, path, self.threads))

    def order(self, losses: str) -> Any:
        """Returns the rank of each cluster in the pass: by loss; along a chain of anchors where losses are equal."""
        values = vectors.read_array(losses)
        if np.ptp(values) > 0:
            return loss_order(values)
        return chain_order(np.ascontiguousarray(vectors.read_array(f"{self.losses}/anchors.npy")["vector"]))

    def _fetch(self, folder: str, drawn: str, records: int) -> list[dict[str, Any]]:
        config = self.config
        task = FetchTask(
            chosen=drawn,
            plan=self.plan,
            folder=self.sample_folder,
            stem=f"part-{folder[-8:]}",
            format=self.format,
            id_field=config.input.id,
            max_record_bytes=config.input.max_record_bytes,
            with_order=config.sample.method == "systematic",
        )
        with self.watch(f"{task.folder}/{task.stem}-*", math.ceil(records / PART_ROWS)):
            self.pipeline("fetch", FetchSample(task, f"{folder}/parts.json", self.threads))
        parts: list[dict[str, Any]] = vectors.read_json(f"{folder}/parts.json")
        return parts


def _finite(value: Any) -> Any:
    """Facts with None in the place of what is infinite or no number, which JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(some) for name, some in value.items()}
    if isinstance(value, list):
        return [_finite(some) for some in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Chosen:
    """A choice with the pilot and the totals that it was made from."""

    choice: Choice
    pilot: Pilot
    totals: Totals
    hoelder: dict[str, Any]

    @property
    def loss_total(self) -> float:
        """The total of the losses, as the pilot estimates it."""
        return float(self.totals.records * self.pilot.losses.mean())
