"""Every pipeline of a selection, as it is built for a large corpus; nothing is read or run."""

from __future__ import annotations

import apache_beam as beam
import numpy as np

from tithe.transforms.centering import CenterCorpus
from tithe.transforms.cluster import ClusterCorpus, ClusterTask
from tithe.transforms.draw import DrawSample, Everything, Proxies, ProxyRule, Sampler, TotalProxies, make_sampler
from tithe.transforms.draw import ProxyTotals as Totals
from tithe.transforms.embed import EmbedCorpus
from tithe.transforms.embedders import HashingEmbedder
from tithe.transforms.embedding import EmbedTask
from tithe.transforms.kernels import exact
from tithe.transforms.kernels.systematic import mass_scale
from tithe.transforms.loss_file import WriteLossFile
from tithe.transforms.losses import AskRecords, ModelLosses, Reading
from tithe.transforms.pilot import DrawPilot
from tithe.transforms.publish import FetchSample, FetchTask
from tithe.transforms.score import ScoreCorpus, ScoreTask
from tithe.transforms.space import Reader
from tithe.transforms.sums import SumTerms
from tithe.transforms.systematic import DrawSystematic, SystematicTask
from tithe.transforms.usercode import UserCode

RECORDS = 100_000_000
CLUSTERS = 10_000
SIZE = 100_000
ROUNDS = 3


def stages(folder: str, seed: int = 1, rounds: int = ROUNDS) -> dict[str, beam.PTransform]:
    """The transforms by name; a folder and a seed stand for a run, whatever is in its corpus."""
    plan, vectors = f"{folder}/plan/plan.jsonl", f"{folder}/vectors"
    return {
        **_corpus(folder, plan, vectors),
        **_anchors(folder, plan, vectors, seed, rounds),
        **_sample(folder, plan, vectors, seed),
    }


def _corpus(folder: str, plan: str, vectors: str) -> dict[str, beam.PTransform]:
    embedder = HashingEmbedder(("title", "text"), 256)
    task = EmbedTask(vectors, "jsonl", "id", embedder, 256, "topic", "class", 16 << 20, False)
    settings = (256, "class", 1.0)
    totals = f"{folder}/embed/totals.json"
    return {
        "embed": EmbedCorpus(plan, task, totals, 1),
        "center": CenterCorpus(plan, vectors, f"{folder}/embed/space.npz", totals, RECORDS, settings, 1),
    }


def _anchors(folder: str, plan: str, vectors: str, seed: int, rounds: int) -> dict[str, beam.PTransform]:
    reader, reading = Reader(vectors, f"{folder}/embed/space.npz"), Reading("jsonl", 16 << 20)
    task = ClusterTask(f"{folder}/cluster", reader, CLUSTERS, rounds, 0.1, 0.01, seed)
    losses = f"{folder}/losses"
    source = ModelLosses(UserCode("losses:loss", None, "loss.function"), 32, 3, f"{folder}/loss-cache")
    scores = ScoreTask(f"{folder}/score", reader, f"{losses}/anchors.npy", 5)
    return {
        "cluster": ClusterCorpus(plan, task, None, 1),
        "cluster, resumed": ClusterCorpus(plan, task, 1, 1),
        "pilot": DrawPilot(plan, reader, seed, 200, RECORDS, f"{losses}/pilot.npy", 1),
        "losses": AskRecords(f"{losses}/wanted.npy", plan, source, reading, f"{losses}/answers.npy", 1),
        "loss file": WriteLossFile(f"{losses}/wanted.npy", plan, reading, f"{folder}/losses.parquet"),
        "score": ScoreCorpus(plan, scores, f"{folder}/score/clusters.npy", 1),
    }


def _sample(folder: str, plan: str, vectors: str, seed: int) -> dict[str, beam.PTransform]:
    proxies = Proxies(vectors, f"{folder}/score", f"{folder}/losses/losses.npy", ProxyRule(5, 2, 0.5, 0.1, 1.0))
    path = f"{folder}/sample/chosen.npy"
    largest = np.linspace(3.0, 2.0, SIZE)
    totals = Totals(exact.exact_sum(largest) * 1000, RECORDS, largest)
    samplers: dict[str, Sampler] = {
        **{name: make_sampler(name, totals, SIZE, seed) for name in ("pareto", "multinomial", "poisson")},
        "everything": Everything(RECORDS),
    }
    scale = mass_scale(totals.total, largest, totals.positive, SIZE)
    systematic = SystematicTask(proxies, f"{folder}/sample/order.npy", scale, seed, f"{folder}/sample")
    fetch = FetchTask(path, plan, f"{folder}/out", "part-0", "jsonl", "id", 16 << 20, True)
    return {
        "terms": SumTerms(plan, proxies, f"{folder}/sample/terms.json", 1),
        "total": TotalProxies(plan, proxies, SIZE, f"{folder}/sample/totals.json", 1),
        **{f"draw {name}": DrawSample(plan, proxies, some, path, 1) for name, some in samplers.items()},
        "draw systematic": DrawSystematic(plan, systematic, path, 1),
        "fetch": FetchSample(fetch, f"{folder}/sample/parts.json", 1),
    }
