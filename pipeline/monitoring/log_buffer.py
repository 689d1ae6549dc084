"""What a worker logs, kept until its driver asks for it: so that it is read where the run is watched, and not on some machine's disk."""

from __future__ import annotations

import logging
from collections import deque

Line = tuple[int, str]  # a level of `logging`, and the text

_MOST = 200  # lines between two shards: a server that is away for an hour must not fill the log


class LogBuffer(logging.Handler):
    """Keeps the newest lines of this project's loggers."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[Line] = deque(maxlen=_MOST)
        logger = logging.getLogger("pipeline")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record's text."""
        self._lines.append((record.levelno, record.getMessage()))

    def drain(self) -> tuple[Line, ...]:
        """The lines since the last time."""
        lines = tuple(self._lines)
        self._lines.clear()
        return lines
