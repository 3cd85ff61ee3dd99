"""TF-Hub for real: SavedModels that the test exports, and a published one.

TensorFlow runs in processes of its own: it takes seconds to start, and its warnings are not ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, dead_letters, manifest, sample, write_lines

CACHE = Path(__file__).parent.parent / ".cache"
PUBLISHED = "guesslang==2.2.1"  # a package with a text classifier inside, as a SavedModel: text in, 54 logits out

pytestmark = pytest.mark.slow

EXPORT = """
import sys
import tensorflow as tf

class Lengths(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        length = tf.cast(tf.strings.length(texts), tf.float32)
        return tf.stack([length, tf.sqrt(length)], 1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "sentences")])
    def one(self, sentences):
        return {"vectors": self(sentences)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "a"), tf.TensorSpec([None], tf.string, "b")])
    def two(self, a, b):
        return {"vectors": self(a), "others": self(b)}

class Signatures(tf.Module):
    def __init__(self, model):
        self.model = model

lengths = Lengths()
tf.saved_model.save(lengths, sys.argv[1] + "/callable")
signatures = {"one": lengths.one, "two": lengths.two}
tf.saved_model.save(Signatures(lengths), sys.argv[1] + "/signatures", signatures=signatures)
"""

ASK = """
import json, sys
from tithe.transforms.embedders import TfhubEmbedder
from tithe.transforms.errors import TitheError

answers = []
for handle, signature, input, output in json.loads(sys.argv[1]):
    try:
        embedder = TfhubEmbedder(handle, ("text",), signature, input, output, 2)
        answers.append(embedder.embed_texts(["abcd", "", "x" * 9]).tolist())
    except TitheError as error:
        answers.append(f"{type(error).__name__}: {error}")
print(json.dumps(answers))
"""


def python(*arguments: str) -> str:
    """What Python prints."""
    done = subprocess.run([sys.executable, "-c", *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tithe(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m tithe` in a process of its own."""
    command = [sys.executable, "-m", "tithe", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SavedModels callable/ and signatures/."""
    folder = tmp_path_factory.mktemp("models")
    python(EXPORT, str(folder))
    return folder


@pytest.fixture(scope="module")
def published() -> Path:
    """The folder of a published SavedModel, taken out of the package that it comes in."""
    folder = CACHE / "models" / PUBLISHED
    if not (folder / "guesslang/data/model/saved_model.pb").exists():
        command = ["pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        subprocess.run([sys.executable, "-m", *command, "-d", str(folder), PUBLISHED], check=True, timeout=120)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith("guesslang/data/model/")])
    return folder / "guesslang/data/model"


def test_models_that_can_be_called_and_signatures(models: Path) -> None:
    called, signed, none = str(models / "callable"), str(models / "signatures"), str(models / "none")
    asked: list[tuple[list[Any], str | None]] = [
        ([called, None, None, None], None),
        ([signed, "one", None, None], None),
        ([signed, "one", "sentences", "vectors"], None),
        ([signed, None, None, None], "UsageError: embed.signature: the model cannot be called as it is"),
        ([signed, "three", None, None], "UsageError: embed.signature: no 'three'; the model has: one, two"),
        ([signed, "one", "texts", None], "UsageError: embed.input: no 'texts'; 'one' takes: sentences"),
        ([signed, "two", None, None], "UsageError: embed.input: 'two' takes several: a, b; name the one for the texts"),
        ([signed, "one", None, "norms"], "UsageError: embed.output: no 'norms'; the model gives: vectors"),
        ([none, None, None, None], f"InputError: embed.handle: cannot load '{none}'"),
        ([signed, "two", "a", None], "InputError: embed.handle: "),
    ]
    answers = json.loads(python(ASK, json.dumps([given for given, _ in asked])).splitlines()[-1])
    for (given, expected), answer in zip(asked, answers, strict=True):
        if expected is None:
            np.testing.assert_array_equal(answer, [[4, 2], [0, 0], [9, 3]])
        else:
            assert isinstance(answer, str) and answer.startswith(expected), given
            assert "\n" not in answer


def test_an_exported_model_embeds_a_corpus(models: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"id": i, "text": "x" * (1 + 20 * (i % 3))}) for i in range(90)]
    write_lines(tmp_path / "corpus/a.jsonl", [*lines, '{"id": 90, "text": null}'])
    embed = {"kind": "tfhub", "handle": str(models / "callable"), "field": "text"}
    config = configure(
        tmp_path, f"{tmp_path}/corpus/*", input={"max_bad_fraction": 0.1}, embed=embed, cluster={"count": 3}
    )
    done = tithe("select", config, "--quiet")
    assert done.returncode == 0, done.stderr
    found = manifest(tmp_path / "out")
    assert found["input"]["dimension"] == 2 and found["input"]["records"] == 90
    assert [letter["reason"] for letter in dead_letters(tmp_path / "out")] == ["missing field 'text'"]
    clusters = {(len(row["text"]), row["tithe_cluster"]) for row in sample(tmp_path / "out")}
    assert len(clusters) == 3  # texts of one length are one cluster


def test_a_published_model_embeds_a_corpus(published: Path, tmp_path: Path) -> None:
    python_code = [
        f"def f{i}(x):\n    import os\n    return [os.path.join(x, str(n)) for n in range({i})]\n" for i in range(40)
    ]
    c_code = [
        f'#include <stdio.h>\nint main(void) {{ int n = {i}; printf("%d\\n", n); return 0; }}\n' for i in range(40)
    ]
    write_lines(tmp_path / "corpus/a.jsonl", [json.dumps({"code": c}) for c in [*python_code, *c_code]])
    embed = {"kind": "tfhub", "handle": str(published), "field": "code", "signature": "predict"}
    embed |= {"input": "content", "output": "logits"}
    config = configure(
        tmp_path, f"{tmp_path}/corpus/*", input={"id": None}, embed=embed, cluster={"count": 2}, sample={"size": 80}
    )
    done = tithe("select", config, "--quiet")
    assert done.returncode == 0, done.stderr
    assert manifest(tmp_path / "out")["input"]["dimension"] == 54
    rows = sample(tmp_path / "out")
    languages = {("def" in row["code"], row["tithe_cluster"]) for row in rows}
    assert len(rows) == 80 and len(languages) == 2  # a cluster for each language
