"""What a run is: one validated, hashable object; YAML in, JSON out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hdm_core import METHODS, MetricSettings, get_method
from hdm_core.device import Precision
from hdm_core.settings import Settings
from pipeline.redaction import refuse_secrets

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Interpolation = Literal["nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos"]

# What the kinds have masks of. IDRiD: microaneurysms, haemorrhages, hard and soft exudates, and the optic disc, which is no lesion.
LESIONS = {"palm": ("Atrophy", "Detachment"), "idrid": ("MA", "HE", "EX", "SE", "OD")}


class Section(BaseModel):
    """A part of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    renamed: ClassVar[Mapping[str, str]] = {}  # old key -> new key, so that an error can say the new one


class DatasetConfig(Section):
    """Which images."""

    kind: Literal["demo", "cub", "palm", "idrid", "folder", "manifest"]
    root: str | None = Field(None, description="the dataset's folder, or the manifest's file; local or a URL")
    split: str | None = Field(None, description="only images of this split, such as train or test")
    splits: str | None = Field(None, description="a trained classifier's split.csv, which says the images' splits instead of the dataset")
    part: Literal["grading", "segmentation"] | None = Field(None, description="of idrid")
    referable: bool = Field(False, description="idrid's grading as two classes: whether the grade is 2 or more")
    lesions: tuple[str, ...] | None = Field(None, min_length=1, description="of palm or idrid: the region is their union")
    per_class: Count | None = Field(None, description="so many images of every class, drawn with `seed`")
    limit: Count | None = Field(None, description="at most so many images, drawn with `seed`")
    seed: Seed = 0

    @model_validator(mode="after")
    def _root_is_known(self) -> DatasetConfig:
        if self.kind != "demo" and not self.root:
            what = {"manifest": "a CSV or Parquet file", "folder": "a folder of images"}.get(self.kind, "the dataset's folder")
            raise ValueError(f"dataset.root is missing: a dataset of kind {self.kind!r} needs {what}; set dataset.root")
        return self

    @model_validator(mode="after")
    def _keys_belong_to_the_kind(self) -> DatasetConfig:
        if self.kind == "idrid" and self.part is None:
            raise ValueError("dataset.part is missing: write grading or segmentation")
        mine = {
            "split": self.kind not in {"demo", "folder"} or self.splits is not None,
            "part": self.kind == "idrid",
            "referable": self.part == "grading",
            "lesions": self.kind == "palm" or self.part == "segmentation",
        }
        what = f"kind {self.kind!r}" + (f" and part {self.part!r}" if self.kind == "idrid" else "")
        for key, belongs in mine.items():
            if not belongs and getattr(self, key) not in {None, False}:
                raise ValueError(f"dataset.{key} says nothing about a dataset of {what}: remove it")
        known = LESIONS.get(self.kind, ())
        if wrong := [lesion for lesion in self.lesions or () if lesion not in known]:
            raise ValueError(f"dataset.lesions: unknown lesion {wrong[0]!r}; known are {', '.join(known)}")
        return self


# What a classifier's source needs, and what it may have beside that.
_SOURCES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "torchvision": (("arch",), ("weights",)),
    "checkpoint": (("path",), ("arch", "train")),
    "exported": (("path",), ()),
    "import": (("factory",), ("arguments",)),
    "timm": (("arch",), ("weights", "path")),
}


class ClassifierConfig(Section):
    """Which network, and what it is shown."""

    source: Literal["torchvision", "checkpoint", "exported", "import", "timm"] = "torchvision"
    arch: str | None = Field(None, description="a classification network of torchvision or timm")
    weights: str | None = Field(
        None, description="an entry of torchvision's weights or a tag of timm's; without one the weights are random"
    )
    path: str | None = Field(None, description="a trained folder with card.json, a state dict, or an exported program")
    train: str | None = Field(None, description="a training, preset or file, that makes the folder `path` where there is none yet")
    factory: str | None = Field(
        None, pattern=r"^[\w.]+:[\w.]+$", description="package.module:function that gives the network; it is run, so trust it"
    )
    arguments: dict[str, Any] | None = Field(None, description="the factory's keyword arguments")
    classes: Count | tuple[str, ...] | str | None = Field(
        None, description="their names, their number, or a text file with a name a line; instead of the classifier's own names"
    )
    resize: Count | None = Field(None, description="short side before the crop, instead of the weights' own")
    crop: Count | None = Field(None, description="side of the network's input, instead of the weights' own")
    mean: tuple[float, float, float] | None = Field(None, description="of red, green and blue in 0 to 1, instead of the weights' own")
    std: tuple[Positive, Positive, Positive] | None = Field(None, description="likewise")
    interpolation: Interpolation | None = Field(None, description="of the resize, instead of the weights' own")

    @model_validator(mode="after")
    def _source_is_named(self) -> ClassifierConfig:
        needed, allowed = _SOURCES[self.source]
        for name in needed:
            if not getattr(self, name):
                raise ValueError(f"classifier.{name} is missing: a classifier from {self.source} needs it")
        for name in ("arch", "weights", "path", "train", "factory", "arguments"):
            if name not in needed + allowed and getattr(self, name) is not None:
                raise ValueError(f"classifier.{name} says nothing about a classifier from {self.source}: remove it")
        if self.source == "checkpoint" and self.arch and not self.classes:
            raise ValueError("classifier.classes is missing: a state dict needs its classes, names or a number, beside arch")
        if self.arch and self.train:
            raise ValueError("classifier.train makes a trained folder, and classifier.arch is of a state dict: remove one")
        if self.path and self.weights:
            raise ValueError("classifier.weights and classifier.path are two sources of weights: remove one")
        return self


