"""Rounding means to members, by hand and by its properties."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tithe.transforms.kernels import hashing, nearest
from tithe.transforms.kernels.far import ANY_KEY, far_rows
from tithe.transforms.kernels.rounding import (
    SPARES,
    candidates,
    choose,
    far_count,
    far_members,
    limits,
    near_dtype,
    nearest_members,
)

Rows = NDArray[np.void]


def row(cluster: int, key: float, h: int, vector: tuple[float, float]) -> tuple[object, ...]:
    return (cluster, key, h, 0, 0, h, 0, vector)


def rows_of(*some: tuple[object, ...]) -> Rows:
    return np.array(list(some), near_dtype(2))


def test_the_nearest_of_each_cluster_by_hand() -> None:
    rows = rows_of(
        row(1, 4.0, 50, (9, 9)),
        row(0, 2.0, 30, (1, 0)),
        row(0, 2.0, 20, (0, 1)),
        row(1, 1.0, 10, (8, 8)),
    )
    near = nearest_members(rows, 0)
    assert near["hash"].tolist() == [20, 30, 10, 50]  # ties by hash, in order of the clusters
    chosen, spares, moved = choose(near, near[:0], 2)
    # Representatives are numbered in the order of their hashes.
    assert chosen["hash"].tolist() == [10, 20] and chosen["cluster"].tolist() == [0, 1]
    assert dict(zip(spares["hash"].tolist(), spares["cluster"].tolist(), strict=True)) == {30: 1, 50: 0}
    assert moved == 0


NONE = rows_of()


def test_no_more_spares_than_wanted_nearest_first() -> None:
    rows = rows_of(*(row(0, float(10 - i), 100 + i, (i, 0)) for i in range(10)), row(-1, 1.0, 7, (0, 0)))
    near = nearest_members(rows, 3)
    assert near["hash"].tolist() == [7, *(109 - i for i in range(SPARES))]
    assert len(nearest_members(rows, 0)) == SPARES


def test_clusters_without_rows_take_far_ones() -> None:
    rows = rows_of(
        row(0, 0.0, 40, (0, 0)),
        row(0, 1.0, 41, (1, 0)),
        row(2, 0.0, 60, (5, 5)),
        row(-1, 0.1, 40, (0, 0)),  # a representative already
        row(-1, 0.2, 10, (5, 5)),  # on the point of one
        row(-1, 0.3, 41, (1, 0)),  # a spare
        row(-1, 0.4, 42, (1, 0)),  # on the point of the one before
        row(-1, 0.5, 43, (2, 0)),
        row(-1, 0.6, 44, (3, 0)),  # no cluster is left for it
    )
    chosen, spares, moved = choose(nearest_members(rows, 6), rows[:0], 4)
    assert moved == 2
    assert chosen["hash"].tolist() == [40, 41, 43, 60] and chosen["cluster"].tolist() == [0, 1, 2, 3]
    assert len(spares) == 0  # the only one has become a representative


def test_clusters_without_rows_in_the_range_look_in_a_wider_one() -> None:
    rows = rows_of(row(0, 0.0, 40, (0, 0)), row(0, 1.0, 41, (1, 0)), row(-1, 0.1, 43, (7, 7)))
    late = rows_of(
        row(1, 0.5, 40, (0, 0)),  # a representative already
        row(1, 0.6, 41, (1, 0)),  # the spare of another cluster
        row(1, 0.7, 45, (2, 0)),
        row(2, 0.1, 46, (1, 0)),  # on the point that cluster 1 has taken
        row(2, 0.2, 50, (3, 0)),
        row(3, 0.3, 51, (3, 0)),  # nothing is left for this one but a far row
    )
    chosen, spares, moved = choose(nearest_members(rows, 8), nearest_members(late, 0), 4)
    assert moved == 1
    assert chosen["hash"].tolist() == [40, 41, 43, 50] and chosen["cluster"].tolist() == [0, 1, 2, 3]
    # What a late cluster does not need are its spares; what represents another is none.
    pairs = set(zip(spares["hash"].tolist(), spares["cluster"].tolist(), strict=True))
    assert pairs >= {(45, 1), (46, 3)} and not pairs & {(h, c) for h in (40, 41, 43, 50) for c in range(4)}


def test_a_cluster_for_which_nothing_is_left_is_dropped() -> None:
    rows = rows_of(row(1, 0.0, 40, (0, 0)), row(-1, 0.1, 41, (0, 0)), row(-1, 0.2, 42, (0, -0.0)))
    chosen, _, moved = choose(nearest_members(rows, 8), rows[:0], 3)
    assert chosen["hash"].tolist() == [40] and chosen["cluster"].tolist() == [0] and moved == 0


def near_rows(x: NDArray[np.float32], points: NDArray[np.float32], seed: int) -> Rows:
    """What a split of these rows gives."""
    index, squared = nearest.nearest(x, nearest.prepare(points))
    rows = np.zeros(len(x), near_dtype(x.shape[1]))
    rows["cluster"], rows["key"], rows["vector"] = index[:, 0], squared[:, 0], x
    rows["hash"], rows["position"] = hashing.hash_integers(np.arange(len(x))), np.arange(len(x))
    few, keys = far_members(rows["hash"], squared[:, 0], seed, len(points))
    assert np.all(squared[few, 0] > 0)
    return np.concatenate([rows, candidates(rows[few], x[few], 0, -1, keys)])


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 12), st.booleans())
def test_representatives_of_any_integers(seed: int, n: int, k: int, is_whole: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, (n, 2)).astype(np.float32)  # many rows on one point
    points = rng.uniform(-1, 6, (k, 2)).astype(np.float32)
    everything = near_rows(x, points, seed)
    rows = everything if is_whole else everything[everything["position"] < (n + 1) // 2]
    occupied = set(rows["cluster"][rows["cluster"] >= 0].tolist())
    missing = np.setdiff1d(np.arange(k), sorted(occupied))
    late = NONE
    if not is_whole and len(missing):
        late = near_rows(x, points[missing], seed)
        late = late[late["cluster"] >= 0]
        late["cluster"] = missing[late["cluster"]]
    far = nearest_members(rows, far_count(k))
    chosen, spares, moved = choose(far, nearest_members(late, 0), k)
    far = far[far["cluster"] < 0]
    # No two on one point, numbered by hash, and each row's vector is its own.
    taken = {v.tobytes() for v in chosen["vector"]}
    assert len(taken) == len(chosen) <= k
    assert chosen["cluster"].tolist() == list(range(len(chosen))) and np.all(np.diff(chosen["hash"].astype(object)) > 0)
    assert np.array_equal(chosen["vector"], x[chosen["position"]])
    assert not np.isin(spares["hash"], chosen["hash"]).any()
    assert np.isin(spares["cluster"], chosen["cluster"]).all()
    assert moved <= len(missing)
    # Clusters with rows keep the nearest of them; the others have a row where there is one on a point of its own.
    for cluster in occupied:
        mine = rows[rows["cluster"] == cluster]
        assert mine[np.lexsort((mine["hash"], mine["key"]))[0]]["hash"] in chosen["hash"]
    if len(chosen) < k:
        assert {v.tobytes() for v in far["vector"]} <= taken


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_the_division_into_blocks_changes_nothing(seed: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    x, k = rng.integers(0, 4, (50, 2)).astype(np.float32), 6
    rows = near_rows(x, rng.uniform(-1, 6, (k, 2)).astype(np.float32), seed)
    far = far_count(k)
    merged = rows[:0]
    for part in np.array_split(rng.permutation(len(rows)), parts):
        merged = nearest_members(np.concatenate([merged, nearest_members(rows[part], far)]), far)
    assert np.array_equal(merged, nearest_members(rows, far))


@given(st.integers(0, 2**32 - 1), st.integers(1, 80))
def test_rows_beyond_the_limits_are_of_no_interest(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rows = near_rows(rng.integers(0, 6, (n, 2)).astype(np.float32), rng.uniform(-1, 6, (4, 2)).astype(np.float32), seed)
    far, kept = far_count(4), rows[:0]
    far_rows_of_all = rows[rows["cluster"] >= 0].copy()
    far_rows_of_all["cluster"], far_rows_of_all["key"] = -1, rng.integers(1, 40, len(far_rows_of_all))
    rows = np.concatenate([rows[rows["cluster"] >= 0], far_rows_of_all])
    for part in np.array_split(rng.permutation(rows), 5):
        limit, far_limit = limits(kept, 4)
        close = part[part["key"] <= np.where(part["cluster"] < 0, far_limit, limit[part["cluster"]])]
        kept = nearest_members(np.concatenate([kept, close]), far)
    assert np.array_equal(kept, nearest_members(rows, far))
    counts = np.bincount(rows["cluster"] + 1, minlength=5)
    limit, far_limit = limits(kept, 4)
    assert np.array_equal(limit < np.inf, counts[1:] >= SPARES)
    assert (far_limit < ANY_KEY) == (counts[0] >= far)


def test_far_members_are_not_the_far_rows_of_a_round() -> None:
    x = np.random.default_rng(1).standard_normal((200, 2)).astype(np.float32)
    rows, squared = np.zeros(200, near_dtype(2)), np.ones(200)
    rows["hash"] = hashing.hash_integers(np.arange(200))
    far, _ = far_members(rows["hash"], squared, 1, 4)
    assert len(far) == far_count(4) == 8
    assert set(rows["hash"][far].tolist()) != set(far_rows(x, rows["hash"], squared, 1, "far/1", 8)["hash"].tolist())
