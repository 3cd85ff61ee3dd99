"""Times scikit-learn's HashingVectorizer alone, in a process for each core, on texts in memory.

python benchmarks/bench_vectorizer.py FOLDER RESULT.json
"""

import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

BATCH = 4096
_ready: Barrier


def _start(ready: Barrier) -> None:
    global _ready
    _ready = ready


def vectorize(paths: list[Path]) -> float:
    """Reads the texts, waits until the others have too, and returns the seconds of turning them to vectors."""
    texts = [json.loads(line)["source"] for path in paths for line in path.open(encoding="utf-8")]
    vectorizer = HashingVectorizer(n_features=256, ngram_range=(1, 2), norm="l2", dtype=np.float32)
    _ready.wait()
    start = time.perf_counter()
    for low in range(0, len(texts), BATCH):
        vectorizer.transform(texts[low : low + BATCH])
    return time.perf_counter() - start


def main() -> None:
    """Reads the command line and writes the seconds of the slowest process."""
    paths, result = sorted(Path(sys.argv[1]).glob("*.jsonl")), Path(sys.argv[2])
    processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(processes, len(paths))
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start, (context.Barrier(processes),)) as pool:
        seconds = max(pool.map(vectorize, (paths[i::processes] for i in range(processes))))
    result.write_text(json.dumps({"seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
