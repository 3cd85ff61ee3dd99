"""The contract of every CombineFn: whatever Beam does with the accumulators, the output is the same."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
import pkgutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tithe.transforms
from tithe.transforms import vectors
from tithe.transforms.draw import CHOSEN, ProxyTotals, gather_draws
from tithe.transforms.embed import EmbedTotals
from tithe.transforms.kernels import exact, hashing, nearest, rounding, rounds
from tithe.transforms.kernels.far import far_dtype
from tithe.transforms.losses import Answers
from tithe.transforms.representatives import Near
from tithe.transforms.score import ClusterTotals
from tithe.transforms.systematic import MASS

N = 12
"""Elements of each case."""


def rng(number: int) -> np.random.Generator:
    return np.random.default_rng(number)


def ids(n: int, start: int = 0) -> NDArray[np.uint64]:
    return hashing.hash_integers(np.arange(start, start + n))


@dataclass(frozen=True)
class Case:
    """One CombineFn: what it is given, how it is made, and what of its output its reader looks at."""

    elements: Callable[[], list[Any]]
    arguments: tuple[Any, ...] = ()
    read: Callable[[Any], Any] = lambda output: output
    folds: bool = True
    """Whether a DoFn folds with it, so that its accumulators are also its inputs."""


def far_rows() -> list[Any]:
    out = []
    for i in range(N):
        far = np.zeros(i % 5, far_dtype(2))
        far["key"], far["hash"] = rng(i).integers(0, 3, len(far)), ids(len(far), 10 * i)
        out.append(far)
    return out


def batches() -> list[Any]:
    centers = nearest.prepare(rng(0).standard_normal((5, 3)).astype(np.float32))
    x = [rng(i + 1).standard_normal((1 + 7 * i, 3)).astype(np.float32) for i in range(N)]
    x[3][0, 0] = 1e5  # beyond the grid's bound of an ordinary row
    return [rounds.batch_sums(some, ids(len(some), 100 * i), centers, 2, 1, 1)[0] for i, some in enumerate(x)]


def read_batch(output: rounds.BatchSums | None) -> Any:
    """How a sum is cut in limbs depends on the order; its value does not."""
    if output is None:
        return None
    return output.sums.clusters, output.sums.counts, output.sums.values(), output.cost, output.far


def proxy_totals() -> list[Any]:
    proxies = [np.round(rng(i).lognormal(0, 3, 1 + i), 1) for i in range(N)]
    return [ProxyTotals(exact.exact_sum(p), int(np.count_nonzero(p)), np.sort(p)[::-1][:6]) for p in proxies]


def chosen_rows() -> list[Any]:
    out = []
    for i in range(N):
        rows = np.zeros(i % 4 * 3, CHOSEN)
        rows["key"], rows["hash"] = rng(i).integers(0, 3, len(rows)), ids(len(rows), 100 * i)
        rows["split"], rows["position"] = i, np.arange(len(rows)) // 2  # some are drawn twice
        out.append(rows)
    return out


def embed_totals() -> list[Any]:
    return [
        EmbedTotals(
            rows=i,
            parts=1,
            columns=4,
            bad=Counter({"missing id": i % 3, "another dimension": i % 2}),
            magnitude=float(rng(i).uniform()),
            classes={f"{i % 4:x}": f"class {i % 4}"},
            sketch=np.sort(ids(i, 5 * i)),
            number_magnitude=float(i % 5),
            dead=[f"key-{i}"] if i % 3 else [],
        )
        for i in range(N)
    ]


def read_embed_totals(output: EmbedTotals) -> Any:
    return {**vars(output), "dead": sorted(output.dead)}


def answers() -> list[Any]:
    out = []
    for i, rows in enumerate(rng(0).permutation(3 * N).reshape(N, 3)):
        failed = {int(row): f"reason {row}" for row in rows if row % 7 == 0}
        out.append([Answers(rows, np.where(rows % 7 == 0, np.nan, rows / 2.0), failed, i)])
    return out


def near_rows() -> list[Any]:
    out = []
    for i in range(N):
        rows = np.zeros(1 + 2 * i, rounding.near_dtype(2))
        rows["cluster"], rows["key"] = rng(i).integers(-1, 3, len(rows)), rng(i).integers(0, 9, len(rows))
        rows["hash"] = ids(len(rows), 100 * i)
        out.append(Near(rows, exact.exact_sum(rows["key"]), len(rows)))
    return out


def stored_rows() -> list[Any]:
    out = []
    for i in range(N):
        rows = np.zeros(i, vectors.ROW)
        rows["hash"] = ids(i, 100 * i)
        out.append((rows, rng(i).standard_normal((i, 3)).astype(np.float32)))
    return out


def read_stored(output: list[Any]) -> Any:
    if not output:
        return []
    rows, stored = (np.concatenate(arrays) for arrays in zip(*output, strict=True))
    order = np.argsort(rows["hash"])
    return rows[order], stored[order]


def masses() -> list[Any]:
    out = []
    for i in range(N):
        some = np.zeros(3 * i, MASS)
        some["cell"], some["mass"] = rng(i).integers(0, 40, len(some)), rng(i).integers(1, 1 << 50, len(some))
        out.append(some)
    return out


CASES = {
    "CombineFar": Case(far_rows, (8,)),
    "CombineCounts": Case(lambda: [rng(i).integers(0, 9, 5) for i in range(N)]),
    "CombineSums": Case(batches, (5,), read_batch),
    "CombineProxyTotals": Case(proxy_totals, (6,)),
    "CombineTerms": Case(lambda: [(3**i, 5**i - 1) for i in range(N)]),
    "Reservoir": Case(lambda: [[rows] for rows in chosen_rows()], (20,), gather_draws),
    "CombineTotals": Case(embed_totals, read=read_embed_totals),
    "GatherAnswers": Case(answers),
    "CombineNear": Case(near_rows, (3,)),
    "CombineMasses": Case(masses, folds=False),
    "CombineClusters": Case(lambda: [ClusterTotals(rng(i).integers(0, 9, 4), [7**i, 0, i, 2**1074]) for i in range(N)]),
    "Gather": Case(stored_rows, read=read_stored, folds=False),
}
"""By the name of the CombineFn."""


def combine_fns() -> list[type]:
    """Every CombineFn that a module of the transforms defines."""
    found = set()
    for info in pkgutil.walk_packages(tithe.transforms.__path__, "tithe.transforms."):
        module = importlib.import_module(info.name)
        found |= {
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, beam.CombineFn) and value.__module__ == info.name
        }
    return sorted(found, key=lambda fn: fn.__name__)


EVERY = pytest.mark.parametrize("fn", combine_fns(), ids=lambda fn: fn.__name__)


def case_of(fn: type) -> Case:
    assert fn.__name__ in CASES, f"{fn.__module__}.{fn.__name__} has no elements in {__file__}: add a Case for it"
    return CASES[fn.__name__]


def same(one: Any, other: Any) -> bool:
    """Whether two outputs are equal in every value, type and dtype."""
    if isinstance(one, np.ndarray):
        alike = isinstance(other, np.ndarray) and one.dtype == other.dtype and one.shape == other.shape
        return alike and one.tobytes() == other.tobytes()
    if type(one) is not type(other):
        return False
    if dataclasses.is_dataclass(one):
        return same(vars(one), vars(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def dtypes(value: Any) -> Any:
    """The types of an output, and the dtypes of its arrays."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim
    if dataclasses.is_dataclass(value):
        return {name: dtypes(part) for name, part in vars(value).items()}
    if isinstance(value, tuple):
        return [dtypes(part) for part in value]
    return type(value)


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def add_all(combine: Any, elements: list[Any]) -> Any:
    accumulator = combine.create_accumulator()
    for element in elements:
        accumulator = combine.add_input(accumulator, element)
    return accumulator


