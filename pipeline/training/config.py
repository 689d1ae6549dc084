"""What a training is: one validated, hashable object, as a run's configuration is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import accumulate
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from hdm_core.device import Precision
from pipeline.datasets import AnyDatasetConfig
from pipeline.redaction import refuse_secrets
from pipeline.section import Count, Section, Seed

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]


class NetworkConfig(Section):
    """The network before its training."""

    arch: str = Field(description="a torchvision classification network")
    weights: str | None = Field(None, description="a torchvision weights entry, or a .pth or .safetensors file; else they are random")
    resize: Count | None = Field(None, description="short side before the crop, instead of the weights' own")
    crop: Count | None = Field(None, description="side of the network's input, instead of the weights' own")


class Stage(Section):
    """Some epochs in which a part of the network learns: AdamW, the learning rate up and down again by a cosine."""

    epochs: Count
    train: Literal["head", "all"] | tuple[str, ...] = Field(
        "all", description="head, all, or what learns beside the head as the beginnings of parameters' names, such as [layer4]"
    )
    learning_rate: Rate = Field(description="at its highest")
    head_learning_rate: Rate | None = Field(None, description="of the head, where it is another")


class Augmentation(Section):
    """How a training image is changed each time it is seen."""

    scale: float = Field(0.4, gt=0, le=1, description="a random crop keeps at least this share of the picture")
    aspect: float = Field(4 / 3, ge=1, allow_inf_nan=False, description="the crop's sides differ by at most this factor")
    flip: bool = Field(True, description="left and right")
    vertical_flip: bool = False
    rotation: float = Field(0, ge=0, le=180, description="at most so many degrees")
    colour: float = Field(0.2, ge=0, lt=1, description="brightness, contrast and saturation change by at most this share")
    erasing: float = Field(0, ge=0, le=1, description="how often a rectangle is taken out")
    mixup: float = Field(0, ge=0, allow_inf_nan=False, description="images of a batch are mixed in pairs, shares from Beta(mixup, mixup)")


class Recipe(Section):
    """How the network learns."""

    stages: tuple[Stage, ...] = Field(min_length=1)
    batch: Annotated[int, Field(ge=2)] = Field(32, description="images a step, of all workers together")
    weight_decay: float = Field(0.05, ge=0, allow_inf_nan=False, description="of weights; biases and normalisations have none")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    warmup: Share = Field(0.1, description="share of a stage in which its learning rate goes up")
    average: Share | None = Field(None, description="the result is the moving average of the weights, of which each step keeps this share")
    statistics: Literal["batch", "pretrained"] = Field("batch", description="of batch normalisations; pretrained for few images")
    augmentation: Augmentation = Augmentation()

    @property
    def epochs(self) -> int:
        """Of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def stage_of(self, epoch: int) -> tuple[int, int]:
        """A stage's number, and how many of its epochs lie before this one."""
        ends = list(accumulate(stage.epochs for stage in self.stages))
        number = next(number for number, end in enumerate(ends) if epoch < end)
        return number, epoch - ends[number] + self.stages[number].epochs


class TrainCompute(Section):
    """What a training may use. More than one worker train together, through Ray Train."""

    renamed: ClassVar[Mapping[str, str]] = {"attempts": "max_attempts"}

    workers: Count | Literal["auto"] = Field("auto", description="auto is a worker for every GPU of this machine, or one")
    gpus_per_worker: Literal[0, 1] = Field(1, description="0 keeps to the CPU; without GPUs it does not matter")
    threads: Count | Literal["auto"] = Field("auto", description="CPU threads of a worker without a GPU; auto is its share of the cores")
    readers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field("auto", description="processes that prepare a worker's batches")
    cache: float = Field(4, ge=0, allow_inf_nan=False, description="GiB of decoded images that a worker keeps; others are read every epoch")
    precision: Precision | Literal["auto"] = Field("auto", description="auto is bfloat16 on GPUs")
    max_attempts: Count = Field(3, description="how often workers of which one was lost are started")
    ray_address: str | None = Field(None, description="a Ray cluster to join; without one Ray is started here if it is needed")


class TrainConfig(Section):
    """A training, and all that determines its result."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the classifier's folder under output")
    dataset: AnyDatasetConfig = Field(description="all images: to train on, to choose by and to test on")
    test: Share | str | None = Field(None, description="a split's name or a share: never trained on or chosen by, only reported")
    validation: Share | str | None = Field(
        None, description="a split's name or a share of the rest: the epoch with the best accuracy on it is kept; without it, the last"
    )
    classifier: NetworkConfig
    recipe: Recipe
    compute: TrainCompute = TrainCompute()
    output: str = Field(min_length=1, description="where classifiers are kept: a folder or a URL")
    storage: dict[str, Any] = Field(default_factory=dict, description="fsspec options such as endpoint_url; never a secret")
    seed: Seed = Field(0, description="of the shares, the head and all that is random")

    @model_validator(mode="after")
    def _can_be(self) -> TrainConfig:
        if self.test == self.validation and isinstance(self.test, str):
            raise ValueError(f"test and validation are both the split {self.test!r}: what an epoch was chosen by is no test")
        refuse_secrets(self.model_dump())
        return self

    def identity(self) -> dict[str, Any]:
        """All that determines the weights."""
        return self.model_dump(mode="json", exclude={"name": True, "output": True, "storage": True, "compute": _NO_MATTER})

    def hash(self) -> str:
        """sha256 of the identity as canonical JSON."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


_NO_MATTER = {"cache", "max_attempts", "ray_address"}
