"""Progress of runs, trainings and comparisons, as a bar on a terminal or as lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import rich.progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Progress:
    """Progress of one step.

    Attributes:
        done: units that are done, those of earlier attempts included; a fraction within a unit.
        total: units of the whole step.
        unit: what is counted, in the plural: images, epochs, maps, shards.
        rate: passes per second; None where no passes are counted.
        time_left: seconds until the end; None while it is unknown.
        note: text beside the bar while there is no rate.
        message: a line to be printed as it is, such as the metrics of a finished epoch.
    """

    done: float
    total: int
    unit: str
    rate: float | None = None
    time_left: float | None = None
    note: str = ""
    message: str = ""

    @property
    def is_partial(self) -> bool:
        """True within a unit, such as in the middle of an epoch."""
        return self.done % 1 != 0

    @property
    def detail(self) -> str:
        """Rate and time left, as far as they are known."""
        rate = self.note if self.rate is None else f"{self.rate:.1f} passes/s"
        left = "" if self.time_left is None else f"{clock(self.time_left)} left"
        return ", ".join(part for part in (rate, left) if part)

    @property
    def is_logged(self) -> bool:
        """False for counts without a rate, which only terminals show.

        Such counts, as of maps that are compared, take seconds.
        """
        return self.rate is not None or bool(self.message) or self.is_partial

    def line(self) -> str:
        """Return the progress as one line of a log."""
        if self.message:
            return self.message
        if self.is_partial:
            return f"{self.unit.removesuffix('s')} {int(self.done) + 1} of {self.total}: {self.done % 1:.0%}"
        return ", ".join(part for part in (f"{self.done:.0f} of {self.total} {self.unit}", self.detail) if part)


class ProgressCallback(Protocol):
    """Function that is called with the progress of a step."""

    def __call__(self, progress: Progress, /) -> None:
        """Show the progress, or record it."""


def no_progress(progress: Progress, /) -> None:
    """Ignore the progress."""


def clock(seconds: float) -> str:
    """Format seconds as 1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class ProgressTracker:
    """Estimate of a run's rate and time left from the workers' reports.

    The time left comes from passes until the first image is done, and from whole images after that: those include the
    work that no pass counts, such as reading and the metrics.

    Args:
        done: images that earlier drivers committed.
        images: of the whole run.
        passes: that the open images will take.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, done: int, images: int, passes: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._done_before, self._done, self._images = done, done, images
        self._planned_passes = passes
        self._begin = now()
        self._end: float | None = None

    def finished(self, images: int) -> None:
        """Record that this number of images was committed."""
        self._done += images
        elapsed = self._now() - self._begin
        self._end = self._now() + elapsed * (self._images - self._done) / (self._done - self._done_before)

    def progress(self, passes: int) -> Progress:
        """Return the run's progress, after this number of passes by its workers."""
        if passes == 0 and self._end is None:
            self._begin = self._now()  # models are still loading: no rate yet
        elapsed = self._now() - self._begin
        rate = passes / elapsed if elapsed > 0 else 0.0
        if self._end is not None:
            left: float | None = max(0.0, self._end - self._now())
        else:
            left = (self._planned_passes - passes) / rate if 0 < passes < self._planned_passes and rate > 0 else None
        return Progress(self._done, self._images, "images", rate, left)


def throttle(seconds: float, on_progress: ProgressCallback) -> ProgressCallback:
    """Call back when a whole unit is finished, else at most once in `seconds`."""
    last_time, last_done = time.monotonic(), -1.0

    def throttled(progress: Progress, /) -> None:
        nonlocal last_time, last_done
        finished = progress.done != last_done and not progress.is_partial
        if finished or time.monotonic() - last_time >= seconds:
            last_time, last_done = time.monotonic(), progress.done
            on_progress(progress)

    return throttled


@contextmanager
def progress_bar(console: Console) -> Iterator[ProgressCallback]:
    """Show one bar per unit on a terminal, and plain lines elsewhere.

    There is one line per finished unit, and one in 10 seconds between.
    """

    def print_line(progress: Progress, /) -> None:
        console.print(progress.line(), markup=False, highlight=False, soft_wrap=True)

    if not console.is_terminal:
        print_throttled = throttle(10, print_line)

        def print_lines(progress: Progress, /) -> None:
            if progress.is_logged:
                print_throttled(progress)

        yield print_lines
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns, console=console) as bar:
        tasks: dict[str, rich.progress.TaskID] = {}

        def update_bar(progress: Progress, /) -> None:
            if progress.unit not in tasks:
                tasks[progress.unit] = bar.add_task(progress.unit, total=None, detail="")
            bar.update(tasks[progress.unit], total=progress.total, completed=progress.done, detail=progress.detail)
            if progress.message:
                print_line(progress)

        yield update_bar
