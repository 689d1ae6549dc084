"""Option `--limit` of `hdm diff` and `hdm sanity`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import yaml
from pydantic import ValidationError

from pipeline.config.messages import describe
from pipeline.errors import InputError
from pipeline.section import Section

Limits = TypeVar("Limits", bound=Section)


def parse_limits(assignments: Iterable[str], model: type[Limits], example: str) -> Limits:
    """Parse limits such as flips=0.02.

    Args:
        example: an assignment, for the message.

    Raises:
        InputError: if one is not a limit.
    """
    limits = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--limit {text}: write NAME=VALUE, such as --limit {example}")
        try:
            limits[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            limits[name] = value
    try:
        return model.model_validate(limits)
    except ValidationError as error:
        raise InputError(f"--limit {describe(error, model)}") from None
