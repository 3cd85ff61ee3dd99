"""Whether the disk has room for what a run will write, asked before it begins."""

import os
import shutil

import pyarrow.parquet as pq

from tithe.transforms.embedders import ColumnEmbedder, Embedder
from tithe.transforms.errors import InputError
from tithe.transforms.files import InputFile, compression, is_remote, open_source
from tithe.transforms.vectors import ROW

UNPACKED = 4
"""How much longer text is than its compressed form, about."""

RECORD_BYTES = 1000
"""Bytes of a text record, about, where nothing better is known; a guess that only this check uses."""


def estimated_bytes(files: list[InputFile], format: str, embedder: Embedder, dimension: int) -> int:
    """Returns about how many bytes vectors/ and scores/ will take."""
    total = sum(f.size * (UNPACKED if compression(f.name) else 1) for f in files)
    row = 4 * dimension + ROW.itemsize + 8
    if format == "parquet":
        largest = max(files, key=lambda f: f.size)
        with open_source(largest.path) as source:
            rows = pq.read_metadata(source).num_rows
        return int(rows * total / max(largest.size, 1)) * row
    # A number in text takes some ten characters, so a record with a vector is longer than its vector.
    record = 10 * dimension if isinstance(embedder, ColumnEmbedder) else RECORD_BYTES
    return int(total / max(record, 1)) * row


def check_room(folder: str, files: list[InputFile], format: str, embedder: Embedder, dimension: int) -> None:
    """Raises InputError where the local disk of the folder has too little room for the vectors."""
    if is_remote(folder):
        return
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    free, needed = shutil.disk_usage(folder).free, estimated_bytes(files, format, embedder, dimension)
    if needed > free:
        raise InputError(
            f"the vectors need about {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free; set "
            "output.work to a larger disk"
        )
