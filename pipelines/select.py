"""`tithe select`: the stages in their order, each made only where it does not stand, and the manifest last."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from apache_beam.io.filesystems import FileSystems

from tithe import __version__, sources
from tithe.beam_options import BeamRun
from tithe.config import Config
from tithe.manifest import nothing_to_do, write_manifest
from tithe.progress import Progress
from tithe.room import check_room
from tithe.runner import run_pipeline
from tithe.transforms import embedding, vectors
from tithe.transforms.centering import CenterCorpus
from tithe.transforms.cluster import ClusterCorpus, ClusterTask
from tithe.transforms.draw import DrawSample, Everything, Multinomial, Pareto, Proxies, Sampler, TotalProxies
from tithe.transforms.embed import EmbedCorpus
from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.files import InputFile, file_format, is_remote, match_files, write_atomically
from tithe.transforms.kernels import exact
from tithe.transforms.kernels.proxy import balanced_lipschitz
from tithe.transforms.kernels.threshold import solve
from tithe.transforms.losses import AskAnchors
from tithe.transforms.parallel import read_plan
from tithe.transforms.publish import FetchSample, FetchTask
from tithe.transforms.score import ScoreCorpus, ScoreTask
from tithe.transforms.space import Reader
from tithe.transforms.splits import plan_splits
from tithe.workspace import Stage, Workspace, fingerprint, list_files, remove

STAGES = ("embed", "cluster", "losses", "score", "sample")

MIN_BATCH = 10_000
"""Records that a round reads at least, and ten a cluster where that is more: fewer would leave centers without rows."""

SEED_ROWS = 100
"""Records for each cluster that seeding reads at most; a tenth of the corpus is enough, twenty for each cluster the least."""

PROCESS_BYTES = 32 << 20
"""Input from which on worker processes pay for an embedder that holds Python's lock; starting them takes some seconds."""


