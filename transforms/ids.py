"""Id hashes of records: of a field where the configuration names one, of file and position otherwise."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tithe.transforms.kernels import hashing

U64 = NDArray[np.uint64]

NOT_AN_ID = "id is neither text nor an integer"


def id_hashes(column: pa.Array | list[object]) -> tuple[U64, dict[int, str]]:
    """Returns the id hash of each value, uint64, (n,), and the rows that have none with the reason.

    Text is known by its UTF-8 bytes, an integer by its value whatever its width; so an id is the same in Parquet and in
    JSON lines.
    """
    if isinstance(column, list):
        return _hash_values(column)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (
        pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ):
        return np.zeros(len(column), np.uint64), dict.fromkeys(range(len(column)), NOT_AN_ID)
    missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist()
    reasons = dict.fromkeys(missing, "missing id")
    if pa.types.is_integer(column.type):
        return hashing.hash_integers(column.fill_null(0).to_numpy(zero_copy_only=False)), reasons
    return _hash_text(column.fill_null("")), reasons


def location_hashes(name: str, positions: NDArray[np.int64]) -> U64:
    """Returns the id hash of records known by the name of their file and the position in it, uint64, (n,)."""
    return hashing.mix(hashing.hash_integers(positions) ^ np.uint64(hashing.hash_text(name)))


def field_values(chunk: Any, name: str) -> pa.Array | list[object]:
    """Returns a field of records as they were read again: a pa.Table, or lines of JSON."""
    if isinstance(chunk, list):
        return [json.loads(line).get(name) for line in chunk]
    return chunk.column(name).combine_chunks()


def _hash_text(column: pa.Array) -> U64:
    column = column.cast(pa.large_string())
    _, offsets_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    return hashing.hash_bytes(data, offsets)


def _hash_values(values: list[object]) -> tuple[U64, dict[int, str]]:
    hashes, reasons = np.zeros(len(values), np.uint64), {}
    texts: list[str] = []
    text_rows, integers, integer_rows = [], [], []
    for row, value in enumerate(values):
        if isinstance(value, str):
            texts.append(value)
            text_rows.append(row)
        elif isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**64:
            integers.append(value % 2**64)
            integer_rows.append(row)
        else:
            reasons[row] = "missing id" if value is None else NOT_AN_ID
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(e) for e in encoded], dtype=np.int64)]).astype(np.int64)
    hashes[text_rows] = hashing.hash_bytes(np.frombuffer(b"".join(encoded), np.uint8), offsets)
    hashes[integer_rows] = hashing.hash_integers(np.array(integers, np.uint64))
    return hashes, reasons
