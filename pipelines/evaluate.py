"""`tithe evaluate`: the error of an estimated total, for tithe's draws and for what else one might do.

All losses are known here (a column, or a function asked for every record), so this is a trial on a corpus at hand and
no step of a selection. The clustering and the pilot are made once and shared by all draws; a corpus is gathered in the
memory of this process.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tithe.beam_options import BeamRun
from tithe.config import AskedLoss, Config, FileLoss, Score
from tithe.config_checks import MIN_PILOT
from tithe.drawing import Drawing
from tithe.evaluate_errors import (
    Errors,
    independent_error,
    pareto_errors,
    poisson_error,
    ratio_interval,
    systematic_errors,
    uniform_error,
)
from tithe.evaluate_population import ask_everything, gather_population
from tithe.progress import Progress
from tithe.select import NEIGHBORS, Scored, Selection
from tithe.transforms import vectors
from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.kernels.systematic import chain_order
from tithe.transforms.losses import Reading
from tithe.workspace import Workspace

MAX_RECORDS = 20_000_000
"""Records that are gathered in memory at most, some 2 GB of them."""

SIZES = (300, 1000, 3000)
"""Sizes that are tried where none are given."""

SMOOTHED = Score(kind="smoothed")
"""What `tithe select` does where nothing is pinned."""

DEFAULT = "tithe"
UNIFORM = "uniform"
ALONG = "equal, along the clusters"
PAPER = "independent, plain proxy"
CONFIGURED = "configured"
"""Uniform is without replacement; equal probabilities are drawn systematically along the same clusters; independent
draws from the plain proxy, balanced, over the same anchors are the paper's own."""

FREE, COUNTED = "draws free", "every loss counts"


@dataclass(frozen=True)
class Way:
    """A way to draw, which gives errors for sizes; `calls` says that it asks for the losses of the anchors."""

    name: str
    calls: bool


def evaluate(
    config: Config, run: BeamRun, space: Workspace, progress: Progress, seeds: int, sizes: Sequence[int] | None
) -> dict[str, Any]:
    """Compares ways to draw on a corpus whose losses are all known.

    Args:
        config: of a selection, with `loss.kind` column or model.
        run: how pipelines are started.
        space: the output folder, held by this run; its stages are made where they do not stand.
        progress: what is told.
        seeds: draws for each error that has no closed form, >= 2.
        sizes: of the samples; SIZES, those below a third of the corpus, where None.

    Returns:
        JSON-able: `records`, `total_loss`, `mean_loss`, `anchors`, `representatives`, `pilot`, `seeds`, `chosen` (the
        point and what the pilot says of it), and `errors`, a list of rows with `accounting`, `size`, `draws`, `losses`
        (asked in all), `way`, `error`, `low`, `high`, `closed_form`, and `ratio`, `ratio_low`, `ratio_high`: tithe's
        error over this one's.

    Raises:
        UsageError: losses that are not all known, or sizes that the corpus does not allow.
        InputError: a corpus that is too large to be gathered, or losses that cannot be used.
    """
    _check(config, seeds, sizes)
    return Evaluation(config, run, space, progress, seeds).evaluate(sizes)


def _check(config: Config, seeds: int, sizes: Sequence[int] | None) -> None:
    loss = config.loss
    if not isinstance(loss, AskedLoss) or isinstance(loss, FileLoss):
        raise UsageError(
            f"loss.kind: {loss.kind} does not tell the loss of every record, which evaluate needs; use column or model"
        )
    if loss.pilot < MIN_PILOT:
        raise UsageError(f"loss.pilot: {loss.pilot} is too few for tithe's default, which evaluate tries; give 200")
    if seeds < 2:
        raise UsageError(f"--seeds {seeds}: give 2 or more")
    if sizes is not None and (not sizes or min(sizes) < 1):
        raise UsageError("--sizes: give whole numbers above 0, as in 300,1000,3000")


