"""The sections `growth`, `systematic` and `fetch`: ten million vectors of 128 numbers."""

import json
from functools import partial

from bench_run import (
    Bench,
    Corpus,
    Figures,
    Ratio,
    Section,
    divided,
    run_program,
    run_python,
    select,
    values,
    write_config,
)

DIMENSION = 128
METHODS = ("pareto", "systematic")


def large(bench: Bench, rows: int = 10_000_000) -> Corpus:
    """The corpus of these sections, written unless it stands."""
    return bench.mixture(bench.scaled(rows), DIMENSION, bench.scaled(1000), bench.scaled(10_000))


def growth(bench: Bench) -> Section:
    """Wall and memory of ten times as many records, once start-up is taken off."""
    tiny = bench.tiny()
    small, big = large(bench, 1_000_000), large(bench)
    runs = bench.alternate(
        {
            f"start-up ({tiny.rows:,} records, {tiny.clusters} clusters)": lambda: select(tiny),
            f"tithe, {small.rows:,}": lambda: select(small),
            f"hand-written loop, {small.rows:,}": lambda: run_program("hand_loop", small),
            f"tithe, {big.rows:,}": lambda: select(big),
            f"hand-written loop, {big.rows:,}": lambda: run_program("hand_loop", big),
        }
    )
    start, few, few_by_hand, many, many_by_hand = (values(some) for some in runs.values())
    net_few = [a - b for a, b in zip(few, start, strict=True)]
    net_many = [a - b for a, b in zip(many, start, strict=True)]
    small_gb, big_gb = (values(runs[f"tithe, {data.rows:,}"], "largest_process_gb") for data in (small, big))
    ratios = [
        Ratio("growth of wall less start-up, tenfold records", divided(net_many, net_few), at_most=10.5),
        Ratio(f"wall, tithe / hand-written loop, {small.rows:,}", divided(few, few_by_hand)),
        Ratio(f"wall, tithe / hand-written loop, {big.rows:,}", divided(many, many_by_hand), at_most=1.15),
        Ratio(f"largest process of tithe, GB, {small.rows:,}", small_gb, at_most=1.1),
        Ratio(f"largest process of tithe, GB, {big.rows:,}", big_gb, at_most=1.1),
        Ratio("growth of the largest process, tenfold records", divided(big_gb, small_gb)),
    ]
    return Section(_about(big), runs, ratios, {})


def systematic(bench: Bench) -> Section:
    """The draw, without the fetch: passes over scores/ by the systematic method and by the pareto method."""
    data = _scored(bench)
    runs = bench.alternate({method: partial(draw_again, data, method) for method in METHODS})
    seconds = {method: values(runs[method], "phases.total+draw") for method in METHODS}
    gathered = [run["counters"]["gathered_rows"] / data.rows for run in runs["systematic"]]
    ratios = [
        Ratio("total and draw, systematic / pareto", divided(*(seconds[m] for m in reversed(METHODS))), at_most=1.5),
        Ratio("rows gathered by the systematic draw / records", [round(g, 5) for g in gathered], at_most=1 / 50),
    ]
    return Section(_about(data), runs, ratios, {})


def fetch(bench: Bench) -> Section:
    """Reading the drawn records again, beside reading the row groups that hold them with pyarrow alone."""
    data = _scored(bench)
    runs = bench.alternate(
        {
            "tithe": lambda: draw_again(data, "pareto"),
            "pyarrow, these row groups": lambda: read_groups(data),
        }
    )
    alone = values(runs["pyarrow, these row groups"])
    ratio = Ratio("fetch / reading the row groups", divided(values(runs["tithe"], "phases.fetch"), alone), at_most=1.2)
    return Section(_about(data), runs, [ratio], {})


def _scored(bench: Bench) -> Corpus:
    """The corpus with a selection that stands, so that the sample alone is made again."""
    data = large(bench)
    select(data, anew=False)
    return data


def draw_again(data: Corpus, method: str) -> Figures:
    """Makes the sample stage again, and returns the seconds of its pipelines and their counters."""
    result = data.out.parent / "pipelines.json"
    arguments = ["select", str(write_config(data)), "--quiet", "--redo", "sample", "--set", f"sample.method={method}"]
    used = run_python("bench_pipelines", str(result), *arguments)
    return {**used, **json.loads(result.read_text())}


def read_groups(data: Corpus) -> Figures:
    """Reads the row groups that hold the records of the sample that stands."""
    result = data.out.parent / "groups.json"
    used = run_python("bench_groups", data.files, str(data.out / "sample"), str(result))
    return {**used, **json.loads(result.read_text())}


def _about(data: Corpus) -> str:
    return f"{data.rows:,} x {data.dimension} float32, {data.clusters:,} clusters, {data.size:,} drawn"
