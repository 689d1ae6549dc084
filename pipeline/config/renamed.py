"""Renamed configuration keys.

They are refused in new configurations and translated in stored runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hdm_core import METHODS
from pipeline.config.schema import ComputeConfig


def renamed_keys() -> dict[str, Mapping[str, str]]:
    """Return section -> old key -> new key, of all sections that had other keys."""
    sections = {"compute": ComputeConfig.renamed, **{id_: method.settings.renamed for id_, method in METHODS.items()}}
    return {section: keys for section, keys in sections.items() if keys}


def translate_run(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a run.json of an earlier version to the keys of this one.

    Returns:
        The metadata; if anything was translated, `renamed_keys` lists the old dotted keys.
    """
    translated, old = dict(metadata), []
    config = dict(metadata.get("config") or {})
    identity = dict(metadata.get("identity") or {})
    methods = dict(identity.get("methods") or {})
    for section, keys in renamed_keys().items():
        for holder in (config, methods):
            values = holder.get(section)
            if isinstance(values, Mapping) and (present := [key for key in keys if key in values]):
                holder[section] = {keys.get(key, key): value for key, value in values.items()}
                old += [f"{section}.{key}" for key in present]
    if old:
        translated |= {"config": config, "identity": identity | {"methods": methods}, "renamed_keys": sorted(set(old))}
    return translated
