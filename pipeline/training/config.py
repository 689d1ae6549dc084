"""Configuration of a training: one validated, hashable object."""

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
from pipeline.section import Count, Section, Seed, Sides

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]


class NetworkConfig(Section):
    """The network before its training."""

    arch: str = Field(description="a torchvision classification network")
    weights: str | None = Field(None, description="a torchvision weights entry, or a .pth or .safetensors file; random weights if null")
    resize: Sides | None = Field(
        None, description="pixels of the short side before the crop, or [height, width] exactly; by default as for the weights"
    )
    crop: Sides | None = Field(
        None,
        description="pixels of each side of the network's input, or [height, width]; by default none with an exact resize, else as for the "
        "weights",
    )


class TrainingStage(Section):
    """Epochs that train one part of the network.

    The optimiser is AdamW, with linear warmup and cosine decay of the learning rate.
    """

    epochs: Count
    train: Literal["head", "all"] | tuple[str, ...] = Field(
        "all", description="head, all, or the modules to train beside the head, such as [layer4]"
    )
    learning_rate: Rate = Field(description="peak learning rate")
    head_learning_rate: Rate | None = Field(None, description="peak learning rate of the head; by default that of the stage")


class Augmentation(Section):
    """Random changes of a training image, drawn again each time it is loaded."""

    scale: float = Field(0.4, gt=0, le=1, description="smallest fraction of the image's area that a random crop covers")
    aspect: float = Field(4 / 3, ge=1, allow_inf_nan=False, description="largest ratio of the sides of the crop")
    flip: bool = Field(True, description="random horizontal flips")
    vertical_flip: bool = Field(False, description="random vertical flips")
    rotation: float = Field(0, ge=0, le=180, description="largest angle of a random rotation, in degrees")
    colour: float = Field(0.2, ge=0, lt=1, description="largest relative change of brightness, contrast and saturation")
    erasing: float = Field(0, ge=0, le=1, description="probability that a random rectangle is erased")
    mixup: float = Field(
        0, ge=0, allow_inf_nan=False, description="images of a batch are mixed in pairs with weights from Beta(mixup, mixup); 0 is off"
    )


class Recipe(Section):
    """Optimisation of the network."""

    stages: tuple[TrainingStage, ...] = Field(min_length=1)
    batch: Annotated[int, Field(ge=2)] = Field(32, description="images per step, over all workers")
    weight_decay: float = Field(
        0.05, ge=0, allow_inf_nan=False, description="weight decay of weights; biases and normalisation layers have none"
    )
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    warmup: OpenFraction = Field(0.1, description="fraction of a stage's steps in which the learning rate rises to its peak")
    average: OpenFraction | None = Field(
        None, description="decay per step of an exponential moving average of the weights, which is then the result; null is off"
    )
    statistics: Literal["batch", "pretrained"] = Field(
        "batch", description="statistics of batch normalisation: those of each batch, or the pretrained ones, for few images"
    )
    augmentation: Augmentation = Augmentation()

    @property
    def epochs(self) -> int:
        """Number of epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def locate_epoch(self, epoch: int) -> tuple[int, int]:
        """Return the stage of an epoch, and the number of its epochs before this one."""
        ends = list(accumulate(stage.epochs for stage in self.stages))
        number = next(number for number, end in enumerate(ends) if epoch < end)
        return number, epoch - ends[number] + self.stages[number].epochs


class TrainCompute(Section):
    """Compute resources of a training; Ray Train runs more than one worker."""

    renamed: ClassVar[Mapping[str, str]] = {"attempts": "max_attempts"}

    workers: Count | Literal["auto"] = Field("auto", description="auto is one worker per GPU of this machine, or one worker without GPUs")
    gpus_per_worker: Literal[0, 1] = Field(1, description="0 trains on the CPU; without GPUs the value has no effect")
    threads: Count | Literal["auto"] = Field(
        "auto", description="CPU threads of a worker without a GPU; auto divides the cores among the workers"
    )
    readers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field("auto", description="processes that load batches, per worker")
    cache: float = Field(
        4, ge=0, allow_inf_nan=False, description="GiB of decoded images in memory, per worker; the other images are read in every epoch"
    )
    precision: Precision | Literal["auto"] = Field("auto", description="auto is bfloat16 on GPUs")
    max_attempts: Count = Field(3, description="how often the workers are started, at most, when one is lost")
    ray_address: str | None = Field(
        None, description="Ray cluster to connect to; by default Ray is started on this machine if it is needed"
    )


class TrainConfig(Section):
    """Configuration of a training, with everything that determines its result."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the classifier's folder under output")
    dataset: AnyDatasetConfig = Field(description="all images: for training, validation and test")
    test: OpenFraction | str | None = Field(
        None, description="name of a split, or a fraction of the images: used neither for training nor to choose an epoch, only reported"
    )
    validation: OpenFraction | str | None = Field(
        None,
        description="name of a split, or a fraction of the rest: the epoch with the best accuracy on it is used; null uses the last epoch",
    )
    classifier: NetworkConfig
    recipe: Recipe
    compute: TrainCompute = TrainCompute()
    output: str = Field(min_length=1, description="folder or URL of the trained classifiers")
    storage: dict[str, Any] = Field(default_factory=dict, description="fsspec options such as endpoint_url; never a secret")
    seed: Seed = Field(0, description="seed of the split, the head and all random numbers")

    @model_validator(mode="after")
    def _check_splits_and_secrets(self) -> TrainConfig:
        if self.test == self.validation and isinstance(self.test, str):
            raise ValueError(
                f"test and validation are both the split {self.test!r}: an epoch chosen on the test images would make the test invalid"
            )
        refuse_secrets(self.model_dump())
        return self

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the weights."""
        return self.model_dump(mode="json", exclude={"name": True, "output": True, "storage": True, "compute": _NOT_IN_IDENTITY})

    def hash(self) -> str:
        """Return the sha256 of the identity as canonical JSON."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


_NOT_IN_IDENTITY = {"cache", "max_attempts", "ray_address"}
