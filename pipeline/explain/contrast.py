"""Baselines of the maps of a batch: what their classes keep on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from hdm_core import Classifier, Explanation
from hdm_core.batch_limit import BatchLimit
from hdm_core.masking.baseline_scores import BaselineScores, score_baselines
from hdm_core.masking.baselines import BASELINES
from hdm_core.settings import Baseline
from hdm_core.targets import contrasting
from pipeline.config.schema import RunConfig
from pipeline.explain.batch import Batch
from pipeline.runs.records import Record

Explained = tuple[int, int, int | None]  # row, target, class that the target is compared with


@dataclass
class MeasuredBaselines:
    """Scores of baselines that a batch's images and classes have so far.

    Attributes:
        scores: (image and class, baseline) -> the class's score, and whether the baseline keeps the class.
    """

    scores: dict[tuple[Explained, str], tuple[float, bool]] = field(default_factory=dict)

    def add(self, explained: Sequence[Explained], measured: BaselineScores) -> None:
        """Add the scores of B images' classes."""
        # One copy to the host: each makes it wait for the device.
        rows = torch.stack([measured.baseline, measured.no_contrast.float()], 2).tolist()
        for key, of_image in zip(explained, rows, strict=True):
            for kind, (score, kept) in zip(measured.kinds, of_image, strict=True):
                self.scores[key, kind] = score, bool(kept)

    def add_explanation(self, rows: Sequence[int], explanation: Explanation) -> None:
        """Add what a method measured to choose its baselines.

        Args:
            rows: of the explanation's images.
        """
        if explanation.baseline_scores is not None:
            targets = explanation.targets.tolist()
            contrasts = [None] * len(rows) if explanation.contrasts is None else explanation.contrasts.tolist()
            self.add(list(zip(rows, targets, contrasts, strict=True)), explanation.baseline_scores)


def fixed_baselines(config: RunConfig) -> set[Baseline]:
    """Return the baselines on which every image of a run is scored.

    Each costs a forward pass. They are those of the metrics and of the methods. Those of `auto` are scored by the method.
    """
    of_metrics = [] if config.metrics is None else [config.metrics.baseline]
    kinds = [*of_metrics, *(getattr(settings, "baseline", None) for settings in config.settings.values())]
    return {kind for kind in BASELINES if kind in kinds}


def add_contrast(
    classifier: Classifier,
    config: RunConfig,
    batch: Batch,
    records: Sequence[Record],
    known: MeasuredBaselines,
    limit: BatchLimit,
) -> list[Record]:
    """Add to records what their classes keep on the baselines.

    These are the baselines of the record's method and of the metrics.

    Each image, class and baseline is scored once, whatever the number of methods.

    Args:
        records: of the batch's images, each with a target.
        known: scores that are known already; added to.
        limit: of the images that go through the network at once.
    """
    of_metrics = None if config.metrics is None else config.metrics.baseline
    for kind in BASELINES:
        open_ = {
            _explained(record): record
            for record in records
            if kind in (of_metrics, record.baseline) and (_explained(record), kind) not in known.scores
        }
        if open_:
            found = limit.run(partial(_score, classifier, batch, list(open_.values()), kind))
            known.add(list(open_), found)
    return [_with_contrast(record, of_metrics, known) for record in records]


def _score(classifier: Classifier, batch: Batch, records: Sequence[Record], kind: Baseline, size: int) -> BaselineScores:
    """Score one baseline of the images and classes of records."""
    places = [batch.rows.index(record.row) for record in records]
    scores = [math.nan if record.probability is None else record.probability for record in records]
    contrasts = [record.contrast for record in records]
    columns = [places, [record.target for record in records], scores, *([contrasts] if None not in contrasts else [])]
    # One copy to the device; float64 has room for every class number below 2^53.
    place, target, image_scores, *others = torch.tensor(columns, dtype=torch.float64).to(batch.images.device)
    targets = target.long()
    if others:  # of a run all classes are compared with another, or none
        classifier, targets = contrasting(classifier, targets, others[0].long())
    with torch.inference_mode(False), classifier.frozen() as network:
        return score_baselines(classifier, network, batch.images[place.long()], targets, image_scores, [kind], size)


def _explained(record: Record) -> Explained:
    if record.target is None:
        raise ValueError(f"the record of row {record.row} has no target")
    return record.row, record.target, record.contrast


def _with_contrast(record: Record, of_metrics: str | None, known: MeasuredBaselines) -> Record:
    score, kept = _of_record(record, record.baseline, known)
    metrics_score, metrics_kept = _of_record(record, of_metrics, known)
    return replace(
        record,
        baseline_probability=score,
        no_contrast=kept,
        metrics_baseline_probability=metrics_score,
        metrics_no_contrast=metrics_kept,
    )


def _of_record(record: Record, baseline: str | None, known: MeasuredBaselines) -> tuple[float | None, bool | None]:
    """Return the score on a baseline, and whether it keeps the class.

    Both are None where they are not known.
    """
    if baseline is None:
        return None, None
    score, kept = known.scores[_explained(record), baseline]
    if math.isnan(score):
        return None, None
    return score, None if record.probability is None or math.isnan(record.probability) else kept
