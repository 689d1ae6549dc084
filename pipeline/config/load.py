"""A configuration from a preset's name, a YAML file or a mapping, with changes from the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, TypeVar

import fsspec
import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.messages import describe
from pipeline.config.schema import ClassifierConfig, RunConfig
from pipeline.errors import InputError, one_line

Changes = Mapping[str, Any]
Model = TypeVar("Model", bound=BaseModel)


def presets() -> dict[str, str]:
    """The packaged configurations: name -> YAML."""
    folder = resources.files("pipeline.config.presets")
    return {entry.name.removesuffix(".yaml"): entry.read_text() for entry in folder.iterdir() if entry.name.endswith(".yaml")}


def load_config(source: str | Mapping[str, Any], changes: Changes | None = None) -> RunConfig:
    """A run's validated configuration.

    Args:
        source: a preset's name, the path or URL of a YAML file, or the mapping itself.
        changes: dotted key -> value, such as {"compute.workers": 2}.

    Raises:
        InputError: if it cannot be read or is not valid.
    """
    return load(source, changes, RunConfig, presets())


def load(source: str | Mapping[str, Any], changes: Changes | None, model: type[Model], packaged: Mapping[str, str]) -> Model:
    """As `load_config`, for a configuration of any kind with presets of its own."""
    where, data = _read(source, model, packaged)
    for key, value in (changes or {}).items():
        _assign(data, key, value)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {describe(error, model)}") from None


def load_section(source: str | Mapping[str, Any]) -> ClassifierConfig:
    """A classifier's section on its own.

    Args:
        source: the mapping, or its YAML; a path is a trained classifier's folder.

    Raises:
        InputError: if it is not valid.
    """
    try:
        data = yaml.safe_load(source) if isinstance(source, str) else source
    except yaml.YAMLError as error:
        raise InputError(f"classifier: no valid YAML: {_place(error)}") from None
    try:
        return ClassifierConfig.model_validate(data if isinstance(data, Mapping) else {"source": "checkpoint", "path": source})
    except ValidationError as error:
        raise InputError(f"classifier: {describe(error, ClassifierConfig)}") from None


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
            raise InputError(f"--set {key}: the value is no YAML: {_place(error)}") from None
    return changes


def _read(source: str | Mapping[str, Any], model: type[BaseModel], packaged: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    if isinstance(source, Mapping):
        return "configuration", {key: dict(value) if isinstance(value, Mapping) else value for key, value in source.items()}
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
        raise InputError(f"{source}: no valid YAML: {_place(error)}") from None
    if not isinstance(data, dict):
        raise InputError(f"{source}: a configuration is a mapping with the keys {', '.join(model.model_fields)}")
    return source, data


def _assign(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise InputError(f"--set {key}: {parent} is no section")
    data[last] = value


def _place(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the text that is there: it may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
    return f"{getattr(error, 'problem', None) or 'it cannot be read'}{where}"
