"""The configuration: what it accepts, and what it says of what it does not."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tithe import config_source
from tithe.config import Config, example, load, schema
from tithe.config_errors import models_of
from tithe.transforms.errors import UsageError

REPOSITORY = Path(__file__).parent.parent

LEAST = """\
input: {files: a.jsonl}
embed: {kind: hashing, fields: [text]}
sample: {size: 10}
output: {path: out}
"""
COLUMN = LEAST.replace("{kind: hashing, fields: [text]}", "{kind: column, column: vector}")

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration file, returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "c.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def refusal(write: Write) -> Callable[..., list[str]]:
    """The lines of the error for a configuration that `load` refuses, without the first, which names the file."""

    def refusal(text: str, *overrides: str) -> list[str]:
        path = write(text)
        with pytest.raises(UsageError) as caught:
            load(path, overrides)
        first, *lines = str(caught.value).split("\n  ")
        assert first == f"{path}: the configuration is not valid"
        return lines

    return refusal


Refusal = Callable[..., list[str]]


# What is accepted


def test_the_least_configuration_has_the_documented_defaults(write: Write) -> None:
    assert load(write(LEAST)).model_dump() == {
        "input": {
            "files": "a.jsonl",
            "format": None,
            "id": None,
            "split_bytes": 67_108_864,
            "max_record_bytes": 16_777_216,
            "max_bad_fraction": 0.01,
            "on_bad_file": "error",
        },
        "embed": {
            "kind": "hashing",
            "fields": ["text"],
            "dimension": 256,
            "label": None,
            "label_kind": "class",
            "label_weight": 1.0,
        },
        "cluster": {"count": 200, "rounds": 8, "batch": 0.1, "seed": 1},
        "loss": {"kind": "constant"},
        "score": {"kind": None, "lipschitz": None, "power": 2, "floor": None, "neighbors": None},
        "sample": {
            "size": 10,
            "epsilon": None,
            "delta": None,
            "standard_error": None,
            "method": "systematic",
            "seed": 17,
        },
        "output": {"path": "out", "work": None, "keep_work": True, "shared": False},
    }


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("embed", "{kind: column, column: v, label: y, label_kind: number, label_weight: 0}"),
        ("embed", "{kind: tfhub, handle: models/use, field: text, signature: s, input: i, output: o, batch: 8}"),
        ("embed", "{kind: model, handler: 'a.b:c.d', field: text, code: a.py, batch: 1}"),
        ("loss", "{kind: none}"),
        ("loss", "{kind: column, column: loss, pilot: 50, max_calls: 300}"),
        ("loss", "{kind: file, path: losses.csv, pilot: 50, max_calls: 300}"),
        ("loss", "{kind: model, function: losses:loss, code: losses.py, batch: 4, retries: 0, pilot: 20}"),
        ("score", "{kind: plain, lipschitz: balanced, power: 1, floor: 0.5}"),
    ],
)
def test_every_kind_loads(write: Write, section: str, text: str) -> None:
    loaded = load(write(LEAST), [f"{section}={text}"]).model_dump()[section]
    assert loaded == loaded | yaml.safe_load(text)


def test_an_integer_serves_as_a_number(write: Write) -> None:
    loaded = load(write(LEAST), ["score.lipschitz=2", "cluster.batch=1", "input.max_bad_fraction=0"])
    assert (loaded.score.lipschitz, loaded.cluster.batch, loaded.input.max_bad_fraction) == (2.0, 1.0, 0.0)
    assert isinstance(loaded.score.lipschitz, float)


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.1e-2", "+1e-3", ".001", "1.0e-3"])
def test_numbers_with_an_exponent_are_numbers(write: Write, text: str) -> None:
    assert load(write(LEAST), [f"score.lipschitz={text}"]).score.lipschitz == 0.001


def test_reading_exponents_leaves_the_yaml_library_as_it_was() -> None:
    assert yaml.safe_load("1e-3") == "1e-3"
    assert config_source.parse("1e-3") == (0.001, [])


@pytest.mark.parametrize(("files", "patterns"), [("a", ["a"]), ("[a, b]", ["a", "b"])])
def test_files_are_one_glob_or_a_list(write: Write, files: str, patterns: list[str]) -> None:
    assert load(write(LEAST), [f"input.files={files}"]).input.patterns == patterns


def test_a_section_with_nothing_below_it_counts_as_left_out(write: Write) -> None:
    assert load(write(LEAST + "cluster:\nloss:\n")) == load(write(LEAST))


def test_the_configuration_is_frozen_and_plain(write: Write) -> None:
    loaded = load(write(LEAST))
    with pytest.raises(ValidationError):
        loaded.sample.size = 3
    assert Config.model_validate(json.loads(json.dumps(loaded.model_dump()))) == loaded


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(LEAST, encoding="utf-8-sig")
    assert load(tmp_path / "c.yaml").sample.size == 10


# Overrides


def test_overrides_win_in_their_order_and_make_sections(write: Write) -> None:
    loaded = load(write(LEAST), ["cluster.count=5", "cluster.count=6", "input.id=name", "output.keep_work=false"])
    assert (loaded.cluster.count, loaded.input.id, loaded.output.keep_work) == (6, "name", False)


def test_an_override_may_hold_equals_signs_and_a_whole_section(write: Write) -> None:
    loaded = load(write(LEAST), ["output.path=out/a=b", "embed={kind: column, column: v}"])
    assert (loaded.output.path, loaded.embed.kind) == ("out/a=b", "column")


def test_an_override_does_not_reach_what_an_alias_shares(write: Write) -> None:
    data, mistakes = config_source.read(write("a: &x {b: 1}\nc: *x\n"), ["a.b=2"])
    assert (data, mistakes) == ({"a": {"b": 2}, "c": {"b": 1}}, [])


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("sample.size", "--set sample.size: not of the form section.key=value"),
        ("=3", "--set =3: not of the form section.key=value"),
        ("sample..size=3", "--set sample..size=3: not of the form section.key=value"),
        ("input.files.x=3", "--set input.files.x=3: input.files has no keys of its own; its value is 'a.jsonl'"),
        ("sample.size=-1", "sample.size: -1 cannot be used; give an integer of at least 1 or null"),
        (
            "sample.sice=1",
            "sample.sice: unknown key; did you mean size?; "
            "sample has size, epsilon, delta, standard_error, method, seed",
        ),
    ],
)
def test_bad_overrides(refusal: Refusal, override: str, text: str) -> None:
    assert refusal(LEAST, override) == [text]


def test_an_override_that_is_no_yaml_says_how_to_quote_it(refusal: Refusal) -> None:
    (line,) = refusal(LEAST, "input.files=*.jsonl")
    assert line.startswith("--set input.files=*.jsonl: line 1, column 2: not valid YAML: ")
    assert line.endswith("put quotes around text that begins with *")


# Values


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("embed.dimension=0", "embed.dimension: 0 cannot be used; give an integer from 1 to 65536"),
        ("embed.dimension=65537", "embed.dimension: 65537 cannot be used; give an integer from 1 to 65536"),
        ("embed.dimension=2.0", "embed.dimension: 2.0 cannot be used; give an integer from 1 to 65536"),
        ("embed.dimension=true", "embed.dimension: true cannot be used; give an integer from 1 to 65536"),
        ("embed.dimension=null", "embed.dimension: null cannot be used; give an integer from 1 to 65536"),
        (
            "embed.dimension='9'",
            'embed.dimension: "9" cannot be used; give an integer from 1 to 65536; leave out its quotes',
        ),
        ("embed.fields=[]", "embed.fields: [] cannot be used; give a list, not empty, of text"),
        ("embed.fields=text", 'embed.fields: "text" cannot be used; give a list, not empty, of text'),
        (
            "embed.fields=[a, 3]",
            "embed.fields[1]: 3 cannot be used; give a list, not empty, of text; put quotes around it if it is text",
        ),
        ("embed.label_weight=-1", "embed.label_weight: -1 cannot be used; give a number of at least 0"),
        ("embed.label_weight=.inf", "embed.label_weight: inf cannot be used; give a number of at least 0"),
        (
            "embed.label_kind=klass",
            'embed.label_kind: "klass" cannot be used; give class, text or number; did you mean class?',
        ),
        ("input.files=[]", "input.files: [] cannot be used; give text or a list, not empty, of text"),
        ("input.files=''", 'input.files: "" cannot be used; give text or a list, not empty, of text'),
        ("input.files=[a, '']", 'input.files[1]: "" cannot be used; give text or a list, not empty, of text'),
        ("input.format=xml", 'input.format: "xml" cannot be used; give parquet, jsonl, csv, text or null'),
        ("input.id=no", "input.id: false cannot be used; give text or null; put quotes around it if it is text"),
        ("input.split_bytes=1023", "input.split_bytes: 1023 cannot be used; give an integer of at least 1024"),
        ("input.max_bad_fraction=1.1", "input.max_bad_fraction: 1.1 cannot be used; give a number from 0 to 1"),
        ("input.on_bad_file=skp", 'input.on_bad_file: "skp" cannot be used; give error or skip; did you mean skip?'),
        ("cluster.batch=0", "cluster.batch: 0 cannot be used; give a number above 0, at most 1"),
        ("cluster.batch=true", "cluster.batch: true cannot be used; give a number above 0, at most 1"),
        ("cluster.rounds=0", "cluster.rounds: 0 cannot be used; give an integer of at least 1"),
        (
            "cluster.seed=9223372036854775808",
            "cluster.seed: 9223372036854775808 cannot be used; give an integer from 0 to 9223372036854775807",
        ),
        ("cluster=[1]", "cluster: [1] cannot be used; give a mapping with the keys count, rounds, batch, seed"),
        ("score.lipschitz=true", "score.lipschitz: true cannot be used; give a number of at least 0, balanced or null"),
        ("score.lipschitz=-1", "score.lipschitz: -1 cannot be used; give a number of at least 0, balanced or null"),
        (
            "score.lipschitz=balancd",
            'score.lipschitz: "balancd" cannot be used; '
            "give a number of at least 0, balanced or null; did you mean balanced?",
        ),
        (
            "score.kind=smoothd",
            'score.kind: "smoothd" cannot be used; give smoothed, plain or null; did you mean smoothed?',
        ),
        ("score.power=3", "score.power: 3 cannot be used; give 1 or 2"),
        ("score.floor=1.5", "score.floor: 1.5 cannot be used; give a number from 0 to 1 or null"),
        ("score.neighbors=0", "score.neighbors: 0 cannot be used; give an integer from 1 to 32 or null"),
        (
            "cluster.count=automatic",
            'cluster.count: "automatic" cannot be used; give an integer of at least 1 or auto; did you mean auto?',
        ),
        ("sample.epsilon=1", "sample.epsilon: 1 cannot be used; give a number above 0, below 1 or null"),
        ("sample.delta=0", "sample.delta: 0 cannot be used; give a number above 0, below 1 or null"),
        ("sample.standard_error=2", "sample.standard_error: 2 cannot be used; give a number above 0, below 1 or null"),
        (
            "sample.method=systemtic",
            'sample.method: "systemtic" cannot be used; '
            "give systematic, pareto, multinomial or poisson; did you mean systematic?",
        ),
        (
            "loss={kind: column, column: loss, pilot: -1}",
            "loss.pilot: -1 cannot be used; give an integer of at least 0",
        ),
        (
            "loss={kind: file, path: a.csv, max_calls: 0}",
            "loss.max_calls: 0 cannot be used; give an integer of at least 1 or null",
        ),
        (
            "loss={kind: model, function: 'a:b', retries: 11}",
            "loss.retries: 11 cannot be used; give an integer from 0 to 10",
        ),
        ("loss={kind: file}", "loss.path: missing; give text"),
        ("output.keep_work=1", "output.keep_work: 1 cannot be used; give true or false"),
        (
            "loss={kind: model, function: losses.loss}",
            'loss.function: "losses.loss" cannot be used; give module:name, as in losses:loss',
        ),
    ],
)
def test_values_out_of_range_or_of_the_wrong_type(refusal: Refusal, override: str, text: str) -> None:
    assert refusal(LEAST, override) == [text]


def test_a_long_value_is_cut(refusal: Refusal) -> None:
    (line,) = refusal(LEAST, f"cluster.count={'x' * 1000}")
    assert len(line) < 150 and "x…" in line


# Keys and kinds


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("clutser={}", "clutser: unknown section; did you mean cluster?; there are input, embed, cluster, loss, "),
        ("clutser=null", "clutser: unknown section; did you mean cluster?"),
        ("rounds=3", "rounds: unknown section; did you mean cluster.rounds?"),
        ("dimension=3", "dimension: unknown section; did you mean embed.dimension?"),
        ("xyzzy=3", "xyzzy: unknown section; there are input, embed, cluster, loss, score, sample, output"),
        ("1=3", "1: unknown section; there are input"),
        ("cluster.{}=3", "cluster.{}: unknown key; cluster has count, rounds, batch, seed"),
        ("embed.dimensoin=3", "embed.dimensoin: unknown key; did you mean dimension?; embed of kind hashing has "),
        ("embed.column=v", "embed.column: unknown key; it belongs to embed.kind column; embed of kind hashing has "),
        ("embed.batch=3", "embed.batch: unknown key; it belongs to embed.kind tfhub or model; "),
        ("loss.column=v", "loss.column: unknown key; it belongs to loss.kind column; loss of kind constant has kind"),
    ],
)
def test_unknown_keys(refusal: Refusal, override: str, text: str) -> None:
    (line,) = refusal(LEAST + "loss: {kind: constant}\n", override)
    assert line.startswith(text)


def test_keys_that_are_no_text(refusal: Refusal) -> None:
    lines = refusal(LEAST + "cluster: {1: 2}\n3: 4\n")
    assert [line.split(";")[0] for line in lines] == ["cluster.1: unknown key", "3: unknown section"]


@pytest.mark.parametrize(
    ("embed", "text"),
    [
        (
            "{kind: hash, fields: [a]}",
            'embed.kind: "hash" cannot be used; give column, hashing, tfhub or model; did you mean hashing?',
        ),
        ("{kind: [1]}", "embed.kind: [1] cannot be used; give column, hashing, tfhub or model"),
        ("{kind: null}", "embed.kind: null cannot be used; give column, hashing, tfhub or model"),
        ("{fields: [a]}", "embed.kind: missing; give column, hashing, tfhub or model"),
        ("{}", "embed.kind: missing; give column, hashing, tfhub or model"),
        ("5", "embed: 5 cannot be used; give a mapping with the key kind: column, hashing, tfhub or model"),
        ("{kind: column}", "embed.column: missing; give text"),
        ("{kind: hashing}", "embed.fields: missing; give a list, not empty, of text"),
        ("{kind: model, field: f}", "embed.handler: missing; give module:name, as in losses:loss"),
    ],
)
def test_kinds(refusal: Refusal, embed: str, text: str) -> None:
    assert refusal(LEAST, f"embed={embed}") == [text]


def test_an_empty_file_lacks_what_must_be_given(refusal: Refusal) -> None:
    assert refusal("# nothing\n") == [
        "input: missing; give a mapping with the keys files, format, id, split_bytes, max_record_bytes, "
        "max_bad_fraction, on_bad_file",
        "embed: missing; give a mapping with the key kind: column, hashing, tfhub or model",
        "sample: missing; give a mapping with the keys size, epsilon, delta, standard_error, method, seed",
        "output: missing; give a mapping with the keys path, work, keep_work, shared",
    ]


def test_all_mistakes_are_told_at_once(refusal: Refusal) -> None:
    text = (
        "input: {files: a, files: b}\nembed: {kind: hashing, fields: 3, dimension: 0}\nsample: {size: 0}\noutputs: {}\n"
    )
    assert [line.split(":")[0] for line in refusal(text, "cluster.count=0", "x")] == [
        "input.files",
        "--set x",
        "embed.fields",
        "embed.dimension",
        "cluster.count",
        "sample.size",
        "output",
        "outputs",
    ]


def test_no_word_of_the_library_reaches_the_user(refusal: Refusal) -> None:
    lines = refusal("embed: {kind: model}\nloss: {kind: 3}\ncluster: 4\nscore: {lipschitz: [1]}\nsample: {size: a}\n")
    text = " ".join(lines).lower()
    assert not any(word in text for word in ("pydantic", "http", "input should", "discriminator", "constrained"))


# Files


def failure(path: Path, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(UsageError) as caught:
        load(path, overrides)
    return str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    absent = tmp_path / "absent.yaml"
    assert failure(absent).startswith(f"{absent}: cannot be read: No such file or directory")
    assert failure(tmp_path).startswith(f"{tmp_path}: cannot be read: Is a directory")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: 1\nb: \xe9\n".encode("latin-1"))
    assert failure(latin) == f"{latin}, line 2: not UTF-8; save the file as UTF-8"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("input:\n\tfiles: a\n", "line 2, column 1: not valid YAML: "),
        ("input: {files: a\n", "line 2, column 1: not valid YAML: "),
        ("input:\n  files: *.jsonl\n", "line 2, column 11: not valid YAML: "),
        ("input: !!python/name:os.system\n", "line 1, column 8: not valid YAML: "),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: not valid YAML: "),
        ("a: 1\nb: \x01\n", "line 2: not valid YAML: "),
        ("a: 2024-13-45\n", "not valid YAML: "),
        ("- a\n", "line 1: holds no mapping"),
        ("text\n", "line 1: holds no mapping"),
    ],
)
def test_malformed_files_name_the_line(write: Write, text: str, start: str) -> None:
    path = write(text)
    assert failure(path).startswith(f"{path}, {start}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (LEAST + "sample: {size: 3}\n", "sample: given twice, in lines 3 and 5; keep one of them"),
        (COLUMN + "cluster:\n  count: 3\n  seed: 1\n  count: 4\n", "cluster.count: given twice, in lines 6 and 8;"),
    ],
)
def test_keys_given_twice(refusal: Refusal, text: str, line: str) -> None:
    (told,) = refusal(text)
    assert told.startswith(line)


# What one key demands of another

LOSSES = "{kind: column, column: loss}"


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["sample={}"], "sample.size: missing; give it, or sample.standard_error for a size from the pilot"),
        (["sample.size=null"], "sample.size: missing; give it, or sample.standard_error"),
        (
            ["sample={size: 3, standard_error: 0.1}", f"loss={LOSSES}"],
            "sample: size and standard_error both set the size; give one of them",
        ),
        (["sample.delta=0.1"], "sample.epsilon and sample.delta go together"),
        (
            ["sample={epsilon: 0.1, delta: 0.1, method: multinomial}"],
            "sample.epsilon: the promise holds for sample.method multinomial, score.kind plain and a number for",
        ),
        (
            ["sample={epsilon: 0.1, delta: 0.1}", "score={kind: plain, lipschitz: 2}"],
            "sample.epsilon: the promise holds for sample.method multinomial",
        ),
        (
            ["sample={epsilon: 0.1, delta: 0.1, method: multinomial}", "score={kind: plain, lipschitz: 2, floor: 1}"],
            "score.floor: with sample.epsilon it must be below 1",
        ),
        (["sample={standard_error: 0.1}"], "sample.standard_error: needs a pilot"),
        (["cluster.count=auto"], "cluster.count: auto needs loss.max_calls"),
        (
            ["cluster.count=auto", "sample={standard_error: 0.1}", "loss={kind: column, column: l, max_calls: 300}"],
            "cluster.count: auto needs sample.size",
        ),
        (
            ["cluster.count=auto", "loss={kind: column, column: l, max_calls: 200}"],
            "loss.max_calls: 200 is below cluster.count + loss.pilot = 201; raise it, or lower these",
        ),
        (
            ["loss={kind: column, column: l, max_calls: 399}"],
            "loss.max_calls: 399 is below cluster.count + loss.pilot = 4",
        ),
        (["loss={kind: none}", "sample.method=pareto"], "sample.method: pareto with loss.kind none would be"),
        (["score.kind=smoothed"], "score.kind: smoothed needs losses, and loss.kind is constant; use plain"),
        (["loss={kind: column, column: l, pilot: 19}"], "loss.pilot: 19 is too few to choose a smoothed proxy"),
        ([f"loss={LOSSES}", "score.lipschitz=balanced"], "score.lipschitz: balanced goes with score.kind plain"),
        ([f"loss={LOSSES}", "score.power=1"], "score.power: 1 goes with score.kind plain"),
        (["score.neighbors=3"], "score.neighbors: goes with score.kind smoothed"),
    ],
)
def test_keys_that_do_not_go_together(refusal: Refusal, overrides: list[str], text: str) -> None:
    (line,) = refusal(LEAST, *overrides)
    assert line.startswith(text)


@pytest.mark.parametrize(
    "overrides",
    [
        ["sample={epsilon: 0.1, delta: 0.1, method: multinomial}", "score={kind: plain, lipschitz: 0, floor: 0.2}"],
        ["sample={standard_error: 0.1}", f"loss={LOSSES}"],
        ["cluster.count=auto", "loss={kind: column, column: l, max_calls: 201}"],
        ["loss={kind: column, column: l, max_calls: 400}"],
        ["loss={kind: column, column: l, pilot: 0}", "score={kind: plain, lipschitz: balanced, power: 1}"],
        [f"loss={LOSSES}", "score={lipschitz: 3, floor: 1, neighbors: 32}"],
        ["loss={kind: none}"],
    ],
)
def test_keys_that_go_together(write: Write, overrides: list[str]) -> None:
    load(write(LEAST), overrides)


# Help


def test_the_example_loads_and_has_every_key_with_a_comment(write: Write) -> None:
    loaded = load(write(example()))
    assert loaded.sample.size == 2000
    lines = [line.strip() for line in example().splitlines()]
    told = {name: field.description for _, fields in sections() for name, field in fields.items()}
    keys = {line.lstrip("# ").split(":")[0] for line in lines}
    assert set(told) <= keys
    for before, line in pairwise(lines):
        if line and not line.startswith("#"):
            assert before.startswith("# "), f"no comment above {line}"


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        *(("embed", kind) for kind in ("column", "tfhub", "model")),
        *(("loss", kind) for kind in ("constant", "none", "column", "file", "model")),
    ],
)
def test_the_other_kinds_of_the_example_load_without_their_comment_signs(write: Write, section: str, kind: str) -> None:
    text = example()
    block = text[text.index(f"\n{section}:") :].split("\n\n# ")[0]
    if kind != "constant":
        block = block.split(f"## Instead, for kind {kind}:\n")[1].split("\n\n")[0].replace("  # ", "  ")
        block = f"{section}:\n{block}"
    chosen = yaml.safe_load(block)[section]
    assert load(write(text), [f"{section}={json.dumps(chosen)}"]).model_dump()[section]["kind"] == kind


def sections() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each model of each section with its fields."""
    for name, field in Config.model_fields.items():
        for model in models_of(field):
            yield name, model.model_fields


