"""`type: SensitivitySample` in a Beam YAML pipeline: the example of the repository, on a small corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from apache_beam.yaml import main
from corpora import configure, dead_letters, manifest, sample, select, write_lines

pytestmark = pytest.mark.slow  # whole runs

EXAMPLE = Path(__file__).parent.parent / "configs/beam/pipeline.yaml"
CHANGES: dict[str, Any] = {"cluster": {"count": 8, "rounds": 1}, "sample": {"size": 30}}


def corpus_lines() -> list[str]:
    words = ["add", "sort", "open", "read", "join", "print", "parse"]
    texts = [" ".join(words[(i * k) % 7] for k in (1, 2, 3, 5)) + f" {i}" for i in range(200)]
    good = [{"name": f"f{i}", "docstring": None if i % 3 else text, "source": text} for i, text in enumerate(texts)]
    return [json.dumps(record) for record in [*good, {"name": "bad", "docstring": None, "source": None}]]


def example(folder: Path, **section: Any) -> Any:
    """The example with its paths in a folder, and a smaller selection; sections of the configuration replaced."""
    found = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    corpus, selection, *writers = found["pipeline"]["transforms"]
    corpus["config"]["path"] = f"{folder}/corpus/*.jsonl"
    selection["config"]["config"] |= {**CHANGES, "output": {"path": f"{folder}/out"}, **section}
    for writer in writers:
        writer["config"]["path"] = f"{folder}/{Path(writer['config']['path']).name}"
    return found


def run(folder: Path, pipeline: Any) -> None:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(pipeline), encoding="utf-8")
    main.run([f"--yaml_pipeline_file={path}", "--runner=FnApiRunner"])


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for path in folder.glob(f"{name}*") for line in path.read_text().splitlines()]


def test_the_example_gives_the_sample_of_the_command(tmp_path: Path) -> None:
    write_lines(tmp_path / "corpus/a.jsonl", corpus_lines())
    run(tmp_path, example(tmp_path))
    config = configure(
        tmp_path,
        f"{tmp_path}/corpus/*.jsonl",
        input={"id": "name"},
        embed={"kind": "hashing", "fields": ["docstring", "source"]},
        sample={"size": 30, "method": "systematic"},
        output={"path": f"{tmp_path}/command"},
    )
    assert select(config, "--quiet") == 0
    assert manifest(tmp_path / "out")["sample_digest"] == manifest(tmp_path / "command")["sample_digest"]
    drawn = records(tmp_path, "beam-sample.jsonl")
    weights = {record["name"]: record["tithe_weight"] for record in sample(tmp_path / "command")}
    # Beam writes ten digits.
    assert {record["name"]: record["tithe_weight"] for record in drawn} == pytest.approx(weights, abs=1e-9)
    [bad] = records(tmp_path, "beam-bad.jsonl")
    assert (bad["name"], bad["tithe_reason"]) == ("bad", dead_letters(tmp_path / "command")[0]["reason"])


def test_a_mistake_in_the_configuration_is_told_before_anything_runs(tmp_path: Path) -> None:
    write_lines(tmp_path / "corpus/a.jsonl", corpus_lines())
    with pytest.raises(ValueError, match=r"sample\.size"):
        run(tmp_path, example(tmp_path, sample={"size": 0}))
    assert not (tmp_path / "out").exists()
