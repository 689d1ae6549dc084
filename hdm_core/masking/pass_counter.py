"""Counter of passes, the unit of a method's cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Progress = Callable[[int], None]


@dataclass
class PassCounter:
    """Counter of passes that reports each addition to a listener.

    A pass is one forward and one backward of one image; where a method needs no gradient, a forward alone counts as one pass.

    Attributes:
        listener: called with the number of passes just done.
        total: passes so far.
    """

    listener: Progress | None = None
    total: int = field(default=0)

    def add(self, passes: int) -> None:
        """Count `passes` that were just done and report them to the listener."""
        self.total += passes
        if self.listener is not None:
            self.listener(passes)
