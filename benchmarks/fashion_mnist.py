"""Fashion-MNIST: 60,000 images; loss and embedding are those of a small network trained on 2,000 of them.

The images come in Debian's package dataset-fashion-mnist. The embedding is the network's hidden layer, 64 numbers.
"""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from packages import fetch_debian, log_losses, write_records
from sklearn.neural_network import MLPClassifier

PACKAGE, HEADER = "dataset-fashion-mnist", {"images": 16, "labels": 8}
HIDDEN, TRAINED, SEED = 64, 2000, 1


def read_part(folder: Path, what: str) -> NDArray[np.uint8]:
    """Returns the bytes behind the header of the images or the labels of the training set."""
    [path] = folder.rglob(f"train-{what}-idx*-ubyte.gz")
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=HEADER[what])


def write_fashion_mnist(cache: Path) -> Path:
    """Writes the corpus as Parquet unless it is there, and returns its path."""
    path = cache / "fashion_mnist.parquet"
    if path.exists():
        return path
    folder = fetch_debian(cache, PACKAGE)
    classes = read_part(folder, "labels").astype(np.int64)
    images = read_part(folder, "images").reshape(len(classes), -1).astype(np.float32) / 255
    chosen = np.random.default_rng(SEED).permutation(len(classes))[:TRAINED]
    network: Any = MLPClassifier((HIDDEN,), random_state=SEED, max_iter=200, early_stopping=True)
    network.fit(images[chosen], classes[chosen])
    hidden = np.maximum(images @ network.coefs_[0] + network.intercepts_[0], 0).astype(np.float32)
    logits = hidden @ network.coefs_[1] + network.intercepts_[1]
    write_records(path, hidden, [str(c) for c in classes], log_losses(logits, classes))
    return path
