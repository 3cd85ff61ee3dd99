"""The paths that a user gives: whether there is a library for them, told before anything runs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tithe.transforms.errors import UsageError

if TYPE_CHECKING:
    from tithe.config import Config

_LIBRARIES = {
    "gs": ("google.cloud.storage", "tithe[gcp]"),
    "s3": ("boto3", "tithe[aws]"),
    "hdfs": ("hdfs", "tithe[hadoop]"),
    "azfs": ("azure.storage.blob", "apache-beam[azure]"),
}
"""What Beam imports for a scheme, and what to install for it."""


def check_paths(config: Config) -> None:
    """Checks every path of a configuration that goes through Beam's file systems, as `check_path` does."""
    for pattern in config.input.patterns:
        check_path("input.files", pattern)
    check_path("output.path", config.output.path)
    if config.output.work is not None:
        check_path("output.work", config.output.work)
    if config.loss.kind == "file":
        check_path("loss.path", config.loss.path)


def check_path(key: str, path: str) -> None:
    """Raises UsageError for a URL whose scheme is unknown, or whose library is missing or lacks an option.

    Beam's options must be set before (`FileSystems.set_options`): some file systems are made from them.
    """
    from apache_beam.io.filesystem import BeamIOError
    from apache_beam.io.filesystems import FileSystems

    scheme = FileSystems.get_scheme(path)
    if scheme is None:
        return
    if scheme not in _LIBRARIES:
        known = ", ".join(f"{name}://" for name in _LIBRARIES)
        raise UsageError(f"{key}: {path}: {scheme}:// cannot be read; use a local path, or one of {known}")
    module, extra = _LIBRARIES[scheme]
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{key}: {path} needs `pip install '{extra}'` ({error})") from error
    try:
        FileSystems.get_filesystem(path)
    except (ValueError, BeamIOError) as error:
        raise UsageError(f"{key}: {path}: {_told(error)}; give Beam's options for {scheme}:// behind --") from error


def _told(error: Exception) -> str:
    details = getattr(error, "exception_details", None) or {}
    return "; ".join(str(some) for some in details.values()) or str(error)
