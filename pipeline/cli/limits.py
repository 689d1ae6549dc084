"""Option `--limit` of `hdm diff`."""

from __future__ import annotations

from collections.abc import Iterable

import yaml
from pydantic import ValidationError

from pipeline.config.messages import describe
from pipeline.drift.thresholds import DriftLimits
from pipeline.errors import InputError


def parse_limits(assignments: Iterable[str]) -> DriftLimits:
    """Parse limits such as flips=0.02.

    Raises:
        InputError: if one is not a limit.
    """
    limits = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--limit {text}: write NAME=VALUE, such as --limit flips=0.02")
        try:
            limits[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            limits[name] = value
    try:
        return DriftLimits.model_validate(limits)
    except ValidationError as error:
        raise InputError(f"--limit {describe(error, DriftLimits)}") from None
