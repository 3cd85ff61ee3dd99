"""What one key of a configuration demands of another, checked before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tithe.config import Config

MIN_PILOT = 20
"""Records below which a pilot can choose nothing."""


def check(config: Config) -> list[str]:
    """Returns the mistakes, each a line that names the keys and the remedy."""
    return [*_sizes(config), *_losses(config), *_scores(config)]


def _sizes(config: Config) -> list[str]:
    sample, mistakes = config.sample, []
    given = [name for name in ("size", "epsilon", "standard_error") if getattr(sample, name) is not None]
    if not given:
        mistakes.append("sample.size: missing; give it, or sample.standard_error for a size from the pilot")
    if len(given) > 1:
        mistakes.append(f"sample: {' and '.join(given)} both set the size; give one of them")
    if (sample.epsilon is None) != (sample.delta is None):
        mistakes.append("sample.epsilon and sample.delta go together; give both, or sample.size")
    if sample.epsilon is not None:
        asserted = config.score.kind == "plain" and isinstance(config.score.lipschitz, int | float)
        if sample.method != "multinomial" or not asserted:
            mistakes.append(
                "sample.epsilon: the promise holds for sample.method multinomial, score.kind plain and a number for "
                "score.lipschitz that you vouch for; without them use sample.standard_error, a size from the pilot"
            )
    if sample.epsilon is not None and config.score.floor == 1:
        mistakes.append("score.floor: with sample.epsilon it must be below 1, or the promise takes draws without end")
    if sample.standard_error is not None and _pilot(config) == 0:
        mistakes.append("sample.standard_error: needs a pilot, so losses that are asked for (loss.pilot above 0)")
    return mistakes


def _losses(config: Config) -> list[str]:
    mistakes = []
    calls = getattr(config.loss, "max_calls", None)
    if config.cluster.count == "auto" and calls is None:
        mistakes.append(
            "cluster.count: auto needs loss.max_calls, the number of losses that may be asked for; give it (with "
            "loss.kind column, file or model), or a number for cluster.count"
        )
    if config.cluster.count == "auto" and config.sample.size is None:
        mistakes.append("cluster.count: auto needs sample.size; give it, or a number for cluster.count")
    if calls is not None:
        needed = _pilot(config) + (1 if config.cluster.count == "auto" else int(config.cluster.count))
        if calls < needed:
            mistakes.append(
                f"loss.max_calls: {calls} is below cluster.count + loss.pilot = {needed}; raise it, or lower these"
            )
    if config.loss.kind == "none" and config.sample.method != "systematic":
        mistakes.append(
            f"sample.method: {config.sample.method} with loss.kind none would be plain uniform sampling; use systematic"
        )
    return mistakes


def _scores(config: Config) -> list[str]:
    score, mistakes = config.score, []
    smoothed = config.smoothed
    if score.kind == "smoothed" and not smoothed:
        mistakes.append(f"score.kind: smoothed needs losses, and loss.kind is {config.loss.kind}; use plain")
    if smoothed and _pilot(config) < MIN_PILOT:
        mistakes.append(
            f"loss.pilot: {_pilot(config)} is too few to choose a smoothed proxy; give {MIN_PILOT} or more (200 are "
            "enough), or use score.kind plain"
        )
    if smoothed and score.lipschitz == "balanced":
        mistakes.append("score.lipschitz: balanced goes with score.kind plain; leave it out, or give a number")
    if smoothed and score.power != 2:
        mistakes.append("score.power: 1 goes with score.kind plain; a smoothed proxy takes the squared distance")
    if not smoothed and score.neighbors is not None:
        mistakes.append("score.neighbors: goes with score.kind smoothed; a plain proxy looks at one anchor")
    return mistakes


def _pilot(config: Config) -> int:
    return int(getattr(config.loss, "pilot", 0))
