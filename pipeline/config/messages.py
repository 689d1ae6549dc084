"""Validation errors of a configuration as one line for the person who wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pipeline.errors import one_line, suggest
from pipeline.section import SectionError

# pydantic's messages that use Python's words, in the words of YAML.
_MESSAGES = {
    "tuple_type": "input should be a list such as [a, b]",
    "too_short": "input should not be empty",
    "model_type": "input should be a section such as {key: value}",
    "dict_type": "input should be a section such as {key: value}",
}

Location = tuple[Any, ...]


def describe(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Format a validation error as one line.

    The line has the key and the problem; for an unknown key it has the nearest known key.

    Args:
        model: the model that refused the input.
        prefix: the section of the model, such as "dataset.", put before each key.
    """
    items_by_key: dict[Location, list[Mapping[str, Any]]] = {}
    for item in error.errors(include_url=False):
        if item["type"] == "too_short" and item["input"]:
            continue  # pydantic counts only the valid items of a list, and reports the others themselves
        items_by_key.setdefault(_key_of(item["loc"], model), []).append({**item})
    texts = [_describe_key(key, items, model, prefix) for key, items in items_by_key.items()]
    return "; ".join(texts[:3])


def _key_of(location: Location, model: type[BaseModel]) -> Location:
    """Return the location of the user's key in a configuration.

    The parts by which pydantic names the members of a union are left out.
    """
    depth = 0
    section: type[BaseModel] | None = model
    while section is not None and depth < len(location):
        section = _section(section, location[depth])
        depth += 1
    return (*location[:depth], *(part for part in location[depth:] if isinstance(part, int)))


def _section(model: type[BaseModel], key: Any) -> type[BaseModel] | None:
    """Return the model of a key's section.

    Return None if the key is unknown or its value is not a section.
    """
    annotation = model.model_fields[key].annotation if key in model.model_fields else None
    if type(None) in get_args(annotation):  # a section that may be null
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _describe_key(key: Location, items: Sequence[Mapping[str, Any]], model: type[BaseModel], prefix: str) -> str:
    """Format the errors of one key.

    Several errors are those of a union's members, which are alternatives.
    """
    where = prefix + ".".join(str(part) for part in key)
    item = items[0]
    cause = item.get("ctx", {}).get("error")
    if isinstance(cause, SectionError):
        return describe(cause.error, cause.model, f"{cause.section}.")
    if isinstance(cause, ValueError):
        return prefix + one_line(cause)
    if item["type"] == "extra_forbidden":
        return f"{where}: {_describe_unknown(key, model)}"
    items = _without_other_sections(items)
    texts = [text for each in items if (text := _describe_alternative(each, alone=len(items) == 1))]
    alternatives = list(dict.fromkeys(texts))
    message = " or ".join([alternatives[0], *(text.removeprefix("input should ") for text in alternatives[1:])])
    return f"{where}: {message}" + ("" if item["type"] == "missing" else f", not {item['input']!r}")


def _without_other_sections(items: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Leave out the sections of a union that lack a given key, if another has all."""
    sections = {item["loc"][:-1] for item in items if len(item["loc"]) > 2}
    others = {item["loc"][:-1] for item in items if item["type"] == "extra_forbidden"}
    return [item for item in items if item["loc"][:-1] not in others] if sections - others else items


def _describe_unknown(key: Location, model: type[BaseModel]) -> str:
    """Describe an unknown key.

    The description has the key's new name if it was renamed, else the nearest known key of its section.
    """
    section: type[BaseModel] | None = model
    for part in key[:-1]:
        section = _section(section, part) if section is not None else None
    name = str(key[-1])
    if new := getattr(section, "renamed", {}).get(name):
        return f"this key is now called {new}; rename it"
    return f"unknown key{suggest(name, section.model_fields if section is not None else ())}"


def _describe_alternative(item: Mapping[str, Any], *, alone: bool) -> str:
    """Describe the value that would be valid.

    Return an empty text for an unknown key of a union's section: the errors of the section's own keys are enough.
    """
    if not alone and item["type"] == "extra_forbidden":
        return ""
    if not alone and item["type"] == "missing":
        return f"input should be a section with the key {item['loc'][-1]}"
    message: str = _MESSAGES.get(item["type"], item["msg"])
    return message[0].lower() + message[1:]
