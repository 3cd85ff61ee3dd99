"""Embedding one split: batches of records become rows and vectors, bad records dead letters with a reason."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tithe.transforms import ids, vectors
from tithe.transforms.embedders import Embedder, as_text, check_vectors
from tithe.transforms.errors import InputError
from tithe.transforms.files import exists, list_matching, write_atomically
from tithe.transforms.part_writer import PartWriter
from tithe.transforms.records import BadFileError, Batch, read_split
from tithe.transforms.splits import Split

MAX_CLASSES = 10_000
"""Distinct labels of kind `class`: each is a component of every block."""


@dataclass(frozen=True)
class EmbedTask:
    """What the workers need to embed a split.

    Attributes:
        folder: of vectors/.
        format: parquet, jsonl, csv or text.
        id_field: the field of the ids; None for file and position.
        embedder: makes the vectors.
        dimension: of the corpus, from its first good record.
        label: field of the target, or None.
        label_kind: class, text or number.
        max_record_bytes: of a record.
        skip_bad_files: whether an unreadable file is a dead letter.
    """

    folder: str
    format: str
    id_field: str | None
    embedder: Embedder
    dimension: int
    label: str | None
    label_kind: str
    max_record_bytes: int
    skip_bad_files: bool

    @property
    def fields(self) -> list[str]:
        """The fields that are read."""
        names = [*self.embedder.fields, self.id_field, self.label]
        return list(dict.fromkeys(n for n in names if n is not None))


def embed_batch(task: EmbedTask, batch: Batch, name: str, dimension: int | None) -> "Embedded":
    """Returns ids, labels and vectors of a batch, and the rows that have none with the reason."""
    stored, bad = task.embedder.embed(batch, dimension)
    width = stored.shape[1] if dimension is None else dimension
    stored = check_vectors(stored, bad, dimension)
    if task.id_field is None:
        hashes = ids.location_hashes(name, batch.positions)
    else:
        hashes, missing = ids.id_hashes(batch.column(task.id_field))
        bad.update({row: reason for row, reason in missing.items() if row not in bad})
    labels = np.zeros(len(stored), np.uint64)
    texts: dict[int, str] = {}
    if task.label is not None:
        column = batch.column(task.label)
        values = column if isinstance(column, list) else column.to_pylist()
        for row, value in enumerate(values):
            if value is None:
                bad.setdefault(row, f"missing field {task.label!r}")
        if task.label_kind == "number":
            labels = _numbers(values, task.label, bad).view(np.uint64)
        else:
            written = [as_text(v) or "" for v in values]
            if task.label_kind == "text":
                stored = np.hstack([stored, check_vectors(task.embedder.embed_texts(written), bad, None)])
            else:
                labels, _ = ids.id_hashes(list(written))
                texts = {int(h): t for row, (h, t) in enumerate(zip(labels, written, strict=True)) if row not in bad}
    return Embedded(hashes, labels, texts, stored, bad, width)


@dataclass
class Embedded:
    """A batch after embedding; `bad` tells the rows that are to be left out."""

    hashes: NDArray[np.uint64]
    labels: NDArray[np.uint64]
    texts: dict[int, str]
    stored: NDArray[np.float32]
    bad: dict[int, str]
    dimension: int


def _numbers(values: list[Any], name: str, bad: dict[int, str]) -> NDArray[np.float64]:
    out = np.zeros(len(values))
    for row, value in enumerate(values):
        if value is None:
            continue
        try:
            out[row] = float(value)
        except (TypeError, ValueError):
            bad.setdefault(row, f"field {name!r} is not a number")
        if not abs(out[row]) <= 1e30:
            out[row] = 0
            bad.setdefault(row, f"NaN or infinity in field {name!r}")
    return out


def embed_split(task: EmbedTask, split: Split) -> dict[str, Any]:
    """Embeds a split unless its parts stand already, and returns what `done.json` says of it.

    Raises:
        InputError: an unreadable file (unless it is to be skipped), a column that is missing or of the wrong type,
            duplicate ids.
    """
    folder = f"{task.folder}/{split.key}"
    if exists(vectors.done_path(folder)):
        done: dict[str, Any] = vectors.read_json(vectors.done_path(folder))
        return done
    skipped: dict[int, str] = {}
    while True:
        try:
            done = _embed_pieces(task, split, folder, skipped)
            break
        except BadFileError as error:
            number = split.pieces.index(error.piece)
            if not task.skip_bad_files or number in skipped:
                raise
            # What was read of the file is not kept: a file is in the corpus whole or not at all.
            skipped[number] = str(error)
    vectors.write_json(vectors.done_path(folder), done)
    return done


def _embed_pieces(task: EmbedTask, split: Split, folder: str, skipped: dict[int, str]) -> dict[str, Any]:
    writer: PartWriter | None = None
    reasons: Counter[str] = Counter()
    letters: list[dict[str, Any]] = []
    texts: dict[int, str] = {}
    number_magnitude = 0.0
    for piece, reason in skipped.items():
        reasons["unreadable file"] += 1
        letters.append({"file": split.pieces[piece].name, "position": None, "reason": reason, "head": ""})
    pieces = [p for i, p in enumerate(split.pieces) if i not in skipped]
    numbers = [i for i in range(len(split.pieces)) if i not in skipped]
    for batch in _numbered(
        read_split(Split(split.key, tuple(pieces)), task.format, task.fields, task.max_record_bytes), numbers
    ):
        name = split.pieces[batch.piece].name
        for row in batch.bad:
            reasons[row.reason] += 1
            letters.append(_letter(row.name, row.position, row.reason, row.head))
        if not len(batch.positions):
            continue
        embedded = embed_batch(task, batch, name, task.dimension)
        for r, reason in sorted(embedded.bad.items()):
            reasons[reason] += 1
            letters.append(_letter(name, int(batch.positions[r]), reason, batch.raw(r)))
        good: slice | NDArray[np.int64] = slice(None)  # a view, not a copy
        if embedded.bad:
            good = np.setdiff1d(np.arange(len(batch.positions)), list(embedded.bad))
        rows = np.empty(len(batch.positions) - len(embedded.bad), vectors.ROW)
        rows["hash"], rows["position"] = embedded.hashes[good], batch.positions[good]
        rows["piece"], rows["label"] = batch.piece, embedded.labels[good]
        texts.update(embedded.texts)
        if task.label_kind == "number" and len(rows):
            number_magnitude = max(number_magnitude, float(np.abs(rows["label"].copy().view("<f8")).max()))
        if len(texts) > MAX_CLASSES:
            raise InputError(
                f"embed.label {task.label!r} has over {MAX_CLASSES:,} classes; use label_kind: text or number"
            )
        if writer is None:
            writer = PartWriter(folder, embedded.stored.shape[1])
        writer.add(rows, embedded.stored[good])
    if writer is not None:
        writer.flush()
        if task.id_field is not None:
            _check_unique(task, split, folder, writer)
    if letters:
        lines = "".join(json.dumps(letter, ensure_ascii=False) + "\n" for letter in letters)
        write_atomically(f"{folder}/dead.jsonl", lines.encode("utf-8", "replace"))
    return {
        "parts": writer.parts if writer else [],
        "columns": writer.columns if writer else 0,
        "magnitude": writer.magnitude if writer else 0.0,
        "bad": dict(reasons),
        "classes": {f"{h:016x}": text for h, text in texts.items()},
        "content": writer.content() if writer else "",
        "number_magnitude": number_magnitude,
    }


def _numbered(batches: Any, numbers: list[int]) -> Any:
    """The batches with pieces numbered as in the whole split."""
    for batch in batches:
        batch.piece = numbers[batch.piece]
        yield batch


def _letter(name: str, position: int | None, reason: str, head: bytes) -> dict[str, Any]:
    return {"file": name, "position": position, "reason": reason, "head": head[:1000].decode("utf-8", "replace")}


def _check_unique(task: EmbedTask, split: Split, folder: str, writer: PartWriter) -> None:
    """Raises where an id hash occurs twice in the split."""
    hashes = np.sort(np.concatenate(writer.hashes)) if writer.hashes else np.empty(0, np.uint64)
    repeated = hashes[1:][hashes[1:] == hashes[:-1]]
    if len(repeated):
        raise InputError(duplicate_message(task, [(split, folder)], int(repeated[0])))


def duplicate_message(task: EmbedTask, places: list[tuple[Split, str]], id_hash: int) -> str:
    """Returns an error text that names records with this id hash; `places` are (split, its folder)."""
    found: list[str] = []
    for split, folder in places:
        for path in sorted(list_rows(folder)):
            rows = vectors.read_array(path)
            for row in rows[rows["hash"] == np.uint64(id_hash)]:
                found.append(f"{split.pieces[row['piece']].name} at {row['position']}")
    told = " and ".join(sorted(found)[:3])
    return (
        f"input.id: {task.id_field!r} is not unique: the same id stands in {told}; "
        "name a field that is, or leave input.id out"
    )


def list_rows(folder: str) -> list[str]:
    """Returns the paths of the rows of a split's parts, finished or not."""
    return [found.path for found in list_matching(f"{folder}/*.rows.npy")]


def file_letters(bad_files: list[list[str]]) -> bytes:
    """Returns dead letters, JSON lines, for files set aside as a whole: (name, reason)."""
    letters = [_letter(name, None, reason, b"") for name, reason in bad_files]
    return "".join(json.dumps(letter, ensure_ascii=False) + "\n" for letter in letters).encode("utf-8", "replace")


def first_dimension(task: EmbedTask, splits: Iterable[Split]) -> int | None:
    """Returns the dimension of the first good vector of the corpus, reading no more than is needed; None where there is
    none.

    It settles what "another dimension" means, and finds a missing field or a model that cannot be loaded before the
    work begins.
    """
    for split in splits:
        try:
            for batch in read_split(split, task.format, task.fields, task.max_record_bytes, batch_rows=64):
                if len(batch.positions):
                    embedded = embed_batch(task, batch, split.pieces[batch.piece].name, None)
                    if len(embedded.bad) < len(batch.positions):
                        return embedded.dimension
        except BadFileError:
            if not task.skip_bad_files:
                raise
    return None
