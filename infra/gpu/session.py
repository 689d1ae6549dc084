"""Session of checks: sections in order, and one JSON that is rewritten after each."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from infra.gpu.sizes import Sizes

Facts = dict[str, Any]
T = TypeVar("T")

NO_TIME = "no time"
_GRACE = 5.0  # seconds after the end in which a section may notice that its time is over
_DIGITS = 4  # of the numbers in the JSON, so that it is short enough to paste


@dataclass(frozen=True)
class Section:
    """Checks that belong together.

    Attributes:
        check: stores what it finds in the mapping.
        seconds: that it may take; less is left to it where sections before it took longer.
    """

    name: str
    check: Callable[[Session, Facts], None]
    seconds: float


class Session:
    """Sections with a common end, whose errors are recorded and end no other section.

    Attributes:
        out: folder of result.json, errors.log and the logs of sections.
        sizes: of networks, images and batches.
        result: section -> facts, and the errors.
    """

    def __init__(self, out: Path, seconds: float, sizes: Sizes) -> None:
        self.out = out
        self.sizes = sizes
        self.result: dict[str, Any] = {"errors": []}
        self._begin = time.monotonic()
        self._end = self._section_end = self._begin + seconds
        self._section = ""
        for log in ("errors.log", "shares.log"):  # of an earlier session; these are appended to
            (out / log).unlink(missing_ok=True)

    def run(self, sections: Sequence[Section]) -> None:
        """Run all sections for which there is time.

        A section that hangs, such as in a kernel, ends the process at the end of the session; the JSON says which one it was.
        """
        watchdog = threading.Timer(max(0.0, self._end - time.monotonic()) + _GRACE, self._cut_off)
        watchdog.daemon = True
        watchdog.start()
        try:
            for section in sections:
                self._run(section)
        except KeyboardInterrupt:
            self.result["cut_off"] = self._section
        finally:
            watchdog.cancel()
            self.result["seconds"] = self.elapsed()
            self.save()

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._begin

    def left(self) -> float:
        """Return the seconds that are left to the present section; none below 0."""
        return max(0.0, self._section_end - time.monotonic())

    def each(self, facts: Facts, items: Iterable[T], check: Callable[[T], object], name: Callable[[T], str] = str) -> None:
        """Store the result of each item, or its error; none is started without time."""
        for item in items:
            key = name(item)
            if not self.left():
                facts[key] = NO_TIME
                continue
            try:
                facts[key] = check(item)
            except Exception as error:
                facts[key] = self._record(f"{self._section} {key}", error)
            self.save()

    def line(self) -> str:
        """Return the result as JSON in one line."""
        return json.dumps(rounded(self.result), separators=(",", ":"), default=str, allow_nan=False)

    def save(self) -> None:
        """Write result.json, so that a reader finds the old or the new one whole."""
        path = self.out / "result.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(rounded(self.result), indent=1, default=str, allow_nan=False) + "\n")
        part.replace(path)

    def _run(self, section: Section) -> None:
        self._section, begin = section.name, time.monotonic()
        if begin >= self._end:
            self.result[section.name] = NO_TIME
            return
        self._section_end = min(self._end, begin + section.seconds)
        facts: Facts = {}
        self.result[section.name] = facts
        try:
            section.check(self, facts)
        except Exception as error:
            facts["error"] = self._record(section.name, error)
        facts["took_s"] = time.monotonic() - begin
        self.save()
        say(f"[{self.elapsed():5.0f} s] {section.name}: {facts['took_s']:.1f} s")

    def _record(self, where: str, error: Exception) -> str:
        """Store an error in one line, with its stack in errors.log; return the line."""
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        self.result["errors"].append(f"{where}: {line}")
        with (self.out / "errors.log").open("a") as log:
            log.write(f"{where}\n{''.join(traceback.format_exception(error))}\n")
        return line

    def _cut_off(self) -> None:
        """Write and print the JSON as it is, and end the process."""
        self.result["cut_off"], self.result["seconds"] = self._section, self.elapsed()
        self.save()
        say(self.line())
        os._exit(1)


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def rounded(value: Any) -> Any:
    """Return a value with its numbers rounded; what is no number of JSON becomes None."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in list(value.items())}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return value
