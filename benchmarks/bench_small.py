"""The sections `neighbors`, `levels`, `startup`, `hashing` and `graph`."""

import json
import shutil
import sys
from pathlib import Path

from bench_run import (
    HERE,
    Bench,
    Figures,
    Ratio,
    Section,
    divided,
    one_blas_thread,
    run_python,
    select,
    silent,
    tithe,
    values,
    write_config,
)
from measure import measure

RECORDS = 1_000_000


def neighbors(bench: Bench) -> Section:
    """The kernel of the full pass with five nearest anchors among 1,200, beside one among 1,000."""
    result, rows = bench.folder / "neighbors.json", bench.scaled(131_072)
    arguments = [str(rows), str(bench.repetitions), str(result)]
    measure([*one_blas_thread(), sys.executable, str(HERE / "bench_neighbors.py"), *arguments])
    found = json.loads(result.read_text())
    runs = {name: [{"wall_seconds": value} for value in seconds] for name, seconds in found.items()}
    ratios = [
        Ratio(
            f"five neighbors / one, d = {dimension}",
            divided(found[f"d = {dimension}, five of 1,200"], found[f"d = {dimension}, one of 1,000"]),
            at_most=at_most,
        )
        for dimension, at_most in ((384, 1.4), (64, 1.5))
    ]
    return Section(f"{rows:,} rows, two threads; alternated in one process", runs, ratios, {})


def levels(bench: Bench) -> Section:
    """The search on two levels among 40,000 centers, beside the exact one, and the cost that it loses."""
    result, rows, centers = bench.folder / "levels.json", bench.scaled(65_536), bench.scaled(40_000)
    arguments = [str(rows), str(centers), str(bench.repetitions), str(result)]
    measure([*one_blas_thread(), sys.executable, str(HERE / "bench_levels.py"), *arguments])
    runs, ratios = {}, []
    for case, found in json.loads(result.read_text()).items():
        for name in ("exact", "two levels"):
            runs[f"{case}, {name}"] = [{"wall_seconds": value} for value in found[name]]
        ratios.append(Ratio(f"two levels / exact, {case}", divided(found["two levels"], found["exact"]), at_most=0.2))
        ratios.append(Ratio(f"cost lost, {case}", found["cost lost"], at_most=0.01))
    return Section(f"{rows:,} rows, {centers:,} centers that are rows, two threads; in one process", runs, ratios, {})


def startup(bench: Bench) -> Section:
    """What nothing takes: the help text, and a selection that stands."""
    data = bench.tiny()
    select(data)
    again = tithe("select", str(write_config(data)), "--quiet")
    runs = bench.alternate(
        {
            "tithe --help": lambda: measure(silent(tithe("--help"))),
            "a re-run with nothing to do": lambda: measure(again),
        },
        1 if bench.quick else 5,
    )
    ratios = [
        Ratio("seconds, tithe --help", values(runs["tithe --help"]), at_most=0.3),
        Ratio("seconds, nothing to do", values(runs["a re-run with nothing to do"]), at_most=3),
    ]
    return Section("from the start of the command to its end", runs, ratios, {})


def hashing(bench: Bench) -> Section:
    """Records a second of the embed stage with hashed words, beside scikit-learn's vectoriser alone."""
    records, folder = bench.scaled(RECORDS), bench.folder / f"texts-{bench.scaled(RECORDS)}"
    run_python("stdlib_corpus", str(bench.folder / "stdlib"))
    run_python("bench_texts", str(bench.folder / "stdlib"), str(folder), str(records))
    out = bench.folder / "out-texts"
    config = bench.folder / "texts.yaml"
    config.write_text(  # JSON is YAML
        json.dumps(
            {
                "input": {"files": f"{folder}/*.jsonl", "id": "name"},
                "embed": {"kind": "hashing", "fields": ["source"], "dimension": 256},
                "cluster": {"count": 50, "rounds": 1},
                "sample": {"size": 100},
                "output": {"path": str(out)},
            }
        )
    )

    def embed() -> Figures:
        shutil.rmtree(out, ignore_errors=True)
        used = measure(tithe("select", str(config), "--quiet"))
        stages = json.loads((out / "manifest.json").read_text())["stages"]
        [seconds] = [stage["seconds"] for stage in stages if stage["name"] == "embed"]
        return {**used, "records_a_second": round(records / seconds, 1)}

    def vectorize() -> Figures:
        result = bench.folder / "vectorizer.json"
        used = run_python("bench_vectorizer", str(folder), str(result))
        return {**used, "records_a_second": round(records / json.loads(result.read_text())["seconds"], 1)}

    runs = bench.alternate({"embed stage of tithe": embed, "HashingVectorizer alone": vectorize})
    speeds = [values(some, "records_a_second") for some in runs.values()]
    ratio = Ratio("records a second, tithe / HashingVectorizer", divided(*speeds), at_least=0.8)
    about = f"{records:,} functions of Python's standard library, 256 numbers, as many processes as there are cores"
    return Section(about, runs, [ratio], {})


def graph(bench: Bench) -> Section:
    """Building the graph of a hundred rounds, which is done before any of them runs."""
    rounds, result = bench.scaled(100), Path(bench.folder, "graph.json")
    run_python("bench_graph", str(rounds), str(bench.repetitions), str(result))
    seconds = json.loads(result.read_text())
    runs = {f"{rounds} rounds": [{"wall_seconds": value} for value in seconds]}
    return Section("built and translated, not run", runs, [Ratio(f"seconds, {rounds} rounds", seconds, at_most=5)], {})
