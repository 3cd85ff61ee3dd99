"""Times the building of the cluster stage's graph.

python benchmarks/bench_graph.py ROUNDS REPETITIONS RESULT.json
"""

import json
import sys
import time
from pathlib import Path

import apache_beam as beam

from tithe.beam_options import parse_beam_options
from tithe.transforms.cluster import ClusterCorpus, ClusterTask
from tithe.transforms.space import Reader


def main() -> None:
    """Reads the command line and writes the seconds of each repetition; nothing is run."""
    rounds, repetitions, result = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    reader = Reader("work/vectors", "work/space.npz")
    task = ClusterTask("work/cluster", reader, 1000, rounds, 0.1, 0.1, 1)
    seconds, run = [], parse_beam_options([])
    for _ in range(repetitions):
        start = time.perf_counter()
        pipeline = beam.Pipeline(runner="FnApiRunner", options=run.options())
        pipeline | ClusterCorpus("work/plan.jsonl", task, None, 2)
        pipeline.to_runner_api()
        seconds.append(round(time.perf_counter() - start, 3))
    result.write_text(json.dumps(seconds) + "\n")


if __name__ == "__main__":
    main()
