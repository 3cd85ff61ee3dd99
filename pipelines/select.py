"""`tithe select`: the stages in their order, each made only where it does not stand, and the manifest last."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from apache_beam.io.filesystems import FileSystems

from tithe import __version__, sources
from tithe.asking import Asking, loss_file_print
from tithe.beam_options import BeamRun
from tithe.config import AskedLoss, Config
from tithe.drawing import Drawing
from tithe.manifest import nothing_to_do, write_manifest
from tithe.progress import Progress
from tithe.room import check_room
from tithe.runner import run_pipeline
from tithe.transforms import embedding, vectors
from tithe.transforms.centering import CenterCorpus
from tithe.transforms.cluster import ClusterCorpus, ClusterTask
from tithe.transforms.embed import EmbedCorpus
from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.files import InputFile, file_format, is_remote, match_files, write_atomically
from tithe.transforms.kernels.promise import auto_clusters
from tithe.transforms.leave_one_out import write_leave_one_out
from tithe.transforms.losses import Reading
from tithe.transforms.parallel import read_plan
from tithe.transforms.score import ScoreCorpus, ScoreTask
from tithe.transforms.space import Reader
from tithe.transforms.splits import plan_splits
from tithe.workspace import Stage, Workspace, fingerprint, list_files, remove

STAGES = ("embed", "cluster", "losses", "score", "sample")

MIN_BATCH = 10_000
"""Records that a round reads at least, and ten a cluster where that is more: fewer would leave centers without rows."""

SEED_ROWS = 100
"""Records for each cluster that seeding reads at most; a tenth of the corpus is enough, twenty for each cluster the
least.
"""

NEIGHBORS = 5
"""Anchors that a smoothed proxy looks at; three to ten are much alike."""

PROCESS_BYTES = 32 << 20
"""Input from which on worker processes pay for an embedder that holds Python's lock; starting them takes some seconds.
"""


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
        self._check_workers_see_work()
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
            "plan", [prints.corpus, [f.path for f in self.files]], lambda folder: self._plan(folder, self.files)
        )
        self.plan = f"{plan.folder}/plan.jsonl"
        embed = partial(self._embed, files=self.files, splits=plan.facts["splits"])
        corpus_stage = self._stage("embed", prints.corpus, embed)
        self.totals = corpus_stage.facts
        self._check_corpus(plan.facts["bad_files"])
        self.reader = Reader(self.vectors, f"{corpus_stage.folder}/space.npz")
        clusters = self._stage("cluster", prints.clustering, self._cluster)
        if clusters.facts["clusters"] < clusters.facts["wanted"]:
            self._warn(
                f"{clusters.facts['clusters']:,} clusters and not {clusters.facts['wanted']:,}: there are too few "
                "distinct vectors"
            )
        losses = self._stage("losses", prints.asking, self._asking(clusters.folder).make)
        self._publish_failures(losses)
        neighbors = self._neighbors(losses.facts["anchors"])
        scoring = [prints.clustering, losses.facts["anchors_digest"], neighbors]
        score = partial(self._score, f"{losses.folder}/anchors.npy", neighbors, plan.facts["splits"])
        scores = self._stage("score", scoring, score)
        return Scored(plan.facts["bad_files"], losses, self._drawing(losses, scores, neighbors))

    def _stage(self, name: str, depends: Any, make: Callable[[str], dict[str, Any]]) -> Stage:
        # What a redone stage gives may have changed where no fingerprint sees it: in a model, say.
        redo = any(name in STAGES[STAGES.index(first) :] for first in self.redo)
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
                f"output.work: the workers of {self.run.runner} cannot see {self.space.work}; set output.path or "
                "output.work to a place they see (gs://, s3://, hdfs://)"
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
                f"{bad:,} of {bad + totals['rows']:,} records are bad, more than input.max_bad_fraction "
                f"{config.max_bad_fraction} allows ({told}){where}"
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
        wanted = self._cluster_count(rows)
        count = min(wanted, rows)
        task = ClusterTask(
            folder=folder,
            reader=self.reader,
            count=count,
            rounds=cluster.rounds,
            batch=min(1.0, max(cluster.batch, MIN_BATCH / rows, 10 * count / rows)),
            seed_share=min(1.0, max(min(0.1, SEED_ROWS * count / rows), max(MIN_BATCH, 20 * count) / rows)),
            seed=cluster.seed,
        )
        done = max((r for r in range(task.rounds + 1) if FileSystems.exists(task.checkpoint(r))), default=None)
        with self.progress.watch("cluster", task.rounds + 1, lambda: _rounds(folder)):
            self._pipeline("cluster", ClusterCorpus(self.plan, task, done, self.run.threads))
        facts: dict[str, Any] = vectors.read_json(f"{folder}/representatives.json")
        rounds = [vectors.read_json(task.checkpoint(r).replace(".npz", ".json")) for r in range(1, task.rounds + 1)]
        return {**facts, "rounds": rounds, "batch": task.batch, "wanted": wanted}

    def _cluster_count(self, rows: int) -> int:
        count, loss, size = self.config.cluster.count, self.config.loss, self.config.sample.size
        if count != "auto":
            return count
        assert isinstance(loss, AskedLoss) and loss.max_calls is not None and size is not None
        return auto_clusters(loss.max_calls, loss.pilot, size, rows)

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
            with FileSystems.open(f"{losses.folder}/failed.jsonl") as file:
                write_atomically(f"{self.space.output}/dead_letter/losses.jsonl", file.read())
            remove(f"{self.space.output}/dead_letter/tmp")
            self._warn(
                f"the model failed on {losses.facts['failed']:,} records, others took their place; see "
                "dead_letter/losses.jsonl"
            )

    def _neighbors(self, anchors: int) -> int:
        """How many anchors scores/ holds for a record: several where the proxy is smoothed over them."""
        score = self.config.score
        smoothed = score.kind == "smoothed" or (score.kind is None and hasattr(self.config.loss, "pilot"))
        # One fewer than there are: a record of the pilot is left out of its own neighbours.
        return max(1, min(score.neighbors or NEIGHBORS, anchors - 1)) if smoothed else 1

    def _score(self, anchors: str, neighbors: int, splits: int, folder: str) -> dict[str, Any]:
        task = ScoreTask(folder, self.reader, anchors, neighbors)
        with self.progress.watch("score", splits, lambda: (len(list_files(f"{folder}/*/done.json")), "splits")):
            self._pipeline("score", ScoreCorpus(self.plan, task, f"{folder}/clusters.npy", self.run.threads))
        write_leave_one_out(anchors, f"{folder}/pilot.npy", neighbors)
        return dict(vectors.read_json(f"{folder}/clusters.json"))

    # -- sample ------------------------------------------------------------------------------------------------------

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
