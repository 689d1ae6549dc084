"""Findings of classes that the background decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.background import BackgroundSuspicion
from pipeline.audit.causal import insert_background, larger_than, one_sided, shows
from pipeline.audit.energy import Floats
from pipeline.audit.finding import Finding
from pipeline.audit.tested import Tester, with_effect
from pipeline.tables.student import Interval

_EXAMPLES = 8


def background_findings(
    method: str,
    outside: Mapping[str, tuple[NDArray[np.int64], Floats]],
    suspicions: Sequence[BackgroundSuspicion],
    tester: Tester | str,
) -> list[Finding]:
    """Test the background of every class whose objects are annotated.

    Confirmed: around objects of other classes it raises the class's probability by more than the class's own object does there (paired
    t-test at `alpha`), and by more than the backgrounds of other classes raise theirs. A class that its maps did not suggest is a finding
    only if it is confirmed.
    """
    suspected = {each.class_name: each for each in suspicions}
    findings = []
    for name, (rows, shares) in outside.items():
        order = rows[np.argsort(-shares, kind="stable")]
        suspicion = suspected.get(name)
        if suspicion is None and (isinstance(tester, str) or len(outside) < 2 or len(rows) < tester.settings.min_images):
            continue
        finding = Finding(
            name,
            "background",
            method,
            len(rows),
            f"Maps of {name} have {shares.mean():.0%} of their energy outside the object, those of other classes "
            f"{_mean(outside, name):.0%}",
            place="background",
            p=None if suspicion is None else suspicion.p,
            share=float(shares.mean()),
            examples=tuple(order[:_EXAMPLES].tolist()),
            rows=tuple(order.tolist()),
        )
        finding = replace(finding, reason=tester) if isinstance(tester, str) else _test(finding, order, tester)
        if suspicion is not None or finding.confirmed:
            findings.append(finding)
    return findings


def _mean(outside: Mapping[str, tuple[NDArray[np.int64], Floats]], name: str) -> float:
    others = [shares for other, (_, shares) in outside.items() if other != name]
    return float(np.concatenate(others).mean())


def _test(finding: Finding, rows: NDArray[np.int64], tester: Tester) -> Finding:
    name, settings, classifier = finding.class_name, tester.settings, tester.subject.classifier
    target = tester.targets.get(name)
    if target is None:
        return replace(finding, reason="the maps compare two classes")
    _, own, regions = tester.subject.read(rows[: settings.tested].tolist())
    others = tester.pool.others(name, settings.tested)
    if not len(own) or not len(others[0]):
        return replace(finding, reason="the images cannot be read any more")
    background, objects = insert_background(classifier, (own, regions), others, target, tester.subject.batch)
    change = Interval.of(background)
    confirmed = shows(change, 1, settings.min_effect) and one_sided(background - objects) <= settings.alpha
    if confirmed:
        confirmed = larger_than(background, tester.pool.backgrounds(classifier, name, tester.targets, tester.subject.batch))
    return replace(with_effect(finding, change, confirmed, None, change), causal_p=one_sided(background))
