"""From a YAML file and `--set` overrides to plain data; knows nothing of the keys."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tithe.transforms.errors import UsageError


class Loader(yaml.SafeLoader):
    """The safe loader, which also reads 1e-3 as a number, as YAML 1.2 does, and not as text."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read(path: Path, overrides: Sequence[str]) -> tuple[dict[Any, Any], list[str]]:
    """The data of a file with the overrides in place, and what is wrong with them (keys given twice, bad overrides).

    Raises UsageError where the file cannot be read, is not YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; give the path of a configuration file") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error
    try:
        data, mistakes = parse(text)
    except ValueError as error:
        raise UsageError(f"{path}, {error}") from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise UsageError(f"{path}, line 1: holds no mapping; it must begin with a section, as in `input:`")

    for override in overrides:
        key, equals, value_text = override.partition("=")
        keys = key.strip().split(".")
        try:
            if not equals or not all(keys):
                raise ValueError("not of the form section.key=value")
            value, twice = parse(value_text)
            mistakes += [f"--set {override}: {mistake}" for mistake in twice]
            data = replaced(data, keys, value)
        except ValueError as error:
            mistakes.append(f"--set {override}: {error}")
    return data, mistakes


def parse(text: str) -> tuple[Any, list[str]]:
    """The data of one YAML document, and the keys that it gives twice. Raises ValueError with the line of the fault."""
    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, []
            twice = repeated_keys(node)
            return loader.construct_document(node), twice
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        told = " ".join(part for part in (error.context, error.problem) if part)
        remedy = "; put quotes around text that begins with *" if "alias" in told else ""
        raise ValueError(f"{line}not valid YAML: {told}{remedy}") from error
    except yaml.reader.ReaderError as error:
        line = f"line {text.count(chr(10), 0, error.position) + 1}"
        raise ValueError(f"{line}: not valid YAML: a character that text cannot hold ({error.character!r})") from error
    except ValueError as error:  # a number or date that Python cannot hold
        raise ValueError(f"not valid YAML: {error}") from error


def repeated_keys(node: yaml.Node, path: str = "") -> list[str]:
    """A line for each key that a mapping at or below a node gives more than once; YAML would keep the last silently."""
    if isinstance(node, yaml.SequenceNode):
        return [mistake for item in node.value for mistake in repeated_keys(item, path)]
    if not isinstance(node, yaml.MappingNode):
        return []
    mistakes: list[str] = []
    first: dict[str, int] = {}
    for key, value in node.value:
        name = f"{path}{key.value}"
        line = key.start_mark.line + 1
        if name in first:
            mistakes.append(f"{name}: given twice, in lines {first[name]} and {line}; keep one of them")
        first.setdefault(name, line)
        mistakes += repeated_keys(value, f"{name}.")
    return mistakes


def replaced(data: dict[Any, Any], keys: Sequence[str], value: Any, path: str = "") -> dict[Any, Any]:
    """A copy of nested mappings with the value at `keys`. Raises ValueError where a key on the way holds no mapping."""
    key, *rest = keys
    if not rest:
        return {**data, key: value}
    inner = data.get(key)
    if inner is None:
        inner = {}
    if not isinstance(inner, dict):
        raise ValueError(f"{path}{key} has no keys of its own; its value is {inner!r}")
    return {**data, key: replaced(inner, rest, value, f"{path}{key}.")}
