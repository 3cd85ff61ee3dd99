"""The commented example of a configuration, written from the help texts of the models."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tithe.config_errors import kinds, models_of

HEAD = """\
# A configuration of `tithe select`, with every key. A key that is left out has the value shown here, except
# input.files, embed with its kind and what that needs, sample.size and output.path: these must be given.
"""


def example(config: type[BaseModel], chosen: Mapping[str, type[BaseModel]]) -> str:
    """A YAML file with every key, each below a line of help.

    Of a section with several kinds, the model in `chosen` is written out; the others follow in comments, without the
    keys that both inherit.
    """
    lines = [HEAD]
    for name, section in config.model_fields.items():
        model = chosen.get(name) or models_of(section)[0]
        lines += [f"# {section.description}", f"{name}:", *(f"  {line}" for line in keys(model.model_fields, model))]
        for kind, other in kinds(section).items():
            if other is not model:
                shared = set(model.model_fields) - set(other.__annotations__)
                own = {key: field for key, field in other.model_fields.items() if key not in shared}
                lines += ["", f"  ## Instead, for kind {kind}:", *(f"  # {line}" for line in keys(own, other))]
        lines.append("")
    return "\n".join(lines)


def keys(fields: Mapping[str, FieldInfo], model: type[BaseModel]) -> Iterator[str]:
    """For each field its help and its key with a value: a model's own fields first, then those it inherits."""
    for name in sorted(fields, key=lambda name: name not in model.__annotations__):
        yield f"# {fields[name].description}"
        yield f"{name}: {value(fields[name])}"


def value(field: FieldInfo) -> str:
    """A value for a field in YAML, on one line: its example, its default, or the kind it stands for."""
    if field.examples:
        content: Any = field.examples[0]
    elif field.is_required():
        content = get_args(field.annotation)[0]
    else:
        content = field.get_default(call_default_factory=True)
    text = yaml.safe_dump(content, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")
