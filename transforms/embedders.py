"""Embedders: from a batch of records to one float32 vector a record, or the reason why there is none."""

import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.saved_model import load_saved_model
from tithe.transforms.usercode import UserCode

MAX_COMPONENT = 2.0**41
"""Largest magnitude of a component: what the exact sums have room for."""

Vectors = NDArray[np.float32]


class Columns(Protocol):
    """What an embedder sees of a batch."""

    def column(self, name: str) -> pa.Array | list[Any]:
        """Returns the values of a field."""


class Embedder(Protocol):
    """Makes vectors; a frozen dataclass, so that it travels with the pipeline and says what it is in its repr."""

    @property
    def fields(self) -> Sequence[str]:
        """The fields of a record that it reads."""

    def embed(self, batch: Columns, dimension: int | None) -> tuple[Vectors, dict[int, str]]:
        """Returns vectors, float32, (n, d), and the rows without one with the reason.

        `dimension` is the corpus's; None or 0 where it is not known. d may be another, or 0 where every row is bad.
        """

    def embed_texts(self, texts: list[str]) -> Vectors:
        """Returns the vectors of texts, float32, (n, d): how a label of kind `text` is embedded."""


def check_vectors(vectors: NDArray[np.floating], bad: dict[int, str], dimension: int | None) -> Vectors:
    """Returns vectors as float32 and adds to `bad` the rows that cannot be used.

    Args:
        vectors: (n, d), any float type.
        bad: reasons by row; extended.
        dimension: d of the corpus; None or 0 where it is not known.
    """
    width = vectors.shape[1]
    if width != (dimension or width or -1):
        for row in range(len(vectors)):
            bad.setdefault(row, "another dimension" if dimension else "empty vector")
        return np.zeros((len(vectors), dimension or 0), np.float32)
    # The largest and the least of each row tell what is wrong with it; NaN wins over both.
    with np.errstate(invalid="ignore"):
        extent = np.maximum(vectors.max(1, initial=0), -vectors.min(1, initial=0)).astype(np.float64)
    for row in np.flatnonzero(~(extent <= MAX_COMPONENT)).tolist():
        finite = bool(np.isfinite(vectors[row]).all())
        bad.setdefault(row, "vector out of range" if finite else "NaN or infinity in vector")
    with np.errstate(over="ignore"):
        out = vectors.astype(np.float32, copy=False)
    if bad:
        out = out.copy()
        out[list(bad)] = 0
    return out


@dataclass(frozen=True)
class ColumnEmbedder:
    """Vectors that are in the records already: a list of numbers, or binary of fixed size holding `dtype`."""

    name: str
    dtype: str = "float32"

    @property
    def fields(self) -> Sequence[str]:
        return [self.name]

    def embed(self, batch: Columns, dimension: int | None) -> tuple[Vectors, dict[int, str]]:
        column = batch.column(self.name)
        if isinstance(column, list):
            return _from_lists(column, dimension)
        return _from_arrow(column, self.name, np.dtype(self.dtype), dimension)

    def embed_texts(self, texts: list[str]) -> Vectors:
        raise UsageError(
            "embed.label_kind: text needs an embedder of texts, and embed.kind column has none; use class or number"
        )


@dataclass(frozen=True)
class HashingEmbedder:
    """Words and word pairs hashed to a signed, L2-normalised vector: no model, no download.

    The vectors are those of scikit-learn's HashingVectorizer with word pairs. Each distinct word of a text is hashed
    once, with its count, which is quicker.
    """

    names: tuple[str, ...]
    dimension: int

    @property
    def fields(self) -> Sequence[str]:
        return self.names

    def embed(self, batch: Columns, dimension: int | None) -> tuple[Vectors, dict[int, str]]:
        texts, bad = _texts(batch, self.names)
        return self.embed_texts(texts), bad

    def embed_texts(self, texts: list[str]) -> Vectors:
        from sklearn.preprocessing import normalize

        counts = _hasher(self.dimension).transform(_word_counts(text).items() for text in texts)
        vectors: Vectors = normalize(counts, copy=False).toarray()
        return vectors


_WORD = re.compile(r"\w\w+")


