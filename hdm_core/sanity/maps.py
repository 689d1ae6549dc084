"""Maps of a variant by one method, and their similarity to the original maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdm_core.batch_limit import BatchLimit
from hdm_core.device import Precision
from hdm_core.device_errors import is_of_device
from hdm_core.draws import draws_of_seed
from hdm_core.explain import explain_with
from hdm_core.messages import typed_line
from hdm_core.sanity.subject import Subject, Variant
from hdm_core.settings import Settings
from hdm_core.similarity import spearman, ssim


@dataclass(frozen=True)
class Maps:
    """Maps of B images by one method.

    Attributes:
        values: (B, H, W) float16 in [0, 1], as a run stores them; zeros where the status is not ok.
        status: of each image: ok, flat, nan, or failed if the method or the network raised.
        error: of the first image that failed; empty for none.
    """

    values: NDArray[np.float16]
    status: Sequence[str]
    error: str = ""

    @property
    def is_ok(self) -> NDArray[np.bool_]:
        """Images with a map, (B,)."""
        return np.array([status == "ok" for status in self.status])


@dataclass(frozen=True)
class Compute:
    """Batch size and precision of maps; None leaves either to the device."""

    batch: int | BatchLimit | None = None
    precision: Precision | None = None
    cuda_graphs: bool = True


@dataclass(frozen=True)
class Comparison:
    """Similarity of a variant's maps to the original ones, image by image.

    Attributes:
        spearman: (B,) in [-1, 1]; NaN where the status is not ok.
        ssim: (B,) in [-1, 1]; NaN, too, if the maps are smaller than its window.
        equal: (B,) 1 where both maps have the same bits, 0 where not; NaN where the status is not ok.
        status: the worse of both maps': ok, flat, nan or failed; "changed" for an image that the test is not about.
        error: of the first image that failed; empty for none.
    """

    spearman: NDArray[np.float64]
    ssim: NDArray[np.float64]
    equal: NDArray[np.float64]
    status: Sequence[str]
    error: str = ""


_ORDER = ("ok", "flat", "nan", "failed")  # the worse the later


def explain_variant(variant: Subject | Variant, method: str, settings: Settings, compute: Compute) -> Maps:
    """Explain the images of a variant; an image that fails costs the others nothing.

    Raises:
        RuntimeError: of the device, which is no image's fault.
    """
    seed = variant.seed if isinstance(variant, Variant) else 0
    with draws_of_seed(seed):
        return _explain(variant, torch.arange(len(variant.images)), method, settings, compute)


def _explain(variant: Subject | Variant, rows: Tensor, method: str, settings: Settings, compute: Compute) -> Maps:
    places = rows.to(variant.images.device)
    contrasts = None if variant.contrasts is None else variant.contrasts[places]
    try:
        explanation = explain_with(
            variant.classifier,
            variant.images[places],
            method,
            settings,
            variant.targets[places],
            contrast=contrasts,
            batch=compute.batch,
            precision=compute.precision,
            cuda_graphs=compute.cuda_graphs,
        )
    except Exception as error:  # a randomised network may be one that a method refuses, or raises for
        if is_of_device(error):
            raise
        if len(rows) == 1:
            return Maps(np.zeros((1, *variant.images.shape[-2:]), np.float16), ["failed"], typed_line(error))
        alone = [_explain(variant, row[None], method, settings, compute) for row in rows]
        errors = (each.error for each in alone if each.error)
        return Maps(np.concatenate([each.values for each in alone]), [each.status[0] for each in alone], next(errors, ""))
    values = explanation.maps.half().cpu().numpy()
    is_flat = values.max((1, 2)) == values.min((1, 2))  # in float16, too, where small differences vanish
    statuses = ["flat" if flat and each == "ok" else each for each, flat in zip(explanation.status, is_flat, strict=True)]
    return Maps(values, statuses)


def compare(original: Maps, other: Maps, concerned: Tensor | None = None) -> Comparison:
    """Compare two maps of every image.

    Args:
        concerned: (B,) bool, the images that the test is about; None for all.
    """
    status = [max(pair, key=_ORDER.index) for pair in zip(original.status, other.status, strict=True)]
    if concerned is not None:
        status = [each if is_concerned else "changed" for each, is_concerned in zip(status, concerned.tolist(), strict=True)]
    is_ok = np.array([each == "ok" for each in status])
    rank, structure = np.full((2, len(status)), np.nan)
    equal = np.where(is_ok, (original.values == other.values).all((1, 2)), np.nan)
    if is_ok.any():
        rank[is_ok] = spearman(original.values[is_ok], other.values[is_ok])
        structure[is_ok] = ssim(original.values[is_ok], other.values[is_ok])
    return Comparison(rank, structure, equal, status, other.error or original.error)


def compare_with_next(maps: Maps) -> Comparison:
    """Compare the map of every image with that of the next one.

    It is what maps of the method have in common whatever the image: the randomisation baseline of Arun et al., doi 10.1148/ryai.2021200267,
    who average the SSIM of pairs of images. The last image is compared with the first.
    """
    others = Maps(np.roll(maps.values, -1, 0), [*maps.status[1:], maps.status[0]], maps.error)
    return compare(maps, others)
