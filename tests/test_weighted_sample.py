"""`tithe.WeightedSample`: the draws of the command over a PCollection of (id, score)."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.typehints.row_type import RowTypeConstraint
from corpora import configure, manifest, sample, select, table, write_parquet

import tithe
from tithe.transforms import ids
from tithe.transforms.draw import CombineProxyTotals, Proxies, ProxyRule, Reservoir, gather_draws, proxy_totals
from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.weighted_sample import check_scores, choose_sampler, draw, pick

Pairs = list[tuple[str, float]]


def drawn_from(pairs: Any, step: tithe.WeightedSample, parts: int = 1) -> list[tuple[Any, float, float]]:
    """What the transform draws, through a whole pipeline fed by so many sources, in the order of the ids."""
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            sources = [pipeline | f"Create{i}" >> beam.Create(pairs[i::parts], reshuffle=False) for i in range(parts)]
            rows = sources | beam.Flatten() | step
            assert isinstance(rows.element_type, RowTypeConstraint)
            lines = rows | beam.Map(lambda row: json.dumps([row.id, row.weight, row.probability]))
            lines | beam.io.WriteToText(f"{folder}/drawn", num_shards=1)
        [path] = Path(folder).iterdir()
        found = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted((row[0], row[1], row[2]) for row in found)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("weighted")
    write_parquet(base / "corpus", table(300), files=2)
    return base


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pareto", "multinomial", "poisson"])
def test_the_draw_is_that_of_the_command(corpus: Path, method: str) -> None:
    config = configure(corpus, f"{corpus}/corpus/*.parquet", sample={"method": method, "seed": 5})
    assert select(config, "--quiet") == 0
    output = corpus / "out"
    facts = manifest(output)
    folder = {stage["name"]: str(output / "work" / stage["folder"]) for stage in facts["stages"]}
    rule = ProxyRule(**{name: facts["proxy"][name] for name in ProxyRule.__dataclass_fields__})
    vectors = str(output / "work" / facts["vectors"])
    proxies = Proxies(vectors, folder["score"], f"{folder['losses']}/losses.npy", rule)
    names = [str(name) for name in table(300)["id"].to_pylist()]
    by_hash = dict(zip(ids.id_hashes(list(names))[0].tolist(), names, strict=True))
    lines = (Path(folder["plan"]) / "plan.jsonl").read_text().splitlines()
    pairs = [
        (by_hash[h], p)
        for line in lines
        for rows, scores in proxies.read(json.loads(line)[0])
        for h, p in zip(rows["hash"].tolist(), proxies.proxy(scores).tolist(), strict=True)
    ]
    assert len(pairs) == 300
    expected = sorted((r["id"], r["tithe_weight"], r["tithe_probability"]) for r in sample(output).to_pylist())
    assert drawn_from(pairs, tithe.WeightedSample(40, method, 5)) == expected


def scored(n: int = 60, seed: int = 3) -> Pairs:
    values = np.random.default_rng(seed).gamma(0.5, 1.0, n)
    values[:2] = 0.0, 50.0  # never drawn; drawn for certain
    return [(f"r{i}", float(value)) for i, value in enumerate(values)]


def test_order_and_bundles_change_nothing() -> None:
    step = tithe.WeightedSample(20, seed=9)
    first = drawn_from(scored(), step)
    assert len(first) == 20 and first == drawn_from(scored()[::-1], step)
    assert drawn_from(scored(), step, parts=3) == first


@pytest.mark.parametrize("method", ["pareto", "multinomial", "poisson"])
def test_weighted_totals_are_unbiased(method: str) -> None:
    pairs = scored()
    value = np.sqrt([score for _, score in pairs])  # of the records with a chance
    batches = [check_scores(pairs[:25]), check_scores(pairs[25:])]
    combine, size = CombineProxyTotals(20), 20
    totals = combine.merge_accumulators([proxy_totals(batch.scores, size) for batch in batches])
    by_id = dict(zip([name for name, _ in pairs], value.tolist(), strict=True))
    estimates = []
    for seed in range(400):
        sampler = choose_sampler(totals, len(pairs), method, size, seed)
        reservoir = Reservoir(sampler.size)
        chosen = gather_draws(reservoir.extract_output([draw(batch, sampler) for batch in batches]))
        rows = [row for batch in batches for _, row in pick(batch, chosen)]
        estimates.append(sum(row.weight * by_id[row.id] for row in rows))
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - value.sum()) < 3 * error


def test_all_are_taken_where_the_size_reaches_their_number() -> None:
    pairs = [(1, 0.0), (2, 3.0), (3, 1.0)]
    assert drawn_from(pairs, tithe.WeightedSample(3)) == [(1, 1.0, 1.0), (2, 1.0, 1.0), (3, 1.0, 1.0)]
    assert drawn_from([], tithe.WeightedSample(3)) == []


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("a", 1.0), ("b", -1.0)], "id 'b': the score -1.0 is not a finite number of at least 0"),
        ([("a", 1.0), ("b", float("nan"))], "id 'b': the score nan"),
        ([("a", 1.0), ("b", "x")], "id 'b': the score 'x'"),
        ([("a", 1.0), (None, 2.0)], "id None: missing id"),
        ([("a", 0.0), ("b", 0.0)], "every score is 0"),
        ([("a", 9.0), ("a", 9.0), ("b", 0.5)], "id 'a' is given 2 times"),
    ],
)
def test_scores_that_cannot_be_used(pairs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        drawn_from(pairs, tithe.WeightedSample(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "size: 0"),
        ((1, "systematic"), "use SensitivitySample"),
        ((1, "uniform"), "none of pareto, multinomial, poisson"),
        ((1, "pareto", -1), "seed: -1"),
    ],
)
def test_bad_arguments_are_told_when_the_pipeline_is_built(arguments: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tithe.WeightedSample(*arguments)
