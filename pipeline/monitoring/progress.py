"""How far a run is, shown as a bar on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class State:
    """A run's progress.

    Attributes:
        done: images committed, those of earlier drivers included.
        images: of the whole run.
        rate: passes a second.
        time_left: seconds until the end; None while nothing is known.
    """

    done: int
    images: int
    rate: float
    time_left: float | None

    def line(self) -> str:
        """As one line of a log."""
        left = "" if self.time_left is None else f", {clock(self.time_left)} left"
        return f"{self.done} of {self.images} images, {self.rate:.1f} passes/s{left}"


Show = Callable[[State], None]


def clock(seconds: float) -> str:
    """1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class ProgressTracker:
    """Turns what workers report into a State.

    Time left is known from passes until the first image is done, and from whole images after that: those include what no
    pass counts, such as reading and the metrics.

    Args:
        done: images that earlier drivers committed.
        images: of the whole run.
        passes: that the open images will take.
        now: seconds of a clock that only goes forward.
    """

    def __init__(self, done: int, images: int, passes: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._before, self._done, self._images = done, done, images
        self._planned = passes
        self._begin = now()
        self._end: float | None = None

    def finished(self, images: int) -> None:
        """Notes that so many images were committed."""
        self._done += images
        elapsed = self._now() - self._begin
        self._end = self._now() + elapsed * (self._images - self._done) / (self._done - self._before)

    def state(self, passes: int) -> State:
        """How far the run is, now that its workers have done so many passes."""
        if passes == 0 and self._end is None:
            self._begin = self._now()  # models are still loading: no rate yet
        elapsed = self._now() - self._begin
        rate = passes / elapsed if elapsed > 0 else 0.0
        if self._end is not None:
            left: float | None = max(0.0, self._end - self._now())
        else:
            left = (self._planned - passes) / rate if 0 < passes < self._planned and rate > 0 else None
        return State(self._done, self._images, rate, left)


def throttle(seconds: float, show: Show) -> Show:
    """Passes a state on when so much time has gone since the last one, and always when an image was finished."""
    last_time, last_done = float("-inf"), -1

    def sometimes(state: State) -> None:
        nonlocal last_time, last_done
        if state.done != last_done or time.monotonic() - last_time >= seconds:
            last_time, last_done = time.monotonic(), state.done
            show(state)

    return sometimes


@contextmanager
def progress_bar(console: Console) -> Iterator[Show]:
    """A progress bar if the console is a terminal, else a plain line now and then."""
    if not console.is_terminal:
        yield throttle(10, lambda state: print(state.line(), file=sys.stderr, flush=True))  # noqa: T201 - the console is a file or a pipe
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("images", total=None, rate="starting workers")

        def show(state: State) -> None:
            left = "" if state.time_left is None else f", {clock(state.time_left)} left"
            bar.update(task, total=state.images, completed=state.done, rate=f"{state.rate:.1f} passes/s{left}")

        yield show
