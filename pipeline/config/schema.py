"""Configuration of a run: one validated object with a hash; YAML in, JSON out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hdm_core import METHODS, PAPER_METHODS, EvidenceSettings, MetricSettings, get_method, is_control
from hdm_core.device import Precision
from hdm_core.metrics.registry import chosen_metrics
from hdm_core.settings import Settings
from pipeline.classifiers.sources import ClassifierConfig
from pipeline.classifiers.targets import Labels, Target, Top
from pipeline.datasets import AnyDatasetConfig, DatasetConfig
from pipeline.errors import suggest
from pipeline.redaction import refuse_secrets
from pipeline.section import Count, Section, SectionError, Seed

__all__ = ["ClassifierConfig", "ComputeConfig", "Count", "DatasetConfig", "Labels", "RunConfig", "Section", "Seed", "Target", "Top"]

EVIDENCE_METHOD = "hdm"  # the method whose records and stages the pieces of evidence belong to


# Names that `methods` takes for several ids. Those for transformers alone are in none: with them a convolutional network would be refused.
_METHOD_GROUPS: Mapping[str, Callable[[], Sequence[str]]] = {
    "paper": lambda: PAPER_METHODS,
    "controls": lambda: [method for method in METHODS if is_control(method)],
    "all": lambda: [method for method, entry in METHODS.items() if not entry.needs_attention],
}


class ComputeConfig(Section):
    """Resources of a run: workers, GPUs, batches, retries."""

    renamed: ClassVar[Mapping[str, str]] = {
        "batch": "batch_size",
        "attempts": "max_attempts",
        "stall": "stall_timeout",
        "lease": "lease_seconds",
        "patience": "storage_timeout",
        "sole_driver": "single_driver",
    }

    executor: Literal["ray", "local"] = Field(
        "ray",
        description="ray: workers on this machine or a cluster. local: one worker in this process, without Ray, for debugging and tests.",
    )
    workers: Count | Literal["auto"] = Field("auto", description="Number of workers. auto: as many as the cluster has room for.")
    gpus_per_worker: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="GPUs per worker: a share of one, such as 0.25, or a whole number. Without GPUs the run uses the CPU.",
    )
    threads: Count = Field(1, description="CPU threads of a worker without a GPU.")
    shard_size: Count = Field(256, description="Images per shard, the unit of work that is committed or repeated as a whole.")
    batch_size: Count | Literal["auto"] = Field(
        "auto", description="Images per forward pass of the network. auto: 64 on a GPU, 8 on a CPU."
    )
    precision: Precision | Literal["auto"] = Field(
        "auto",
        description="Precision of the network while masks are trained: float32, tf32 or bfloat16. auto: bfloat16 on GPUs, else float32.",
    )
    cuda_graphs: bool = Field(
        True, description="On GPUs capture the passes that train masks once and replay them, instead of launching their kernels one by one."
    )
    max_attempts: Count = Field(3, description="Attempts per shard before it counts as failed.")
    stall_timeout: float = Field(
        21600,
        gt=0,
        description="Seconds without a pass after which a worker counts as hung.",
    )
    lease_seconds: float = Field(60, gt=0, description="Seconds without a renewed lease after which another driver takes over a shard.")
    storage_timeout: float = Field(
        600, gt=0, description="Seconds for which a started run retries requests to a storage that does not answer."
    )
    single_driver: bool = Field(False, description="Work without leases. This promises that no second driver is started on the same run.")
    ray_address: str | None = Field(None, description="Address of a Ray cluster to join. Default: start Ray on this machine.")

    @property
    def fixed_batch_size(self) -> int | None:
        """Configured batch size; None if the device decides."""
        return None if self.batch_size == "auto" else self.batch_size

    @property
    def fixed_precision(self) -> Precision | None:
        """Configured precision; None if the device decides."""
        return None if self.precision == "auto" else self.precision

    @model_validator(mode="after")
    def _check_gpu_share(self) -> ComputeConfig:
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise ValueError(
                f"compute.gpus_per_worker is {self.gpus_per_worker:g}: Ray gives a share of one GPU or whole GPUs; write 0.25 or 2"
            )
        return self


class RunConfig(BaseModel):
    """Settings that determine a run's result, and the resources that it uses.

    Besides the fields below it takes one section per method, such as `hdm: {preset: fast, steps: 10}`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run, and of its folder below `output`.")
    dataset: AnyDatasetConfig = Field(description="Images to explain.")
    classifier: ClassifierConfig = Field(description="Network to explain.")
    methods: tuple[str, ...] = Field(
        min_length=1,
        description="Ids of the methods, as `hdm methods` lists them. In their place, or among them: paper, the 15 of the paper; controls, "
        "the maps that know no class; all, every method, control and plugin that needs no attention maps.",
    )
    metrics: MetricSettings | None = Field(
        MetricSettings(), description="Settings of the metrics; none for maps alone, which hdm measure can measure later."
    )
    evidence: EvidenceSettings | None = Field(
        None, description="Search for pieces of evidence, which needs the method hdm; {} for its default settings, null for none."
    )
    signed: bool = Field(
        False,
        description="Store the maps with their sign as well, of methods that have one: `{method}_signed` in [-1, 1], positive where the "
        "image speaks for the class. Metrics use the maps without sign.",
    )
    compute: ComputeConfig = Field(ComputeConfig(), description="Resources of the run.")
    target: Target = Field(
        "predicted",
        description="Class to explain: predicted, label, runner_up for the predicted class rather than the next, wrong for the predicted "
        "and the true class of misclassified images, the number of a class, {contrast: [A, B]} for A rather than B, "
        "{top: K} for the K classes with the highest logits, "
        "{top: K, above: P} for those of them whose probability is above P, or {labels: K} for up to K classes that a label names.",
    )
    output: str = Field(min_length=1, description="Folder or URL below which each run has its own folder.")
    storage: dict[str, Any] = Field(
        default_factory=dict,
        description="fsspec options such as endpoint_url, for all URLs of the run. Never a secret: secrets come from the environment.",
    )
    seed: Seed = Field(0, description="Seed of all random numbers: of the methods, and of random weights.")

    @model_validator(mode="before")
    @classmethod
    def _expand_method_groups(cls, data: Any) -> Any:
        """Replace names of groups by the ids of their methods."""
        if not isinstance(data, dict):
            return data
        given = data.get("methods")
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, (list, tuple)) or not any(isinstance(name, str) and name in _METHOD_GROUPS for name in names):
            return data
        expanded = (_METHOD_GROUPS[name]() if isinstance(name, str) and name in _METHOD_GROUPS else [name] for name in names)
        return {**data, "methods": [method for group in expanded for method in group]}

    @field_validator("metrics", mode="before")
    @classmethod
    def _read_none(cls, metrics: Any) -> Any:
        """Read YAML's word none, which is a text, as no metrics."""
        return None if metrics == "none" else metrics

    @model_validator(mode="after")
    def _check_methods(self) -> RunConfig:
        for key in self.model_extra or {}:
            if key not in METHODS:
                raise ValueError(f"unknown key {key!r}{suggest(key, (*RunConfig.model_fields, *METHODS))}")
        for method in self.methods:
            get_method(method)
        if len(set(self.methods)) != len(self.methods):
            raise ValueError(f"methods: one of them is named twice: {', '.join(self.methods)}")
        if self.metrics is not None:
            chosen_metrics(self.metrics.names)
        if self.evidence is not None and EVIDENCE_METHOD not in self.methods:
            raise ValueError(f"evidence: its numbers are in the records of {EVIDENCE_METHOD}: add {EVIDENCE_METHOD} to methods")
        refuse_secrets(self.model_dump())
        _ = self.settings
        return self

    @property
    def ranks(self) -> int:
        """Largest number of classes that are explained per image."""
        match self.target:
            case Top():
                return self.target.top
            case Labels():
                return self.target.labels
            case "wrong":
                return 2
            case _:
                return 1

    @property
    def signed_methods(self) -> tuple[str, ...]:
        """Methods whose signed maps are stored."""
        return tuple(method for method in self.methods if self.signed and METHODS[method].signed)

    @property
    def fills_ranks(self) -> bool:
        """True if every image has a map of every rank.

        The number of classes above a probability, or in a label, may differ from image to image, and only some images are misclassified.
        """
        if isinstance(self.target, Top):
            return self.target.above is None
        return self.target != "wrong" and not isinstance(self.target, Labels)

    @cached_property
    def settings(self) -> dict[str, Settings]:
        """Resolved settings of each method, in the order of `methods`."""
        sections = self.model_extra or {}
        resolved = {}
        for method in (*self.methods, *(set(sections) - set(self.methods))):
            section = sections.get(method)
            if not isinstance(section, dict | None):
                raise ValueError(f"{method}: must be a section such as {{preset: NAME}}, not {section!r}")  # noqa: TRY004 - pydantic expects a ValueError
            settings = {str(key): value for key, value in (section or {}).items()}
            preset = settings.pop("preset", None)
            if not isinstance(preset, str | None):
                raise ValueError(f"{method}.preset: must be one of {', '.join(METHODS[method].presets)}, not {preset!r}")  # noqa: TRY004
            try:
                resolved[method] = METHODS[method].configure(preset, **settings)
            except (ValueError, TypeError) as error:  # TypeError: a key such as `self`
                if isinstance(error.__cause__, ValidationError):
                    raise SectionError(method, METHODS[method].settings, error.__cause__) from None
                raise ValueError(f"{method}: {error}") from error
        return {method: resolved[method] for method in self.methods}

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the result, resolved.

        Runs with equal identities give equal maps.
        """
        # Of keys that came later only what differs from their default, so that configurations from before keep their hash. Graphs have a
        # fixed number of rows, for which cuDNN may choose kernels that round differently.
        added: dict[str, Any] = {} if self.compute.cuda_graphs else {"cuda_graphs": False}
        if self.evidence is not None:
            added["evidence"] = self.evidence.identity()
        if self.signed:
            added["signed"] = True
        return {
            "dataset": self.dataset.model_dump(mode="json"),
            "classifier": self.classifier.identity(),
            "methods": {method: settings.identity() for method, settings in self.settings.items()},
            "metrics": None if self.metrics is None else self.metrics.identity(),
            "target": self.target.model_dump(mode="json", exclude_none=True) if isinstance(self.target, Section) else self.target,
            "seed": self.seed,
            "shard_size": self.compute.shard_size,
            "batch": self.compute.batch_size,
            "threads": self.compute.threads,
            "precision": self.compute.precision,
            **added,
        }

    def hash(self) -> str:
        """Return the sha256 of the identity as canonical JSON."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()
