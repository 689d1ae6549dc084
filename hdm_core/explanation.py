"""`Explanation`: maps with a status each, drawn and saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hdm_core.heatmap import colour, overlay
from hdm_core.masking.baseline_scores import BaselineScores
from hdm_core.notebook import pictures_html
from hdm_core.photograph import Photograph, to_rgb
from hdm_core.preprocess import Preprocess
from hdm_core.settings import Baseline

Status = Literal["ok", "flat", "nan"]

_SHOWN = 8  # maps that a notebook shows
_SUFFIXES = (".png", ".npy", ".npz")
_TENSORS = ("maps", "targets", "contrasts", "logits", "stages", "stage_weights", "signed")  # of a file .npz


@dataclass(frozen=True, repr=False)
class Explanation:
    """Result of `explain` for B images, on the classifier's device.

    Attributes:
        maps: (B, H, W) float32 in [0, 1]; all zeros where the status is not ok.
        status: "ok"; "flat" if the map is constant; "nan" if the method diverged.
        targets: (B,) int64, the class that each map explains.
        logits: (B, classes) float32, the network's output for the unmasked images.
        passes: forward and backward passes spent on each image.
        stages: (B, S, H, W), HDM's M_i before mixing, else None.
        stage_weights: (B, S), their shares, which sum to 1, else None.
        method: the id of the method.
        contrasts: (B,) int64, the class that each target is compared with, else None.
        preprocess: the classifier's, whose crop of a photograph the maps lie on; None if it has none.
        baselines: B baselines that masked or started the maps, None for a method without one; `measure_baselines` says what a class keeps
            on them.
        baseline_scores: of the baselines from which `baseline: auto` of HDM and DM chose, else None.
        signed: (B, H, W) float32 in [-1, 1] of methods that tell evidence for the class (positive) from evidence against it, scaled by
            an image's largest absolute value; all zeros where the status is not ok. None for other methods.
    """

    maps: Tensor
    status: list[Status]
    targets: Tensor
    logits: Tensor
    passes: int
    stages: Tensor | None = None
    stage_weights: Tensor | None = None
    method: str = ""
    preprocess: Preprocess | None = None
    contrasts: Tensor | None = None
    baselines: list[Baseline] | None = None
    baseline_scores: BaselineScores | None = None
    signed: Tensor | None = None

    def __repr__(self) -> str:
        count, height, width = self.maps.shape
        statuses = ", ".join(f"{number} {status}" for status, number in Counter(self.status).items())
        maps, passes = _counted(count, "map"), _counted(self.passes, "pass", "es")
        return f"Explanation({self.method or 'unknown'}: {maps} of {height} x {width}, {statuses}, {passes} per image)"

    def _repr_html_(self) -> str:
        """Return the first maps as a notebook shows them, with class and status."""
        shown = zip(self.maps[:_SHOWN].cpu().numpy(), self.targets[:_SHOWN].tolist(), self.status, strict=False)
        return pictures_html(repr(self), [(colour(values), f"class {target}, {status}") for values, target, status in shown])

    @overload
    def overlay(self, photographs: Photograph) -> Image.Image: ...
    @overload
    def overlay(self, photographs: Sequence[Photograph]) -> list[Image.Image]: ...
    def overlay(self, photographs: Photograph | Sequence[Photograph]) -> Image.Image | list[Image.Image]:
        """Draw the maps over their photographs, in the crop that the network saw.

        Args:
            photographs: a PIL image or an array (H, W) or (H, W, C), of bytes, of 16 bits or of floats in [0, 1]; for several maps a list.
                Of more than three channels the first three are shown, as red, green and blue.

        Returns:
            One image for one photograph, a list for a list.

        Raises:
            ValueError: if there are not as many photographs as maps, or one has another size than the maps and the classifier has no
                preprocess that would crop it.
        """
        if isinstance(photographs, Image.Image | np.ndarray):
            return self._draw([photographs])[0]
        return self._draw(photographs)

    def save(self, path: str | Path, photographs: Photograph | Sequence[Photograph] | None = None) -> list[Path]:
        """Write the maps to files.

        Args:
            path: NAME.png for heatmaps, NAME-0.png, NAME-1.png, ... if there are several; .npy for the maps alone; .npz for maps,
                targets, contrasts if there are any, logits, status, signed maps if the method has them and, of HDM, stages and their
                weights.
            photographs: what .png heatmaps are drawn over, as for `overlay`; the map alone if None.

        Returns:
            The files.

        Raises:
            ValueError: for another suffix, or as `overlay` does.
        """
        path = Path(path)
        match path.suffix.lower():
            case ".png":
                return self._save_heatmaps(path, photographs)
            case ".npy":
                with path.open("wb") as file:
                    np.save(file, self.maps.cpu().numpy())
            case ".npz":
                tensors = {name: getattr(self, name) for name in _TENSORS}
                arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items() if tensor is not None}
                with path.open("wb") as file:
                    np.savez_compressed(file, status=np.array(self.status), **arrays)
            case suffix:
                raise ValueError(f"{path}: maps are saved as {', '.join(_SUFFIXES)}, not {suffix or 'without a suffix'}")
        return [path]

    def _draw(self, photographs: Sequence[Photograph]) -> list[Image.Image]:
        if len(photographs) != len(self.maps):
            raise ValueError(f"{len(self.maps)} maps need a list of as many photographs, not {len(photographs)}")
        return [overlay(self._crop(each), values) for each, values in zip(photographs, self.maps.cpu().numpy(), strict=True)]

    def _save_heatmaps(self, path: Path, photographs: Photograph | Sequence[Photograph] | None) -> list[Path]:
        if photographs is None:
            heatmaps = [colour(values) for values in self.maps.cpu().numpy()]
        else:
            heatmaps = self._draw([photographs] if isinstance(photographs, Image.Image | np.ndarray) else photographs)
        paths = [path] if len(heatmaps) == 1 else [path.with_stem(f"{path.stem}-{number}") for number in range(len(heatmaps))]
        for heatmap, place in zip(heatmaps, paths, strict=True):
            heatmap.save(place)
        return paths

    def _crop(self, photograph: Photograph) -> Image.Image:
        """Return the part of a photograph that the network saw, of the maps' size."""
        channels = 3 if self.preprocess is None else self.preprocess.channels
        found = photograph if isinstance(photograph, Image.Image) else _image(photograph, channels)
        height, width = self.maps.shape[1:]
        image = to_rgb(found) if self.preprocess is None else self.preprocess.cropped(found)
        if image.size != (width, height):
            hint = "" if self.preprocess else "; give the classifier a preprocess, or the image that the network saw"
            raise ValueError(f"the photograph has {image.width} x {image.height} pixels and the maps {width} x {height}{hint}")
        return image


def _counted(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


def _image(array: NDArray[Any], channels: int) -> Photograph:
    """Return an array as an image of Pillow if it has 8 bits and its channels."""
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (channels,)):
        raise ValueError(f"a photograph as an array has the shape (H, W) or (H, W, {channels}), not {array.shape}")
    if array.dtype == np.uint16 or array.shape[2:] not in ((), (3,)):
        return array
    if array.dtype != np.uint8:
        array = (np.clip(array, 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(array)
