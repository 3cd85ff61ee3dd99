"""Works out what a selection would take on many machines, from formulas that are checked against a run on this one.

    python benchmarks/scale.py [--manifest OUT/manifest.json ...] [--network GB/S] [--store GB/S] ...

Two small selections of generated vectors are run, or those whose manifests are given are taken (systematic draws, the
local runner in one process, Parquet, `keep_work`); their counters stand beside the formulas of scale_model.py. Rates of
one core are measured (scale_rates.py). From these follow reads, shuffles, memory, disk and time for 10^8, 10^9 and
10^10 records on 10, 100 and 1,000 workers, and what breaks first (scale_steps.py). Written to results/scale.md.
"""

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Iterable
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench_data import mixture
from bench_report import describe_machine
from measure import measure
from scale_model import Job, counters, kept, kept_files, memory
from scale_rates import Rates, measure_rates
from scale_steps import PLAN_BYTES, OnePlace, Workers, alone, one_place, together, too_large

from tithe.transforms.vectors import ROW

HERE = Path(__file__).parent
RECORDS, DIMENSION, CLUSTERS, SIZE, ROUNDS = 40_000, 64, 100, 500, 4
FILES, ROW_GROUP, SPLIT = 4, 2_500, 600_000
RUNS: dict[str, dict[str, Any]] = {"constant": {"kind": "constant"}, "column": {"kind": "column", "column": "loss"}}
"""Losses of the two runs: one anchor a record without a pilot, and five with one."""

SIZES = {100_000_000: (1_000, 10_000), 1_000_000_000: (10_000, 100_000), 10_000_000_000: (100_000, 1_000_000)}
"""Records -> clusters, and records of the sample."""

WORKERS = (10, 100, 1_000)
WIDE, NEIGHBORS, PILOT, BATCH, SPLIT_BYTES, ROUNDS_THERE = 768, 5, 200, 0.1, 64 << 20, 8
"""Of what is worked out: d, q, and the configuration's defaults."""

GROUP_ROWS, ID_BYTES = 8192, 8


