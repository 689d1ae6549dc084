"""Errors that are somebody's mistake and not a bug: one line that says what, where and what to do."""

from __future__ import annotations


class InputError(Exception):
    """The run cannot start as it was asked for; nothing was changed. Exit code 2."""


class RunError(Exception):
    """The run started and could not go on; running it again resumes it. Exit code 1."""


def one_line(error: BaseException, limit: int = 500) -> str:
    """An exception as one line for a record or a terminal."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