def test_every_key_has_one_line_of_help() -> None:
    for section, fields in [("", Config.model_fields), *sections()]:
        for name, field in fields.items():
            where = f"{section}.{name}"
            assert field.description, where
            assert "\n" not in field.description and field.description.endswith("."), where
            assert len(field.description) <= 116, where  # with its comment sign it fits a line of the example


def test_the_schema_is_closed_and_describes_every_key() -> None:
    tree = json.loads(json.dumps(schema()))
    assert tree["required"] == ["input", "embed", "sample", "output"]
    for name, section in [("", tree), *tree["$defs"].items()]:
        assert section["additionalProperties"] is False, name
        for key, value in section["properties"].items():
            described = value if "description" in value else tree["$defs"][value["$ref"].removeprefix("#/$defs/")]
            assert described["description"], f"{name}.{key}"

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from ([node["$ref"]] if "$ref" in node else [])
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    assert {reference.removeprefix("#/$defs/") for reference in references(tree)} <= set(tree["$defs"])


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_configurations_of_the_repository_load(path: Path) -> None:
    load(path)
    lines = path.read_text().splitlines()
    for before, line in pairwise(lines):
        if line.startswith("  ") and not line.startswith("  #"):
            assert before.startswith("  # "), f"{path.name}: no comment above {line}"


def test_a_configuration_is_read_without_the_heavy_libraries() -> None:
    code = (
        "import sys, tithe.config; tithe.config.example();"
        "print(*sorted({'apache_beam', 'numpy', 'pyarrow', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
