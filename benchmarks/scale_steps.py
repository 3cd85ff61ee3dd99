"""The steps of a selection that run in one process, whatever the number of workers: what arrives there, what they hold,
and how long they take.
"""

from dataclasses import dataclass

from scale_model import EXACT_BYTES, Job
from scale_rates import Rates

from tithe.transforms.cluster import SEED_STEPS
from tithe.transforms.draw import CHOSEN
from tithe.transforms.kernels import seeding
from tithe.transforms.kernels.exact import ROWS
from tithe.transforms.publish import PART_ROWS

PLAN_BYTES = 250
"""Of a split in the plan, as a line or as an element."""

INTEGER_BYTES = 180
"""Of an exact sum in memory, with its place in a list."""


@dataclass(frozen=True)
class OnePlace:
    """A step that runs in one process whatever the number of workers.

    Attributes:
        name: what it does.
        arrives: bytes that come to it.
        element: the largest element among them, in bytes.
        held: bytes that it holds at once.
        mend: what would mend it.
        seconds: of its work, beside those in which its input arrives.
        times: how often it runs.
    """

    name: str
    arrives: float
    element: float
    held: float
    mend: str
    seconds: float = 0.0
    times: int = 1


def one_place(job: Job, rates: Rates) -> list[OnePlace]:
    """Returns these steps, in the order in which a selection comes to them; the two last are those of pareto draws and
    of losses that are all equal.
    """
    k, d, all_of, anchors = job.clusters, job.dimension, job.processes, job.anchors
    candidates, grid, chosen = SEED_STEPS * k, 8.0 * k * d, float(CHOSEN.itemsize)
    seeds, near, costs = all_of * job.seeds_kept, all_of * job.near_kept, float(all_of * anchors)
    some = min(job.size, job.records / all_of)
    passes = -(-k // max(1, k // seeding.BATCHES))
    lloyd = seeding.LLOYD_STEPS * (rates.prepare + candidates * rates.search)
    merging = all_of * grid * (1 / rates.add + min(1, job.crowd / ROWS) / rates.cut)
    plan, fanout, blocks = PLAN_BYTES * job.splits, "a fanout", "a key for each block of clusters"
    two = "groups of candidates first, then their winners"
    return [
        OnePlace("the plan, read", plan, PLAN_BYTES, plan, "larger splits"),
        OnePlace("candidates of seeding", seeds, job.seeds_kept, 2 * seeds, fanout, 0, SEED_STEPS),
        # The candidates twice in float32 and once in float64, the centers prepared and their means in float64.
        OnePlace(
            "candidates reduced to k",
            0,
            0,
            16.0 * candidates * d + 28 * k * d,
            two,
            passes * candidates * rates.passed + lloyd,
        ),
        # Grid and limbs, one that arrives with its bytes, and what cutting takes.
        OnePlace("sums of a round", all_of * job.sums_bytes, job.sums_bytes, 9 * grid, blocks, merging, job.rounds),
        OnePlace("nearest rows of each mean", near, job.near_kept, 2 * near, blocks),
        OnePlace(
            "costs of the clusters",
            costs * (8 + EXACT_BYTES),
            anchors * (8.0 + EXACT_BYTES),
            costs * (8 + INTEGER_BYTES),
            "adding one after another",
        ),
        OnePlace("largest proxies", all_of * 8 * some, 8 * some, 3 * all_of * 8 * some, fanout),
        OnePlace(
            "masses of coarse cells",
            all_of * 8.0 * job.coarse_cells,
            8.0 * job.coarse_cells,
            2 * all_of * 8.0 * job.coarse_cells,
            "adding one after another",
        ),
        OnePlace("drawn rows", job.size * chosen, PART_ROWS * chosen, 3 * job.size * chosen, "files of their own"),
        OnePlace("reservoirs (pareto)", all_of * some * chosen, some * chosen, 2 * all_of * some * chosen, fanout),
        OnePlace(
            "chain of anchors (equal losses)",
            0,
            0,
            20.0 * anchors * d,
            two.replace("candidates", "anchors"),
            4.0 * anchors * anchors * d / rates.chain,
        ),
    ]


@dataclass(frozen=True)
class Workers:
    """What the steps run on.

    Attributes:
        count: of the workers.
        cores, processes: of a worker.
        memory: of a worker, in bytes, what its system takes left out.
        network, store: bytes a second between a worker and the others, and between it and the store of the files.
        latency: seconds of a request to the store.
    """

    count: int
    cores: int
    processes: int
    memory: float
    network: float
    store: float
    latency: float


ELEMENT = 2.0**31
"""Bytes of a protobuf message at most, and in one such element crosses from a worker to its runner."""

REQUESTS = 6
"""To the store, one after another, for a range of hashes of a split: what is done, three for its bounds, rows and
vectors.
"""


def together(job: Job, counted: dict[str, float], rates: Rates, workers: Workers) -> dict[str, float]:
    """Returns the seconds of each stage in which all workers have work. Reading, computing and waiting for the store
    count one after another.

    Candidates of seeding, of representatives and the largest proxies are copied about three times for each split that
    is folded into what the bundle holds of them.
    """
    all_cores, n, ranges = workers.count * workers.cores, job.records, SEED_STEPS + 2 + job.rounds

    folding = 3 * job.splits / job.processes / rates.add

    def of(stage: str, cpu: float = 0.0, moved: float = 0.0, visits: int = 1, prepared: int = 0) -> float:
        moved += sum(counted.get(f"{name}.read_bytes", 0) for name in DOFNS[stage])
        beside = sum(counted.get(f"{name}.side_bytes", 0) for name in DOFNS[stage])
        waiting = visits * job.splits * REQUESTS * workers.latency / job.processes
        reading = (moved + beside) / (workers.count * workers.store) + moved / rates.read / all_cores
        return reading + cpu / all_cores + waiting + prepared * rates.prepare

    seeds, batch = SEED_STEPS * job.seed_rows * rates.search, job.batch_rows * job.rounds * rates.round
    passes = 4 + (job.neighbors > 1)
    return {
        "embed": of("embed", moved=job.input_bytes + n * job.vector_bytes, visits=2),
        "cluster": of("cluster", seeds + batch, visits=ranges, prepared=ranges)
        + folding * (job.near_kept + SEED_STEPS * job.seeds_kept),
        "losses": of("losses"),
        "score": of("score", n * rates.several, n * 8.0 * job.neighbors, prepared=1),
        "sample": of("sample", passes * n * rates.proxy, visits=passes)
        + folding * 8 * min(job.size, n / job.processes),
    }


DOFNS = {
    "embed": ("EmbedSplit", "SampleRows"),
    "cluster": ("SeedStep", "AssignBatch", "FindNear"),
    "losses": ("FindPilot", "AskLosses"),
    "score": ("ScoreSplit",),
    "sample": ("SumSplit", "TotalSplit", "CoarseSplit", "CellSplit", "GatherSplit", "FetchPart"),
}
"""What counts in each stage."""


def alone(step: OnePlace, workers: Workers) -> float:
    """Returns the seconds of a step in one place, all its times together."""
    return step.times * (step.arrives / workers.network + step.seconds)


def too_large(step: OnePlace, workers: Workers) -> str:
    """Returns why a step cannot run; empty where it can."""
    if step.held > workers.memory:
        return f"{step.held / 1e9:,.0f} GB in one process"
    return f"elements of {step.element / 1e9:.1f} GB" if step.element > ELEMENT else ""
