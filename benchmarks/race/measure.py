"""Measurement of one case: pipeline and loop, each in its own process."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.race.cases import CASES
from benchmarks.race.loops import BATCH
from pipeline.environment import temporary_environment
from pipeline.errors import InputError

_COMPARED = 16  # maps of which the correlation is computed
_BUSY = 0.25  # load per core by other processes, above which the numbers are those of a busy machine

Side = Literal["pipeline", "loop"]


@dataclass(frozen=True)
class SideResult:
    """Cost of one side.

    Attributes:
        start: seconds from the start of its process until a first batch was done: imports, network, checks.
        rate: images per second after the start: those of the longer run without the shorter one's, divided by the seconds between both.
        cpu_ms: milliseconds of processors per image after the start, of all its threads and processes.
        peak_mib: largest resident size of a process.
        bytes: of the files that it wrote for the longer run.
    """

    start: float
    rate: float
    cpu_ms: float
    peak_mib: float
    bytes: int


@dataclass(frozen=True)
class CaseResult:
    """Result of one case.

    Attributes:
        ratio: images per second, pipeline over loop.
        cpu_ratio: CPU time per image, loop over pipeline; other processes disturb it less than `ratio`.
        lines: lines of code of the loop.
        correlation: Pearson's, of the maps of both, the mean over at most 16 images; None if all of one side are constant.
        load: other processes' load average per core before the case; `busy` if it is more than 0.25: only the ratios then mean something.
    """

    case: str
    images: int
    pipeline: SideResult
    loop: SideResult
    ratio: float
    cpu_ratio: float
    goal: float
    lines: int
    correlation: float | None
    load: float
    busy: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the result."""
        return asdict(self)


def race_case(name: str, arch: str, crop: int, paths: list[str], folder: Path) -> CaseResult:
    """Measure pipeline and loop on the same photographs, one after another.

    Args:
        paths: of the photographs, in one folder; at least eight.
        folder: an empty one, for what both write.

    Raises:
        InputError: if there are too few images to see a difference.
    """
    case, load = CASES[name], os.getloadavg()[0] / (os.cpu_count() or 1)
    loop = _in_process("loop", name, arch, crop, paths, folder)
    pipeline = _in_process("pipeline", name, arch, crop, paths, folder)
    return CaseResult(
        name,
        len(paths),
        pipeline,
        loop,
        pipeline.rate / loop.rate,
        loop.cpu_ms / pipeline.cpu_ms,
        case.goal,
        case.lines(),
        _correlation(name, paths, folder),
        load,
        load > _BUSY,
    )


def _in_process(side: Side, name: str, arch: str, crop: int, paths: list[str], folder: Path) -> SideResult:
    from pipeline.execution.cluster import CPU_ENVIRONMENT

    # The workers' environment, as Ray's workers have it; the loop has that of the user.
    changes = dict(CPU_ENVIRONMENT) if side == "pipeline" else dict.fromkeys(CPU_ENVIRONMENT)
    begin = time.time()
    with temporary_environment(changes), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        started, few, many, peak = process.submit(_lengths, side, name, arch, crop, paths, folder).result()
    more = len(paths) - _few(paths)
    if many[0] <= few[0] or many[1] <= few[1]:
        raise InputError(f"{name}: {len(paths)} images are too few, {more} more of them took the {side} no longer; raise --images")
    written = sum(file.stat().st_size for file in (folder / side / "many").rglob("*") if file.is_file())
    return SideResult(started - begin, more / (many[0] - few[0]), (many[1] - few[1]) / more * 1e3, peak, written)


def _lengths(
    side: Side, name: str, arch: str, crop: int, paths: list[str], folder: Path
) -> tuple[float, tuple[float, float], tuple[float, float], float]:
    """Do one batch, a quarter of the images, and all.

    Returns:
        The time at which the first batch was done, seconds and CPU seconds of the quarter and of all, and the peak memory in MiB.
    """
    import torch

    torch.set_num_threads(1)
    measured, ends = [], []
    for length, part in (("first", paths[:BATCH]), ("few", paths[: _few(paths)]), ("many", paths)):
        place = folder / side / length
        place.mkdir(parents=True)
        work = partial(CASES[name].loop, arch, part, crop, place) if side == "loop" else _planned(name, arch, crop, part, place)
        begin, cpu = time.monotonic(), _cpu_seconds()
        work()
        measured.append((time.monotonic() - begin, _cpu_seconds() - cpu))
        ends.append(time.time())
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return ends[0], measured[1], measured[2], peak / 1024


def _planned(name: str, arch: str, crop: int, paths: list[str], place: Path) -> Callable[[], object]:
    """Plan and check the case, and return what explains it, without the page.

    The checks take the same time for any number of images, and are part of the start.
    """
    from pipeline.config.load import load_config
    from pipeline.execution.driver import explain_run, plan_run

    keys = {
        "name": "run",
        "dataset": {"kind": "folder", "root": str(Path(paths[0]).parent), "limit": len(paths)},
        "classifier": {"arch": arch, "resize": crop, "crop": crop},
        "compute": {"executor": "local", "gpus_per_worker": 0, "shard_size": 64},
        "output": str(place),
    }
    return partial(explain_run, *plan_run(load_config(keys | CASES[name].keys)))


def _few(paths: list[str]) -> int:
    return len(paths) // 4


def _cpu_seconds() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _correlation(name: str, paths: list[str], folder: Path) -> float | None:
    """Return the mean correlation of the maps of both sides that are not constant."""
    from pipeline.runs import RunStore
    from pipeline.runs.maps import read_map

    maps, found = RunStore.open(str(folder / "pipeline/many/run")).storage.zarr("maps.zarr"), []
    for row, path in enumerate(paths[:_COMPARED]):
        ours = read_map(maps, CASES[name].keys["methods"][0], row).ravel()
        theirs = np.load(folder / f"loop/many/{Path(path).stem}.npy").astype(np.float32).ravel()
        if ours.std() > 0 and theirs.std() > 0:
            found.append(float(np.corrcoef(ours, theirs)[0, 1]))
    return float(np.mean(found)) if found else None
