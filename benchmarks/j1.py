"""Measures `tithe select` on 1,000,000 vectors of 384 numbers with 1,000 clusters.

    python benchmarks/j1.py [FOLDER] [--rows N]

FOLDER (default: .cache/j1) gets data/ (1.6 GB, made once), out/ (made anew, with a copy of the vectors in it) and
result.json. The data are 2,000 normal clusters, skewed in size and of different spread, in 8 Parquet files, half of
them sorted by cluster. The configuration: 8 rounds of mini-batch k-means on a tenth of the vectors each, no losses,
10,000 records drawn by the pareto method.

Needs numpy, pyarrow and an installed tithe. It prints what the machine is, the wall-clock time from the start of the
command to its end, the processor time and the memory of its largest process, the cost of the clustering, and the
seconds of each stage.
"""

import argparse
import json
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import machine, measure

ROWS, DIMENSION, FILES, CLUSTERS, SEED = 1_000_000, 384, 8, 2_000, 7
ROW_GROUP = 8192  # larger ones are several times slower to read

CONFIGURATION = {
    "embed": {"kind": "column", "column": "vector"},
    "cluster": {"count": 1000, "rounds": 8, "batch": 0.1, "seed": 1},
    "loss": {"kind": "constant"},
    "sample": {"size": 10_000, "method": "pareto", "seed": 17},
}


def write_file(path: str, number: int, rows: int) -> None:
    """Writes a file with the columns id, int64, and vector, 384 float32: a function of its number and rows alone."""
    shared = np.random.default_rng(SEED)  # the clusters are the same in every file
    centers = shared.standard_normal((CLUSTERS, DIMENSION), np.float32)
    spread = shared.uniform(0.3, 1.3, CLUSTERS).astype(np.float32)
    size = shared.lognormal(0.0, 1.5, CLUSTERS)
    own = np.random.default_rng([SEED, number])
    cluster = own.choice(CLUSTERS, rows, p=size / size.sum())
    if number % 2:
        cluster.sort()
    schema = pa.schema({"id": pa.int64(), "vector": pa.list_(pa.float32(), DIMENSION)})
    with pq.ParquetWriter(path + ".part", schema, compression="none", use_dictionary=False) as writer:
        for low in range(0, rows, ROW_GROUP):
            which = cluster[low : low + ROW_GROUP]
            x = centers[which] + own.standard_normal((len(which), DIMENSION), np.float32) * spread[which, None]
            ids = pa.array(number * rows + np.arange(low, low + len(which)))
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), DIMENSION)
            writer.write_table(pa.table([ids, vectors], schema=schema))
    os.replace(path + ".part", path)


def write_data(folder: Path, rows: int) -> None:
    """Writes the files that are missing, each in a process of its own, so that this process stays small."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {number: folder / f"{rows // FILES}-{number}.parquet" for number in range(FILES)}
    missing = [number for number, path in paths.items() if not path.exists()]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        jobs = [pool.submit(write_file, str(paths[number]), number, rows // FILES) for number in missing]
        for job in jobs:
            job.result()


def run(folder: Path, rows: int) -> dict[str, Any]:
    """Runs the selection on the data in the folder and returns what is to be told of it."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    data = {"files": f"{folder / 'data'}/{rows // FILES}-*.parquet", "format": "parquet", "id": "id"}
    config = folder / "j1.yaml"
    config.write_text(json.dumps({"input": data, **CONFIGURATION, "output": {"path": str(out)}}))  # JSON is YAML
    used = measure([sys.executable, "-m", "tithe", "select", str(config)])
    manifest = json.loads((out / "manifest.json").read_text())
    means, anchors = manifest["cluster"]["cost_of_means"], manifest["cluster"]["cost_of_anchors"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": manifest["versions"],
        "runner": manifest["runner"],
        "records": manifest["input"]["records"],
        "dimension": manifest["input"]["dimension"],
        "clusters": manifest["cluster"]["clusters"],
        "drawn": manifest["sample"]["records"],
        **used,
        "cost_of_means_per_record": round(means["cost"] / means["records"], 3),
        "cost_of_anchors_per_record": round(anchors["cost"] / anchors["records"], 3),
        "stage_seconds": {stage["name"]: round(stage["seconds"], 1) for stage in manifest["stages"]},
        "sample_digest": manifest["sample_digest"],
    }


def main() -> None:
    """Reads the command line, makes the data, measures, and prints."""
    parser = argparse.ArgumentParser(description="Measures `tithe select` on 1,000,000 x 384 vectors, 1,000 clusters.")
    parser.add_argument("folder", nargs="?", default=".cache/j1", type=Path, metavar="FOLDER", help="of data, results")
    parser.add_argument("--rows", type=int, default=ROWS, help="for a trial run: a multiple of 8, from 160,000 on")
    options = parser.parse_args()
    if options.rows % FILES or options.rows < 160_000:
        parser.error(f"--rows {options.rows}: a multiple of {FILES} from 160,000 on is allowed")
    write_data(options.folder / "data", options.rows)
    result = run(options.folder, options.rows)
    path = options.folder / "result.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    for name, value in result.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items())
        elif not isinstance(value, str):
            value = f"{value:,}"
        print(f"{name.replace('_', ' '):<28}{value}")
    print(f"{'as JSON':<28}{path}")


if __name__ == "__main__":
    main()
