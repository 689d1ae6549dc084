"""User-facing errors, of one line each: problem, place and remedy.

HdmError
    InputError              a wrong input; nothing was changed
    RunError                a run that stopped; running it again resumes it
        StorageTimeoutError (pipeline.storage.retry), also an OSError
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches

from pipeline.redaction import redact


class HdmError(Exception):
    """Base of user-facing errors; secrets in the URLs of the message are redacted."""

    def __init__(self, text: str) -> None:
        super().__init__(redact(text))


class InputError(HdmError):
    """A run that cannot start as requested; nothing was changed. Exit code 2."""


class RunError(HdmError):
    """A run that started and could not continue.

    Running it again resumes it. Exit code 1.
    """


def device_failure(error: BaseException) -> str:
    """Format a fatal error of the device as the begin of a line.

    The further lines of torch's message are about debugging.
    """
    first = next(iter(str(error).splitlines()), "")
    return f"the device failed ({type(error).__name__}: {one_line(Exception(first))}), and this process can no longer use it"


def one_line(error: BaseException, limit: int = 500) -> str:
    """Format an exception as one printable line.

    Secrets in its URLs are redacted.
    """
    text = " ".join(redact(str(error)).split()) or type(error).__name__
    text = printable(text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def printable(text: str) -> str:
    """Escape characters that cannot be printed or encoded.

    Examples are a terminal's escape codes and half a surrogate pair.
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def suggest(word: str, known: Iterable[str], *, list_all: bool = False) -> str:
    """Format the end of an error about an unknown word.

    It is the nearest known word if there is one, else all known words.

    Args:
        list_all: list all known words even if one of them is near.
    """
    names = list(known)
    close = [f"did you mean {name}?" for name in get_close_matches(word, names, n=1)]
    listed = [f"known are {', '.join(names)}"] if names and (list_all or not close) else []
    return "".join(f"; {text}" for text in (*listed, *close))


def error_text(errors: Counter[tuple[str, str]], status: str) -> str:
    """Return the most frequent error of a status in parentheses.

    It is empty if there is none.

    Args:
        errors: (status, error) -> images.
    """
    of_status = [(-count, error) for (each, error), count in errors.items() if each == status]
    if not of_status:
        return ""
    count, error = min(of_status)
    images = "1 image" if count == -1 else f"{-count:,} images"
    more = len(of_status) - 1
    others = "" if not more else ", and 1 more error" if more == 1 else f", and {more:,} more errors"
    return f" ({error}: {images}{others})"
