"""Workers that were killed because a machine's memory was full."""

from __future__ import annotations

from pathlib import Path

from ray.exceptions import OutOfMemoryError, RayError

MEMORY_TEXT = (
    "its worker was killed twice because the machine's memory was full, with half the batch as well; "
    "start fewer workers (compute.workers), or set a smaller compute.batch_size"
)

# Words with which Ray's memory monitor explains that it killed an actor.
_WORDS = ("running low on memory", "memory pressure", "out-of-memory", "OutOfMemory")

_VMSTAT = Path("/proc/vmstat")


class MemoryKills:
    """Detector of workers that Ray or the kernel killed for memory.

    Ray names its own reason. The kernel kills with SIGKILL, of which the driver sees a lost process only: its counter of such kills
    on this machine has then risen. Kills on other machines that Ray does not explain count as lost workers.
    """

    def __init__(self) -> None:
        self._kernel = _kernel_kills()

    def killed(self, error: RayError) -> bool:
        """Return True if the worker with this error was killed for memory."""
        before, self._kernel = self._kernel, _kernel_kills()
        return isinstance(error, OutOfMemoryError) or any(word in str(error) for word in _WORDS) or self._kernel > before


def _kernel_kills() -> int:
    """Return the kernel's count of processes that it killed for memory; 0 elsewhere."""
    try:
        lines = _VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
