"""The anchors: who is one, who takes a failed one's place, and the pilot's neighbours but themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tithe.transforms.kernels import nearest
from tithe.transforms.kernels.anchors import assemble, record_keys
from tithe.transforms.kernels.rounding import near_dtype
from tithe.transforms.leave_one_out import leave_one_out


def rows(*numbers: int, clusters: list[int] | None = None) -> Any:
    """Rows whose hash, position and vector say which record they are; the hash falls as the number rises."""
    out = np.zeros(len(numbers), near_dtype(1))
    out["position"], out["hash"] = numbers, 1000 - np.array(numbers, np.int64)
    out["vector"] = np.array(numbers, np.float32)[:, None]
    out["cluster"] = clusters if clusters is not None else -1
    return out


def anchors(pilot: list[int], size: int, *failed: int) -> list[tuple[int, bool, bool]]:
    """(record, representative, pilot) of the anchors of two clusters: 10 with the spares 11 and 12, 20 with 21."""
    representatives = rows(20, 10, clusters=[1, 0])
    spares = rows(11, 21, 12, clusters=[0, 1, 0])
    found = assemble(representatives, spares, rows(*pilot), size, {(0, 0, n) for n in failed})
    assert np.all(np.diff(found["hash"].astype(np.int64)) > 0)
    assert found["vector"][:, 0].tolist() == found["position"].tolist()
    keys = [position for _, _, position in record_keys(found)]
    return sorted(zip(keys, found["representative"].tolist(), found["pilot"].tolist(), strict=True))


@pytest.mark.parametrize(
    ("pilot", "size", "failed", "expected"),
    [
        ([], 0, [], [(10, True, False), (20, True, False)]),
        ([30, 31, 32], 2, [], [(10, True, False), (20, True, False), (30, False, True), (31, False, True)]),
        # A record that is both is one anchor.
        ([10, 31, 32], 2, [], [(10, True, True), (20, True, False), (31, False, True)]),
        # The next takes the place, in both roles.
        ([10, 31, 32], 2, [10], [(11, True, False), (20, True, False), (31, False, True), (32, False, True)]),
        ([11, 31, 32], 1, [10], [(11, True, True), (20, True, False)]),
        ([30, 31, 32], 1, [10, 11, 30, 31], [(12, True, False), (20, True, False), (32, False, True)]),
        # Where nothing is left to take it, the place stays empty.
        ([30], 1, [20, 21, 30], [(10, True, False)]),
        ([30], 1, [10, 11, 12, 20, 21], [(30, False, True)]),
        ([30], 1, [10, 11, 12, 20, 21, 30], []),
    ],
)
def test_anchors_and_their_successors(
    pilot: list[int], size: int, failed: list[int], expected: list[tuple[int, bool, bool]]
) -> None:
    assert anchors(pilot, size, *failed) == expected


def test_a_record_of_the_pilot_is_none_of_its_own_neighbours() -> None:
    """Even where others lie on the same point."""
    pilot = rows(1, 2, 2, 2, 2, 9)
    pilot["position"] = np.arange(6)
    pilot["hash"] = np.arange(6)
    found = assemble(rows(5, clusters=[0]), rows(), pilot, 6, set())
    near = leave_one_out(found, nearest.prepare(np.ascontiguousarray(found["vector"])), 2)
    assert near["number"].tolist() == np.flatnonzero(found["pilot"]).tolist()
    assert near["hash"].tolist() == found["hash"][found["pilot"]].tolist()
    for row in near:
        assert row["number"] not in row["anchor"]
        own = found["vector"][row["number"], 0]
        others = np.sort(np.abs(np.delete(found["vector"][:, 0], row["number"]) - own))[:2]
        np.testing.assert_allclose(row["squared"], others**2, rtol=1e-5, atol=1e-4)
