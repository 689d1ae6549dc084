"""Exceptions of a user's network as one line."""

from __future__ import annotations


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return the message of an exception as one line; its type if it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def typed_line(error: BaseException, limit: int = 300) -> str:
    """Return type and message of an exception as one line."""
    return f"{type(error).__name__}: {one_line(error, limit)}" if str(error).strip() else type(error).__name__
