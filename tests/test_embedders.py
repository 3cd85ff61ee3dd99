"""Embedders, ids and the user's code: what a batch becomes, and what is said where it cannot."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from corpora import configure, fixed_lists, points
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import HashingVectorizer

from tithe import sources
from tithe.config import load
from tithe.sources import user_code
from tithe.transforms.embedders import (
    MAX_COMPONENT,
    ColumnEmbedder,
    HashingEmbedder,
    ModelEmbedder,
    check_vectors,
    load_once,
)
from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.ids import id_hashes, location_hashes
from tithe.transforms.usercode import UserCode

HANDLER = """
import numpy as np

class Lengths:
    def load_model(self):
        return 2.0

    def run_inference(self, batch, model, inference_args=None):
        return [np.array([len(text) * model, len(batch)]) for text in batch]

class Prediction:
    def __init__(self, inference):
        self.inference = inference

class Predictions(Lengths):
    def run_inference(self, batch, model, inference_args=None):
        return [Prediction(p) for p in super().run_inference(batch, model)]

class Fails(Lengths):
    def run_inference(self, batch, model, inference_args=None):
        raise ValueError("this model\\nis tired")

class CannotLoad(Lengths):
    def load_model(self):
        raise OSError("no weights")

class OneForAll(Lengths):
    def run_inference(self, batch, model, inference_args=None):
        return [np.zeros(3)]

class Uneven(Lengths):
    def run_inference(self, batch, model, inference_args=None):
        return [np.zeros(1 + len(text)) for text in batch]

