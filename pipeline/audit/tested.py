"""Findings of suspected places and backgrounds, located and tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdm_core.masking.baselines import baseline_image
from pipeline.audit.causal import box_pixels, one_sided, shows, swap_place, tightened
from pipeline.audit.energy import Energies
from pipeline.audit.finding import Box, Finding
from pipeline.audit.place import bounding_box, place_pixels
from pipeline.audit.pool import Pool
from pipeline.audit.settings import AuditSettings
from pipeline.audit.spatial import Suspicion, in_middle, is_frame, place_name
from pipeline.audit.subject import Subject
from pipeline.runs import RunStore
from pipeline.tables.student import Interval
from pipeline.tables.wilcoxon import holm

_EXAMPLES = 8
_LEVEL = 0.05  # of the causal tests, corrected over all places of a run
_CENTRE = "objects are in the middle of most photographs, so that a swap cannot tell them from a mark"


@dataclass(frozen=True)
class Tester:
    """Classifier, images of all classes and targets for causal tests.

    Attributes:
        targets: class name -> its number; None where the maps compare two classes.
    """

    subject: Subject
    pool: Pool
    targets: Mapping[str, int | None]
    settings: AuditSettings

    def prove(self, finding: Finding, own: Tensor, pixels: NDArray[np.bool_], tighten: bool = False, alike: bool = False) -> Finding:
        """Test a place on images of the class, and add the result to its finding.

        Args:
            own: images of the class that look there, (A, C, H, W).
            pixels: (H, W) bool.
            tighten: make the box smaller where it holds.
            alike: the images were chosen since they look alike there, and not by their maps, so that removal is a proof too, if insertion
                raises the probability by as much as is asked, however wide its interval.
        """
        target, settings, subject = self.targets.get(finding.class_name), self.settings, self.subject
        others, _ = self.pool.others(finding.class_name, settings.tested)
        if target is None:
            return replace(finding, reason="the maps compare two classes")
        if not len(own) or not len(others):
            return replace(finding, reason="the images cannot be read any more")
        classifier, batch = subject.classifier, subject.batch
        removed = None if settings.removal == "swap" else baseline_image(settings.removal, classifier, own).expand_as(own)
        tried = torch.from_numpy(pixels).to(own.device)
        test = swap_place(classifier, own, others, target, tried, settings.seed, batch, removed)
        if tighten and shows(test.insertion, 1, settings.min_effect):
            # Tightened and then tested on other pairs than those that it was found with.
            box = tightened(classifier, own, others, target, bounding_box(pixels), batch)
            finding, tried = replace(finding, box=box), box_pixels(box, pixels.shape).to(own.device)
            test = swap_place(classifier, own, others, target, tried, settings.seed + 1, batch, removed)
        confirmed = test.confirms(settings.min_effect)
        if confirmed:
            reference = self.pool.same_place(classifier, finding.class_name, self.targets, tried, batch)
            confirmed = test.confirms(settings.min_effect, reference)
        p = one_sided(test.inserted)
        if alike:
            p = min(1.0, 2 * min(p, one_sided(-test.removed)))
            rises = test.inserted.mean() >= settings.min_effect
            confirmed = confirmed or bool(rises and shows(test.removal, -1, settings.min_effect))
        return replace(with_effect(finding, test.larger, confirmed, test.removal, test.insertion), causal_p=p)


def place_finding(
    store: RunStore, method: str, energies: Energies, suspicion: Suspicion, tester: Tester | str, settings: AuditSettings
) -> Finding:
    """Locate a place that maps suggest, and test it.

    Args:
        tester: or why there is no test.
    """
    name = suspicion.class_name
    rng = np.random.default_rng(settings.seed)
    other_rows = energies.rows[~energies.of(name)]
    other_rows = rng.choice(other_rows, min(len(other_rows), 2 * settings.tested), replace=False)
    pixels = place_pixels(store, method, suspicion, other_rows)
    frame, looking = is_frame(suspicion.cells), _looking(energies, suspicion)
    place = "border" if frame else place_name(pixels)
    finding = Finding(
        name,
        "spatial",
        method,
        looking,
        f"Maps of {name} have {suspicion.share:.0%} of their energy at the {place}, those of other classes {suspicion.other_share:.0%}",
        place=place,
        box=bounding_box(pixels),
        p=suspicion.p,
        share=suspicion.share,
        examples=tuple(suspicion.rows[:_EXAMPLES].tolist()),
        rows=tuple(suspicion.rows[:looking].tolist()),
    )
    if place == "centre" or (not frame and in_middle(pixels)):
        return replace(finding, reason=_CENTRE)
    if isinstance(tester, str):
        return replace(finding, reason=tester)
    _, own, _ = tester.subject.read(suspicion.rows[: settings.tested].tolist())
    return tester.prove(finding, own, pixels, tighten=not frame)


def corrected(findings: Sequence[Finding]) -> list[Finding]:
    """Correct the causal tests by Holm over all places of the run."""
    tested = [number for number, finding in enumerate(findings) if finding.causal_p is not None]
    result = list(findings)
    for number, p in zip(tested, holm([findings[number].causal_p or 0.0 for number in tested]), strict=True):
        finding = findings[number]
        if finding.confirmed and p > _LEVEL:
            result[number] = replace(finding, confirmed=False, text=f"{finding.text}: not confirmed")
    return result


def merged(places: Sequence[Finding], alike: Sequence[Finding]) -> list[Finding]:
    """Join a place that maps suggest with one at which the images look alike.

    Where both overlap and the second is confirmed, it stays alone, with the maps' p-value and share: its box is that of the mark.
    """
    result = []
    for found in alike:
        overlapping = [each for each in places if each.class_name == found.class_name and overlap(each.box, found.box)]
        if found.confirmed and overlapping:
            first = overlapping[0]
            result.append(replace(found, p=first.p, share=first.share))
            places = [each for each in places if each not in overlapping]
        else:
            result.append(found)
    return [*places, *result]


def overlap(first: Box | None, second: Box | None) -> bool:
    """Return whether two boxes have a pixel in common."""
    if first is None or second is None:
        return False
    return all(max(first[axis], second[axis]) < min(first[axis + 2], second[axis + 2]) for axis in (0, 1))


def with_effect(finding: Finding, shown: Interval, confirmed: bool, removal: Interval | None, insertion: Interval) -> Finding:
    """Add the result of a causal test."""
    if shown.mean is None:
        return replace(finding, reason="no image has an object to compare the background with")
    interval = None if shown.low is None or shown.high is None else (shown.low, shown.high)
    ends = "" if interval is None else f" ({interval[0]:+.2f} to {interval[1]:+.2f})"
    verdict = f"; the class's probability changes by {shown.mean:+.2f}{ends}, n = {shown.n}"
    return replace(
        finding,
        confirmed=confirmed,
        effect=shown.mean,
        interval=interval,
        removal=None if removal is None else removal.mean,
        insertion=insertion.mean,
        text=finding.text + verdict + ("" if confirmed else ": not confirmed"),
    )


def _looking(energies: Energies, suspicion: Suspicion) -> int:
    """Count the class's images with more energy at the place than 95% of others."""
    at_place = energies.cells[:, suspicion.cells.ravel()].sum(1)
    own = energies.of(suspicion.class_name)
    return int((at_place[own] > np.quantile(at_place[~own], 0.95)).sum())
