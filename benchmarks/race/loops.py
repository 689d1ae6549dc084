"""Loops as a user would write them: a DataLoader, and one npy per image.

None resumes, checks the network, records anything or survives a broken file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.sequential import sequential_dm
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.settings import DMSettings

BATCH = 8


class Photographs(Dataset[tuple[Tensor, str]]):
    """Photographs with the usual preprocessing."""

    def __init__(self, paths: Sequence[str], crop: int) -> None:
        self.paths = paths
        self.transform = torchvision.transforms.Compose(
            [
                torchvision.transforms.Resize(crop),
                torchvision.transforms.CenterCrop(crop),
                torchvision.transforms.ToTensor(),
                torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        """Return a preprocessed photograph and its path."""
        return self.transform(Image.open(self.paths[index]).convert("RGB")), self.paths[index]


def load(arch: str, paths: Sequence[str], crop: int) -> tuple[Any, DataLoader[Any]]:
    """Return a network and the batches of the photographs."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(arch).eval()
    return network, DataLoader(Photographs(paths, crop), batch_size=BATCH, num_workers=1)


def grad_cam(arch: str, paths: Sequence[str], crop: int, folder: Path) -> None:
    """Save Grad-CAM's maps, by pytorch-grad-cam."""
    from pytorch_grad_cam import GradCAM

    network, batches = load(arch, paths, crop)
    with GradCAM(network, [network.features[-1]]) as cam:
        for images, names in batches:
            for saliency, name in zip(cam(images, None), names, strict=True):
                np.save(folder / f"{Path(name).stem}.npy", saliency.astype(np.float16))


def grad_cam_measured(arch: str, paths: Sequence[str], crop: int, folder: Path) -> None:
    """Save Grad-CAM's maps, with the areas under deletion and insertion."""
    from pytorch_grad_cam import GradCAM

    network, batches = load(arch, paths, crop)
    rows = []
    with GradCAM(network, [network.features[-1]]) as cam:
        for images, names in batches:
            for image, saliency, name in zip(images, cam(images, None), names, strict=True):
                np.save(folder / f"{Path(name).stem}.npy", saliency.astype(np.float16))
                rows.append(f"{name},{','.join(f'{area:.4f}' for area in deletion_insertion(network, image, saliency))}\n")
    (folder / "metrics.csv").write_text("".join(rows))


@torch.no_grad()
def deletion_insertion(network: nn.Module, image: Tensor, saliency: Any) -> list[float]:
    """Return the areas under both curves of 101 points, in batches."""
    target = int(network(image[None]).argmax())
    order = np.argsort(-saliency.ravel(), kind="stable")
    areas = []
    for start, end in ((image, torch.zeros_like(image)), (torch.zeros_like(image), image)):
        steps = []
        for step in range(101):
            changed = start.clone().flatten(1)
            pixels = torch.from_numpy(order[: round(step / 100 * len(order))])
            changed[:, pixels] = end.flatten(1)[:, pixels]
            steps.append(changed.view_as(image))
        curve = torch.cat([network(torch.stack(steps[at : at + BATCH])).softmax(1)[:, target] for at in range(0, 101, BATCH)])
        areas.append(float(torch.trapezoid(curve) / 100))
    return areas


@torch.no_grad()
def rise(arch: str, paths: Sequence[str], crop: int, folder: Path, masks: int) -> None:
    """Save RISE's maps, as in its authors' program."""
    network, batches = load(arch, paths, crop)
    cells, keep = 7, 0.5
    side = -(-crop // cells)
    grids = (torch.rand(masks, 1, cells, cells) < keep).float()
    shifts = torch.randint(0, side, (masks, 2)).tolist()
    drawn = torch.empty(masks, 1, crop, crop)
    for number, (down, right) in enumerate(shifts):
        large = F.interpolate(grids[number : number + 1], size=(cells + 1) * side, mode="bilinear")
        drawn[number] = large[0, :, down : down + crop, right : right + crop]
    for images, names in batches:
        for image, name in zip(images, names, strict=True):
            target = int(network(image[None]).argmax())
            scores = torch.cat([network(drawn[at : at + BATCH] * image).softmax(1)[:, target] for at in range(0, masks, BATCH)])
            saliency = (scores[:, None, None] * drawn[:, 0]).sum(0) / masks / keep
            np.save(folder / f"{Path(name).stem}.npy", saliency.half().numpy())


def dynamic_masks(arch: str, paths: Sequence[str], crop: int, folder: Path, settings: DMSettings) -> None:
    """Save DM's maps, one mask at a time."""
    network, batches = load(arch, paths, crop)
    for images, names in batches:
        for image, name in zip(images, names, strict=True):
            target = int(network(image[None]).argmax())
            saliency = sequential_dm(network, image[None], target, settings, PassCounter(None))
            np.save(folder / f"{Path(name).stem}.npy", saliency.half().numpy())
