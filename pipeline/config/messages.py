"""What is wrong with a configuration, in the words of the person who wrote it: one line."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from hdm_core import METHODS
from pipeline.errors import one_line

# pydantic's words where a writer of YAML knows others
_WORDS = {
    "tuple_type": "input should be a list such as [a, b]",
    "too_short": "input should not be empty",
    "model_type": "input should be a section such as {key: value}",
    "dict_type": "input should be a section such as {key: value}",
}


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """A validation error as one line: where and what, with the nearest known key for an unknown one."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for item in error.errors(include_url=False):
        found.setdefault(_location(item["loc"], model), []).append(dict(item))
    texts = [_describe_one(location, items, model) for location, items in found.items()]
    return "; ".join(texts[:3])


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
        section, key = _model_at(model, location[:-1]), str(location[-1])
        if new := getattr(section, "renamed", {}).get(key):
            return f"{where}: this key is now called {new}; rename it"
        return f"{where}: unknown key{_nearest(key, list(section.model_fields) if section else [])}"
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


def _model_at(model: type[BaseModel], location: tuple[Any, ...]) -> type[BaseModel] | None:
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return model


def _nearest(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(known)}" if known else ""