class ComputeConfig(Section):
    """What a run may use."""

    renamed: ClassVar[Mapping[str, str]] = {
        "batch": "batch_size",
        "attempts": "max_attempts",
        "stall": "stall_timeout",
        "lease": "lease_seconds",
        "patience": "storage_timeout",
        "sole_driver": "single_driver",
    }

    workers: Count | Literal["auto"] = "auto"
    gpus_per_worker: float = Field(1.0, ge=0, allow_inf_nan=False, description="a share such as 0.25; without GPUs the run uses the CPU")
    threads: Count = Field(1, description="CPU threads of a worker without a GPU")
    shard_size: Count = Field(256, description="images a unit of work")
    batch_size: Count | Literal["auto"] = Field("auto", description="images through the network at once")
    precision: Precision | Literal["auto"] = Field("auto", description="of the network while masks are trained; auto is bfloat16 on GPUs")
    max_attempts: Count = Field(3, description="how often a shard is tried before it is set aside")
    stall_timeout: float = Field(
        21600, gt=0, description="seconds without a pass after which a worker is taken for hung; longer than measuring a batch takes"
    )
    lease_seconds: float = Field(60, gt=0, description="seconds after which another driver takes over a shard whose worker is silent")
    storage_timeout: float = Field(600, gt=0, description="seconds that a run which is under way waits for its storage to come back")
    single_driver: bool = Field(False, description="work without leases: promises that no second driver is started on the run")
    ray_address: str | None = Field(None, description="a Ray cluster to join; without one Ray is started here")

    @property
    def fixed_batch_size(self) -> int | None:
        """The batch, or None where the worker chooses it."""
        return None if self.batch_size == "auto" else self.batch_size

    @property
    def fixed_precision(self) -> Precision | None:
        """The precision, or None where the device decides."""
        return None if self.precision == "auto" else self.precision

    @model_validator(mode="after")
    def _gpus_can_be_asked_for(self) -> ComputeConfig:
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise ValueError(
                f"compute.gpus_per_worker is {self.gpus_per_worker:g}: Ray gives a share of one GPU or whole GPUs; write 0.25 or 2"
            )
        return self


class Top(Section):
    """The likeliest classes of every image."""

    top: Count = Field(description="how many; a map each")


Target = Literal["predicted", "label"] | Annotated[int, Field(ge=0)] | Top


class RunConfig(BaseModel):
    """A run, and all that determines its result.

    Beside the named fields it takes a section for every method, such as `hdm: {preset: fast, steps: 10}`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the run's folder under output")
    dataset: DatasetConfig
    classifier: ClassifierConfig
    methods: tuple[str, ...] = Field(min_length=1)
    metrics: MetricSettings = MetricSettings()
    compute: ComputeConfig = ComputeConfig()
    target: Target = Field("predicted", description="the class to explain: predicted, label, a number, or {top: K} for the K likeliest")
    output: str = Field(min_length=1, description="where runs are kept: a folder or a URL")
    storage: dict[str, Any] = Field(default_factory=dict, description="fsspec options such as endpoint_url; never a secret")
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _all_methods(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("methods") == "all":
            return {**data, "methods": list(METHODS)}
        return data

    @model_validator(mode="after")
    def _methods_are_known(self) -> RunConfig:
        for key in self.model_extra or {}:
            if key not in METHODS:
                raise ValueError(f"unknown key {key!r}")
        for method in self.methods:
            get_method(method)
        if len(set(self.methods)) != len(self.methods):
            raise ValueError(f"methods: one of them is named twice: {', '.join(self.methods)}")
        refuse_secrets(self.model_dump())
        _ = self.settings
        return self

    @property
    def ranks(self) -> int:
        """How many classes of an image are explained."""
        return self.target.top if isinstance(self.target, Top) else 1

    @cached_property
    def settings(self) -> dict[str, Settings]:
        """Every method's resolved settings, in the order of `methods`."""
        sections = self.model_extra or {}
        resolved = {}
        for method in (*self.methods, *(set(sections) - set(self.methods))):
            section = sections.get(method)
            if not isinstance(section, dict | None):
                raise ValueError(f"{method}: must be a section such as {{preset: NAME}}, not {section!r}")  # noqa: TRY004 - pydantic's way
            settings = {str(key): value for key, value in (section or {}).items()}
            preset = settings.pop("preset", None)
            if not isinstance(preset, str | None):
                raise ValueError(f"{method}.preset: must be one of {', '.join(METHODS[method].presets)}, not {preset!r}")  # noqa: TRY004
            try:
                resolved[method] = METHODS[method].configure(preset, **settings)
            except (ValueError, TypeError) as error:  # TypeError: a key such as `self`
                raise ValueError(f"{method}: {error}") from (error.__cause__ or error)
        return {method: resolved[method] for method in self.methods}

    def identity(self) -> dict[str, Any]:
        """All that determines the result, resolved: two runs with the same identity give the same maps."""
        return {
            "dataset": self.dataset.model_dump(mode="json"),
            "classifier": self.classifier.model_dump(mode="json"),
            "methods": {method: settings.model_dump(mode="json") for method, settings in self.settings.items()},
            "metrics": self.metrics.model_dump(mode="json"),
            "target": self.target.model_dump() if isinstance(self.target, Top) else self.target,
            "seed": self.seed,
            "shard_size": self.compute.shard_size,
            "batch": self.compute.batch_size,
            "threads": self.compute.threads,
            "precision": self.compute.precision,
        }

    def hash(self) -> str:
        """sha256 of the identity as canonical JSON."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()
