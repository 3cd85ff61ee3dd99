"""Objects on s3:// and gs://: read by exact ranges, with one client a process, and given up on after half a minute.

Beam's own files for them read 16 MB ahead of what is asked for, make a client for each file, and wait ten minutes for
an S3 that is gone. Access, address and region are Beam's options all the same.
"""

import contextlib
import errno
import functools
import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, NamedTuple, Protocol

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.value_provider import RuntimeValueProvider

from tithe.transforms.errors import InputError

_GIVE_UP_SECONDS = 30  # after which a request that failed is not made again
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0  # seconds between two attempts, doubled each time


class StoreError(InputError):
    """An object store that does not answer, or refuses. No OSError: it says nothing of a file that is being read."""


class Stored(NamedTuple):
    """An object: its path, size in bytes, and the time of its last change in seconds of the Unix epoch."""

    path: str
    size: int
    modified: float


class Store(Protocol):
    """What is done with objects, each by its full path.

    Every method raises StoreError where the store gives no answer after some attempts, FileNotFoundError where there
    is no such object or bucket.
    """

    def size(self, path: str) -> int:
        """The size of an object in bytes."""

    def read(self, path: str, start: int, stop: int) -> bytes:
        """Bytes start .. stop - 1 of an object, fewer where it ends before; 0 <= start < stop."""

    def write(self, path: str, content: IO[bytes]) -> None:
        """Makes an object of a stream that can seek; it is there when it is whole."""

    def list(self, prefix: str) -> Iterator[Stored]:
        """The objects whose path begins so."""

    def delete(self, paths: Sequence[str]) -> None:
        """Removes objects; one that is not there is no error."""


def store_of(path: str) -> Store | None:
    """The store that a path lies on; None where it lies on no object store, or on one that Beam alone knows."""
    kind = _KINDS.get(FileSystems.get_scheme(path) or "")
    if kind is None:
        return None
    options = FileSystems._pipeline_options or RuntimeValueProvider.runtime_options or {}
    with _LOCK:
        made = _made.get(kind)
        if made is None or made[0] != options:
            FileSystems.get_filesystem(path)  # its error says which library is missing
            _made[kind] = made = (options, kind(options))
    return made[1]


class ObjectFile(io.RawIOBase):
    """An object as a file that can seek; each read is one request, for exactly the bytes that it returns."""

    def __init__(self, store: Store, path: str) -> None:
        super().__init__()
        self._store, self._path = store, path
        self._position = 0
        self._size: int | None = None  # not asked for before it is needed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END and self._size is None:
            self._size = self._store.size(self._path)
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size or 0}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        if not len(buffer) or (self._size is not None and self._position >= self._size):
            return 0
        stop = self._position + len(buffer)
        data = self._store.read(self._path, self._position, stop if self._size is None else min(stop, self._size))
        buffer[: len(data)] = data
        self._position += len(data)
        if data and self._position < stop:  # the end, so there is no need to ask for what lies behind it
            self._size = self._position
        return len(data)

    def readall(self) -> bytes:
        start = self._position
        end = self.seek(0, os.SEEK_END)
        return self._store.read(self._path, start, end) if start < end else b""


