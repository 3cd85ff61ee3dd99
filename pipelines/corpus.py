"""The plan and embed stages: the corpus as splits and vectors, and the checks of what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tithe.beam_options import BeamRun
from tithe.config import Config
from tithe.progress import Progress
from tithe.room import check_room
from tithe.transforms import embedding, vectors
from tithe.transforms.centering import CenterCorpus
from tithe.transforms.embed import EmbedCorpus
from tithe.transforms.embedders import Embedder
from tithe.transforms.errors import InputError
from tithe.transforms.files import InputFile, open_bytes, write_atomically
from tithe.transforms.parallel import read_plan
from tithe.transforms.splits import plan_splits
from tithe.workspace import list_files, remove

PROCESS_BYTES = 32 << 20
"""Input from which on worker processes pay for an embedder that holds Python's lock; starting them takes some seconds.
"""


def write_plan(folder: str, files: list[InputFile], format: str, config: Config) -> dict[str, Any]:
    """Writes the plan of splits, plan.jsonl, and returns the facts of the plan stage."""
    given = config.input
    splits, bad, _ = plan_splits(files, format, given.split_bytes, given.on_bad_file)
    lines = "".join(split.to_json() + "\n" for split in splits)
    write_atomically(f"{folder}/plan.jsonl", lines.encode("utf-8", "surrogateescape"))
    return {"splits": len(splits), "files": len(files), "bad_files": [list(b) for b in bad]}


@dataclass
class Embedding:
    """What the embed stage works with.

    Attributes:
        config: the configuration.
        files: the input.
        format: of the input.
        embedder: from records to vectors.
        plan: path of the plan of splits.
        splits: how many there are.
        vectors_folder: of vectors/.
        work: folder of the stages.
        run: how pipelines are started.
        pipeline: runs a transform as a pipeline of a name, started so.
        progress: what is told.
    """

    config: Config
    files: list[InputFile]
    format: str
    embedder: Embedder
    plan: str
    splits: int
    vectors_folder: str
    work: str
    run: BeamRun
    pipeline: Callable[[str, Any, BeamRun], None]
    progress: Progress

    def make(self, folder: str) -> dict[str, Any]:
        """Embeds the splits that do not stand yet, fixes the space, and returns the facts of the stage."""
        dimension = embedding.first_dimension(self.task(0), (split for _, split in read_plan(self.plan))) or 0
        check_room(self.work, self.files, self.format, self.embedder, dimension)
        run = self.run
        if self.config.embed.kind == "hashing" and sum(f.size for f in self.files) >= PROCESS_BYTES:
            run = run.in_processes()
            self.progress.line("embed", run.describe())
        path, finished = f"{folder}/totals.json", f"{self.vectors_folder}/*/done.json"
        with self.progress.watch("embed", self.splits, lambda: (len(list_files(finished)), "splits")):
            self.pipeline("embed", EmbedCorpus(self.plan, self.task(dimension), path, run.threads), run)
        totals: dict[str, Any] = vectors.read_json(path)
        if totals["rows"]:
            given = self.config.embed
            settings = (dimension, given.label_kind if given.label else None, given.label_weight)
            space = f"{folder}/space.npz"
            center = CenterCorpus(
                self.plan, self.vectors_folder, space, path, totals["rows"], settings, self.run.threads
            )
            self.pipeline("center", center, self.run)
        size = sum(list_files(f"{self.vectors_folder}/**").values())
        name = self.vectors_folder.rsplit("/", 1)[1]
        return {**totals, "dimension": dimension, "vectors": name, "vectors_bytes": size}

    def task(self, dimension: int) -> embedding.EmbedTask:
        """Returns what the workers need to embed to so many numbers."""
        config = self.config
        return embedding.EmbedTask(
            folder=self.vectors_folder,
            format=self.format,
            id_field=config.input.id,
            embedder=self.embedder,
            dimension=dimension,
            label=config.embed.label,
            label_kind=config.embed.label_kind,
            max_record_bytes=config.input.max_record_bytes,
            skip_bad_files=config.input.on_bad_file == "skip",
        )

    def check(self, totals: dict[str, Any], bad_files: list[list[str]], output: str) -> str | None:
        """Publishes the dead letters below `output`; returns the warning that there are some.

        Raises:
            InputError: the corpus cannot be used: no good record, too many bad ones, an id twice.
        """
        config = self.config.input
        bad = sum(totals["bad"].values()) + len(bad_files)
        self._publish_dead_letters(totals, bad_files, f"{output}/dead_letter")
        reasons = sorted(totals["bad"].items(), key=lambda item: (-item[1], item[0]))[:3]
        told = "; ".join(f"{reason}: {count:,}" for reason, count in reasons)
        where = f"; see {output}/dead_letter"
        if not totals["rows"]:
            raise InputError(
                "no good records" + (f" among {bad:,} ({told}){where}" if bad else ": the files are empty")
            )
        if bad > config.max_bad_fraction * (bad + totals["rows"]):
            raise InputError(
                f"{bad:,} of {bad + totals['rows']:,} records are bad, more than input.max_bad_fraction "
                f"{config.max_bad_fraction} allows ({told}){where}"
            )
        if totals["repeated_ids"]:
            places = [(split, f"{self.vectors_folder}/{split.key}") for _, split in read_plan(self.plan)]
            task = self.task(totals["dimension"])
            raise InputError(embedding.duplicate_message(task, places, totals["repeated_ids"][0]))
        return f"{bad:,} bad records left out ({told}){where}" if bad else None

    def _publish_dead_letters(self, totals: dict[str, Any], bad_files: list[list[str]], folder: str) -> None:
        remove(folder)
        for key in totals["dead"]:
            with open_bytes(f"{self.vectors_folder}/{key}/dead.jsonl") as file:
                write_atomically(f"{folder}/{key}.jsonl", file.read())
        if bad_files:
            write_atomically(f"{folder}/files.jsonl", embedding.file_letters(bad_files))
        remove(f"{folder}/tmp")
