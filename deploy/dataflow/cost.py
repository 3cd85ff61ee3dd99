"""Estimates what a selection costs on Dataflow, from a measured run on one machine and a list of prices.

    python deploy/dataflow/cost.py [--records N] [--clusters K] [--dimension D] [--workers W] ...

The measured run is measured.json, the result.json that `python benchmarks/j1.py` writes: all of its cores count as busy
for the whole of each stage. A stage grows in proportion to what it reads or computes: embed to records x dimension,
cluster and score to records x dimension x clusters, sample to records. Nothing of this was run on Dataflow, so what is
not measured is an option with a stated default. Left out: the embedder (the measured vectors are a column), the calls
of a loss model, network, shuffle (only references cross it), and requests to the store.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MACHINE_VCPUS, MACHINE_GB, MACHINE_DISK_GB = 4, 16, 25  # n2-standard-4, and Dataflow's disk where shuffle is a service
DRIVER_VCPUS, DRIVER_GB = 2, 8  # e2-standard-2, on which the command runs
ROW_BYTES, SCORE_BYTES = 28, 40  # of a record in vectors/, beside the vector, and in scores/
GROWS_WITH = {
    "plan": (),
    "embed": ("records", "dimension"),
    "cluster": ("records", "dimension", "clusters"),
    "losses": (),
    "score": ("records", "dimension", "clusters"),
    "sample": ("records",),
}
"""By stage of the manifest: the sizes to which its time is proportional."""


@dataclass(frozen=True)
class Estimate:
    """Hours of one vCPU by stage and while workers start, hours from the first job to the last, dollars, and
    dollars a month for the stages that are kept."""

    work_hours: dict[str, float]
    starting_hours: float
    elapsed_hours: float
    dollars: float
    dollars_a_month: float


def estimate(measured: dict[str, Any], prices: dict[str, Any], options: argparse.Namespace) -> Estimate:
    """The estimate for the sizes in options; KeyError for a stage that GROWS_WITH does not know."""
    cores = int(measured["machine"].split()[0])
    growth = {name: getattr(options, name) / measured[name] for name in ("records", "dimension", "clusters")}
    hours = {}
    for stage, seconds in measured["stage_seconds"].items():
        hours[stage] = seconds * cores * options.slower / 3600
        for size in GROWS_WITH[stage]:
            hours[stage] *= growth[size]
    vcpus = options.workers * MACHINE_VCPUS
    starting = options.jobs * options.start_minutes / 60
    elapsed = sum(hours.values()) / vcpus + starting
    worker_hour = _hour(prices, MACHINE_VCPUS, MACHINE_GB) * options.workers
    driver_hour = _hour(prices, DRIVER_VCPUS, DRIVER_GB)
    kept_gb = options.records * (4 * options.dimension + ROW_BYTES + SCORE_BYTES) / 1e9
    return Estimate(
        hours, starting * vcpus, elapsed, elapsed * (worker_hour + driver_hour), kept_gb * prices["storage_gb_month"]
    )


def _hour(prices: dict[str, Any], vcpus: int, gb: int) -> float:
    """Dollars for an hour of one worker."""
    disk = MACHINE_DISK_GB * prices["disk_gb_hour"]
    return float(vcpus * prices["vcpu_hour"] + gb * prices["memory_gb_hour"] + disk)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Estimates what a selection costs on Dataflow.")
    parser.add_argument("--records", type=int, default=100_000_000, help="(100,000,000)")
    parser.add_argument("--clusters", type=int, default=1000, help="(1,000)")
    parser.add_argument("--dimension", type=int, default=384, help="(384)")
    parser.add_argument("--workers", type=int, default=20, help="of 4 vCPUs and 16 GB, for the whole of each job (20)")
    parser.add_argument("--jobs", type=int, default=7, help="pipelines: 7 without a loss model, as measured (7)")
    parser.add_argument("--start-minutes", type=float, default=4, help="in which a job's workers start and stop (4)")
    parser.add_argument(
        "--slower", type=float, default=2, help="seconds of a vCPU, half a core, for one of a measured core (2)"
    )
    parser.add_argument("--measured", type=Path, default=HERE / "measured.json", help="result.json of benchmarks/j1.py")
    parser.add_argument("--prices", type=Path, default=HERE / "prices.json", help="a file like prices.json")
    return parser


def main() -> None:
    """Reads the command line and prints the estimate and what it rests on."""
    options = parser().parse_args()
    measured, prices = json.loads(options.measured.read_text()), json.loads(options.prices.read_text())
    found = estimate(measured, prices, options)
    print(
        f"measured: {measured['records']:,} records x {measured['dimension']}, {measured['clusters']:,} clusters, "
        f"{measured['machine']}, {measured['date']}\nprices:   {prices['what']}, {prices['date']}\n"
        f"asked:    {options.records:,} records x {options.dimension}, {options.clusters:,} clusters, "
        f"{options.workers} workers of {MACHINE_VCPUS} vCPUs, {options.jobs} jobs\n"
    )
    for stage, hours in found.work_hours.items():
        print(f"{stage:24} {hours:10,.1f} vCPU hours")
    print(f"{'workers that start':24} {found.starting_hours:10,.1f} vCPU hours")
    print(f"{'from start to end':24} {found.elapsed_hours:10,.1f} hours")
    print(f"{'all jobs':24} {found.dollars:10,.0f} dollars")
    print(f"{'stages, while kept':24} {found.dollars_a_month:10,.2f} dollars a month")


if __name__ == "__main__":
    main()
