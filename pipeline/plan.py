"""Plan of a run: its samples, its shards, and their cost in passes."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from hdm_core import Classifier, Finding, get_method
from hdm_core.evidence import evidence_passes
from hdm_core.settings import DMSettings, HDMSettings
from pipeline.classifiers.load import check_class_names, load_classifier, preprocess_identity, preprocess_of, weights_digest
from pipeline.classifiers.targets import Contrast, Labels, Top, class_of, class_pair, classes_of, label_names
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample, list_samples
from pipeline.datasets.formats import missing_reader
from pipeline.datasets.listing import ListingNotes
from pipeline.errors import InputError, one_line
from pipeline.preflight import preflight, read_photographs, require_memory

_log = logging.getLogger(__name__)

_BATCH = 10_000  # samples that are converted to JSON together, to bound the memory


@dataclass(frozen=True)
class Shard:
    """Rows start .. stop - 1 of the dataset.

    A shard is one unit of work and one object in each array.
    """

    index: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before the first worker starts.

    Attributes:
        samples: samples in row order.
        size: height and width of the maps in pixels.
        weights_digest: digest of the classifier's weights.
        passes_per_image: method -> forward and backward passes per image, for all its explained classes.
        preprocess_identity: what determines the classifier's outputs beside its weights, from `preprocess_identity`.
        findings: of the check of the classifier.
        notes: what the listing of the dataset left out, and remarks.
        evidence_passes: largest number of passes per image of the search for evidence, for all its explained classes; 0 for no search.
    """

    config: RunConfig
    samples: Sequence[Sample]
    shards: Sequence[Shard]
    size: tuple[int, int]
    weights_digest: str
    passes_per_image: dict[str, int]
    preprocess_identity: dict[str, Any] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    notes: ListingNotes = field(default_factory=ListingNotes)
    evidence_passes: int = 0

    @property
    def passes(self) -> int:
        """Largest number of passes of the whole run."""
        return (sum(self.passes_per_image.values()) + self.evidence_passes) * len(self.samples)

    @property
    def stages(self) -> int | None:
        """Number of stage masks of HDM per image; None if HDM does not run."""
        settings = self.config.settings.get("hdm")
        return settings.stages if isinstance(settings, HDMSettings) else None

    @property
    def pieces(self) -> int | None:
        """Number of pieces of evidence that are stored per image; None for no search."""
        return None if self.config.evidence is None else self.config.evidence.max_pieces

    @property
    def bytes(self) -> int:
        """Size of all maps in bytes, before compression."""
        bytes_per_pixel = 2 * (len(self.config.methods) + (self.stages or 0)) + (self.pieces or 0)
        return len(self.samples) * self.config.ranks * math.prod(self.size) * bytes_per_pixel

    def dataset_digest(self) -> str:
        """Return the sha256 of the samples in order.

        It is computed over one list in JSON, and changes with the dataset.
        """
        digest = hashlib.sha256(b"[")
        for start in range(0, len(self.samples), _BATCH):
            batch = self.samples[start : start + _BATCH]
            rows = [_digest_row(sample) for sample in batch]
            digest.update(f"{', ' if start else ''}{json.dumps(rows)[1:-1]}".encode())
        digest.update(b"]")
        return digest.hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return the facts that `hdm plan` prints."""
        return {
            "run": self.config.name,
            "output": self.config.output,
            "config_hash": self.config.hash(),
            "images": len(self.samples),
            "shards": len(self.shards),
            "shard_size": self.config.compute.shard_size,
            "passes_per_image": self.passes_per_image,
            **({} if self.config.evidence is None else {"evidence_passes_per_image": self.evidence_passes}),
            "passes": self.passes,
            "bytes": self.bytes,
            "left_out": self.notes.left_out(),
            "remarks": self.notes.remarks,
        }


def make_plan(config: RunConfig) -> Plan:
    """Make the plan of a run.

    List the dataset, log what the listing left out, load the classifier once to check it, and cut the rows into shards.

    Raises:
        InputError: if the dataset, the classifier or a setting cannot be used.
    """
    samples = list_samples(config.dataset, config.storage)  # first, because weights may be a long download
    for line in samples.notes.lines():
        _log.warning("%s", line)
    if missing := missing_reader(sample.path for sample in samples):
        raise InputError(f"dataset: {missing}")
    classifier = load_classifier(config.classifier, config.seed)
    preprocess = preprocess_of(classifier)
    require_memory(classifier, preprocess.size, config.compute.executor == "ray" and config.compute.ray_address is None)
    photographs = read_photographs(classifier, samples, config.storage, config.compute.storage_timeout)
    checked = preflight(classifier, photographs, config.settings)
    _check_targets(config, classifier, samples, checked.classes or 0)
    passes = {method: config.ranks * count for method, count in _passes(config, classifier, preprocess.blank()).items()}
    size = config.compute.shard_size
    shards = [Shard(index, start, min(start + size, len(samples))) for index, start in enumerate(range(0, len(samples), size))]
    return Plan(
        config,
        samples,
        shards,
        preprocess.size,
        weights_digest(classifier),
        passes,
        preprocess_identity(classifier),
        checked.findings,
        samples.notes,
        config.ranks * _evidence_passes(config, classifier, preprocess.blank()),
    )


def _digest_row(sample: Sample) -> list[Any]:
    """Return the values of a sample that the digest covers.

    Shapes are among them only where there are some, so that digests of other datasets stay.
    """
    masks = None if sample.masks is None else asdict(sample.masks)
    row = [sample.image_id, sample.path, sample.label, sample.split, masks, sample.bbox]
    return row if sample.shapes is None else [*row, sample.shapes]


def _passes(config: RunConfig, classifier: Classifier, image: Tensor) -> dict[str, int]:
    """Count each method's passes per map of such an image."""
    passes: dict[str, int] = {}
    refusals: dict[str, list[str]] = defaultdict(list)
    for method, settings in config.settings.items():
        entry = get_method(method)
        try:
            passes[method] = entry.cost(settings, classifier, image)
        except (TypeError, ValueError) as error:
            hint = "; choose smaller sizes or a larger classifier.crop" if isinstance(settings, DMSettings) else ""
            refusals[f"{error}{hint}"].append(method)
    if refusals:
        raise InputError("; ".join(f"{', '.join(methods)}: {error}" for error, methods in refusals.items()))
    return passes