def write_data(folder: Path) -> None:
    """Writes the vectors of the small runs, with a loss beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = RECORDS // FILES
    for number in range(FILES):
        x = mixture(DIMENSION, number)(rows)
        columns = {
            "id": pa.array(np.arange(number * rows, (number + 1) * rows)),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), DIMENSION),
            "loss": pa.array(np.abs(x[:, 0]).astype(np.float64)),
        }
        path = folder / f"{number}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=ROW_GROUP, compression="none", use_dictionary=False)


def run(folder: Path, name: str) -> Path:
    """Selects from the small data anew and returns the path of the manifest."""
    out, path = folder / name, folder / f"{name}.yaml"
    shutil.rmtree(out, ignore_errors=True)
    sections = {
        "input": {"files": f"{folder / 'data'}/*.parquet", "id": "id", "split_bytes": SPLIT},
        "embed": {"kind": "column", "column": "vector"},
        "cluster": {"count": CLUSTERS, "rounds": ROUNDS},
        "loss": RUNS[name],
        "sample": {"size": SIZE},
        "output": {"path": str(out)},
    }
    path.write_text(json.dumps(sections))  # JSON is YAML
    mode = ["--", "--direct_running_mode=in_memory"]
    measure([sys.executable, "-m", "tithe", "select", str(path), "--quiet", *mode])
    return out / "manifest.json"


def job_of(manifest: dict[str, Any], work: Path) -> Job:
    """Returns the sizes of a finished run, from its manifest and its stages in `work`."""
    given, stages = manifest["configuration"], {stage["name"]: stage for stage in manifest["stages"]}
    if manifest["sample"]["method"] != "systematic" or "1 process" not in manifest["runner"]:
        raise SystemExit("the formulas are those of systematic draws in one process of the local runner")
    if not all(stage["counters"] for stage in stages.values() if stage["name"] in ("embed", "cluster", "score")):
        raise SystemExit("the run has found stages that stood already, which count nothing; run it anew")
    clusters = np.load(work / stages["score"]["folder"] / "clusters.npy")
    share, cost = clusters["count"] / clusters["count"].sum(), clusters["cost"] / clusters["cost"].sum()
    patterns = given["input"]["files"]
    paths = [p for pattern in ([patterns] if isinstance(patterns, str) else patterns) for p in glob(pattern)]
    footers = [pq.ParquetFile(path).metadata for path in paths]
    groups = [footer.row_group(i) for footer in footers for i in range(footer.num_row_groups)]
    records, dimension = manifest["input"]["records"], manifest["input"]["dimension"]
    anchors, k = manifest["losses"]["anchors"], manifest["cluster"]["clusters"]
    near = stages["cluster"]["counters"]["FindNear.read_bytes"]
    rounds = manifest["cluster"]["rounds"]
    return Job(
        records=records,
        dimension=dimension,
        clusters=k,
        size=given["sample"]["size"],
        neighbors=manifest["proxy"]["neighbors"],
        pilot=anchors - k,
        rounds=len(rounds),
        wanted_batch=given["cluster"]["batch"],
        splits=len((work / stages["plan"]["folder"] / "plan.jsonl").read_text().splitlines()),
        processes=1,
        files=len(paths),
        row_groups=len(groups),
        input_bytes=sum(g.column(i).total_compressed_size for g in groups for i in range(g.num_columns)),
        # The masses of the draw are halves of loss and distance, more or less: as the balanced constant makes them.
        skew=len(clusters) * float((share * (share + cost) / 2).sum()),
        late=near > 2 * rounds[-1]["rows"] * (ROW.itemsize + 4 * dimension),
    )


def check(path: Path) -> dict[str, tuple[float, float]]:
    """Returns what a run counted and what the formulas give for it: all counters that are not 0, and the bytes kept."""
    manifest, work = json.loads(path.read_text()), path.parent / "work"
    job = job_of(manifest, work)
    stages = manifest["stages"]
    measured = {name: value for stage in stages for name, value in stage["counters"].items() if value}
    formulas, disk = counters(job), kept(job)
    measured["kept: vectors"] = next(stage["bytes"] for stage in stages if stage["name"] == "embed")
    measured["kept: scores"] = next(stage["bytes"] for stage in stages if stage["name"] == "score")
    formulas["kept: vectors"] = disk["vectors"]
    formulas["kept: scores"] = disk["scores"] + disk["done.json of scores"]
    names = sorted({*measured, *formulas})
    return {name: (measured.get(name, 0), formulas.get(name, 0)) for name in names}


def job_there(records: int, workers: int, processes: int) -> Job:
    """Returns a selection of the size that is worked out; clusters and sample follow from the records."""
    clusters, size = SIZES[records]
    of_record = 4 * WIDE + ID_BYTES
    return Job(
        records=records,
        dimension=WIDE,
        clusters=clusters,
        size=size,
        neighbors=NEIGHBORS,
        pilot=PILOT,
        rounds=ROUNDS_THERE,
        wanted_batch=BATCH,
        splits=math.ceil(records * of_record / SPLIT_BYTES),
        processes=workers * processes,
        files=max(1, records * of_record // 10**9),
        row_groups=math.ceil(records / GROUP_ROWS),
        input_bytes=records * of_record,
    )


# -- what is told ------------------------------------------------------------------------------------------------------


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a table in Markdown."""
    head = list(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def check_table(checks: list[dict[str, tuple[float, float]]]) -> str:
    """Returns the counters of the runs beside the formulas."""
    rows = []
    for name in sorted({name for found in checks for name in found}):
        cells = [name]
        for found in checks:
            measured, formula = found.get(name, (0, 0))
            cells += [f"{measured:,.0f}", f"{formula:,.0f}", f"{measured / formula:.2f}"] if formula else ["", "", ""]
        rows.append(cells)
    runs = range(1, len(checks) + 1)
    return table(["", *(f"run {run}, {word}" for run in runs for word in ("measured", "formula", "ratio"))], rows)


def first_break(job: Job, steps: list[OnePlace], parallel: float, workers: Workers) -> str:
    """Returns the first step that cannot run, in the order of a selection; else the slowest in one place."""
    for step in steps:
        held = workers.processes * memory(job)
        if step.name == "sums of a round" and held > workers.memory:
            return f"memory in a round, {held / 1e9:.0f} GB a worker"
        reason = too_large(step, workers)
        if reason:
            return f"{step.name}: {reason}"
    slowest = max(steps, key=lambda step: alone(step, workers))
    seconds = alone(slowest, workers)
    return f"nothing; slowest in one place: {slowest.name}, {seconds / (seconds + parallel):.0%} of the time"


def scale_table(rates: dict[int, Rates], one: Workers) -> str:
    """Returns what each number of records takes on each number of workers."""
    rows = []
    for records, (k, _) in SIZES.items():
        for count in WORKERS:
            workers = Workers(**{**vars(one), "count": count})
            job = job_there(records, count, workers.processes)
            counted, steps = counters(job), one_place(job, rates[k])[:-2]
            read = job.input_bytes + sum(v for n, v in counted.items() if n.endswith(("read_bytes", "side_bytes")))
            sent = sum(v for n, v in counted.items() if n.endswith(("sent_bytes", "cell_bytes", "gathered_bytes")))
            parallel = sum(together(job, counted, rates[k], workers).values())
            single = sum(alone(step, workers) for step in steps)
            rows.append(
                [
                    f"10^{round(math.log10(records))}", f"{count:,}", f"{k:,}", f"{read / 1e12:,.1f}",
                    f"{sent / 1e9:,.1f}", f"{sum(kept(job).values()) / 1e12:,.1f}", f"{kept_files(job) / 1e3:,.0f}",
                    f"{workers.processes * memory(job) / 1e9:,.1f}", f"{parallel / 3600:,.2f}", f"{single / 3600:,.2f}",
                    first_break(job, steps, parallel, workers),
                ]
            )  # fmt: skip
    head = "records|workers|k|read, TB|shuffled, GB|kept, TB|files, thousands|memory a worker, GB"
    return table([*head.split("|"), "hours, all at work", "hours, one place", "breaks first"], rows)


def steps_table(rates: dict[int, Rates], one: Workers) -> str:
    """Returns the steps in one place, for ten times the workers with ten times the records."""
    columns = []
    for (records, (k, _)), count in zip(SIZES.items(), WORKERS, strict=True):
        workers = Workers(**{**vars(one), "count": count})
        steps = one_place(job_there(records, count, workers.processes), rates[k])
        columns.append([(step, alone(step, workers), too_large(step, workers)) for step in steps])
    rows = []
    for found in zip(*columns, strict=True):
        cells = [f"{s.arrives / 1e9:,.2f}, {s.held / 1e9:,.1f}, {t:,.0f} s" + " **no**" * bool(r) for s, t, r in found]
        rows.append([found[0][0].name, *cells, found[0][0].mend])
    head = [f"10^{round(math.log10(n))} on {count:,}" for n, count in zip(SIZES, WORKERS, strict=True)]
    return table(["step", *head, "would mend it"], rows)


def rates_table(rates: dict[int, Rates]) -> str:
    """Returns the measured rates."""
    rows = [
        [f"{k:,}", f"{r.product / 1e9:.0f}", f"{r.search * 1e6:.0f}", f"{r.several * 1e6:.0f}", f"{r.round * 1e6:.0f}"]
        + [f"{r.prepare:.2f}", f"{r.passed * 1e6:.2f}", f"{r.proxy * 1e6:.2f}"]
        + [f"{value / 1e9:.1f}" for value in (r.add, r.cut, r.chain, r.read)]
        for k, r in rates.items()
    ]
    head = "k|product, GFLOP/s|nearest, µs a row|five nearest, µs|round, µs a row|prepare, s|k-means++ pass, µs"
    return table([*head.split("|"), "proxy, µs", "add, GB/s", "cut, GB/s", "chain, GB/s", "read, GB/s"], rows)


def report(checks: list[dict[str, tuple[float, float]]], rates: dict[int, Rates], one: Workers) -> str:
    """Returns the page."""
    largest = job_there(max(SIZES), max(WORKERS), one.processes)
    grid, limbs = 8 * largest.clusters * largest.dimension, 24 * largest.clusters * largest.dimension
    counted, disk = counters(largest), kept(largest)
    text = (HERE / "scale_text.md").read_text()
    return text.format(
        centers=f"{grid / 2e6:,.0f}",
        grid=f"{grid / 1e6:,.0f}",
        limbs=f"{(limbs + 24 * largest.clusters + largest.far_kept) / 1e9:.2f}",
        near=f"{(4 * largest.clusters + largest.clusters // 4) * largest.near_bytes / 1e9:.2f}",
        files_of_driver=f"{4 * largest.clusters * largest.near_bytes / 1e9:.2f}",
        scores=f"{disk['scores'] / 1e12:.1f}",
        said=f"{disk['done.json of scores'] / 1e12:.1f}",
        cells=f"{counted['cell_bytes'] / 1e9:,.0f}",
        fetched=f"{counted['FetchPart.read_bytes'] / largest.input_bytes:.0%}",
        plan=f"{PLAN_BYTES * largest.splits / 1e6:,.0f}",
        splits=f"{largest.splits:,}",
        date=time.strftime("%Y-%m-%d"),
        machine=", ".join(f"{name} {value}" for name, value in describe_machine().items()),
        workers=f"{one.cores} cores, {one.memory / 1e9 + 1:.0f} GB of memory and {one.processes} processes",
        network=f"{one.network / 1e9:g}",
        store=f"{one.store / 1e9:g}",
        latency=f"{one.latency * 1e3:g}",
        check=check_table(checks),
        rates=rates_table(rates),
        scale=scale_table(rates, one),
        steps=steps_table(rates, one),
    )


def main() -> None:
    """Reads the command line, runs, measures, and writes the page."""
    parser = argparse.ArgumentParser(description="Works out what a selection would take on many machines.")
    parser.add_argument("--manifest", type=Path, action="append", help="of a finished run; without it two are made")
    parser.add_argument("--folder", type=Path, default=Path(".cache/scale"), help="of data and outputs (.cache/scale)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where scale.md goes")
    parser.add_argument("--network", type=float, default=1.0, help="GB/s between a worker and the others (1)")
    parser.add_argument("--store", type=float, default=0.5, help="GB/s between a worker and the store of files (0.5)")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds of a request to that store (0.03)")
    parser.add_argument("--cores", type=int, default=4, help="of a worker, each as fast as one here (4)")
    parser.add_argument("--memory", type=float, default=16.0, help="GB of a worker, one of which is the system's (16)")
    parser.add_argument("--processes", type=int, default=4, help="of a worker; Beam starts one a core (4)")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if not given.manifest:
        write_data(given.folder / "data")
    checks = [check(path) for path in given.manifest or [run(given.folder, name) for name in RUNS]]
    print(check_table(checks))
    rates = {k: measure_rates(k, WIDE, NEIGHBORS, given.folder) for k, _ in SIZES.values()}
    bytes_of = (given.network * 1e9, given.store * 1e9)
    one = Workers(1, given.cores, given.processes, (given.memory - 1) * 1e9, *bytes_of, given.latency)
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "scale.md").write_text(report(checks, rates, one))
    print(f"written: {given.results / 'scale.md'}")


if __name__ == "__main__":
    main()
