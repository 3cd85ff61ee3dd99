"""The folders of a selection: who may use them, where a stage lives, and when it is done."""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from tithe.transforms.errors import TitheError, UsageError
from tithe.transforms.files import absolute, exists, is_remote, list_matching, write_atomically
from tithe.transforms.stores import store_of
from tithe.transforms.vectors import read_json, write_json

MARK = ".tithe"
"""A file that says that a folder is tithe's own; locked while a run holds it."""


def fingerprint(value: Any) -> str:
    """Returns 16 hexadecimal digits that tell a JSON-able value from others."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def list_files(pattern: str) -> dict[str, int]:
    """Returns the sizes of the files that match a pattern, by path; none where the folder is missing.

    The part of a local pattern that is a folder stands for itself, whatever characters are in its name.
    """
    if not is_remote(pattern):
        return _list_local(pattern)
    try:
        return {found.path: found.size for found in list_matching(pattern)}
    except (BeamIOError, FileNotFoundError):
        return {}


def _list_local(pattern: str) -> dict[str, int]:
    folder, rest = Path(pattern), ""
    while not folder.is_dir():
        folder, rest = folder.parent, f"{folder.name}/{rest}" if rest else folder.name
    found = {}
    for path in folder.glob(f"{rest}/*" if rest.endswith("**") else rest or "*"):  # `**` alone gives folders
        with contextlib.suppress(FileNotFoundError):  # unfinished files come and go
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found[str(path)] = status.st_size
    return found


def remove(path: str) -> None:
    """Removes a folder with all that is in it, or a file; nothing where there is none."""
    if not is_remote(path):  # a path with `*` or `[` in it would be a pattern to FileSystems.delete
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)
        return
    store = store_of(path)
    if store is not None:
        store.delete([path, *list_files(f"{path}/**")])
        return
    with contextlib.suppress(BeamIOError):
        if FileSystems.exists(path) or list_files(f"{path}/**"):
            FileSystems.delete([path])


@dataclass(frozen=True)
class Stage:
    """A finished stage: its folder, what it measured, and whether it stood before this run."""

    name: str
    folder: str
    facts: dict[str, Any]
    stood: bool


class Workspace:
    """An output folder and its work folder.

    Args of the constructor:
        output: `output.path`.
        work: `output.work`, or None for work/ in the output folder.
    """

    def __init__(self, output: str, work: str | None = None) -> None:
        self.output = absolute(output).rstrip("/")
        self.work = absolute(work).rstrip("/") if work else f"{self.output}/work"
        self.manifest = f"{self.output}/manifest.json"

    @contextlib.contextmanager
    def held(self, *, create: bool = True) -> Iterator[None]:
        """Holds the folders for one run; what is not tithe's is refused.

        A dead process does not keep the lock. On an object store there is none: two runs that write there at once are
        the user's to avoid.

        Raises:
            UsageError: a folder holds something else, or another run holds it.
        """
        with contextlib.ExitStack() as stack:
            for folder in dict.fromkeys(
                [self.output, *([] if self.work.startswith(f"{self.output}/") else [self.work])]
            ):
                self._claim(folder, create)
                if not is_remote(folder):
                    stack.enter_context(_locked(f"{folder}/{MARK}"))
            yield

    def _claim(self, folder: str, create: bool) -> None:
        mark = f"{folder}/{MARK}"
        if exists(mark):
            return
        local = not is_remote(folder)
        holds = (os.path.isdir(folder) and os.listdir(folder)) if local else list_files(f"{folder}/**")
        if local and os.path.exists(folder) and not os.path.isdir(folder):
            raise UsageError(f"output.path: {folder} is a file; name a folder that is new or empty")
        if holds:
            raise UsageError(
                f"{folder} holds something else ({sorted(holds)[0]}, ...); name a folder that is new or empty"
            )
        if not create:
            raise UsageError(f"{folder} is no output folder of tithe: it has no {MARK}")
        text = b"This folder is made by tithe; `tithe clean` removes its stages.\n"
        if not local:
            write_atomically(mark, text)
            return
        try:
            os.makedirs(folder, exist_ok=True)
            Path(mark).write_bytes(text)
        except OSError as error:
            raise UsageError(f"output.path: {folder} cannot be written: {error.strerror or error}") from error

    def stage(self, name: str, depends: Any, make: Callable[[str], dict[str, Any]], *, redo: bool = False) -> Stage:
        """Returns a stage, made only where its manifest does not stand.

        Args:
            name: of the stage.
            depends: all that its result depends on, JSON-able; its fingerprint names the folder.
            make: fills the folder, and returns what the stage's manifest says.
            redo: make it again though it stands.
        """
        folder = f"{self.work}/{name}-{fingerprint(depends)}"
        path = f"{folder}/stage.json"
        if redo:
            remove(folder)
        if exists(path):
            return Stage(name, folder, read_json(path), True)
        start = time.time()
        facts = make(folder)
        facts = {**facts, "seconds": round(time.time() - start, 3), "bytes": sum(list_files(f"{folder}/**").values())}
        remove(f"{folder}/tmp")
        write_json(path, facts)
        return Stage(name, folder, facts, False)

    def folders(self) -> list[str]:
        """Returns the names of the folders below work/."""
        if not is_remote(self.work):
            return sorted(e.name for e in os.scandir(self.work) if e.is_dir()) if os.path.isdir(self.work) else []
        return sorted({path[len(self.work) + 1 :].split("/")[0] for path in list_files(f"{self.work}/**")} - {MARK})

    def clean(self, keep: set[str]) -> list[str]:
        """Removes every folder below work/ that is not to be kept; returns their names."""
        gone = [name for name in self.folders() if name not in keep]
        for name in gone:
            remove(f"{self.work}/{name}")
        return gone


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    import fcntl

    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TitheError(
                f"another run holds {os.path.dirname(path)}; wait for it, or name another output.path"
            ) from None
        yield
