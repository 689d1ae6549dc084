"""How far a training is, shown as a bar on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.monitoring.progress import clock

_SECONDS = 20.0  # between two lines within a long epoch


@dataclass(frozen=True)
class Epoch:
    """How far a training is.

    Attributes:
        done: epochs, also in parts.
        epochs: of the whole recipe.
        entry: what an epoch that has just ended came to, a row of the history.
    """

    done: float
    epochs: int
    entry: Mapping[str, float] | None = None

    def line(self) -> str:
        """As one line of a log."""
        if self.entry is None:
            return f"epoch {int(self.done) + 1} of {self.epochs}: {self.done % 1:.0%}"
        found = [f"loss {self.entry['loss']:.4f}"]
        found += [f"{name.replace('_', ' ')} {value:.4f}" for name, value in self.entry.items() if name.startswith("validation_")]
        return f"epoch {self.entry['epoch']:.0f} of {self.epochs}: {', '.join(found)}, {self.entry['seconds']:.1f} s"


Show = Callable[[Epoch], None]


@contextmanager
def on_console(console: Console) -> Iterator[Show]:
    """A progress bar if the console is a terminal, else a line an epoch; in long epochs one now and then."""
    last = time.monotonic()

    def tell(epoch: Epoch) -> None:
        nonlocal last
        if epoch.entry is not None or (epoch.done % 1 and time.monotonic() - last >= _SECONDS):
            last = time.monotonic()
            console.print(epoch.line(), markup=False, highlight=False, soft_wrap=True)

    if not console.is_terminal:
        yield lambda epoch: tell(epoch)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("epochs", total=None, left="")
        first: tuple[float, float] | None = None

        def show(epoch: Epoch) -> None:
            nonlocal first
            now = time.monotonic()
            first = first or (now, epoch.done)
            gone, done = now - first[0], epoch.done - first[1]
            left = f"{clock(gone * (epoch.epochs - epoch.done) / done)} left" if done > 0 else ""
            bar.update(task, total=epoch.epochs, completed=epoch.done, left=left)
            if epoch.entry is not None:
                tell(epoch)

        yield show
