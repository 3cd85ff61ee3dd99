"""Answers of a model, kept by the content of the record: a loss is never asked twice."""

import hashlib
import json
from pathlib import Path
from typing import Any

from tithe.transforms.files import is_remote, list_matching
from tithe.transforms.vectors import read_json, write_json


def record_digest(record: dict[str, Any]) -> str:
    """Returns a hash of a record's content."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _files(folder: str) -> list[str]:
    """The files of a cache; a local folder stands for itself, whatever characters are in its name."""
    if not is_remote(folder):
        return [str(path) for path in Path(folder).glob("*.json")]
    return [found.path for found in list_matching(f"{folder}/*.json")]


class LossCache:
    """The answers of one model, one small file for each batch that was asked.

    Args of the constructor:
        folder: named by the fingerprint of the model.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[str, Any] = {}
        for path in _files(folder):
            self._known.update(read_json(path))

    def get(self, digest: str) -> Any:
        """Returns the answer for a record, or None."""
        return self._known.get(digest)

    def keep(self, answers: dict[str, Any]) -> None:
        """Keeps the answers of one batch."""
        name = hashlib.sha256("".join(sorted(answers)).encode()).hexdigest()[:32]
        write_json(f"{self._folder}/{name}.json", answers)
        self._known.update(answers)