class _S3:
    """S3, or what speaks its protocol."""

    def __init__(self, options: Any) -> None:
        from apache_beam.io.aws.clients.s3.boto3_client import Client

        self._client = Client(options).client

    def size(self, path: str) -> int:
        return int(self._asked(path, functools.partial(self._client.head_object, **_s3_key(path)))["ContentLength"])

    def read(self, path: str, start: int, stop: int) -> bytes:
        from botocore.exceptions import ClientError

        def get() -> bytes:
            try:
                answer = self._client.get_object(**_s3_key(path), Range=f"bytes={start}-{stop - 1}")
                return bytes(answer["Body"].read())
            except ClientError as error:
                if error.response["Error"]["Code"] != "InvalidRange":
                    raise
                return b""  # it ends before

        return bytes(self._asked(path, get))

    def write(self, path: str, content: IO[bytes]) -> None:
        from boto3.s3.transfer import TransferConfig

        bucket, key = _split(path)
        one_by_one = TransferConfig(use_threads=False)  # the parts of a large object

        def put() -> None:
            content.seek(0)
            self._client.upload_fileobj(content, bucket, key, Config=one_by_one)

        self._asked(path, put)

    def list(self, prefix: str) -> Iterator[Stored]:
        bucket, key = _split(prefix)
        after: dict[str, str] = {}
        while True:
            page = self._asked(
                prefix, functools.partial(self._client.list_objects_v2, Bucket=bucket, Prefix=key, **after)
            )
            for found in page.get("Contents", ()):
                yield Stored(f"s3://{bucket}/{found['Key']}", int(found["Size"]), found["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            after = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:  # one by one: the request for many is not served by all that speak the protocol
            with contextlib.suppress(FileNotFoundError):
                self._asked(path, functools.partial(self._client.delete_object, **_s3_key(path)))

    def _asked(self, path: str, ask: Callable[[], Any]) -> Any:
        """What a request gives; it is made again where the store, or the way to it, failed."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
        from botocore.exceptions import ConnectionError as NoConnectionError

        end, pause = time.monotonic() + _GIVE_UP_SECONDS, _FIRST_PAUSE
        while True:
            try:
                return ask()
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status == 404:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
                if (status < 500 and status not in (408, 429)) or time.monotonic() + pause > end:
                    raise _no_answer(path, error) from error
            except (BotoCoreError, Boto3Error) as error:
                passing = isinstance(error, (HTTPClientError, NoConnectionError, IncompleteReadError))
                if not passing or time.monotonic() + pause > end:
                    raise _no_answer(path, error) from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


class _Gs:
    """Google Cloud Storage."""

    def __init__(self, options: Any) -> None:
        from apache_beam.io.gcp.gcsio import create_storage_client
        from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
        from google.cloud.storage.retry import DEFAULT_RETRY

        if isinstance(options, dict):
            options = PipelineOptions.from_dictionary(options)
        # Beam's own files look for credentials, for half a minute, even where --no_auth says that there are none.
        self._client = create_storage_client(options, not options.view_as(GoogleCloudOptions).no_auth)
        delays = DEFAULT_RETRY.with_delay(initial=_FIRST_PAUSE, maximum=_LONGEST_PAUSE, multiplier=2)
        self._retry = delays.with_timeout(_GIVE_UP_SECONDS)

    def size(self, path: str) -> int:
        blob = self._blob(path)
        with self._asked(path):
            blob.reload(retry=self._retry)
        return int(blob.size)

    def read(self, path: str, start: int, stop: int) -> bytes:
        from google.api_core.exceptions import RequestRangeNotSatisfiable

        with self._asked(path):
            try:
                # A range has no checksum; raw: as it is stored, whatever encoding its metadata names.
                blob = self._blob(path)
                found = blob.download_as_bytes(
                    start=start, end=stop - 1, raw_download=True, checksum=None, retry=self._retry
                )
                return bytes(found)
            except RequestRangeNotSatisfiable:
                return b""

    def write(self, path: str, content: IO[bytes]) -> None:
        size = content.seek(0, os.SEEK_END)
        content.seek(0)
        with self._asked(path):
            self._blob(path).upload_from_file(content, size=size, retry=self._retry)

    def list(self, prefix: str) -> Iterator[Stored]:
        bucket, name = _split(prefix)
        with self._asked(prefix):
            for blob in self._client.list_blobs(bucket, prefix=name, retry=self._retry):
                yield Stored(f"gs://{bucket}/{blob.name}", int(blob.size), blob.updated.timestamp())

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError), self._asked(path):
                self._blob(path).delete(retry=self._retry)

    def _blob(self, path: str) -> Any:
        bucket, name = _split(path)
        return self._client.bucket(bucket).blob(name)

    @contextlib.contextmanager
    def _asked(self, path: str) -> Iterator[None]:
        from google.api_core.exceptions import GoogleAPIError, NotFound
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
        from requests.exceptions import RequestException

        try:
            yield
        except NotFound as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
        except (GoogleAPIError, GoogleAuthError, DataCorruption, InvalidResponse, RequestException) as error:
            raise _no_answer(path, error) from error


def _no_answer(path: str, reason: object) -> StoreError:
    told = " ".join(str(reason).split())
    return StoreError(
        f"{path}: the store gives no answer: {told[:300]}; check its address and your access to it, and run again"
    )


def _split(path: str) -> tuple[str, str]:
    """Bucket and name of an object's path."""
    bucket, _, name = path.split("://", 1)[1].partition("/")
    return bucket, name


def _s3_key(path: str) -> dict[str, str]:
    bucket, name = _split(path)
    return {"Bucket": bucket, "Key": name}


_KINDS: dict[str, Any] = {"s3": _S3, "gs": _Gs}
_LOCK = threading.Lock()
# A client takes a tenth of a second to make, and can be used by many threads at once.
_made: dict[Any, tuple[Any, Store]] = {}
