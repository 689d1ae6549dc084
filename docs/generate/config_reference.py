"""Configuration reference, generated from the pydantic fields of RunConfig, the methods' settings and TrainConfig."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from md_table import cell, code, table
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hdm_core import METHODS
from pipeline.classifiers.sources import CLASSIFIER_SOURCES, ClassifierConfig
from pipeline.config.schema import RunConfig
from pipeline.datasets import DATASETS
from pipeline.training.config import TrainConfig

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_LARGEST = 2**62  # a bound beyond it is that of an integer in storage, not of the setting


def type_name(annotation: Any) -> str:
    """Return a type as a user writes its values: literals as they are, models as sections."""
    origin = get_origin(annotation)
    if annotation is type(None):
        return "null"
    if origin is Annotated:
        base, *metadata = get_args(annotation)
        return " ".join([type_name(base), *bounds(metadata)])
    if origin is Literal:
        return ", ".join(str(value) for value in get_args(annotation))
    if origin in {Union, types.UnionType}:
        return " or ".join(type_name(part) for part in get_args(annotation))
    if origin is tuple:
        parts = get_args(annotation)
        return f"list of {type_name(parts[0])}" + ("" if parts[-1] is Ellipsis else f", {len(parts)} values")
    if origin is dict or annotation is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def bounds(metadata: list[Any]) -> list[str]:
    """Return the bounds in a field's metadata, such as ">= 1"."""
    found = []
    for item in metadata:
        parts = list(getattr(item, "metadata", None) or [item])
        for part in parts:
            for name, sign in _BOUNDS.items():
                value = getattr(part, name, None)
                if value is not None and value < _LARGEST:
                    found.append(f"{sign} {value}")
    return found


def default_of(field: FieldInfo) -> str:
    """Return the default of a field as YAML; "required" for none."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True) if field.default is PydanticUndefined else field.default
    if isinstance(value, BaseModel):
        return "its own defaults"
    if value is None:
        return code("null")
    if isinstance(value, bool):
        return code(str(value).lower())
    return code(f"{value:.6g}" if isinstance(value, float) else str(value) if value != {} else "{}")


def field_table(model: type[BaseModel], prefix: str = "", without: Collection[str] = ()) -> str:
    """Build the table of a model's keys: one row per field."""
    rows = []
    for name, field in model.model_fields.items():
        if name in without:
            continue
        kind = " ".join([type_name(field.annotation), *bounds(field.metadata)])
        rows.append([code(prefix + name), cell(kind), default_of(field), cell(field.description or "")])
    return table(["key", "values", "default", "meaning"], rows)


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Iterate over the models that a model's fields refer to, depth first."""
    for field in model.model_fields.values():
        for part in _models(field.annotation):
            yield part
            yield from sections(part)


def run_reference() -> str:
    """Build the page of a run's configuration."""
    list(DATASETS)  # loads the kinds of installed packages, too
    parts = [_heading("Top level", RunConfig), field_table(RunConfig)]
    for name, field in RunConfig.model_fields.items():
        for model in dict.fromkeys(_models(field.annotation)):
            parts += [_heading(name, model), field_table(model, f"{name}.")]
            if model is ClassifierConfig:
                parts.append(_source_table())
            for variant in model.__subclasses__():
                own = field_table(variant, f"{name}.", without={*model.model_fields} - {"kind"})
                parts += [_heading(f"{name}, kind {_kind(variant)}", variant, "###"), own]
    parts.append("## Settings of the methods\n\nEvery method has a section of its name, with the key `preset` and any of its settings.\n")
    seen: dict[type[BaseModel], list[str]] = {}
    for method in METHODS.values():
        seen.setdefault(method.settings, []).append(method.id)
    for settings, ids in seen.items():
        if settings.model_fields:
            parts += [f"### {', '.join(f'`{name}`' for name in ids)}\n", field_table(settings)]
            parts.append(_presets(ids) + "\n")
        else:
            parts.append(f"### {', '.join(f'`{name}`' for name in ids)}\n\nNo settings.\n")
    return "\n".join(parts)


def training_reference() -> str:
    """Build the page of a training's configuration."""
    parts = [_heading("Top level", TrainConfig), field_table(TrainConfig)]
    for model in dict.fromkeys(sections(TrainConfig)):
        if model.__module__ == TrainConfig.__module__:
            parts += [_heading(model.__name__, model), field_table(model)]
    return "\n".join(parts)


def _presets(ids: list[str]) -> str:
    lines = [f"`{name}`: {', '.join(METHODS[name].presets)} (default {METHODS[name].default})" for name in ids]
    return "Presets: " + "; ".join(lines) + "."


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _kind(config: type[BaseModel]) -> str:
    """Return the value of `dataset.kind` that chooses a configuration class."""
    return ", ".join(str(value) for value in get_args(config.model_fields["kind"].annotation))


def _source_table() -> str:
    """Build the table of classifier sources and the keys that they take."""
    rows = [
        [code(entry.id), ", ".join(code(key) for key in entry.required), ", ".join(code(key) for key in entry.optional)]
        for entry in CLASSIFIER_SOURCES.values()
    ]
    return "Of the keys that belong to a source:\n\n" + table(["source", "required", "optional"], rows)


def _heading(title: str, model: type[BaseModel], level: str = "##") -> str:
    summary = (model.__doc__ or "").strip().split("\n\n")[0]
    return f"{level} {title}\n\n{' '.join(summary.split())}\n"
