"""Other clusterings of the same files, each followed by the draw and the fetch in plain numpy.

    python benchmarks/peers.py --method NAME --files PATTERN --rows N --dimension D --result FILE

NAME is superkmeans, minibatch (scikit-learn), faiss or spark. Each reads the files, clusters with its own defaults
unless a comment says otherwise, and assigns every record. Needs the package of that name: see bench and bench-peers in
the Makefile.
"""

import importlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from bench_program import Job, program
from numpy.typing import NDArray
from plain import Floats, Search, draw, fetch, list_files, mix, read_group, write_sample

Train = Callable[[], Floats]
Assign = Callable[[Floats], NDArray[np.integer]]


def read_all(files: list[str], dimension: int) -> tuple[NDArray[np.int64], Floats]:
    """All ids and vectors in one array, read by two threads."""
    counts = [pq.read_metadata(path).num_rows for path in files]
    starts = np.cumsum([0, *counts])
    ids, x = np.empty(starts[-1], np.int64), np.empty((starts[-1], dimension), np.float32)

    def read(number: int) -> None:
        file, at = pq.ParquetFile(files[number]), starts[number]
        for group in range(file.num_row_groups):
            some, vectors = read_group(file, group)
            ids[at : at + len(some)], x[at : at + len(some)] = some, vectors
            at += len(some)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(read, range(len(files))))
    return ids, x


def superkmeans(x: Floats, k: int) -> tuple[Train, Assign]:
    """SuperKMeans, whose default for so many rows is hierarchical."""
    model = importlib.import_module("superkmeans").SuperKMeans(k, x.shape[1])
    return lambda: np.asarray(model.train(x), np.float32), lambda centers: np.asarray(model.assign(x, centers))


def minibatch(x: Floats, k: int) -> tuple[Train, Assign]:
    """scikit-learn's MiniBatchKMeans, with batches large enough for its products and for so many clusters."""
    cluster = importlib.import_module("sklearn.cluster")
    model = cluster.MiniBatchKMeans(k, batch_size=max(1024, 10 * k), n_init=1, random_state=1, compute_labels=False)
    return lambda: np.asarray(model.fit(x).cluster_centers_, np.float32), lambda _: np.asarray(model.predict(x))


def faiss(x: Floats, k: int) -> tuple[Train, Assign]:
    """faiss' k-means, which takes 256 rows a cluster at most, and its flat index."""
    model = importlib.import_module("faiss").Kmeans(x.shape[1], k, seed=1)

    def train() -> Floats:
        model.train(x)
        return np.asarray(model.centroids, np.float32)

    return train, lambda _: np.asarray(model.index.search(x, 1)[1][:, 0])


METHODS = {"superkmeans": superkmeans, "minibatch": minibatch, "faiss": faiss}


def spark(files: list[str], k: int, seconds: dict[str, float]) -> Floats:
    """Spark MLlib's k-means with two threads and two iterations, and the assignment: it takes minutes. Returns the
    centers."""
    sql = importlib.import_module("pyspark.sql")
    clustering = importlib.import_module("pyspark.ml.clustering")
    to_vector = importlib.import_module("pyspark.ml.functions").array_to_vector
    builder = sql.SparkSession.builder.master("local[2]").config("spark.driver.memory", "8g")
    session = builder.config("spark.ui.enabled", "false").getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    start = time.perf_counter()
    data = session.read.parquet(*files).select("id", to_vector("vector").alias("features")).cache()
    data.count()
    read = time.perf_counter()
    model = clustering.KMeans(k=k, maxIter=2, seed=1).fit(data)
    trained = time.perf_counter()
    model.transform(data).groupBy("prediction").count().collect()
    seconds.update(read=read - start, train=trained - read, assign=time.perf_counter() - trained)
    centers = np.array(model.clusterCenters(), np.float32)
    gateway = session.sparkContext._gateway
    session.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()  # so that the time and memory of Java's process are counted
    return centers


def run(job: Job, figures: dict[str, Any]) -> None:
    """Clusters, assigns and draws, and puts the seconds of each phase into the figures."""
    seconds: dict[str, float] = {}
    files = list_files(job.files)
    job.folder.mkdir(parents=True, exist_ok=True)
    if job.method == "spark":
        centers = spark(files, job.clusters, seconds)
    else:
        marks = [time.perf_counter()]
        ids, x = read_all(files, job.dimension)
        marks.append(time.perf_counter())
        train, assign = METHODS[job.method](x, job.clusters)
        centers = train()
        marks.append(time.perf_counter())
        index = assign(centers).astype(np.int32)
        marks.append(time.perf_counter())
        _sample(job, files, ids, x, index, centers)
        marks.append(time.perf_counter())
        seconds.update(zip(("read", "train", "assign", "sample"), np.diff(marks).tolist(), strict=True))
    np.save(job.folder / "means.npy", centers)
    figures["phases"] = {name: round(value, 2) for name, value in seconds.items()}


def _sample(
    job: Job, files: list[str], ids: NDArray[np.int64], x: Floats, index: NDArray[np.int32], centers: Floats
) -> None:
    """The squared distances, the draw and the fetch."""
    search = Search(centers)
    with ThreadPoolExecutor(2) as pool:
        bounds = range(0, len(x), 65_536)
        parts = pool.map(lambda low: search.squared(x[low : low + 65_536], index[low : low + 65_536]), bounds)
        squared = np.concatenate(list(parts))
        rows, probability = draw(squared, mix(ids.view(np.uint64)), job.size)
        records = fetch(files, rows, pool)
    write_sample(job.folder / "sample.parquet", records, probability, index[rows], squared[rows])


def main() -> None:
    """Reads the command line, runs, and writes the figures."""
    with program("other clusterings of the same files") as (job, figures):
        if job.method not in (*METHODS, "spark"):
            raise SystemExit(f"--method {job.method}: there are {', '.join((*METHODS, 'spark'))}")
        run(job, figures)


if __name__ == "__main__":
    main()