@dataclass
class Selection:
    """One run of `tithe select`.

    Attributes:
        config: the configuration.
        run: how pipelines are started.
        space: the output folder, held by this run.
        progress: what is told.
        redo: names of stages to make again.
    """

    config: Config
    run: BeamRun
    space: Workspace
    progress: Progress
    redo: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.warnings: list[str] = []
        self.stages: list[Stage] = []

    # -- the whole ---------------------------------------------------------------------------------------------------

    def select(self) -> dict[str, Any]:
        """Makes what is missing, and returns the manifest.

        Raises:
            TitheError: whatever stops the run; the finished stages stay.
        """
        config = self.config
        files = match_files(config.input.patterns)
        self.format = config.input.format or _one_format(files)
        self.embedder, embedder_print = sources.embedder(config)
        self.source, loss_print = sources.loss_source(config)
        self._check_workers_see_work()
        listing = [[f.name, f.size, f.modified] for f in files]
        reading = [__version__, self.format, config.input.id, config.input.max_record_bytes, config.input.on_bad_file]
        label = config.embed.label and [config.embed.label, config.embed.label_kind]
        embedding = [reading, embedder_print, label]
        corpus = [embedding, listing, config.input.split_bytes, config.embed.label_weight]
        clustering = [corpus, config.cluster.model_dump()]
        drawing = [clustering, loss_print, config.score.model_dump(), config.sample.model_dump()]
        self.vectors = f"{self.space.work}/vectors-{fingerprint(embedding)}"
        whole = fingerprint([drawing, sorted(config.output.model_dump().items())])
        stands = None if self.redo else nothing_to_do(self.space, whole)
        if stands:
            return stands
        plan = self._stage("plan", corpus, lambda folder: self._plan(folder, files))
        self.plan = f"{plan.folder}/plan.jsonl"
        corpus_stage = self._stage("embed", corpus, lambda folder: self._embed(folder, files, plan.facts["splits"]))
        self.totals = corpus_stage.facts
        self._check_corpus(plan.facts["bad_files"])
        self.reader = Reader(self.vectors, f"{corpus_stage.folder}/space.npz")
        clusters = self._stage("cluster", clustering, self._cluster)
        self.anchors = f"{clusters.folder}/representatives.npy"
        if clusters.facts["clusters"] < config.cluster.count:
            self._warn(
                f"{clusters.facts['clusters']:,} clusters and not {config.cluster.count:,}: there are too few distinct vectors"
            )
        losses = self._stage(
            "losses", [clustering, loss_print], lambda folder: self._losses(folder, clusters.facts["clusters"])
        )
        scores = self._stage("score", clustering, lambda folder: self._score(folder, plan.facts["splits"]))
        sample = self._stage("sample", drawing, lambda folder: self._sample(folder, losses, scores))
        for warning in sample.facts["warnings"]:
            self._warn(warning)
        manifest = write_manifest(
            self.space, config, whole, files, self.stages, self.warnings, self.run.describe(), plan.facts["bad_files"]
        )
        if not config.output.keep_work:
            remove(self.space.work)
        return manifest

    def _stage(self, name: str, depends: Any, make: Callable[[str], dict[str, Any]]) -> Stage:
        redo = name in self.redo
        if name == "embed" and redo:
            remove(self.vectors)
        stage = self.space.stage(name, depends, make, redo=redo)
        if name == "sample" and stage.stood and not self._parts_stand(stage):
            stage = self.space.stage(name, depends, make, redo=True)
        self.stages.append(stage)
        told = "stands already" if stage.stood else f"{stage.facts['seconds']:.1f} s"
        self.progress.line(name, f"{_words(name, stage.facts)}{told}")
        return stage

    def _pipeline(self, name: str, transform: Any, run: BeamRun | None = None) -> None:
        log = None if is_remote(self.space.output) else Path(self.space.output) / "beam.log"
        run_pipeline(lambda pipeline: pipeline | transform, run or self.run, name=name, log=log)

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.progress.warn(text)

    def _check_workers_see_work(self) -> None:
        """Raises where the workers run elsewhere and the work folder is of this machine."""
        elsewhere = self.run.runner not in ("FnApiRunner", "PrismRunner", "PortableRunner")
        if elsewhere and not is_remote(self.space.work):
            raise UsageError(
                f"output.work: the workers of {self.run.runner} cannot see {self.space.work}; set output.path or output.work to a place they see (gs://, s3://, hdfs://)"
            )

    # -- plan and embed ----------------------------------------------------------------------------------------------

    def _plan(self, folder: str, files: list[InputFile]) -> dict[str, Any]:
        config = self.config.input
        splits, bad, _ = plan_splits(files, self.format, config.split_bytes, config.on_bad_file)
        lines = "".join(split.to_json() + "\n" for split in splits)
        write_atomically(f"{folder}/plan.jsonl", lines.encode("utf-8", "surrogateescape"))
        return {"splits": len(splits), "files": len(files), "bad_files": [list(b) for b in bad]}

    def _task(self, dimension: int) -> embedding.EmbedTask:
        config = self.config
        return embedding.EmbedTask(
            folder=self.vectors,
            format=self.format,
            id_field=config.input.id,
            embedder=self.embedder,
            dimension=dimension,
            label=config.embed.label,
            label_kind=config.embed.label_kind,
            max_record_bytes=config.input.max_record_bytes,
            skip_bad_files=config.input.on_bad_file == "skip",
        )

    def _embed(self, folder: str, files: list[InputFile], splits: int) -> dict[str, Any]:
        dimension = embedding.first_dimension(self._task(0), (split for _, split in read_plan(self.plan)))
        task = self._task(dimension or 0)
        check_room(self.space.work, files, self.format, self.embedder, dimension or 0)
        run = self.run
        if self.config.embed.kind == "hashing" and sum(f.size for f in files) >= PROCESS_BYTES:
            run = self.run.in_processes()
            self.progress.line("embed", run.describe())
        totals_path = f"{folder}/totals.json"
        with self.progress.watch("embed", splits, lambda: (len(list_files(f"{self.vectors}/*/done.json")), "splits")):
            self._pipeline("embed", EmbedCorpus(self.plan, task, totals_path, run.threads), run)
        totals: dict[str, Any] = vectors.read_json(totals_path)
        if totals["rows"]:
            kind = self.config.embed.label_kind if self.config.embed.label else None
            settings = (dimension or 0, kind, self.config.embed.label_weight)
            space = f"{folder}/space.npz"
            self._pipeline("center", CenterCorpus(self.plan, self.vectors, space, totals, settings, self.run.threads))
        size = sum(list_files(f"{self.vectors}/**").values())
        return {**totals, "dimension": dimension or 0, "vectors": self.vectors.rsplit("/", 1)[1], "vectors_bytes": size}

    def _check_corpus(self, bad_files: list[list[str]]) -> None:
        """Publishes the dead letters, then raises where the corpus cannot be used."""
        totals, config = self.totals, self.config.input
        bad = sum(totals["bad"].values()) + len(bad_files)
        self._publish_dead_letters(bad_files)
        reasons = sorted(totals["bad"].items(), key=lambda item: (-item[1], item[0]))[:3]
        told = "; ".join(f"{reason}: {count:,}" for reason, count in reasons)
        where = f"; see {self.space.output}/dead_letter"
        if not totals["rows"]:
            raise InputError(
                "no good records" + (f" among {bad:,} ({told}){where}" if bad else ": the files are empty")
            )
        if bad > config.max_bad_fraction * (bad + totals["rows"]):
            raise InputError(
                f"{bad:,} of {bad + totals['rows']:,} records are bad, more than input.max_bad_fraction {config.max_bad_fraction} allows ({told}){where}"
            )
        if bad:
            self._warn(f"{bad:,} bad records left out ({told}){where}")
        if totals["repeated_ids"]:
            places = [(split, f"{self.vectors}/{split.key}") for _, split in read_plan(self.plan)]
            raise InputError(
                embedding.duplicate_message(self._task(totals["dimension"]), places, totals["repeated_ids"][0])
            )

    def _publish_dead_letters(self, bad_files: list[list[str]]) -> None:
        folder = f"{self.space.output}/dead_letter"
        remove(folder)
        for key in self.totals["dead"]:
            with FileSystems.open(f"{self.vectors}/{key}/dead.jsonl") as file:
                write_atomically(f"{folder}/{key}.jsonl", file.read())
        if bad_files:
            write_atomically(f"{folder}/files.jsonl", embedding.file_letters(bad_files))
        remove(f"{folder}/tmp")

    # -- cluster, losses, scores -------------------------------------------------------------------------------------

    def _cluster(self, folder: str) -> dict[str, Any]:
        cluster, rows = self.config.cluster, self.totals["rows"]
        task = ClusterTask(
            folder=folder,
            reader=self.reader,
            count=min(cluster.count, rows),
            rounds=cluster.rounds,
            batch=min(1.0, max(cluster.batch, MIN_BATCH / rows, 10 * cluster.count / rows)),
            seed_share=min(
                1.0, max(min(0.1, SEED_ROWS * cluster.count / rows), max(MIN_BATCH, 20 * cluster.count) / rows)
            ),
            seed=cluster.seed,
        )
        done = max((r for r in range(task.rounds + 1) if FileSystems.exists(task.checkpoint(r))), default=None)
        with self.progress.watch("cluster", task.rounds + 1, lambda: _rounds(folder)):
            self._pipeline("cluster", ClusterCorpus(self.plan, task, done, self.run.threads))
        facts: dict[str, Any] = vectors.read_json(f"{folder}/representatives.json")
        rounds = [vectors.read_json(task.checkpoint(r).replace(".npz", ".json")) for r in range(1, task.rounds + 1)]
        return {**facts, "rounds": rounds, "batch": task.batch}

    def _losses(self, folder: str, anchors: int) -> dict[str, Any]:
        path = f"{folder}/losses.npy"
        calls = 0
        if self.source is None:
            vectors.write_array(path, np.ones(anchors))
        else:
            config = self.config
            key = "loss.column" if config.loss.kind == "column" else "loss.function"
            calls = 0 if config.loss.kind == "column" else anchors
            if calls:
                self.progress.line("losses", f"{calls:,} records are given to the model")
            read = (self.format, config.input.max_record_bytes)
            self._pipeline(
                "losses", AskAnchors(self.anchors, self.plan, self.source, key, read, path, self.run.threads)
            )
        losses = vectors.read_array(path)
        return {"anchors": anchors, "model_calls": calls, "mean": float(losses.mean()), "largest": float(losses.max())}

    def _score(self, folder: str, splits: int) -> dict[str, Any]:
        task = ScoreTask(folder, self.reader, self.anchors, 1)
        with self.progress.watch("score", splits, lambda: (len(list_files(f"{folder}/*/done.json")), "splits")):
            self._pipeline("score", ScoreCorpus(self.plan, task, f"{folder}/clusters.npy", self.run.threads))
        return dict(vectors.read_json(f"{folder}/clusters.json"))

    # -- sample ------------------------------------------------------------------------------------------------------

    def _sample(self, folder: str, losses: Stage, scores: Stage) -> dict[str, Any]:
        config, rows, threads = self.config, self.totals["rows"], self.run.threads
        losses_path = f"{losses.folder}/losses.npy"
        lipschitz = config.score.lipschitz
        if isinstance(lipschitz, str):
            clusters = vectors.read_array(f"{scores.folder}/clusters.npy")
            loss_total = exact.to_float(exact.exact_sum(clusters["count"] * vectors.read_array(losses_path)))
            lipschitz = balanced_lipschitz(loss_total, scores.facts["cost"])
        proxies = Proxies(self.vectors, scores.folder, losses_path, lipschitz)
        size, seed, warnings = config.sample.size, config.sample.seed, []
        self._pipeline("total", TotalProxies(self.plan, proxies, size, f"{folder}/totals.json", threads))
        totals = vectors.read_json(f"{folder}/totals.json")
        total, positive = int(totals["total"], 16), totals["positive"]
        sampler: Sampler
        if size >= rows:
            if size > rows:
                warnings.append(
                    f"sample.size {size:,} is above the {rows:,} records there are: every record is taken, with weight 1"
                )
            sampler = Everything(rows)
        elif total == 0:
            raise InputError(
                "the total of the proxy is 0: every loss asked for is 0, and no distance counts; set score.lipschitz to a number above 0, or use loss.kind: constant"
            )
        elif config.sample.method == "pareto":
            if positive < size:
                warnings.append(
                    f"only {positive:,} records have a positive proxy, and sample.size is {size:,}: these are taken, with weight 1"
                )
            sampler = Pareto(
                solve(total, vectors.read_array(f"{folder}/totals.npy").tolist(), positive, size), size, seed
            )
        else:
            sampler = Multinomial(exact.to_float(total), size, seed)
        chosen = f"{folder}/chosen.npy"
        self._pipeline("draw", DrawSample(self.plan, proxies, sampler, chosen, threads))
        facts = vectors.read_json(chosen.replace(".npy", ".json"))
        task = FetchTask(
            chosen=chosen,
            plan=self.plan,
            folder=f"{self.space.output}/sample",
            stem=f"part-{folder[-8:]}",
            format=self.format,
            id_field=config.input.id,
            max_record_bytes=config.input.max_record_bytes,
        )
        parts = math.ceil(facts["records"] / 1000)
        with self.progress.watch("sample", parts, lambda: (len(list_files(f"{task.folder}/{task.stem}-*")), "parts")):
            self._pipeline("fetch", FetchSample(task, f"{folder}/parts.json", threads))
        remove(f"{task.folder}/tmp")
        return {
            **facts,
            "total": exact.to_float(total),
            "positive": positive,
            "lipschitz": lipschitz,
            "method": config.sample.method,
            "warnings": warnings,
            "parts": vectors.read_json(f"{folder}/parts.json"),
        }

    def _parts_stand(self, stage: Stage) -> bool:
        return all(FileSystems.exists(f"{self.space.output}/sample/{part['name']}") for part in stage.facts["parts"])


