"""Errors that are somebody's mistake and not a bug: one line that says what, where and what to do."""

from __future__ import annotations

from pipeline.redaction import redact


class HdmError(Exception):
    """What is shown in many places: the secrets in its URLs are in none."""

    def __init__(self, text: str) -> None:
        super().__init__(redact(text))


class InputError(HdmError):
    """The run cannot start as it was asked for; nothing was changed. Exit code 2."""


class RunError(HdmError):
    """The run started and could not go on; running it again resumes it. Exit code 1."""


def one_line(error: BaseException, limit: int = 500) -> str:
    """An exception as one line for a record or a terminal: without the secrets in its URLs, and without what a terminal obeys."""
    text = " ".join(redact(str(error)).split()) or type(error).__name__
    text = printable(text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def printable(text: str) -> str:
    """A text in which what cannot be printed or encoded, such as an escape or half a character, stands as Python would write it."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
