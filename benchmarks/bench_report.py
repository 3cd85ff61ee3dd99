"""What bench.py keeps of its sections: JSON, and tables of it."""

import json
import platform
import statistics
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench_run import Ratio, Runs, Section
from measure import machine

LIBRARIES = ("tithe", "apache-beam", "numpy", "scipy", "pyarrow", "scikit-learn")
PEERS = ("superkmeans", "faiss-cpu", "pyspark")
COLUMNS = {"wall_seconds": "wall, s", "cpu_seconds": "processor, s", "largest_process_gb": "largest process, GB"}


def describe_machine() -> dict[str, str]:
    """The processor, the cores and memory, and the versions that matter."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = {"processor": models[0] if models else platform.processor() or platform.machine(), "machine": machine()}
    found["Python"] = platform.python_version()
    for name in (*LIBRARIES, *PEERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # a package to compare with that is not here
    return found


def section_json(section: Section, seconds: float, date: str, quick: bool) -> dict[str, Any]:
    """Returns a section as plain data, with when and where it was measured."""
    return {
        "about": section.about,
        "date": date,
        "seconds": round(seconds),
        "quick": quick,
        "machine": describe_machine(),
        "runs": section.runs,
        "ratios": [asdict(ratio) for ratio in section.ratios],
        "figures": section.figures,
    }


def page(sections: dict[str, Any]) -> str:
    """Returns all sections as Markdown."""
    lines = ["# Speed and memory", "", "Median of the runs, and in brackets the smallest and the largest."]
    lines += ["Runs alternate; a ratio is one of each repetition. Made by `python benchmarks/bench.py`.", ""]
    for name, section in sections.items():
        told = ", ".join(
            value if key in ("processor", "machine") else f"{key} {value}" for key, value in section["machine"].items()
        )
        quick = "; a twentieth of the size, for a trial" if section["quick"] else ""
        lines += [f"## {name}", "", f"{section['about']}{quick}. {section['date']}, {told}.", ""]
        lines += _runs(section["runs"])
        lines += _ratios([Ratio(**ratio) for ratio in section["ratios"]])
        lines += [f"- {key}: {_number(value)}" for key, value in section["figures"].items()]
        lines += [""] if section["figures"] else []
    return "\n".join(lines).rstrip() + "\n"


def _runs(runs: Runs) -> list[str]:
    if not runs:
        return []
    shown = [name for name in COLUMNS if any(name in run for some in runs.values() for run in some)]
    phases = any("phases" in run for some in runs.values() for run in some)
    head = ["", *(COLUMNS[name] for name in shown), *(["phases, s"] if phases else [])]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for variant, some in runs.items():
        cells = [variant, *(_spread([run[name] for run in some if name in run]) for name in shown)]
        if phases:
            names = some[0].get("phases", {})
            middles = {name: statistics.median(run["phases"][name] for run in some) for name in names}
            cells.append(", ".join(f"{name} {_number(value)}" for name, value in middles.items()))
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _ratios(ratios: list[Ratio]) -> list[str]:
    lines = ["| | measured | aimed at | holds |", "|---|---|---|---|"] if ratios else []
    for ratio in ratios:
        bounds = [(ratio.at_least, ">="), (ratio.at_most, "<=")]
        aim = " and ".join(f"{sign} {bound:.4g}" for bound, sign in bounds if bound is not None)
        lines.append(f"| {ratio.name} | {_spread(ratio.values)} | {aim} | {holds(ratio)} |")
    return [*lines, ""] if lines else []


def holds(ratio: Ratio) -> str:
    """Whether the median reaches what is aimed at; nothing where nothing is."""
    if ratio.at_least is None and ratio.at_most is None:
        return ""
    low = -float("inf") if ratio.at_least is None else ratio.at_least
    high = float("inf") if ratio.at_most is None else ratio.at_most
    return "yes" if low <= ratio.middle <= high else "no"


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))} - {_number(max(values))})"


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def read_sections(path: Path) -> dict[str, Any]:
    """Returns the sections of an earlier run; none where there was none."""
    sections: dict[str, Any] = json.loads(path.read_text())["sections"] if path.exists() else {}
    return sections