handler = Lengths()
number = 3
"""


class Batch:
    """Columns of a batch."""

    def __init__(self, **columns: Any) -> None:
        self._columns = columns

    def column(self, name: str) -> Any:
        return self._columns[name]


def embed_column(column: Any, dimension: int | None = None, dtype: str = "float32") -> tuple[Any, dict[int, str]]:
    """What the embed stage makes of a column of vectors."""
    stored, bad = ColumnEmbedder("v", dtype).embed(Batch(v=column), dimension)
    return check_vectors(stored, bad, dimension), bad


X = points(5, d=4).astype(np.float16).astype(np.float64)  # each type below holds these exactly


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_layout_and_width_of_vectors_gives_the_same(dtype: str) -> None:
    values = X.astype(dtype)
    kind = pa.from_numpy_dtype(np.dtype(dtype))
    columns = {
        "fixed": fixed_lists(values),
        "list": pa.array(list(values), pa.list_(kind)),
        "large list": pa.array(list(values), pa.large_list(kind)),
        "binary": pa.array([row.tobytes() for row in values], pa.binary(values[0].nbytes)),
        "json": values.tolist(),
    }
    for name, column in columns.items():
        stored, bad = embed_column(column, dtype=dtype)
        assert stored.dtype == np.float32 and bad == {}, name
        np.testing.assert_array_equal(stored, X.astype(np.float32), name)
        if name != "json":
            sliced, bad = embed_column(column.slice(2, 2), 4, dtype)
            np.testing.assert_array_equal(sliced, X[2:4].astype(np.float32), name)
            assert bad == {}


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32()), pa.list_(pa.float32(), 2), pa.large_list(pa.float64()), pa.list_(pa.float16(), 2), None],
    ids=str,
)
def test_rows_that_are_missing_or_hold_nulls(kind: Any) -> None:
    values: list[Any] = [[1.0, 2.0], None, [3.0, None], [5.0, 6.0]]
    if kind is not None and pa.types.is_float16(kind.value_type):
        values = [v and [x if x is None else np.float16(x) for x in v] for v in values]
    column = values if kind is None else pa.array(values, kind)
    stored, bad = embed_column(column, 2)
    null = "null in vector" if kind is not None else "vector is not a list of numbers"
    assert bad == {1: "missing vector", 2: null}
    np.testing.assert_array_equal(stored[[0, 3]], [[1, 2], [5, 6]])


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), None], ids=str)
@pytest.mark.parametrize("dimension", [None, 2])
def test_a_vector_of_another_dimension_is_bad_even_where_it_comes_first(kind: Any, dimension: int | None) -> None:
    values = [[1.0], [1.0, 2.0], [], [3.0, 4.0], [1.0, 2.0, 3.0]]
    stored, bad = embed_column(values if kind is None else pa.array(values, kind), dimension)
    assert bad == dict.fromkeys([0, 2, 4], "another dimension")
    np.testing.assert_array_equal(stored[[1, 3]], [[1, 2], [3, 4]])


@pytest.mark.parametrize("column", [[[], []], pa.array([[], []], pa.list_(pa.float32()))], ids=["json", "list"])
def test_vectors_without_components_are_bad(column: Any) -> None:
    assert embed_column(column)[1] == dict.fromkeys([0, 1], "empty vector")


def test_json_that_is_no_vector() -> None:
    values: list[Any] = [
        [1, 2],
        "text",
        [1, "2"],
        [True, False],
        [[1, 2]],
        {"a": 1},
        3,
        [10**400, 1],
        [1e999, 0],
        [None, None],
    ]
    stored, bad = embed_column(values, 2)
    assert bad.pop(8) == "NaN or infinity in vector"
    assert bad == dict.fromkeys([1, 2, 3, 4, 5, 6, 7, 9], "vector is not a list of numbers")
    np.testing.assert_array_equal(stored[0], [1, 2])


def test_components_that_are_not_finite_or_out_of_range() -> None:
    values = np.array(
        [
            [1, 2],
            [np.nan, 1],
            [np.inf, 1],
            [1, -np.inf],
            [1, MAX_COMPONENT],
            [-MAX_COMPONENT * 1.01, 1],
            [1e300, 0],
            [np.nan, 1e300],
        ]
    )
    stored, bad = embed_column(fixed_lists(values), 2)
    finite, wide = "NaN or infinity in vector", "vector out of range"
    assert bad == {1: finite, 2: finite, 3: finite, 5: wide, 6: wide, 7: finite}
    assert np.isfinite(stored).all() and stored[4, 1] == MAX_COMPONENT


def test_columns_that_hold_no_vectors() -> None:
    with pytest.raises(InputError, match="column 'v' is string"):
        embed_column(pa.array(["a"]))
    with pytest.raises(InputError, match="column 'v' is list"):
        embed_column(pa.array([["a"]]))
    with pytest.raises(InputError, match=r"6 bytes a row, which is no whole number of float32; set embed\.dtype"):
        embed_column(pa.array([b"123456"], pa.binary(6)))
    with pytest.raises(UsageError, match="use class or number"):
        ColumnEmbedder("v").embed_texts(["a"])


def test_integers_serve_as_vectors() -> None:
    stored, bad = embed_column(pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2)))
    assert stored.dtype == np.float32 and stored.tolist() == [[1, 2], [3, 4]] and bad == {}


def test_hashed_texts() -> None:
    embedder = HashingEmbedder(("title", "body"), 64)
    batch = Batch(title=["a tale", None, None, "", 7], body=["of two cities", "of two cities", None, None, "\ud800 x"])
    stored, bad = embedder.embed(batch, 64)
    assert bad == {2: "missing field 'title' or 'body'"}
    assert stored.shape == (5, 64) and stored.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(stored[[0, 1]], axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(stored[3], 0)  # empty is not missing
    np.testing.assert_array_equal(stored[1], embedder.embed_texts(["of two cities"])[0])
    as_arrow = Batch(title=pa.array(["a tale"]), body=pa.array(["of two cities"]))
    np.testing.assert_array_equal(embedder.embed(as_arrow, 64)[0][0], stored[0])


@given(
    st.lists(
        st.text(st.sampled_from("aAbß_7 .,-'\n\u0130\u00e9\u4e2d\u0301\ud800"), max_size=60), min_size=1, max_size=5
    )
)
def test_hashed_words_are_those_of_scikit_learn(texts: list[str]) -> None:
    expected = HashingVectorizer(n_features=16, ngram_range=(1, 2), norm="l2", dtype=np.float32).transform(texts)
    np.testing.assert_array_equal(HashingEmbedder(("text",), 16).embed_texts(texts), expected.toarray())


def model(name: str, batch: int = 2) -> ModelEmbedder:
    return ModelEmbedder(UserCode(f"encoders:{name}", HANDLER, "embed.handler"), "text", batch)


@pytest.mark.parametrize("name", ["handler", "Lengths", "Predictions"])
def test_any_model_handler_embeds_in_batches_with_fixed_bounds(name: str) -> None:
    embedder = pickle.loads(pickle.dumps(model(name)))
    stored, bad = embedder.embed(Batch(text=["a", None, "abc", "ab"]), None)
    assert bad == {1: "missing field 'text'"}
    np.testing.assert_array_equal(stored[[0, 2, 3]], [[2, 2], [6, 2], [4, 1]])
    assert embedder.embed(Batch(text=pa.array([None, None], pa.string())), 2)[1] == dict.fromkeys(
        [0, 1], "missing field 'text'"
    )
    np.testing.assert_array_equal(embedder.embed_texts(["abcd"]), [[8, 1]])


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            "Fails",
            InputError,
            r"^embed\.handler: 'encoders:Fails' failed: ValueError: this model is tired \(<encoders\.py>, line \d+\)$",
        ),
        (
            "CannotLoad",
            InputError,
            r"^embed\.handler: 'encoders:CannotLoad' failed: OSError: no weights \(<encoders\.py>, line \d+\)$",
        ),
        ("OneForAll", InputError, "must give one vector of floats each"),
        ("Uneven", InputError, "must give one vector of floats each"),
        ("number", UsageError, "is a int, not a Beam ModelHandler"),
        ("nothing", UsageError, "'encoders' has no 'nothing'; it has: .*Lengths"),
    ],
)
def test_a_model_that_cannot_serve(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model(name).embed(Batch(text=["a", "bc"]), None)


def test_a_model_is_loaded_once_a_process() -> None:
    first = load_once("test_a_model_is_loaded_once_a_process", object)
    assert load_once("test_a_model_is_loaded_once_a_process", object) is first


def test_code_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "encoders.py"
    path.write_text(HANDLER)
    code = user_code("encoders:number", str(path), "embed.handler")
    assert code.load() == 3
    assert pickle.loads(pickle.dumps(code)).load() == 3
    path.write_text(HANDLER.replace("number = 3", "number = 4"))
    changed = user_code("encoders:number", str(path), "embed.handler")
    assert changed.load() == 4 and changed.fingerprint != code.fingerprint
    with pytest.raises(UsageError, match=r"embed\.code: cannot read .*none\.py"):
        user_code("encoders:number", str(tmp_path / "none.py"), "embed.handler")


def test_another_model_in_the_same_folder_is_another_embedder(tmp_path: Path) -> None:
    model = tmp_path / "model/saved_model.pb"
    model.parent.mkdir()
    model.write_text("one")
    embed = {"kind": "tfhub", "handle": str(model.parent), "field": "text"}
    config = load(configure(tmp_path, "corpus/*", embed=embed))
    first = sources.embedder(config)
    assert sources.embedder(config) == first
    model.write_text("other")
    assert sources.embedder(config)[0] == first[0] and sources.embedder(config)[1] != first[1]


def test_code_that_cannot_be_imported() -> None:
    with pytest.raises(
        UsageError, match=r"loss\.function: cannot import 'no\.such': ModuleNotFoundError.*`code: FILE\.py`"
    ):
        UserCode("no.such:thing", None, "loss.function").load()
    with pytest.raises(UsageError, match="cannot import 'broken': SyntaxError"):
        UserCode("broken:thing", "def", "loss.function").load()
    with pytest.raises(UsageError, match="cannot import 'broken': SystemExit"):
        UserCode("broken:thing", "import sys\nsys.exit(3)", "loss.function").load()


def test_installed_code_is_known_by_its_source() -> None:
    one, other = UserCode("statistics:mean", None, "x"), UserCode("json.decoder:JSONDecoder", None, "x")
    assert one.fingerprint.startswith("statistics:mean@") and one.fingerprint != other.fingerprint
    assert one.load()([1, 3]) == 2 and other.load().__name__ == "JSONDecoder"


def test_an_id_is_the_same_in_every_format() -> None:
    texts: list[Any] = ["a", "", "ä€𝄞", "x" * 1000]
    expected, bad = id_hashes(texts)
    assert bad == {} and len(set(expected.tolist())) == 4
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        np.testing.assert_array_equal(id_hashes(pa.array(texts, kind))[0], expected)
    np.testing.assert_array_equal(id_hashes(pa.array(["other", *texts]).slice(1))[0], expected)
    numbers: list[Any] = [0, 1, -1, 127]
    expected, _ = id_hashes(numbers)
    for kind in (pa.int8(), pa.int32(), pa.int64()):
        np.testing.assert_array_equal(id_hashes(pa.array(numbers, kind))[0], expected)
    assert not set(expected.tolist()) & set(id_hashes(["0", "1", "-1", "127"])[0].tolist())


def test_values_that_are_no_ids() -> None:
    wrong = "id is neither text nor an integer"
    assert id_hashes([None, 1.5, True, [1], 2**64])[1] == {0: "missing id", **dict.fromkeys([1, 2, 3, 4], wrong)}
    assert id_hashes(pa.array([1.5, None]))[1] == dict.fromkeys([0, 1], wrong)
    assert id_hashes(pa.array(["a", None]))[1] == {1: "missing id"}


def test_places_are_told_apart() -> None:
    at = np.array([0, 1, 2**40], np.int64)
    assert len({*location_hashes("a", at).tolist(), *location_hashes("b", at).tolist()}) == 6
