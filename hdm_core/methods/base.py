"""Methods as entries of a registry: id, settings, presets and one function.

The function maps a job to raw maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from hdm_core.batch_limit import BatchLimit
from hdm_core.checks.finding import Finding
from hdm_core.classifier import Classifier
from hdm_core.device import Precision
from hdm_core.masking.baseline_scores import BaselineScores
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.network.hooks import LayerOutput
from hdm_core.network.target_layer import TargetLayer
from hdm_core.settings import Settings, describe_errors

CONTROL = "control"  # family of the maps that know no class: a method should beat them


@dataclass(frozen=True)
class ExplainJob:
    """A batch to explain, with the classifier frozen and the targets resolved."""

    classifier: Classifier
    images: Tensor  # (B, C, H, W)
    targets: Tensor  # (B,) int64
    batch: int  # upper limit of images per forward pass
    passes: PassCounter
    precision: Precision = "float32"  # of the network while masks are trained or tried
    layer_output: LayerOutput | None = None  # at a layer or the input, of the pass that found the targets, if one batch holds all
    limit: BatchLimit | None = None  # that `batch` comes from, for a method that shrinks it without starting again
    cuda_graphs: bool = True  # capture the passes of masks on CUDA
    logits: Tensor | None = None  # (B, classes) of the images, before any comparison of classes


@dataclass(frozen=True)
class RawMaps:
    """A method's maps before `explain` checks them.

    They are (B, H, W) in [0, 1], NaN where the method diverged.
    """

    maps: Tensor
    stages: Tensor | None = None  # (B, S, H, W)
    stage_weights: Tensor | None = None  # (B, S)
    baseline_scores: BaselineScores | None = None  # of the baselines from which each image's was chosen
    signed: Tensor | None = None  # (B, H, W), of a method with `Method.signed`: the values with their sign, in its own unit


@dataclass(frozen=True)
class Method:
    """An entry of the registry."""

    id: str
    title: str
    source: str  # the paper it comes from
    settings: type[Settings]
    presets: Mapping[str, Settings]
    default: str  # the preset that is used when none is named
    run: Callable[[ExplainJob, Any], RawMaps]
    passes: Callable[[Any, int, int], int]  # settings, height, width -> passes per image with every network
    network_passes: Callable[[Any, Classifier, Tensor], int] | None = None  # further passes per image that depend on it: see `cost`
    backward: bool = True  # a pass has a backward; without one it costs a third to a half
    gradient_optional: bool = False  # the backward only saves passes: a network without gradients is explained as well
    # network, settings, images -> the layer of `layer_output`; `locate` finds the axes of a plain submodule
    layer: Callable[[nn.Module, Any, Tensor], TargetLayer | nn.Module] | None = None
    pairs_images: bool = False  # no gradient is taken of one image without another beside it
    input_gradient: bool = False  # takes the gradient to the input although it has a layer
    from_input: bool = False  # `layer_output` is that of the input
    check: Callable[[Any, Classifier, Tensor], Finding | None] | None = None  # settings, classifier, image; a ValueError is a refusal
    needs_attention: bool = False  # explains transformers alone: no group of `methods` in a configuration has it
    family: str = ""  # for tables of methods: CAM, gradient, mask optimisation, random masks, masks, control
    sign: str = ""  # for tables of methods: the treatment of evidence against the class
    signed: bool = False  # `run` also gives the values with their sign; the map is N of them, or of their absolute values

    @property
    def is_control(self) -> bool:
        """True if the map knows no class: tables show it below a line."""
        return self.family == CONTROL

    def is_concerned(self, finding: Finding) -> bool:
        """Return whether a finding about the gradient to the input concerns the method."""
        if finding.subject == "single image":
            return self.backward and not self.pairs_images
        return self.backward and (self.layer is None or self.input_gradient)

    def cost(self, settings: Settings, classifier: Classifier, image: Tensor) -> int:
        """Return the passes per image.

        They are the settings' and those that the network adds, such as one per channel of a layer.
        Passes are counted as `PassCounter` does.

        Args:
            image: (1, C, H, W), of the kind and size that will be explained; its content does not matter.

        Raises:
            ValueError: if the settings do not fit the network or the image's size.
        """
        added = self.network_passes(settings, classifier, image) if self.network_passes else 0
        return self.passes(settings, *image.shape[-2:]) + added

    def configure(self, preset: str | None = None, **changes: Any) -> Settings:
        """Return a preset's settings with some of them changed.

        Raises:
            ValueError: for an unknown preset, or for a setting that is unknown or out of range, with pydantic's error as its cause.
        """
        name = preset or self.default
        if name not in self.presets:
            raise ValueError(f"unknown preset {name!r} of {self.id}: choose from {', '.join(self.presets)}")
        try:
            return self.settings.model_validate({**self.presets[name].model_dump(), **changes})
        except ValidationError as error:
            raise ValueError(describe_errors(self.id, self.settings, error)) from error