def in_order(combine: Any, case: Case) -> Any:
    """The output where one accumulator is given everything."""
    return case.read(combine.extract_output(add_all(combine, case.elements())))


@EVERY
@settings(max_examples=25)
@given(data=st.data())
def test_any_division_and_order_give_the_same_output(fn: type, data: st.DataObject) -> None:
    case = case_of(fn)
    combine, elements = through_pickle(fn(*case.arguments)), case.elements()
    order = data.draw(st.permutations(range(N)))
    # Some accumulators get nothing; some are compacted; those of a merge are merged again.
    places = data.draw(st.lists(st.integers(0, 4), min_size=N, max_size=N))
    groups = [[elements[i] for i, place in zip(order, places, strict=True) if place == p] for p in range(5)]
    accumulators = [through_pickle(add_all(combine, group)) for group in groups]
    accumulators[0] = through_pickle(combine.compact(accumulators[0]))
    first = combine.merge_accumulators(a for a in accumulators[:2])
    whole = combine.merge_accumulators(a for a in [through_pickle(first), *accumulators[2:]])
    output = case.read(combine.extract_output(through_pickle(combine.compact(whole))))
    assert same(output, in_order(combine, case))


@EVERY
def test_empty_accumulators_add_nothing(fn: type) -> None:
    case = case_of(fn)
    combine = fn(*case.arguments)
    empty = case.read(combine.extract_output(combine.create_accumulator()))
    assert same(case.read(combine.extract_output(combine.merge_accumulators(iter([])))), empty)
    nothing = [through_pickle(combine.create_accumulator()) for _ in range(3)]
    assert same(case.read(combine.extract_output(combine.merge_accumulators(iter(nothing)))), empty)
    some = add_all(combine, case.elements())
    whole = combine.merge_accumulators(iter([combine.create_accumulator(), some, combine.create_accumulator()]))
    assert same(case.read(combine.extract_output(whole)), in_order(combine, case))


@EVERY
def test_the_elements_are_left_as_they_were(fn: type) -> None:
    case = case_of(fn)
    combine, elements = fn(*case.arguments), case.elements()
    combine.extract_output(
        combine.merge_accumulators(iter([add_all(combine, elements[:5]), add_all(combine, elements[5:])]))
    )
    assert same(elements, case.elements())


@EVERY
def test_one_element_gives_the_types_that_many_give(fn: type) -> None:
    case = case_of(fn)
    combine = fn(*case.arguments)
    for element in case.elements()[-2:]:
        one = case.read(combine.extract_output(combine.add_input(combine.create_accumulator(), element)))
        assert dtypes(one) == dtypes(in_order(combine, case))


@EVERY
@settings(max_examples=10)
@given(places=st.lists(st.integers(0, 2), min_size=N, max_size=N))
def test_accumulators_of_a_fold_are_elements(fn: type, places: list[int]) -> None:
    case = case_of(fn)
    if not case.folds:
        return
    combine, elements = fn(*case.arguments), case.elements()
    groups = [[e for e, place in zip(elements, places, strict=True) if place == p] for p in range(3)]
    sums = [through_pickle(add_all(combine, group)) for group in groups]
    assert same(case.read(combine.extract_output(add_all(combine, sums))), in_order(combine, case))


def test_every_case_is_of_a_combine_fn() -> None:
    assert sorted(CASES) == sorted(fn.__name__ for fn in combine_fns())
