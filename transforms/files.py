"""Input files: which there are, what they hold, and how a file is opened and written, local or remote."""

import contextlib
import hashlib
import io
import itertools
import lzma
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileSystem
from apache_beam.io.filesystems import FileSystems

from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.stores import ObjectFile, Stored, store_of

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".txt": "text",
    ".text": "text",
}
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd", ".xz": "xz"}

_AHEAD_BYTES = 4 << 20  # of a remote file that is decompressed: decompressors ask for some kilobytes at a time
_SPOOL_BYTES = 64 << 20  # a remote file is made ready in memory up to here, beyond it on the local disk


@dataclass(frozen=True)
class InputFile:
    """One file of the corpus; `name` is its path below the fixed part of the glob that matched it."""

    path: str
    name: str
    size: int
    modified: float


class Written(NamedTuple):
    """What a finished file holds: its size in bytes and the sha256 of them, in hexadecimal."""

    bytes: int
    sha256: str


def is_remote(path: str) -> bool:
    """Whether a path is a URL (gs://, s3://, hdfs://) and not a path on this machine."""
    return FileSystems.get_scheme(path) is not None


def absolute(path: str) -> str:
    """The path from the root of the file system; a URL stays as it is."""
    return path if is_remote(path) else os.path.abspath(path)


def match_files(globs: Sequence[str]) -> list[InputFile]:
    """The files that match any of the globs, each once, sorted by name.

    `*`, `?` and `[...]` stay inside one folder, `**` crosses folders. A file that two globs match keeps the name
    that the first gives it.

    Raises InputError for a glob that matches no file, UsageError for two files of one name.
    """
    found: dict[str, InputFile] = {}
    for glob in globs:
        matched = _match(glob)
        if not matched:
            hint = f" (it is a folder: did you mean {glob.rstrip('/')}/*?)" if os.path.isdir(glob) else ""
            raise InputError(f"input.files: {glob} matches no file{hint}")
        for file in matched:
            found.setdefault(file.path, file)
    files = sorted(found.values(), key=lambda file: (file.name, file.path))
    for first, second in itertools.pairwise(files):
        if first.name == second.name:
            raise UsageError(
                f"input.files: {first.path} and {second.path} would both be called {first.name} in the sample; "
                "use one glob above both, such as FOLDER/**"
            )
    return files


def _match(glob: str) -> list[InputFile]:
    # A relative glob is matched as it stands: the current folder may hold characters that would act as wildcards.
    pattern = glob if is_remote(glob) or os.path.isabs(glob) else os.path.join(".", os.path.normpath(glob))
    if not is_remote(glob) and os.path.exists(pattern):
        if os.path.isdir(pattern):
            return []
        path = os.path.abspath(pattern)
        return [InputFile(path, os.path.basename(path), os.path.getsize(path), os.path.getmtime(path))]
    try:
        found = list_matching(pattern)
    except FileNotFoundError as error:
        raise InputError(f"input.files: {glob} cannot be listed: there is no such bucket") from error
    except BeamIOError as error:
        reason = "; ".join(str(e) for e in (error.exception_details or {}).values()) or str(error)
        raise InputError(f"input.files: {glob} cannot be listed: {reason}") from error
    except ValueError as error:  # no such scheme, or its library is missing
        raise UsageError(f"input.files: {glob}: {error}") from error
    folders = _fixed_part(pattern).rpartition("/")[0]
    return [
        InputFile(
            absolute(file.path),
            file.path[len(folders) + 1 if folders else 0 :].replace(os.sep, "/"),
            file.size,
            file.modified,
        )
        for file in found
        if not file.path.endswith("/")  # object stores list folder markers
    ]


def list_matching(pattern: str) -> list[Stored]:
    """The files that match a pattern, local or remote; raises FileNotFoundError where there is no such bucket."""
    store = store_of(pattern)
    if store is None:
        [result] = FileSystems.match([pattern])
        return [
            Stored(found.path, found.size_in_bytes, float(found.last_updated_in_seconds))
            for found in result.metadata_list
        ]
    wanted = re.compile(FileSystem.translate_pattern(pattern))
    return [found for found in store.list(_fixed_part(pattern)) if wanted.match(found.path)]


