"""Work of `python -m benchmarks planted`, without its typer options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.planted.hierarchy import HierarchyResult, bench_hierarchy, select_candidates
from benchmarks.planted.piece_data import PieceData, make_patch_data, make_piece_data
from benchmarks.planted.piece_networks import ARCHITECTURES, STEPS
from hdm_core.device import pick_device

IMAGES, SEEDS = 30, 3  # images per kind and network; networks per architecture


def run_planted(
    hard: bool,
    images: int = IMAGES,
    seeds: int = SEEDS,
    architectures: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    steps: int = STEPS,
    batch: int | None = None,
    show: Callable[[str], None] = lambda line: None,
) -> HierarchyResult:
    """Compare candidates on the harder planted images, or on those of `truth`.

    Args:
        hard: use the harder images.
        images: images of each kind per network.
        seeds: networks per architecture, of the seeds 0, 1, ...
        architectures: of the networks of the harder images, all by default; `truth` has one.
        only: ids of candidates, all by default.
        steps: of the training on the harder images.
        batch: masked images per forward pass; None leaves it to the device.

    Raises:
        InputError: for an unknown candidate or architecture, or a network that did not learn.
    """
    device, selected = pick_device(1), select_candidates(only)
    datasets: list[Callable[[], PieceData]] = []
    for seed in range(seeds):
        if hard:
            datasets += [partial(make_piece_data, name, seed, images, device, steps) for name in architectures or ARCHITECTURES]
        else:
            datasets.append(partial(make_patch_data, seed, images))
    return bench_hierarchy(datasets, selected, "hard" if hard else "truth", device, batch, show)