def _word_counts(text: str) -> Counter[str]:
    """How often each word of two letters or more, in lower case, and each pair of neighbouring ones is in a text."""
    words = _WORD.findall(text.lower())
    counts = Counter(words)
    counts.update([f"{first} {second}" for first, second in pairwise(words)])
    return counts


@lru_cache(maxsize=2)
def _hasher(dimension: int) -> Any:
    from sklearn.feature_extraction import FeatureHasher

    return FeatureHasher(dimension, input_type="pair", dtype=np.float32)


@dataclass(frozen=True)
class TfhubEmbedder:
    """A TF-Hub handle or a folder with a SavedModel that maps strings to vectors."""

    handle: str
    names: tuple[str, ...]
    signature: str | None
    input: str | None
    output: str | None
    batch: int

    @property
    def fields(self) -> Sequence[str]:
        return self.names

    def embed(self, batch: Columns, dimension: int | None) -> tuple[Vectors, dict[int, str]]:
        texts, bad = _texts(batch, self.names)
        return self.embed_texts(texts), bad

    def embed_texts(self, texts: list[str]) -> Vectors:
        call = load_once(repr(self), lambda: load_saved_model(self.handle, self.signature, self.input, self.output))
        return _in_batches(call, texts, self.batch)


@dataclass(frozen=True)
class ModelEmbedder:
    """Any Beam ModelHandler, by reference; it is given the value of one field, or whole records where none is named."""

    handler: UserCode
    field: str
    batch: int

    @property
    def fields(self) -> Sequence[str]:
        return [self.field]

    def embed(self, batch: Columns, dimension: int | None) -> tuple[Vectors, dict[int, str]]:
        column = batch.column(self.field)
        values = column if isinstance(column, list) else column.to_pylist()
        bad = {row: f"missing field {self.field!r}" for row, value in enumerate(values) if value is None}
        good = [row for row in range(len(values)) if row not in bad]
        some = self._call([values[row] for row in good])
        vectors = np.zeros((len(values), some.shape[1]), some.dtype)
        vectors[good] = some
        return vectors, bad

    def embed_texts(self, texts: list[str]) -> Vectors:
        return self._call(texts)

    def _call(self, values: list[Any]) -> Vectors:
        call = load_once(repr(self), lambda: model_call(self.handler))
        return _in_batches(lambda some: self.handler.call(call, some), values, self.batch)


def model_call(handler: UserCode) -> Callable[[list[Any]], Any]:
    """Returns a function from a batch to the predictions of a Beam ModelHandler, its model loaded."""
    loaded = handler.load()
    loaded = handler.call(loaded) if isinstance(loaded, type) else loaded
    if not hasattr(loaded, "run_inference"):
        raise UsageError(f"{handler.key}: {handler.reference!r} is a {type(loaded).__name__}, not a Beam ModelHandler")
    model = handler.call(loaded.load_model)

    def call(values: list[Any]) -> list[Any]:
        return [getattr(p, "inference", p) for p in loaded.run_inference(values, model)]

    return call


_loaded: dict[str, Any] = {}
_loading = threading.Lock()


def load_once(key: str, load: Callable[[], Any]) -> Any:
    """Returns what `load` makes, made once in this process."""
    with _loading:
        if key not in _loaded:
            _loaded[key] = load()
        return _loaded[key]


def _in_batches(call: Callable[[list[Any]], Any], values: list[Any], size: int) -> Vectors:
    """Calls a model on batches with fixed boundaries: its outputs may depend on how a batch is composed."""
    if not values:
        return np.zeros((0, 0), np.float32)
    outputs = []
    for low in range(0, len(values), size):
        some = values[low : low + size]
        answer = call(some)
        try:
            out = np.asarray(answer)
        except ValueError:  # vectors of several lengths
            out = np.array(len(answer))
        if out.ndim != 2 or len(out) != len(some) or not np.issubdtype(out.dtype, np.floating):
            raise InputError(
                f"the embedding model gave {out.dtype} of shape {out.shape} for {len(some)} records; "
                "it must give one vector of floats each, all of one length"
            )
        outputs.append(out)
    return np.concatenate(outputs)