def _fixed_part(pattern: str) -> str:
    """What stands in a pattern before its first wildcard."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]


def exists(path: str) -> bool:
    """Whether there is a file, local or remote."""
    store = store_of(path)
    if store is None:
        return bool(FileSystems.exists(path))
    try:
        store.size(path)
    except FileNotFoundError:
        return False
    return True


def version(path: str) -> tuple[Any, ...] | None:
    """What tells a file from one that is written in its place later; None where there is none."""
    store = store_of(path)
    if store is not None:
        # Of the objects whose path begins so, the one that ends there is the first.
        return next((found for found in store.list(path) if found.path == path), None)
    if is_remote(path):
        return next(iter(list_matching(path)), None)
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def compression(name: str) -> str | None:
    """How a file is compressed, by its suffix: gzip, bz2, zstd, xz or None."""
    return COMPRESSIONS.get(os.path.splitext(name)[1].lower())


def file_format(name: str) -> str:
    """The format of a file by its suffix, one for compression left aside: parquet, jsonl, csv or text.

    Raises UsageError where the suffix tells none.
    """
    stem, suffix = os.path.splitext(name.lower())
    packed = suffix in COMPRESSIONS
    found = FORMATS.get(os.path.splitext(stem)[1] if packed else suffix)
    if found is None:
        raise UsageError(f"{name}: its suffix tells no format; set input.format to parquet, jsonl, csv or text")
    if packed and found == "parquet":
        raise UsageError(f"{name}: a Parquet file cannot be read through {COMPRESSIONS[suffix]}; unpack it first")
    return found


def open_source(path: str) -> Any:
    """A file's bytes as they are stored, as a pyarrow.NativeFile that can seek; on an object store each read is a
    request for just what it returns.

    Raises OSError where the file cannot be opened; of an object that is not there, at the first read.
    """
    return pa.PythonFile(_open_remote(path), mode="r") if is_remote(path) else pa.OSFile(path)


def _open_remote(path: str) -> Any:
    store = store_of(path)
    if store is None:
        return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return ObjectFile(store, path)


def open_bytes(path: str, packed: str | None = None, buffer_bytes: int = 1 << 20) -> io.BufferedReader:
    """A file's bytes behind its compression (`packed`, as `compression` tells), in a buffer of `buffer_bytes`.

    An uncompressed file can seek. A compressed one that ends too early raises OSError or EOFError at its end, which
    Beam's own reader does not notice.
    """
    stream = _open_remote(path) if is_remote(path) else pa.OSFile(path)
    if packed is not None and is_remote(path):
        stream = io.BufferedReader(stream, _AHEAD_BYTES)
    if packed == "xz":
        stream = lzma.LZMAFile(stream)  # noqa: SIM115  # closed with the buffer around it
    elif packed is not None:
        stream = pa.CompressedInputStream(stream, packed)
    return io.BufferedReader(stream, buffer_bytes)


Content = bytes | Callable[[IO[bytes]], object]
"""What a file is to hold: bytes, or a function that writes them, front to back, to the stream it is given."""


def write_atomically(path: str, content: Content) -> None:
    """Writes a file that has its name only once it is whole, replacing one that is there; makes local folders.

    The unfinished file lies in a folder `tmp` beside the final one; its name tells the writer, so that two attempts at
    one part do not mix.

    Raises InputError where the file cannot be written (no space, no permission).
    """
    try:
        if is_remote(path):
            _write_remote(path, content)
        else:
            _write_local(path, content)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}; check output.path") from error


def write_measured(path: str, content: Content) -> Written:
    """Writes a file as `write_atomically` does, and tells its size and digest."""
    measured: list[_Measured] = []

    def measure(stream: IO[bytes]) -> None:
        measured.append(_Measured(stream))
        _fill(measured[0], content)  # type: ignore[arg-type]  # a raw stream that can only be written

    write_atomically(path, measure)
    return measured[0].written()


class _Measured(io.RawIOBase):
    """Passes bytes on to a stream, and keeps their number and digest."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(data)
        self._digest.update(data)
        self._bytes += memoryview(data).nbytes
        return memoryview(data).nbytes

    def written(self) -> Written:
        return Written(self._bytes, self._digest.hexdigest())


def _fill(stream: IO[bytes], content: Content) -> None:
    if isinstance(content, bytes):
        stream.write(content)
    else:
        content(stream)


def _unfinished(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/tmp/{name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"


def _write_local(path: str, content: Content) -> None:
    path = os.path.abspath(path)
    unfinished = _unfinished(path)
    os.makedirs(os.path.dirname(unfinished), exist_ok=True)
    try:
        with open(unfinished, "wb") as stream:
            _fill(stream, content)
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(unfinished)
        raise


def _write_remote(path: str, content: Content) -> None:
    # Closing a remote file publishes it, also after an error: so nothing is opened before all its bytes are there.
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
        _fill(spool, content)
        spool.seek(0)
        store = store_of(path)
        if store is not None:
            store.write(path, spool)
            return
        # Some show a file when it is closed; a distributed file system with folders shows it as it grows.
        with_folders = FileSystems.get_filesystem(path).has_dirs()
        target = _unfinished(path) if with_folders else path
        with FileSystems.create(target, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
            shutil.copyfileobj(spool, stream, 1 << 20)
        if with_folders:
            if FileSystems.exists(path):
                FileSystems.delete([path])
            FileSystems.rename([target], [path])
