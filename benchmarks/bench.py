"""Measures speed and memory of tithe beside a loop by hand, other clusterings, and the bare work.

    python benchmarks/bench.py [SECTION ...] [--quick] [--flame] [--folder FOLDER] [--results FOLDER]

Sections: j1 (the whole on a million vectors), costs (how good its clusters are), growth, systematic, fetch (ten million
vectors), neighbors, levels (40,000 centers), startup, hashing, graph, and peers (faiss and Spark, only where it is
named); without a name all the others. Each variant runs three times, in alternation; a ratio is taken in each
repetition. --quick: everything at a twentieth of its size, once. --flame: tithe once more under py-spy, to flame.svg
beside the results.

Prints tables, and writes bench.json and bench.md to benchmarks/results (--quick: to .cache/bench/quick). Sections that
are not named keep the results they had. `make bench` and `make bench-peers` install what is needed.

All sections need 35 GB of disk and some 40 minutes; leave the machine to them.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

from bench_j1 import costs, j1, peers
from bench_large import fetch, growth, systematic
from bench_report import page, read_sections, section_json
from bench_run import HERE, Bench, Section, clean_environment
from bench_small import graph, hashing, levels, neighbors, startup

SECTIONS: dict[str, Callable[[Bench], Section]] = {
    "j1": j1,
    "costs": costs,
    "growth": growth,
    "systematic": systematic,
    "fetch": fetch,
    "neighbors": neighbors,
    "levels": levels,
    "startup": startup,
    "hashing": hashing,
    "graph": graph,
    "peers": peers,
}
WHERE_NAMED = ("peers",)


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description="Measures speed and memory of tithe beside others.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the size, once")
    parser.add_argument("--flame", action="store_true", help="a flame graph of tithe with the section j1")
    parser.add_argument("--folder", type=Path, default=Path(".cache/bench"), help="of data and outputs")
    parser.add_argument("--results", type=Path, help="folder of bench.json and bench.md")
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"{unknown[0]}: no such section; there are {', '.join(SECTIONS)}")
    if options.flame and options.sections and "j1" not in options.sections:
        parser.error("--flame goes with the section j1")
    folder = (options.folder / "quick" if options.quick else options.folder).resolve()
    results = options.results or (folder if options.quick else HERE / "results")
    folder.mkdir(parents=True, exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    clean_environment()
    bench = Bench(folder, results, options.quick, options.flame)
    found = read_sections(results / "bench.json")
    for name in options.sections or [name for name in SECTIONS if name not in WHERE_NAMED]:
        print(f"{name}:", flush=True)
        start = time.perf_counter()
        section = SECTIONS[name](bench)
        found[name] = section_json(section, time.perf_counter() - start, time.strftime("%Y-%m-%d"), bench.quick)
        # After each section, so that an interrupted run keeps what it has measured.
        found = {name: found[name] for name in SECTIONS if name in found}
        (results / "bench.json").write_text(json.dumps({"sections": found}, indent=1) + "\n")
        (results / "bench.md").write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()
