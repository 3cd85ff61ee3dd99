"""What is wrong with a configuration, in words: the key, the value, what is allowed, the nearest valid key."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

LONGEST_VALUE = 80


def kinds(section: FieldInfo) -> dict[str, type[BaseModel]]:
    """The models of a section that has several, by their `kind`; empty for a section that has one."""
    models = get_args(section.annotation)
    return {get_args(model.model_fields["kind"].annotation)[0]: model for model in models}


def models_of(section: FieldInfo) -> list[type[BaseModel]]:
    """The models of a section: one, or one for each kind."""
    model = section.annotation
    return [model] if isinstance(model, type) and issubclass(model, BaseModel) else list(kinds(section).values())


def explain(error: ValidationError, config: type[BaseModel]) -> list[str]:
    """One line for each key at fault, in the order of the sections."""
    lines: dict[str, str] = {}
    items: set[str] = set()  # keys of which an item is at fault: that says more than the key itself
    for detail in error.errors(include_url=False, include_context=False):
        key, item, line = explain_one(detail["type"], detail["loc"], detail["input"], config)
        if item:
            items.add(key)
        lines.setdefault(key + item, f"{key}{item}: {line}")
    return [line for key, line in lines.items() if key not in items]


def explain_one(
    error: str, location: tuple[int | str, ...], value: Any, config: type[BaseModel]
) -> tuple[str, str, str]:
    """The key, the index of the item in it where there is one, and what is wrong with it."""
    name, *rest = location
    section = config.model_fields.get(str(name))
    if section is None:
        return str(name), "", unknown_section(str(name), config)
    models = kinds(section)
    if not rest:  # the section as a whole, or its kind
        if models and isinstance(value, Mapping) and error != "missing":
            allowed = one_of(models)
            if "kind" not in value:
                return f"{name}.kind", "", f"missing; give {allowed}"
            return f"{name}.kind", "", refused(value["kind"], allowed, nearest(value["kind"], models))
        allowed = (
            f"a mapping with the key kind: {one_of(models)}"
            if models
            else f"a mapping with the keys {', '.join(models_of(section)[0].model_fields)}"
        )
        return str(name), "", f"missing; give {allowed}" if error == "missing" else refused(value, allowed)
    model = models[str(rest.pop(0))] if models else models_of(section)[0]
    key = str(rest[0])
    if key not in model.model_fields:
        return f"{name}.{key}", "", unknown_key(str(name), key, model, models)
    schema = model.model_json_schema()["properties"][key]
    if error == "missing":
        return f"{name}.{key}", "", f"missing; give {phrase(schema)}"
    item = "".join(f"[{part}]" for part in rest[1:] if isinstance(part, int))
    return f"{name}.{key}", item, refused(value, phrase(schema), hint(value, schema))


def refused(value: Any, allowed: str, remedy: str = "") -> str:
    """Says that a value cannot be used, and which can."""
    return f"{show(value)} cannot be used; give {allowed}{remedy}"


def unknown_section(name: str, config: type[BaseModel]) -> str:
    """What to say of a name at the top that is no section: the section it resembles, or the one it is a key of."""
    meant = nearest(name, config.model_fields)
    if not meant:
        owners = [
            f"{section}.{name}"
            for section, field in config.model_fields.items()
            if any(name in model.model_fields for model in models_of(field))
        ]
        meant = f"; did you mean {owners[0]}?" if owners else ""
    return f"unknown section{meant}; there are {', '.join(config.model_fields)}"


def unknown_key(section: str, key: str, model: type[BaseModel], models: Mapping[str, type[BaseModel]]) -> str:
    """What to say of a key that a section lacks: the key it resembles, or the kinds of the section that have it."""
    meant = nearest(key, model.model_fields)
    owners = [kind for kind, other in models.items() if key in other.model_fields]
    if owners:
        meant = f"; it belongs to {section}.kind {' or '.join(owners)}"
    of_kind = "".join(f" of kind {kind}" for kind, other in models.items() if other is model)
    return f"unknown key{meant}; {section}{of_kind} has {', '.join(model.model_fields)}"


def nearest(name: object, names: Iterable[str]) -> str:
    """A question for the name that is nearest to one that is not there; empty where none is near."""
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def hint(value: Any, schema: Mapping[str, Any]) -> str:
    """How to write a value that YAML read as another type than it was meant as."""
    options = schema.get("anyOf", [schema])
    options = [*options, *(option["items"] for option in options if "items" in option)]
    choices = [choice for option in options for choice in option.get("enum", [option.get("const")]) if choice]
    if isinstance(value, str) and choices:
        return nearest(value, choices)
    if isinstance(value, str) and any(option.get("type") in ("integer", "number") for option in options):
        try:
            float(value)
        except ValueError:
            return ""
        return "; leave out its quotes"
    if any(option.get("type") == "string" for option in options) and not choices:
        return "" if value is None or isinstance(value, str | list | dict) else "; put quotes around it if it is text"
    return ""


def phrase(schema: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words: "an integer from 1 to 65536"."""
    if "anyOf" in schema:
        return one_of([part for option in schema["anyOf"] for part in option.get("enum", [phrase(option)])])
    if "enum" in schema or "const" in schema:
        return one_of(schema.get("enum", [schema.get("const")]))
    if "pattern" in schema:
        return "module:name, as in losses:loss"
    match schema["type"]:
        case "integer":
            return "an integer" + bounds(schema)
        case "number":
            return "a number" + bounds(schema)
        case "boolean":
            return "true or false"
        case "array":
            return f"a list, not empty, of {phrase(schema['items'])}"
        case "string":
            return "text"
        case other:
            return str(other)


def bounds(schema: Mapping[str, Any]) -> str:
    """The range that a schema of a number states."""
    low, above, high, below = (
        int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for bound in map(schema.get, ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"))
    )
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if above is not None and high is not None:
        return f" above {above}, at most {high}"
    if above is not None and below is not None:
        return f" above {above}, below {below}"
    return f" of at least {low}" if low is not None else ""


def one_of(names: Iterable[object]) -> str:
    """The names as a choice."""
    *others, last = map(str, names)
    return f"{', '.join(others)} or {last}" if others else last


def show(value: Any) -> str:
    """A value as YAML would have it, cut where it is long."""
    if value is None or isinstance(value, bool | str):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = repr(value) if not isinstance(value, int) or abs(value) < 10**LONGEST_VALUE else "a number that long"
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
