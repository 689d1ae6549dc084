"""Memory of this machine: what is free, and what this process holds."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Return the bytes that new processes can take here; None where unknown.

    It is the smaller of the kernel's estimate, with swap, and of what a container's limit leaves.
    """
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = [1024 * sum(int(lines[key].split()[0]) for key in ("MemAvailable", "SwapFree"))]
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit, used, stat = ((_CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current", "stat"))
        # The group's pages include files that were read and are in no use; the kernel frees them first.
        reclaimable = int(dict(line.split() for line in stat.splitlines())["inactive_file"])
        free += [] if limit == "max" else [int(limit) - int(used) + reclaimable]
    except (OSError, KeyError, ValueError):
        pass
    return min(free)


def resident_memory() -> int:
    """Return the resident bytes of this process; 0 where unknown."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