def as_text(value: Any) -> str | None:
    """Returns a scalar as text; None for a missing one."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def _texts(batch: Columns, names: Sequence[str]) -> tuple[list[str], dict[int, str]]:
    """The texts of the fields, joined by line ends; a record is bad only where all of them are missing."""
    columns = []
    for name in names:
        column = batch.column(name)
        columns.append([as_text(v) for v in (column if isinstance(column, list) else column.to_pylist())])
    texts, bad = [], {}
    for row, values in enumerate(zip(*columns, strict=True)):
        present = [v for v in values if v is not None]
        if not present:
            bad[row] = f"missing field {' or '.join(repr(n) for n in names)}"
        texts.append("\n".join(present).encode("utf-8", "replace").decode())
    return texts, bad


def _from_lists(values: list[Any], dimension: int | None) -> tuple[Vectors, dict[int, str]]:
    """Vectors from Python lists, as JSON lines have them."""
    bad: dict[int, str] = {}
    rows: list[Any] = []
    for row, value in enumerate(values):
        array: Any = None
        if value is None:
            bad[row] = "missing vector"
        elif not isinstance(value, list):
            bad[row] = "vector is not a list of numbers"
        else:
            try:
                array = np.array(value, np.float64)
            except (TypeError, ValueError, OverflowError):
                bad[row] = "vector is not a list of numbers"
            else:
                if array.ndim != 1 or None in value or any(isinstance(v, (bool, str)) for v in value):
                    array, bad[row] = None, "vector is not a list of numbers"
        rows.append(array)
    return _stack(rows, bad, dimension)


def _stack(rows: list[Any], bad: dict[int, str], dimension: int | None) -> tuple[Vectors, dict[int, str]]:
    """Rows of any lengths as a matrix; the dimension, where it is not known yet, is the one that most rows have."""
    if not dimension:
        lengths = Counter(len(r) for r in rows if r is not None and len(r))
        dimension = lengths.most_common(1)[0][0] if lengths else 0
    out = np.zeros((len(rows), dimension))
    for row, value in enumerate(rows):
        if value is None:
            continue
        if len(value) != dimension:
            bad.setdefault(row, "another dimension")
        else:
            out[row] = value
    return out, bad  # type: ignore[return-value]


def _from_arrow(
    column: pa.Array, name: str, dtype: np.dtype[Any], dimension: int | None
) -> tuple[Vectors, dict[int, str]]:
    kind = column.type
    bad: dict[int, str] = {}
    if column.null_count:
        missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist()
        bad = dict.fromkeys(missing, "missing vector")
    if pa.types.is_fixed_size_binary(kind):
        if kind.byte_width % dtype.itemsize:
            raise InputError(
                f"column {name!r} holds {kind.byte_width} bytes a row, which is no whole number of {dtype}; set "
                "embed.dtype"
            )
        data = np.frombuffer(column.buffers()[1], np.uint8)
        data = data[column.offset * kind.byte_width : (column.offset + len(column)) * kind.byte_width]
        return data.view(dtype).reshape(len(column), -1), bad
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (is_list or pa.types.is_fixed_size_list(kind)) or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise InputError(f"column {name!r} is {kind}; embed.column needs lists of numbers or binary of fixed size")
    if is_list:
        lengths = np.diff(np.asarray(column.offsets))
        good = [length for row, length in enumerate(lengths.tolist()) if row not in bad]
        if not good or (lengths != good[0]).any():
            holes = [row for row, v in enumerate(column) if row not in bad and v.values.null_count]
            bad.update(dict.fromkeys(holes, "null in vector"))
            return _stack(
                [None if row in bad else np.array(v.values, np.float64) for row, v in enumerate(column)], bad, dimension
            )
        values, width = column.flatten(), good[0]
    else:
        # `values` covers the rows before the offset and those that are null, so that row i lies at i x width.
        width = kind.list_size
        values = column.values[column.offset * width : (column.offset + len(column)) * width]
    if values.null_count:
        holes = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)) // max(width, 1)
        for row in np.unique(holes).tolist():
            bad.setdefault(row, "null in vector")
        values = values.fill_null(0) if not pa.types.is_float16(values.type) else values.cast(pa.float32()).fill_null(0)
    return values.to_numpy(zero_copy_only=False).reshape(len(column), width), bad