@dataclass
class Evaluation:
    """One run of `tithe evaluate`; the attributes are the arguments of `evaluate`."""

    config: Config
    run: BeamRun
    space: Workspace
    progress: Progress
    seeds: int

    def evaluate(self, sizes: Sequence[int] | None) -> dict[str, Any]:
        """Returns what `evaluate` does."""
        neighbors = max(NEIGHBORS, self.config.score.neighbors or 1)
        wide = self.config.model_copy(update={"score": Score(neighbors=neighbors)})
        selection = Selection(wide, self.run, self.space, self.progress)
        scored = selection.score_corpus()
        records = selection.totals["rows"]
        if records > MAX_RECORDS:
            raise InputError(
                f"{records:,} records are more than the {MAX_RECORDS:,} that evaluate gathers in memory; "
                "evaluate a part of the files"
            )
        self.drawing = scored.drawing
        self.population = gather_population(selection.plan, selection.vectors, self.drawing.scores)
        self.losses = self._losses(selection, scored)
        self.calls = scored.losses.facts["anchors"]
        self.anchor_losses = vectors.read_array(f"{self.drawing.losses}/losses.npy")
        if not self.losses.sum() > 0:
            raise InputError("every loss is 0, so a relative error of their total means nothing")
        tried = list(SIZES) if sizes is None else sorted(set(sizes))
        tried = [size for size in tried if sizes is not None or 3 * size < records]
        if not tried or max(tried) >= records:
            raise UsageError(f"--sizes: the corpus has {records:,} records; give sizes below that")
        free = self._errors(tried)
        with_calls = [size + self.calls for size in tried]
        return {
            "records": records,
            "total_loss": float(self.losses.sum()),
            "mean_loss": float(self.losses.mean()),
            "anchors": self.calls,
            "representatives": scored.losses.facts["representatives"],
            "pilot": scored.losses.facts["pilot"],
            "seeds": self.seeds,
            "chosen": self.chosen,
            "errors": [
                *(row for size in tried for row in self._rows(FREE, size, {w: e[size] for w, e in free.items()})),
                *self._counted(tried, [size for size in with_calls if size < records], free),
            ],
        }

    def _losses(self, selection: Selection, scored: Scored) -> NDArray[np.float64]:
        """The loss of every record, kept as a stage: a model that has answered is not asked again."""
        source = selection.source
        assert source is not None, "checked before"

        def make(folder: str) -> dict[str, Any]:
            reading = Reading(selection.format, self.config.input.max_record_bytes)
            pipeline, threads = self.drawing.pipeline, self.run.threads
            losses = ask_everything(self.population, selection.plan, source, reading, pipeline, folder, threads)
            vectors.write_array(f"{folder}/losses.npy", losses)
            return {"records": len(losses)}

        stage = self.space.stage("evaluate", [selection.prints.corpus, selection.prints.loss_print], make)
        return vectors.read_array(f"{stage.folder}/losses.npy")

    # -- ways to draw ------------------------------------------------------------------------------------------------

    def _errors(self, sizes: list[int]) -> dict[Way, dict[int, Errors]]:
        """The errors of every way at every size, no loss counted."""
        losses, default = self.losses, self._proxy(DEFAULT, SMOOTHED)
        self.chosen = default.chosen
        ways = {
            Way(DEFAULT, True): self._systematic(default.values, default.order, sizes),
            Way(UNIFORM, False): {size: uniform_error(losses, size) for size in sizes},
            Way(ALONG, False): self._along(sizes),
        }
        paper = self._proxy(PAPER, Score(kind="plain", lipschitz="balanced")).values
        ways[Way(PAPER, True)] = {size: independent_error(losses, paper, size) for size in sizes}
        sample, score = self.config.sample, self.config.score
        if sample.method != "systematic" or score.model_copy(update={"kind": score.kind or "smoothed"}) != SMOOTHED:
            name = f"{CONFIGURED}: {sample.method}, {score.kind or SMOOTHED.kind}"
            ways[Way(name, True)] = self._configured(self._proxy(CONFIGURED, score), sizes)
        return ways

    def _proxy(self, name: str, score: Score) -> "Proxied":
        """The proxies that `select` would have with these settings, read from the scores that all ways share."""
        config = self.config.model_copy(update={"score": score})
        neighbors = min(score.neighbors or NEIGHBORS, self.drawing.neighbors) if config.smoothed else 1
        drawing: Drawing = dataclasses.replace(self.drawing, config=config, neighbors=neighbors)
        proxies, chosen = drawing.proxies(f"{self.drawing.scores}/evaluate-{name.split()[0]}")
        values = proxies.rule.proxy(self.anchor_losses, self.population.scores)
        facts = drawing.choice_facts(chosen, 1) or {}
        told = {key: facts.get(key) for key in ("chosen", "gain", "sentence", "correlation", "share_above_proxy")}
        return Proxied(values, drawing.order(proxies.losses), told)

    def _systematic(self, proxy: NDArray[np.float64], order: NDArray[np.int64], sizes: list[int]) -> dict[int, Errors]:
        ranks = order[self.population.scores["anchor"][:, 0]]
        found = systematic_errors(self.losses, proxy, ranks, self.population.hashes, sizes, self._seeds())
        return dict(zip(sizes, found, strict=True))

    def _along(self, sizes: list[int]) -> dict[int, Errors]:
        anchors = vectors.read_array(f"{self.drawing.losses}/anchors.npy")["vector"]
        return self._systematic(np.ones(len(self.losses)), chain_order(np.ascontiguousarray(anchors)), sizes)

    def _configured(self, proxied: "Proxied", sizes: list[int]) -> dict[int, Errors]:
        method = self.config.sample.method
        if method == "systematic":
            return self._systematic(proxied.values, proxied.order, sizes)
        if method == "pareto":
            hashes = self.population.hashes
            found = pareto_errors(self.losses, proxied.values, hashes, sizes, self._seeds())
            return dict(zip(sizes, found, strict=True))
        error = independent_error if method == "multinomial" else poisson_error
        return {size: error(self.losses, proxied.values, size) for size in sizes}

    def _seeds(self) -> range:
        return range(self.config.sample.seed, self.config.sample.seed + self.seeds)

    # -- the two accountings -----------------------------------------------------------------------------------------

    def _counted(
        self, sizes: list[int], with_calls: list[int], free: dict[Way, dict[int, Errors]]
    ) -> list[dict[str, Any]]:
        """Rows in which every loss counts: what needs no anchors draws as many more records."""
        more = {UNIFORM: {s: uniform_error(self.losses, s) for s in with_calls}, ALONG: self._along(with_calls)}
        rows = []
        for size in sizes:
            at = {way: e[size] if way.calls else more[way.name].get(size + self.calls) for way, e in free.items()}
            rows += self._rows(COUNTED, size, {way: errors for way, errors in at.items() if errors is not None})
        return rows

    def _rows(self, accounting: str, size: int, errors: dict[Way, Errors]) -> list[dict[str, Any]]:
        default, rows = errors[Way(DEFAULT, True)], []
        for way, found in errors.items():
            draws = size if accounting == FREE or way.calls else size + self.calls
            low, high = found.interval()
            known = found.rmse > 0
            ratio_low, ratio_high = ratio_interval(default, found) if known else (math.inf, math.inf)
            rows.append(
                {
                    "accounting": accounting,
                    "size": size,
                    "draws": draws,
                    "losses": draws + (self.calls if way.calls else 0),
                    "way": way.name,
                    "error": found.rmse,
                    "low": low,
                    "high": high,
                    "closed_form": found.closed_form,
                    "ratio": default.rmse / found.rmse if known else None,
                    "ratio_low": ratio_low if known else None,
                    "ratio_high": ratio_high if known else None,
                }
            )
        return rows


@dataclass(frozen=True)
class Proxied:
    """Proxies of all records, float64, (n,); the rank of each cluster in the pass, (k,); and what the pilot says."""

    values: NDArray[np.float64]
    order: NDArray[np.int64]
    chosen: dict[str, Any]