def _evidence_passes(config: RunConfig, classifier: Classifier, image: Tensor) -> int:
    """Count the largest number of passes of the search for evidence, per class."""
    if config.evidence is None:
        return 0
    try:
        return evidence_passes(config.evidence, classifier, image)
    except ValueError as error:
        raise InputError(f"evidence: {error}; choose smaller evidence.dm.sizes or a larger classifier.crop") from None


def _check_targets(config: RunConfig, classifier: Classifier, samples: Sequence[Sample], classes: int) -> None:
    """Refuse a target class that the network does not have."""
    check_class_names(config.classifier, classifier, classes)
    target = config.target
    if isinstance(target, int) and target >= classes:
        raise InputError(f"target {target}: {classifier.name} has {classes} classes, numbered from 0")
    if isinstance(target, Top) and target.top > classes:
        raise InputError(f"target.top {target.top}: {classifier.name} has only {classes} classes")
    if classifier.problem_type == "regression" and not isinstance(target, int | Contrast) and not (target == "predicted" and classes == 1):
        raise InputError(f"target: a regression predicts no class; write the number of one of its {classes} outputs, from 0")
    if isinstance(target, Contrast):
        _check_contrast(target, classifier, classes)
    if target == "runner_up" and classes < 2:
        raise InputError(f"target runner_up: {classifier.name} has one class")
    if target == "wrong" and classifier.problem_type == "multi_label_classification" and classes > 2:
        raise InputError("target wrong: of several labels none is the only true one; write target: {labels: K}")
    if isinstance(target, Labels):
        _check_several_labels(classifier, samples, target.labels)
    if target in ("label", "wrong"):
        _check_labels(samples, lambda sample: class_of(sample, classifier))


def _check_contrast(target: Contrast, classifier: Classifier, classes: int) -> None:
    try:
        pair = class_pair(target, classifier)
    except ValueError as error:
        raise InputError(f"target.contrast: {one_line(error)}") from None
    if max(pair) >= classes:
        raise InputError(f"target.contrast {max(pair)}: {classifier.name} has {classes} classes, numbered from 0")


def _check_several_labels(classifier: Classifier, samples: Sequence[Sample], limit: int) -> None:
    """Refuse labels of several classes for a softmax, and more than the target allows."""
    if classifier.problem_type != "multi_label_classification":
        raise InputError(
            f"target.labels: {classifier.name} is no classifier of several labels; write target: label, or set classifier.problem_type"
        )
    _check_labels(samples, lambda sample: classes_of(sample, classifier, limit))
    most = max(len(label_names(sample.class_name or "", classifier.class_names)) for sample in samples)
    if most > limit:
        raise InputError(f"target.labels {limit}: a label names {most} classes; write target: {{labels: {most}}}")


def _check_labels(samples: Sequence[Sample], resolve: Callable[[Sample], object]) -> None:
    """Refuse a dataset in which no image's label is a class of the network.

    If only some labels are no class of the network, the other images are explained.
    """
    error: ValueError | None = None
    for sample in samples:
        try:
            resolve(sample)
        except ValueError as failure:
            error = error or failure
        else:
            return
    raise InputError(f"target label: no image of the dataset can be explained; of the first, {error}; set classifier.classes or target")
