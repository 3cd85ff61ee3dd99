"""Measures the error of totals estimated from samples of real corpora, by `tithe evaluate`, beside what is aimed at.

    python benchmarks/evidence.py [--seeds N] [--clusterings N] [--data NAME] [--cache FOLDER]

20 Newsgroups and Fashion-MNIST, with the label in the embedding and without: 1,000 clusters, a pilot of 200, samples of
300, 1,000 and 3,000. Each clustering has a pilot of its own; errors are root mean squares over all of them. Prints a
table, and writes benchmarks/results/evidence.json and evidence.md with a picture for each corpus.

Needs an installed tithe with its extra `report`, pip's index, and for Fashion-MNIST a Debian with apt-get. The first
run fetches 100 MB and embeds 18,821 texts.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fashion_mnist import write_fashion_mnist
from measure import machine
from newsgroups import write_newsgroups

DATA: dict[str, Callable[[Path], Path]] = {"Fashion-MNIST": write_fashion_mnist, "20 Newsgroups": write_newsgroups}
SIZES = (300, 1000, 3000)
OTHERS = ("uniform", "independent, plain proxy", "equal, along the clusters")
TARGETS = {
    "Fashion-MNIST + label": (0.40, 0.80, 0.65),
    "20 Newsgroups + label": (0.70, 0.87, 0.90),
    "Fashion-MNIST": (0.95, 0.95, 1.00),
    "20 Newsgroups": (0.95, 0.95, 1.00),
}
"""The error of tithe's default as a share of each of OTHERS', at most."""

RESULTS = Path(__file__).parent / "results"


def evaluate(name: str, records: Path, clustering: int, seeds: int, cache: Path) -> dict[str, Any]:
    """Runs `tithe evaluate` on one corpus with one clustering, and returns its numbers."""
    slug = name.lower().replace(" + ", "-").replace(" ", "-")
    config, found = cache / f"{slug}.yaml", cache / f"{slug}-{clustering}.json"
    embed = {"kind": "column", "column": "vector", **({"label": "label"} if name.endswith("label") else {})}
    config.write_text(  # JSON is YAML
        json.dumps(
            {
                "input": {"files": str(records), "id": "id"},
                "embed": embed,
                "cluster": {"count": 1000, "seed": clustering},
                "loss": {"kind": "column", "column": "loss", "pilot": 200},
                "sample": {"size": SIZES[0], "seed": 1},
                "output": {"path": str(cache / f"out-{slug}")},
            }
        )
    )
    command = [sys.executable, "-m", "tithe", "evaluate", str(config), "--quiet", "--seeds", str(seeds)]
    command += ["--sizes", ",".join(map(str, SIZES)), "--json", str(found)]
    if clustering == 1:
        command += ["--picture", str(RESULTS / f"{slug}.png")]
    subprocess.run(command, check=True)
    numbers: dict[str, Any] = json.loads(found.read_text())
    return numbers


def combine(runs: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns accounting -> size -> way -> error, a root mean square over the clusterings."""
    squares: dict[tuple[str, str, str], list[float]] = {}
    for run in runs:
        for row in run["errors"]:
            squares.setdefault((row["accounting"], str(row["size"]), row["way"]), []).append(row["error"] ** 2)
    out: dict[str, dict[str, dict[str, float]]] = {}
    for (accounting, size, way), some in squares.items():
        out.setdefault(accounting, {}).setdefault(size, {})[way] = math.sqrt(sum(some) / len(some))
    return out


def table(results: dict[str, Any], accounting: str) -> list[str]:
    """Returns lines of Markdown: tithe's error over that of each other way, at each size."""
    aims = accounting == "draws free"
    head = ["corpus", "against", *(f"{size:,}" for size in SIZES), *(["aim", "holds"] if aims else [])]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, result in results.items():
        errors = result["errors"][accounting]
        for other, aim in zip(OTHERS, TARGETS[name], strict=True):
            ratios = [errors[str(size)]["tithe"] / errors[str(size)][other] for size in SIZES]
            cells = [name, other, *(f"{ratio:.2f}" for ratio in ratios)]
            above = [f"{size:,}" for size, ratio in zip(SIZES, ratios, strict=True) if ratio > aim]
            if aims:
                cells += [f"{aim:.2f}", "yes" if not above else f"not at {', '.join(above)}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def report(results: dict[str, Any]) -> str:
    """Returns the page with both accountings and the errors themselves."""
    last = next(reversed(results.values()))
    seeds, clusterings = last["seeds"], len(last["chosen"])
    lines = [
        "# The error of an estimated total, tithe's default as a share of others'",
        "",
        f"1,000 clusters, a pilot of 200; root mean squares over {clusterings} clusterings with a pilot each, {seeds} "
        "draws in each where there is no closed form (with 200 draws an error is known to 5-10 %).",
        f"{time.strftime('%Y-%m-%d')}, {machine()}; made by `python benchmarks/evidence.py`.",
        "",
        "Draws free: losses are asked for the anchors alone.",
        "",
        *table(results, "draws free"),
        "",
        "Every loss counts: the sample's too; uniform draws and those along the clusters are as many more.",
        "",
        *table(results, "every loss counts"),
        "",
        "Errors in % of the total, draws free:",
        "",
        "| corpus | way to draw | " + " | ".join(f"{size:,}" for size in SIZES) + " |",
        f"|{'---|' * (2 + len(SIZES))}",
    ]
    for name, result in results.items():
        errors = result["errors"]["draws free"]
        for way in ("tithe", *OTHERS):
            cells = [name, way, *(f"{100 * errors[str(size)][way]:.2f}" for size in SIZES)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Reads the command line, fetches the data, evaluates, and writes the results."""
    parser = argparse.ArgumentParser(description="Measures errors on real corpora beside what is aimed at.")
    parser.add_argument("--seeds", type=int, default=200, help="draws in each clustering (200)")
    parser.add_argument("--clusterings", type=int, default=3, help="clusterings, each with a pilot of its own (3)")
    parser.add_argument("--data", choices=list(DATA), help="one corpus alone; the results of the other stay")
    parser.add_argument("--cache", type=Path, default=Path(".cache/evidence"), help="folder of data and stages")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    options.cache.mkdir(parents=True, exist_ok=True)
    path = RESULTS / "evidence.json"
    results: dict[str, Any] = json.loads(path.read_text()) if options.data and path.exists() else {}
    for name in TARGETS:
        corpus = name.removesuffix(" + label")
        if options.data in (None, corpus):
            records = DATA[corpus](options.cache.resolve())
            clusterings = range(1, options.clusterings + 1)
            runs = [evaluate(name, records, i, options.seeds, options.cache.resolve()) for i in clusterings]
            chosen = [run["chosen"] for run in runs]
            kept = {"records": runs[0]["records"], "seeds": options.seeds, "errors": combine(runs), "chosen": chosen}
            results[name] = kept
    results = {name: results[name] for name in TARGETS if name in results}
    path.write_text(json.dumps(results, indent=1) + "\n")
    page = report(results)
    (RESULTS / "evidence.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
