"""Buffer a worker's log records until the driver collects them.

So they are read where the run is watched, and not on the disk of some machine.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress

Line = tuple[int, str]  # (level of `logging`, text)

_MAX_LINES = 200  # between two shards: an hour of retries must not fill the log


class LogBuffer(logging.Handler):
    """Handler that keeps the newest lines of this project's loggers."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[Line] = deque(maxlen=_MAX_LINES)
        for package in ("pipeline", "hdm_core"):
            logger = logging.getLogger(package)
            logger.setLevel(logging.INFO)
            logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Store a record's level and text."""
        self._lines.append((record.levelno, record.getMessage()))

    def drain(self) -> tuple[Line, ...]:
        """Return the lines since the last call, and forget them.

        Other threads may log meanwhile, or drain: each line is returned once.
        """
        lines = []
        with suppress(IndexError):
            while True:
                lines.append(self._lines.popleft())
        return tuple(lines)
