"""Throughput of the pipeline against a hand-written loop, with Grad-CAM alone."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.table import Table

from pipeline.cli.console import err, out, print_json
from pipeline.cli.options import Json
from pipeline.errors import InputError

_WIDTH, _HEIGHT = 320, 280  # of the photographs, in pixels
_BATCH = 8


@dataclass(frozen=True)
class ThroughputResult:
    """Images per second of pipeline and loop, start-up apart.

    Each is measured with N and with 2 N images per worker: N divided by the difference of the seconds, times the workers.

    Attributes:
        ratio: pipeline over loop.
    """

    arch: str
    executor: str
    workers: int
    crop: int
    images: int
    pipeline: float
    loop: float
    ratio: float


def throughput(
    arch: Annotated[str, typer.Option(help="torchvision network with random weights and a last convolution `features`")] = "mobilenet_v2",
    workers: Annotated[int, typer.Option(min=1, help="workers of the pipeline, and processes of the loop, with one thread each")] = 2,
    images: Annotated[int, typer.Option(min=2, help="images per worker of the shorter measurement")] = 128,
    crop: Annotated[int, typer.Option(min=32, help="side of the network's input, in pixels")] = 224,
    executor: Annotated[str, typer.Option(help="ray, or local for one worker in this process")] = "ray",
    as_json: Json = False,
) -> None:
    """Compare the pipeline without metrics with a hand-written loop on the CPU."""
    if executor not in ("ray", "local"):
        raise InputError(f"--executor {executor}: choose ray or local")
    if executor == "local" and workers != 1:
        raise InputError(f"--workers {workers}: the executor local has one worker; write --workers 1")
    result = bench_throughput(arch, workers, images, crop, "ray" if executor == "ray" else "local")
    if as_json:
        print_json({"throughput": asdict(result)})
        return
    table = Table("", result.arch, box=None)
    for name, value in list(asdict(result).items())[1:]:
        table.add_row(name, f"{value:.3g}" if isinstance(value, float) else str(value))
    out.print(table)


def bench_throughput(arch: str, workers: int, images: int, crop: int, executor: Literal["ray", "local"]) -> ThroughputResult:
    """Measure pipeline and loop on the same photographs.

    Args:
        images: per worker, of the shorter measurement; the longer one has twice as many.

    Raises:
        InputError: if there are too few images to see a difference.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = save_photographs(folder / "images", 2 * images * workers)
        seconds: dict[str, list[float]] = {"pipeline": [], "loop": []}
        for count in (images, 2 * images):
            err.print(f"{arch}: {count} images per worker ...", markup=False)
            seconds["loop"].append(_loop(arch, crop, paths[: count * workers], workers, folder))
            seconds["pipeline"].append(_pipeline(arch, crop, count, workers, folder, executor))
    if any(longer <= shorter for shorter, longer in seconds.values()):
        raise InputError(f"--images {images}: too few, twice as many took no longer; raise it")
    rates = {key: images * workers / (longer - shorter) for key, (shorter, longer) in seconds.items()}
    ratio = rates["pipeline"] / rates["loop"]
    return ThroughputResult(arch, executor, workers, crop, images, rates["pipeline"], rates["loop"], ratio)


def save_photographs(folder: Path, count: int) -> list[str]:
    """Save seeded noise as photographs, and return their paths."""
    from PIL import Image

    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    small = noise.integers(0, 255, (count, 14, 16, 3), np.uint8)
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    for path, pixels in zip(paths, small, strict=True):
        Image.fromarray(pixels).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC).save(path)
    return [str(path) for path in paths]


def _pipeline(arch: str, crop: int, images: int, workers: int, folder: Path, executor: str) -> float:
    """Return the seconds of a run from its workers' start to the last commit."""
    from pipeline.config.load import load_config
    from pipeline.execution.driver import explain_run, plan_run

    compute: dict[str, Any] = {"executor": executor, "gpus_per_worker": 0, "batch_size": _BATCH, "shard_size": min(64, images)}
    config = load_config(
        {
            "name": f"throughput-{images}",
            "dataset": {"kind": "folder", "root": str(folder / "images"), "limit": images * workers},
            "classifier": {"arch": arch, "resize": crop, "crop": crop},
            "methods": ["grad_cam"],
            "metrics": "none",
            "compute": compute | ({"workers": workers} if executor == "ray" else {}),
            "output": str(folder / "runs"),
        }
    )
    return explain_run(*plan_run(config)).seconds


def _loop(arch: str, crop: int, paths: Sequence[str], workers: int, folder: Path) -> float:
    """Return the seconds in which the loop explains images, in one process per worker."""
    parts = [list(paths[number::workers]) for number in range(workers)]
    begin = time.monotonic()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(explain_by_hand, [arch] * workers, [crop] * workers, parts, [str(folder)] * workers))
    return time.monotonic() - begin


def explain_by_hand(arch: str, crop: int, paths: Sequence[str], folder: str) -> None:
    """Read images, compute Grad-CAM of the predicted class, and save the maps.

    It is what a user would write: hooks for the activations and their gradient, batches of 8, float16 maps in one file per batch.
    """
    import torch
    import torch.nn.functional as F
    import torchvision
    from PIL import Image

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = torchvision.models.get_model(arch).eval()
    kept: dict[str, torch.Tensor] = {}

    def keep(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        kept["activations"] = output

    network.features.register_forward_hook(keep)
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(crop),
            torchvision.transforms.CenterCrop(crop),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    for start in range(0, len(paths), _BATCH):
        images = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths[start : start + _BATCH]])
        logits = network(images)
        activations = kept["activations"]
        (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), activations)
        weights = gradient.mean((2, 3), keepdim=True)
        maps = F.interpolate((weights * activations.detach()).sum(1, keepdim=True).relu(), (crop, crop), mode="bilinear")[:, 0]
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        np.save(f"{folder}/{Path(paths[start]).stem}.npy", ((maps - low) / (high - low + 1e-12)).half().numpy())
