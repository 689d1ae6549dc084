"""Loading of configurations.

A configuration comes from a preset, a YAML file or a mapping, with changes from the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
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
    """Return the packaged configurations as name -> YAML."""
    folder = resources.files("pipeline.config.presets")
    return {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    }


def load_config(source: str | Mapping[str, Any], changes: Changes | None = None) -> RunConfig:
    """Load and validate the configuration of a run.

    Args:
        source: name of a preset, path or URL of a YAML file, or a mapping.
        changes: dotted key -> value, such as {"compute.workers": 2}.

    Raises:
        InputError: if the configuration cannot be read or is invalid.
    """
    return load(source, changes, RunConfig, presets())


def load(source: str | Mapping[str, Any], changes: Changes | None, model: type[Model], packaged: Mapping[str, str]) -> Model:
    """Load a configuration of any model as `load_config` does.

    Args:
        model: model of the configuration.
        packaged: presets of the model.
    """
    where, data = _read(source, model, packaged)
    for key, value in (changes or {}).items():
        _assign(data, key, value)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {describe(error, model)}") from None


def load_section(source: str | Mapping[str, Any]) -> ClassifierConfig:
    """Load and validate a `classifier` section without a configuration around it.

    Args:
        source: the section as a mapping or YAML, or the path of a folder: of a trained classifier, or of transformers.

    Raises:
        InputError: if the section is invalid.
    """
    try:
        data = yaml.safe_load(source) if isinstance(source, str) else source
    except yaml.YAMLError as error:
        raise InputError(f"classifier: no valid YAML: {_describe_yaml_error(error)}") from None
    try:
        return ClassifierConfig.model_validate(data if isinstance(data, Mapping) else _section_of_folder(str(source)))
    except ValidationError as error:
        raise InputError(f"classifier: {describe(error, ClassifierConfig)}") from None


def _section_of_folder(path: str) -> dict[str, str]:
    """Return the section of a classifier's folder, whose files show its source."""
    folder = Path(path).expanduser()
    is_transformers = (folder / "config.json").is_file() and not (folder / "card.json").is_file()
    return {"source": "transformers" if is_transformers else "checkpoint", "path": path}


def parse_changes(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse KEY=VALUE texts into changes, with each value read as YAML.

    Raises:
        InputError: if a text is not KEY=VALUE.
    """
    changes = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--set {text}: write KEY=VALUE, such as --set compute.workers=2")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {key}: the value is no YAML: {_describe_yaml_error(error)}") from None
    return changes


def _read(source: str | Mapping[str, Any], model: type[BaseModel], packaged: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Read a source into its name, for errors, and a mapping that may be changed."""
    if isinstance(source, Mapping):
        return "configuration", {key: dict(value) if isinstance(value, Mapping) else value for key, value in source.items()}
    if source in packaged:
        text = packaged[source]
    else:
        try:
            with fsspec.open(source, "r", encoding="utf-8-sig") as file:
                text = file.read()
        except (OSError, ValueError, ImportError) as error:
            known = ", ".join(sorted(packaged))
            raise InputError(f"{source}: neither a preset ({known}) nor a file that can be read ({one_line(error)})") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{source}: no valid YAML: {_describe_yaml_error(error)}") from None
    if not isinstance(data, dict):
        raise InputError(f"{source}: a configuration is a mapping with the keys {', '.join(model.model_fields)}")
    return source, data


def _assign(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, creating missing sections."""
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise InputError(f"--set {key}: {parent} is no section")
    data[last] = value


def _describe_yaml_error(error: yaml.YAMLError) -> str:
    """Describe a YAML error by its problem and position.

    The text at the position is left out because it may hold a secret.
    """
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
    return f"{getattr(error, 'problem', None) or 'it cannot be read'}{where}"
