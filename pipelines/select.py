"""`tithe select`: the stages in their order, each made only where it does not stand, and the manifest last."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tithe import __version__, sources
from tithe.asking import Asking, loss_file_print
from tithe.beam_options import BeamRun
from tithe.clustering import Clustering
from tithe.config import Config
from tithe.corpus import Embedding, write_plan
from tithe.drawing import Drawing
from tithe.manifest import nothing_to_do, write_manifest
from tithe.progress import Progress
from tithe.runner import run_pipeline
from tithe.transforms import vectors
from tithe.transforms.errors import UsageError
from tithe.transforms.files import InputFile, exists, file_format, is_remote, match_files, open_bytes, write_atomically
from tithe.transforms.kernels import search
from tithe.transforms.leave_one_out import write_leave_one_out
from tithe.transforms.losses import Reading
from tithe.transforms.score import ScoreCorpus, ScoreTask
from tithe.transforms.space import Reader
from tithe.visibility import check_workers_see, worker_paths
from tithe.workspace import Stage, Workspace, fingerprint, list_files, remove

STAGES = ("embed", "cluster", "losses", "score", "sample")

NEIGHBORS = 5
"""Anchors that a smoothed proxy looks at; three to ten are much alike."""


@dataclass(frozen=True)
class Prints:
    """What the results of stages depend on, JSON-able: `corpus` those of plan and embed, `clustering`, `asking` the
    losses stage, and `loss_print` where losses come from.
    """

    corpus: Any
    clustering: Any
    asking: Any
    loss_print: str


@dataclass(frozen=True)
class Scored:
    """A corpus ready to be drawn from: files that could not be read, the losses stage, and the draw."""

    bad_files: list[list[str]]
    losses: Stage
    drawing: Drawing


@dataclass
class Selection:
    """One run of `tithe select`.

    Attributes:
        config: the configuration.
        run: how pipelines are started.
        space: the output folder, held by this run.
        progress: what is told.
        redo: names of stages to make again; those that follow from them are made again too.
    """

    config: Config
    run: BeamRun
    space: Workspace
    progress: Progress
    redo: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.warnings: list[str] = []
        self.stages: list[Stage] = []
        self.counters = Counter[str]()

    # -- the whole ---------------------------------------------------------------------------------------------------

    def select(self) -> dict[str, Any]:
        """Makes what is missing, and returns the manifest.

        Raises:
            TitheError: whatever stops the run; the finished stages stay.
        """
        config = self.config
        self._look()
        drawing = [self.prints.asking, config.score.model_dump(), config.sample.model_dump()]
        whole = fingerprint([drawing, sorted(config.output.model_dump().items())])
        stands = None if self.redo else nothing_to_do(self.space, whole)
        if stands:
            return stands
        scored = self._score_corpus()
        sample = self._stage("sample", drawing, scored.drawing.make)
        for warning in sample.facts["warnings"]:
            self._warn(warning)
        manifest = write_manifest(
            self.space, config, whole, self.files, self.stages, self.warnings, self.run.describe(), scored.bad_files
        )
        if not config.output.keep_work:
            remove(self.space.work)
        return manifest

    def score_corpus(self) -> "Scored":
        """Makes what is missing up to the scores, and nothing of the sample.

        Raises:
            TitheError: whatever stops the run; the finished stages stay.
        """
        self._look()
        return self._score_corpus()

    def _look(self) -> None:
        """Finds the files, the embedder and the losses, and what each stage depends on."""
        config = self.config
        self.files = match_files(config.input.patterns)
        self.format = config.input.format or _one_format(self.files)
        self.embedder, embedder_print = sources.embedder(config)
        self.source, loss_print = sources.loss_source(config, self.space.work)
        check_workers_see(self.run, self.space.work, config.output.shared, worker_paths(config))
        listing = [[f.name, f.size, f.modified] for f in self.files]
        reading = [__version__, self.format, config.input.id, config.input.max_record_bytes, config.input.on_bad_file]
        label = config.embed.label and [config.embed.label, config.embed.label_kind]
        embedding = [reading, embedder_print, label]
        corpus = [embedding, listing, config.input.split_bytes, config.embed.label_weight]
        count = config.cluster.count
        clusters_of = (
            [config.cluster.model_dump(), config.loss.model_dump(), config.sample.size]
            if count == "auto"
            else config.cluster.model_dump()
        )
        clustering = [corpus, clusters_of]
        limits = [getattr(config.loss, name, None) for name in ("pilot", "max_calls")]
        asking = [clustering, loss_print, limits, loss_file_print(config)]
        self.prints = Prints(corpus, clustering, asking, loss_print)
        self.vectors = f"{self.space.work}/vectors-{fingerprint(embedding)}"

    def _score_corpus(self) -> "Scored":
        prints = self.prints
        plan = self._stage(
            "plan",
            [prints.corpus, [f.path for f in self.files]],
            lambda folder: write_plan(folder, self.files, self.format, self.config),
        )
        self.plan = f"{plan.folder}/plan.jsonl"
        embedding = self._embedding(plan.facts["splits"])
        corpus = self._stage("embed", prints.corpus, embedding.make)
        self.totals = corpus.facts
        warning = embedding.check(self.totals, plan.facts["bad_files"], self.space.output)
        if warning:
            self._warn(warning)
        self.reader = Reader(self.vectors, f"{corpus.folder}/space.npz")
        clusters = self._stage("cluster", prints.clustering, self._clustering().make)
        if clusters.facts["clusters"] < clusters.facts["wanted"]:
            self._warn(
                f"{clusters.facts['clusters']:,} clusters and not {clusters.facts['wanted']:,}: there are too few "
                "distinct vectors"
            )
        losses = self._stage("losses", prints.asking, self._asking(clusters.folder).make)
        self._publish_failures(losses)
        neighbors = self._neighbors(losses.facts["anchors"])
        scoring = [prints.clustering, losses.facts["anchors_digest"], neighbors]
        score = partial(self._score, losses, neighbors, plan.facts["splits"])
        scores = self._stage("score", scoring, score)
        return Scored(plan.facts["bad_files"], losses, self._drawing(losses, scores, neighbors))

    def _stage(self, name: str, depends: Any, make: Callable[[str], dict[str, Any]]) -> Stage:
        # What a redone stage gives may have changed where no fingerprint sees it: in a model, say.
        redo = any(name in STAGES[STAGES.index(first) :] for first in self.redo)
        if name == "embed" and redo:
            remove(self.vectors)

        def counted(folder: str) -> dict[str, Any]:
            self.counters = Counter[str]()
            facts = make(folder)
            return {**facts, "counters": dict(sorted(self.counters.items()))}

        stage = self.space.stage(name, depends, counted, redo=redo)
        if name == "sample" and stage.stood and not self._parts_stand(stage):
            stage = self.space.stage(name, depends, counted, redo=True)
        self.stages.append(stage)
        told = "stands already" if stage.stood else f"{stage.facts['seconds']:.1f} s"
        self.progress.line(name, f"{_words(name, stage.facts)}{told}")
        return stage

    def _pipeline(self, name: str, transform: Any, run: BeamRun | None = None) -> None:
        log = None if is_remote(self.space.output) else Path(self.space.output) / "beam.log"
        self.counters.update(run_pipeline(lambda pipeline: pipeline | transform, run or self.run, name=name, log=log))

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.progress.warn(text)

    # -- the stages ----------------------------------------------------------------------------------------------------

    def _embedding(self, splits: int) -> Embedding:
        return Embedding(
            config=self.config,
            files=self.files,
            format=self.format,
            embedder=self.embedder,
            plan=self.plan,
            splits=splits,
            vectors_folder=self.vectors,
            work=self.space.work,
            run=self.run,
            pipeline=self._pipeline,
            progress=self.progress,
        )

    def _clustering(self) -> Clustering:
        return Clustering(
            config=self.config,
            plan=self.plan,
            reader=self.reader,
            records=self.totals["rows"],
            pipeline=self._pipeline,
            progress=self.progress,
            threads=self.run.threads,
        )

    def _asking(self, clusters: str) -> Asking:
        config = self.config
        return Asking(
            config=config,
            plan=self.plan,
            reader=self.reader,
            records=self.totals["rows"],
            clusters=clusters,
            source=self.source,
            reading=Reading(self.format, config.input.max_record_bytes),
            pipeline=self._pipeline,
            tell=lambda text: self.progress.line("losses", text),
            threads=self.run.threads,
        )

    def _publish_failures(self, losses: Stage) -> None:
        """Publishes the dead letters of records on which the model failed."""
        if losses.facts["failed"]:
            with open_bytes(f"{losses.folder}/failed.jsonl") as file:
                write_atomically(f"{self.space.output}/dead_letter/losses.jsonl", file.read())
            remove(f"{self.space.output}/dead_letter/tmp")
            self._warn(
                f"the model failed on {losses.facts['failed']:,} records, others took their place; see "
                "dead_letter/losses.jsonl"
            )

    def _neighbors(self, anchors: int) -> int:
        """How many anchors scores/ holds for a record: several where the proxy is smoothed over them."""
        if not self.config.smoothed:
            return 1
        # One fewer than there are: a record of the pilot is left out of its own neighbours.
        return max(1, min(self.config.score.neighbors or NEIGHBORS, anchors - 1))

    def _score(self, losses: Stage, neighbors: int, splits: int, folder: str) -> dict[str, Any]:
        anchors = f"{losses.folder}/anchors.npy"
        task = ScoreTask(folder, self.reader, anchors, neighbors)
        with self.progress.watch("score", splits, lambda: (len(list_files(f"{folder}/*/done.json")), "splits")):
            self._pipeline("score", ScoreCorpus(self.plan, task, f"{folder}/clusters.npy", self.run.threads))
        write_leave_one_out(anchors, f"{folder}/pilot.npy", neighbors)
        facts = vectors.read_json(f"{folder}/clusters.json")
        return {**facts, "search": search.describe(losses.facts["anchors"])}

    def _drawing(self, losses: Stage, scores: Stage, neighbors: int) -> Drawing:
        return Drawing(
            config=self.config,
            plan=self.plan,
            vectors_folder=self.vectors,
            losses=losses.folder,
            scores=scores.folder,
            records=self.totals["rows"],
            neighbors=neighbors,
            cost=scores.facts["cost"],
            format=self.format,
            sample_folder=f"{self.space.output}/sample",
            pipeline=self._pipeline,
            watch=lambda pattern, parts: self.progress.watch(
                "sample", parts, lambda: (len(list_files(pattern)), "parts")
            ),
            threads=self.run.threads,
        )

    def _parts_stand(self, stage: Stage) -> bool:
        return all(exists(f"{self.space.output}/sample/{part['name']}") for part in stage.facts["parts"])


def _one_format(files: list[InputFile]) -> str:
    formats = {file_format(f.name): f.name for f in files}
    if len(formats) > 1:
        (a, first), (b, second), *_ = formats.items()
        raise UsageError(f"input.files: {first} is {a} and {second} is {b}; one selection reads one format")
    return next(iter(formats))


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
