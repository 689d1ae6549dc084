"""A configuration from a preset's name, a YAML file or a mapping, with changes from the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import resources
from typing import Any

import fsspec
import yaml
from pydantic import BaseModel, ValidationError

from hdm_core import METHODS
from pipeline.config import RunConfig
from pipeline.errors import InputError, one_line

Changes = Mapping[str, Any]


def presets() -> dict[str, str]:
    """The packaged configurations: name -> YAML."""
    folder = resources.files("pipeline.presets")
    return {entry.name.removesuffix(".yaml"): entry.read_text() for entry in folder.iterdir() if entry.name.endswith(".yaml")}


def load_config(source: str | Mapping[str, Any], changes: Changes | None = None) -> RunConfig:
    """A validated configuration.

    Args:
        source: a preset's name, the path or URL of a YAML file, or the mapping itself.
        changes: dotted key -> value, such as {"compute.workers": 2}.

    Raises:
        InputError: if it cannot be read or is not valid.
    """
    where, data = _read(source)
    for key, value in (changes or {}).items():
        _assign(data, key, value)
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {describe(error, RunConfig)}") from None


def parse_changes(assignments: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE texts as changes; a value is read as YAML.

    Raises:
        InputError: if a text is no KEY=VALUE.
    """
    changes = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--set {text}: write KEY=VALUE, such as --set compute.workers=2")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {text}: the value is no YAML: {one_line(error)}") from None
    return changes


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """A validation error as one line: where and what, with the nearest known key for an unknown one."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for item in error.errors(include_url=False):
        found.setdefault(_location(item["loc"], model), []).append(dict(item))
    texts = [_describe_one(location, items, model) for location, items in found.items()]
    return "; ".join(texts[:3])


def _read(source: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(source, Mapping):
        return "configuration", {key: dict(value) if isinstance(value, Mapping) else value for key, value in source.items()}
    packaged = presets()
    if source in packaged:
        text = packaged[source]
    else:
        try:
            with fsspec.open(source, "r") as file:
                text = file.read()
        except (OSError, ValueError, ImportError) as error:
            known = ", ".join(sorted(packaged))
            raise InputError(f"{source}: neither a preset ({known}) nor a file that can be read ({one_line(error)})") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{source}: no valid YAML: {one_line(error)}") from None
    if not isinstance(data, dict):
        raise InputError(f"{source}: a configuration is a mapping with the keys {', '.join(RunConfig.model_fields)}")
    return source, data


def _assign(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise InputError(f"--set {key}: {parent} is no section")
    data[last] = value


# pydantic's words where a writer of YAML knows others
_WORDS = {
    "tuple_type": "input should be a list such as [a, b]",
    "too_short": "input should not be empty",
    "model_type": "input should be a section such as {key: value}",
    "dict_type": "input should be a section such as {key: value}",
}


def _location(location: tuple[Any, ...], model: type[BaseModel]) -> tuple[Any, ...]:
    """Where the user wrote it: without the parts by which pydantic tells the members of a union."""
    depth = 0
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        depth += 1
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return (*location[:depth], *(part for part in location[depth:] if isinstance(part, int)))


def _describe_one(location: tuple[Any, ...], items: list[dict[str, Any]], model: type[BaseModel]) -> str:
    """The errors of one key; those of a union's members are alternatives."""
    where = ".".join(str(part) for part in location)
    item = items[0]
    cause = item.get("ctx", {}).get("error")
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key{_nearest(str(location[-1]), _keys_at(model, location[:-1]))}"
    if isinstance(cause, ValueError) and str(cause).startswith("unknown key "):
        key = str(cause).split("'")[1]
        return f"{cause}{_nearest(key, [*model.model_fields, *METHODS])}"
    if isinstance(cause, ValueError):
        inner = cause.__cause__
        method = str(cause).split(":")[0]
        if isinstance(inner, ValidationError) and method in METHODS:
            return f"{method}.{describe(inner, METHODS[method].settings)}"
        return one_line(cause)
    messages = [_WORDS.get(each["type"], each["msg"][0].lower() + each["msg"][1:]) for each in items]
    message = " or ".join([messages[0], *(text.removeprefix("input should ") for text in messages[1:])])
    return f"{where}: {message}" + ("" if item["type"] == "missing" else f", not {item['input']!r}")


def _keys_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _nearest(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(known)}" if known else ""
