"""Sanity check of a configuration's methods on its classifier and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hdm_core import METHODS, Classifier, check, controls_last, is_control
from hdm_core.checks.finding import Finding
from hdm_core.device import default_batch, pick_device
from hdm_core.sanity import (
    CASCADING,
    LOCALISATION,
    TESTS,
    Compute,
    Maps,
    Variant,
    advantages,
    compare,
    compare_with_next,
    explain_variant,
)
from pipeline.classifiers.load import check_class_names, load_classifier
from pipeline.config.schema import RunConfig
from pipeline.errors import InputError
from pipeline.monitoring.progress import Progress, ProgressCallback, no_progress
from pipeline.sanity.data import SanityData, read_data
from pipeline.sanity.limits import SanityLimits
from pipeline.sanity.row import CHANCE, Row, compared_row, left_out, localisation_row
from pipeline.sanity.variants import LeftOut, list_variants

IMAGES, BLOCKS = 16, 6
SHOWN = 2  # images whose maps the page shows

_CHECKED = 4  # images that the check of the classifier sees, as before a run


@dataclass(frozen=True)
class SanityResult:
    """Result of a sanity check.

    Attributes:
        config: of the methods, the classifier and the images.
        classifier: its name; `against` that of the other checkpoint, None for none.
        data: the images.
        limits: that the verdicts follow.
        rows: by method, in the registry's order with controls last, and then by test.
        examples: by method, the stages of cascading randomisation with their maps of the first images; the original first.
    """

    config: RunConfig
    classifier: str
    against: str | None
    data: SanityData
    limits: SanityLimits
    rows: Sequence[Row]
    examples: Mapping[str, Sequence[tuple[str, Maps]]] = field(default_factory=dict)

    @property
    def failed(self) -> list[Row]:
        """Rows beyond a limit."""
        return [row for row in self.rows if row.verdict == "fail"]


def run_sanity(
    config: RunConfig,
    limits: SanityLimits | None = None,
    *,
    against: Classifier | None = None,
    images: int = IMAGES,
    blocks: int = BLOCKS,
    on_progress: ProgressCallback = no_progress,
) -> SanityResult:
    """Check the methods of a configuration on its own classifier and images.

    Everything runs in this process, without Ray.

    Args:
        limits: of the means; the defaults if None.
        against: another checkpoint of the network; without it reproducibility is left out.
        images: largest number of images, evenly spaced over the dataset.
        blocks: largest number of blocks of layers that are randomised.

    Raises:
        InputError: if the dataset or the classifier cannot be used, or no method can explain the classifier.
    """
    limits = limits or SanityLimits()
    device = pick_device(config.compute.gpus_per_worker)
    classifier = load_classifier(config.classifier, config.seed).to(device)
    batch = config.compute.fixed_batch_size or default_batch(device)
    compute = Compute(batch, config.compute.fixed_precision, config.compute.cuda_graphs)
    data = read_data(config, classifier, images, batch)
    checked = check(classifier, data.subject.images[:_CHECKED], config.settings)
    if checked.classes is not None:
        check_class_names(config.classifier, classifier, checked.classes)
    if not checked.usable:
        raise InputError(f"classifier: {classifier.name}: {checked.refused}")
    rows = {method: [left_out(method, test, _refusal(checked.findings, method)) for test in TESTS] for method in config.methods}
    methods = [method for method in config.methods if method in checked.usable]
    count, variants = list_variants(data, None if against is None else against.to(device), blocks, config.seed, batch)
    done, total = 0, len(methods) * (count + 1)
    originals, examples = {}, {}
    for method in methods:
        originals[method] = explain_variant(data.subject, method, config.settings[method], compute)
        examples[method] = [("original", _first(originals[method]))]
        done += 1
        on_progress(Progress(done, total, "sets of maps"))
    controls = {
        method: explain_variant(data.subject, method, METHODS[method].configure(), compute) for method in METHODS if is_control(method)
    }
    chance = {}
    for method in methods:
        rows[method] = _chance_rows(method, originals[method], controls)
        chance[method] = rows[method][0].value.mean
    for variant in variants:
        for method in methods:
            if isinstance(variant, LeftOut):
                rows[method].append(left_out(method, variant.test, variant.reason))
                continue
            maps = explain_variant(variant, method, config.settings[method], compute)
            rows[method].append(_row(method, variant, originals[method], maps, limits, chance[method]))
            if variant.test == CASCADING:
                examples[method].append((variant.stage, _first(maps)))
            done += 1
            on_progress(Progress(min(done, total), total, "sets of maps"))
    for method in methods:
        others = {name: each for name, each in controls.items() if name != method}
        rows[method].append(_localisation(method, originals[method], others, data, limits))
    on_progress(Progress(total, total, "sets of maps"))
    ordered = [row for method in controls_last(config.methods) for row in rows[method]]
    return SanityResult(config, classifier.name, None if against is None else against.name, data, limits, ordered, examples)


def _row(method: str, variant: Variant, original: Maps, maps: Maps, limits: SanityLimits, chance: float | None) -> Row:
    limit = getattr(limits, variant.test) if variant.has_limit else None
    comparison = compare(original, maps, variant.concerned)
    return compared_row(method, variant.test, variant.stage, comparison, limit, is_control=is_control(method), chance=chance)


def _chance_rows(method: str, maps: Maps, controls: Mapping[str, Maps]) -> list[Row]:
    """Return the similarity to the maps of other images and of controls."""
    others = {"another image": compare_with_next(maps), **{name: compare(maps, each) for name, each in controls.items() if name != method}}
    return [compared_row(method, CHANCE, stage, comparison, None, is_control=False) for stage, comparison in others.items()]


def _localisation(method: str, maps: Maps, controls: Mapping[str, Maps], data: SanityData, limits: SanityLimits) -> Row:
    has_region = data.regions.flatten(1).any(1)
    if not has_region.any():
        return left_out(method, LOCALISATION, "no image has a region: a segmentation or a box")
    if not controls:
        return left_out(method, LOCALISATION, "there is no other control to compare with")
    best, values = advantages(maps, controls, data.regions)
    annotated = has_region.tolist()
    status = [each for each, counts in zip(maps.status, annotated, strict=True) if counts]
    return localisation_row(method, best, values.numpy()[np.array(annotated)], status, limits.localisation, is_control=is_control(method))


def _refusal(findings: Sequence[Finding], method: str) -> str:
    """Return why a method cannot explain the classifier; empty if it can."""
    refused = [each for each in findings if each.verdict == "refused" and (not each.methods or method in each.methods)]
    return "; ".join(each.text for each in refused)


def _first(maps: Maps) -> Maps:
    return Maps(maps.values[:SHOWN], maps.status[:SHOWN])
