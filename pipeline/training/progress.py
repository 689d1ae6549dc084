"""Progress of a training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from pipeline.monitoring.progress import Progress


class EpochTracker:
    """Estimate of a training's time left, by the epochs that this process has seen.

    Args:
        done: epochs that were saved before.
        epochs: of the whole recipe.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, done: int, epochs: int, now: Callable[[], float] = time.monotonic) -> None:
        self._done_before, self._epochs = done, epochs
        self._now, self._begin = now, now()

    def progress(self, done: float, entry: Mapping[str, float] | None = None) -> Progress:
        """Return the training's progress.

        Args:
            done: epochs, in fractions.
            entry: of an epoch that has just ended, its row of the history.
        """
        seen = done - self._done_before
        left = (self._now() - self._begin) * (self._epochs - done) / seen if seen > 0 else None
        message = "" if entry is None else epoch_line(entry, self._epochs)
        return Progress(done, self._epochs, "epochs", time_left=left, message=message)


def epoch_line(entry: Mapping[str, float], epochs: int) -> str:
    """Format a row of the history as one line of a log."""
    values = [f"loss {entry['loss']:.4f}"]
    values += [f"{name.replace('_', ' ')} {value:.4f}" for name, value in entry.items() if name.startswith("validation_")]
    return f"epoch {entry['epoch']:.0f} of {epochs}: {', '.join(values)}, {entry['seconds']:.1f} s"
