"""What a method is: an id, validated settings with presets, and a function from a job to raw maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hdm_core.classifier import Classifier
from hdm_core.device import Precision
from hdm_core.masking.consistency import PassCounter
from hdm_core.network.hooks import LayerOutput
from hdm_core.settings import Settings


@dataclass(frozen=True)
class ExplainJob:
    """A batch to explain, with the classifier frozen and the targets resolved."""

    classifier: Classifier
    images: Tensor  # (B, C, H, W)
    targets: Tensor  # (B,) int64
    batch: int  # at most so many images go through the network at once
    passes: PassCounter
    precision: Precision = "float32"  # of the network while masks are trained or tried
    layer_output: LayerOutput | None = None  # of the pass that found the targets, at a layer or the input, if one batch holds all


@dataclass(frozen=True)
class RawMaps:
    """What a method gives before its maps are checked: maps (B, H, W) in [0, 1], NaN where it diverged."""

    maps: Tensor
    stages: Tensor | None = None  # (B, S, H, W)
    stage_weights: Tensor | None = None  # (B, S)


@dataclass(frozen=True)
class Method:
    """An entry of the registry."""

    id: str
    title: str
    source: str  # the paper it comes from
    settings: type[Settings]
    presets: Mapping[str, Settings]
    default: str  # the preset that is meant when none is named
    run: Callable[[ExplainJob, Any], RawMaps]
    passes: Callable[[Any, int, int], int]  # settings, height, width -> passes an image with every network
    network_passes: Callable[[Any, Classifier, Tensor], int] | None = None  # those that depend on it: see `cost`
    backward: bool = True  # whether a pass has a backward; without one it costs a third to a half
    layer: Callable[[nn.Module, Any, Tensor], nn.Module] | None = None  # network, settings, images -> the layer that `Job.answer` is of
    from_input: bool = False  # whether `Job.answer` is of the input

    def cost(self, settings: Settings, classifier: Classifier, image: Tensor) -> int:
        """Passes an image: those that the settings tell and those that the network adds, such as one for every channel of a layer.

        Passes are counted as `Passes` does.

        Args:
            image: (1, C, H, W), of the kind and size that will be explained; what it shows does not matter.

        Raises:
            ValueError: if the settings do not fit the network or the image's size.
        """
        added = self.network_passes(settings, classifier, image) if self.network_passes else 0
        return self.passes(settings, *image.shape[-2:]) + added

    def configure(self, preset: str | None = None, **changes: Any) -> Settings:
        """A preset's settings with some of them changed.

        Raises:
            ValueError: for an unknown preset, or (as pydantic.ValidationError) for a setting that is unknown or out of range.
        """
        name = preset or self.default
        if name not in self.presets:
            raise ValueError(f"unknown preset {name!r} of {self.id}: choose from {', '.join(self.presets)}")
        return self.settings.model_validate({**self.presets[name].model_dump(), **changes})
