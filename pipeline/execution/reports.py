"""Reports of workers, as the driver receives them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.monitoring.log_buffer import Line
from pipeline.runs.leases import LeaseHolder


@dataclass(frozen=True)
class ShardReport:
    """Report of a worker on one shard.

    Attributes:
        seconds: of the worker's time, without those that its last report counted: a shard may be computed while one is committed.
        held: the lease of another driver's worker on the shard; None if the shard is committed.
        passes: of the worker since it started.
        lines: logged by the worker since its last report, also by the shard that it computed meanwhile.
        device_failure: the fatal error of the device, in one line; the shard is not committed, and the worker's process is of no more use.
    """

    shard: int
    images: int
    seconds: float
    device: str
    held: LeaseHolder | None = None
    passes: int = 0
    lines: tuple[Line, ...] = ()
    device_failure: str | None = None


@dataclass(frozen=True)
class WorkerTimings:
    """Seconds per image, measured by a worker on its machine.

    Attributes:
        seconds_per_forward, seconds_per_float32_forward: in the precision of the masks, and of the metrics.
        batch: batch size of the run.
        fastest_batch: a batch size that is more than 5% faster on this device; the run's if there is none.
    """

    seconds_per_pass: float
    seconds_per_forward: float
    seconds_per_float32_forward: float
    seconds_per_read: float
    device: str
    batch: int
    fastest_batch: int


@dataclass(frozen=True)
class ShardTiming:
    """Seconds of a worker from the commit of one shard to the commit of the next.

    Attributes:
        lines: logged by the worker meanwhile.
    """

    images: int
    seconds: float
    lines: tuple[Line, ...]
