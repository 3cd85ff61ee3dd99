"""The sections `j1`, `costs` and `peers`: a million vectors of 384 numbers, by tithe, by hand and by others."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench_run import (
    Bench,
    Corpus,
    Figures,
    Ratio,
    Section,
    cost_of,
    divided,
    run_program,
    run_python,
    select,
    tithe,
    values,
    write_config,
)
from j1 import DIMENSION, FILES, ROWS, write_data

MODES = {
    "tithe, in_memory, 1 thread": ("--direct_running_mode=in_memory", "--direct_num_workers=1"),
    "tithe, in_memory, 2 threads": ("--direct_running_mode=in_memory", "--direct_num_workers=2"),
    "tithe, multi_processing, 2": ("--direct_running_mode=multi_processing", "--direct_num_workers=2"),
}
MANY_ROUNDS = 60


def corpus(bench: Bench) -> Corpus:
    """J1, written unless it stands."""
    rows, folder = bench.scaled(ROWS), bench.folder / "j1"
    write_data(folder, rows)
    pattern = f"{folder}/{rows // FILES}-*.parquet"
    return Corpus(pattern, bench.folder / "out-j1", rows, DIMENSION, bench.scaled(1000), bench.scaled(10_000))


def j1(bench: Bench) -> Section:
    """Wall, processor and memory of a selection, everything counted from reading the input on."""
    _need("superkmeans", "make bench")
    profiler = _profiler() if bench.flame else None
    data = corpus(bench)
    variants = {
        "tithe": lambda: select(data),
        "bare matrix products": lambda: run_program("floor", data),
        "hand-written loop": lambda: run_program("hand_loop", data),
        "SuperKMeans": lambda: _peer(data, "superkmeans"),
        "MiniBatchKMeans": lambda: _peer(data, "minibatch"),
        **{name: _mode(data, options) for name, options in MODES.items()},
    }
    runs = bench.alternate(variants)
    own, by_hand = values(runs["tithe"]), values(runs["hand-written loop"])
    read_train_assign = "phases.read+train+assign"
    ratios = [
        Ratio("wall, tithe / hand-written loop", divided(own, by_hand), at_most=1.4),
        Ratio(
            "wall, tithe / SuperKMeans (read, train, assign)",
            divided(own, values(runs["SuperKMeans"], read_train_assign)),
            at_most=1.0,
        ),
        Ratio(
            "wall, tithe / MiniBatchKMeans (read, train, assign)",
            divided(own, values(runs["MiniBatchKMeans"], read_train_assign)),
            at_most=1 / 3,
        ),
        Ratio("wall, tithe / bare matrix products", divided(own, values(runs["bare matrix products"]))),
        Ratio("wall, hand-written loop / bare matrix products", divided(by_hand, values(runs["bare matrix products"]))),
        *(Ratio(f"wall, {name} / default", divided(values(runs[name]), own)) for name in MODES),
        Ratio("largest process of tithe, GB", values(runs["tithe"], "largest_process_gb"), at_most=1.1),
    ]
    digests = {run["sample_digest"] for name in ("tithe", *MODES) for run in runs[name]}
    figures: dict[str, float | str] = {"different samples among all runs of tithe": len(digests)}
    if profiler:
        figures["flame graph"] = _flame(bench, data, profiler)
    return Section(_about(data), runs, ratios, figures)


def costs(bench: Bench) -> Section:
    """Costs of the final means, before they are rounded to records, each by one full pass over the input."""
    _need("superkmeans", "make bench")
    data = corpus(bench)
    select(data)
    means = _export(data, 8)
    found = {"tithe": cost_of(data, means)}
    select(data, "--set", f"cluster.rounds={MANY_ROUNDS}", anew=False)
    found[f"tithe, {MANY_ROUNDS} rounds"] = cost_of(data, _export(data, MANY_ROUNDS))
    run_program("hand_loop", data)
    found["hand-written loop"] = cost_of(data, data.out.parent / "by-hand_loop-/means.npy")
    for name, method in (("SuperKMeans", "superkmeans"), ("MiniBatchKMeans", "minibatch")):
        _peer(data, method)
        found[name] = cost_of(data, data.out.parent / f"by-peers-{method}/means.npy")
    for order in ("sorted", "shuffled"):
        folder = bench.folder / f"j1-{order}"
        shutil.rmtree(folder, ignore_errors=True)
        run_python("bench_data", order, str(folder), "--files", data.files, "--centers", str(means))
        other = Corpus(
            f"{folder}/*.parquet",
            bench.folder / f"out-j1-{order}",
            data.rows,
            data.dimension,
            data.clusters,
            data.size,
        )
        select(other)
        found[f"tithe, {order} input"] = cost_of(other, _export(other, 8))
        shutil.rmtree(folder)
        shutil.rmtree(other.out)
    own = found["tithe"]
    ratios = [
        Ratio(
            f"cost, tithe / {MANY_ROUNDS} rounds", divided([own], [found[f"tithe, {MANY_ROUNDS} rounds"]]), at_most=1.01
        ),
        Ratio("cost, tithe / MiniBatchKMeans", divided([own], [found["MiniBatchKMeans"]]), at_most=1.0),
        Ratio("cost, tithe / SuperKMeans", divided([own], [found["SuperKMeans"]]), at_most=0.9),
        Ratio("cost, tithe / hand-written loop", divided([own], [found["hand-written loop"]])),
        Ratio(
            "cost, sorted / shuffled input",
            divided([found["tithe, sorted input"]], [found["tithe, shuffled input"]]),
            at_most=1.01,
            at_least=0.99,
        ),
    ]
    return Section(_about(data), {}, ratios, {f"cost a record, {name}": cost for name, cost in found.items()})


def peers(bench: Bench) -> Section:
    """faiss, and Spark MLlib on an eighth of the records with two iterations, each beside tithe."""
    _need("faiss", "make bench-peers")
    _need("pyspark", "make bench-peers")
    data = corpus(bench)
    runs = bench.alternate({"tithe": lambda: select(data), "faiss": lambda: _peer(data, "faiss")})
    found = {
        name: cost_of(data, path)
        for name, path in (("tithe", _export(data, 8)), ("faiss", data.out.parent / "by-peers-faiss/means.npy"))
    }
    eighth = Corpus(
        data.files.replace("*", "0"),
        bench.folder / "out-eighth",
        data.rows // FILES,
        data.dimension,
        data.clusters,
        data.size,
    )
    alone = {
        "tithe, an eighth": lambda: select(eighth),
        "Spark, an eighth, 2 iterations": lambda: _peer(eighth, "spark"),
    }
    runs |= bench.alternate(alone, 1)
    spark = values(runs["Spark, an eighth, 2 iterations"], "phases.read+train+assign")
    ratios = [
        Ratio(
            "wall, tithe / faiss (read, train, assign)",
            divided(values(runs["tithe"]), values(runs["faiss"], "phases.read+train+assign")),
        ),
        Ratio("cost, tithe / faiss", divided([found["tithe"]], [found["faiss"]])),
        Ratio("wall, tithe / Spark (read, train, assign)", divided(values(runs["tithe, an eighth"]), spark)),
    ]
    return Section(_about(data), runs, ratios, {f"cost a record, {name}": cost for name, cost in found.items()})


def _need(module: str, target: str) -> None:
    """Ends the command where a package to compare with is not there, before anything has run."""
    if importlib.util.find_spec(module) is None:
        raise SystemExit(f"this section compares with the package {module}, which is not installed: use `{target}`")


def _about(data: Corpus) -> str:
    return f"{data.rows:,} x {data.dimension} float32, {data.clusters:,} clusters, {data.size:,} drawn"


def _peer(data: Corpus, method: str) -> Figures:
    return run_program("peers", data, method, threads_of_blas=True)


def _mode(data: Corpus, options: tuple[str, ...]) -> Callable[[], Figures]:
    return lambda: select(data, "--", *options)


def _export(data: Corpus, number: int) -> Path:
    """The centers after a round, in the space of the input."""
    target = data.out.parent / f"means-{data.out.name}-{number}.npy"
    run_python("bench_means", str(data.out / "work"), str(number), str(target))
    return target


def _profiler() -> str:
    """Where py-spy is; ends the command where it is not, before anything has run."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("py-spy", path=beside) or shutil.which("py-spy")
    if found is None:
        raise SystemExit("--flame needs py-spy, which is not installed: pip install py-spy")
    return found


def _flame(bench: Bench, data: Corpus, profiler: str) -> str:
    """Runs tithe once under py-spy; returns the name of the picture."""
    path = bench.results / "flame.svg"
    shutil.rmtree(data.out, ignore_errors=True)
    record = [profiler, "record", "--subprocesses", "--threads", "--output", str(path), "--"]
    subprocess.run([*record, *tithe("select", str(write_config(data)), "--quiet")], check=True)
    return path.name
