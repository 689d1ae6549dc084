"""Findings of places at which images of a class look alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.audit.alike import AlikePlace, alike_places
from pipeline.audit.causal import pasted
from pipeline.audit.energy import Energies, cell_edges
from pipeline.audit.finding import Finding
from pipeline.audit.place import bounding_box
from pipeline.audit.spatial import in_middle, place_name
from pipeline.audit.tested import Tester, overlap

_EXAMPLES = 8
_ON_OBJECTS = 0.5  # of a place, over its images
_MOST = 0.4  # of the image: near duplicates are alike everywhere


def alike_findings(energies: Energies, method: str, tester: Tester, on_class: Callable[[int], None]) -> list[Finding]:
    """Find, class by class, places at which images look alike, and test them.

    Only places that raise the class's probability in images of other classes are tested against random places: the rest are no finding.

    Args:
        on_class: called with 1 after each class.
    """
    findings = []
    rng = np.random.default_rng(tester.settings.seed)
    for name in energies.sizes:
        rows = energies.rows[energies.of(name)]
        if len(rows) >= tester.settings.min_images and tester.targets.get(name) is not None:
            chosen = np.sort(rng.permutation(rows)[: tester.settings.compared])
            findings += _of_class(energies, name, chosen, method, tester)
        on_class(1)
    return findings


def _of_class(energies: Energies, name: str, rows: NDArray[np.int64], method: str, tester: Tester) -> list[Finding]:
    read, own, regions = tester.subject.read(rows.tolist())
    others, _ = tester.pool.others(name)
    found: list[Finding] = []
    for place in alike_places(own, others):
        frame = _goes_around(place.pixels)
        where = "border" if frame else place_name(place.pixels)
        numbers, tried = (torch.from_numpy(each).to(own.device) for each in (place.images, place.pixels))
        if (
            where == "centre"
            or place.pixels.mean() > _MOST
            or (not frame and in_middle(place.pixels))
            or _on_objects(regions[numbers], tried)
        ):
            continue
        if any(each.confirmed and overlap(each.box, bounding_box(place.pixels)) for each in found):
            continue  # near duplicates around a mark, which has been proved with more images
        like = own[numbers]
        rise = pasted(
            tester.subject.classifier, others[: tester.settings.tested], like, tester.targets[name] or 0, tried, tester.subject.batch
        )
        if rise.mean() < tester.settings.min_effect:
            continue
        finding = _finding(energies, name, place, [read[number] for number in place.images], len(read), where, method)
        found.append(tester.prove(finding, like[: tester.settings.tested], place.pixels, alike=True))
    return found


def _finding(energies: Energies, name: str, place: AlikePlace, rows: Sequence[int], compared: int, where: str, method: str) -> Finding:
    cells = _cells(place.pixels).ravel()
    at_place = energies.cells[np.isin(energies.rows, rows)][:, cells].sum(1).mean()
    others = energies.cells[~energies.of(name)][:, cells].sum(1).mean()
    text = (
        f"{len(rows)} of {compared} images of {name} look alike at the {where}; their maps have {at_place:.0%} of their energy there, "
        f"those of other classes {others:.0%}"
    )
    listed = tuple(rows)
    return replace(
        Finding(name, "spatial", method, len(rows), text, place=where, box=bounding_box(place.pixels)),
        share=float(at_place),
        examples=listed[:_EXAMPLES],
        rows=listed,
    )


def _on_objects(regions: Tensor, pixels: Tensor) -> bool:
    """Return whether most of a place is on annotated objects."""
    annotated = regions[~regions.flatten(1).all(1)]
    return len(annotated) > 0 and float(annotated[:, pixels].double().mean()) > _ON_OBJECTS


def _goes_around(pixels: NDArray[np.bool_]) -> bool:
    """Return whether pixels go around the image and leave its middle free."""
    height, width = pixels.shape
    left, top, right, bottom = bounding_box(pixels)
    around = left < width // 8 and top < height // 8 and right > width - width // 8 and bottom > height - height // 8
    return around and not pixels[height // 3 : -(height // 3), width // 3 : -(width // 3)].any()


def _cells(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the grid's cells that any of the pixels is in."""
    rows, columns = (cell_edges(side)[:-1] for side in pixels.shape)
    cells: NDArray[np.bool_] = np.logical_or.reduceat(np.logical_or.reduceat(pixels, rows, axis=0), columns, axis=1)
    return cells