def _one_format(files: list[InputFile]) -> str:
    formats = {file_format(f.name): f.name for f in files}
    if len(formats) > 1:
        (a, first), (b, second), *_ = formats.items()
        raise UsageError(f"input.files: {first} is {a} and {second} is {b}; one selection reads one format")
    return next(iter(formats))


def _rounds(folder: str) -> tuple[int, str]:
    """How many checkpoints stand, and the cost of the last round."""
    found = sorted(list_files(f"{folder}/round-*.json"))
    facts = vectors.read_json(found[-1]) if found else {}
    word = f"rounds, cost {facts['cost'] / facts['rows']:.5g} a record" if facts.get("rows") else "seeding"
    return len(found), word


def _words(name: str, facts: dict[str, Any]) -> str:
    """What one line says of a finished stage."""
    return {
        "plan": lambda: f"{facts['splits']:,} splits of {facts['files']:,} files, ",
        "embed": lambda: f"{facts['rows']:,} records of {facts['dimension']:,} numbers, ",
        "cluster": lambda: (
            f"{facts['clusters']:,} clusters, cost of the means {facts['cost_of_means'] / facts['rows']:.5g} a record, "
        ),
        "losses": lambda: f"{facts['anchors']:,} anchors, {facts['model_calls']:,} model calls, ",
        "score": lambda: f"cost of the anchors {facts['cost'] / max(facts['rows'], 1):.5g} a record, ",
        "sample": lambda: f"{facts['records']:,} records in {len(facts['parts']):,} parts, ",
    }[name]()
