"""Background: classes whose maps are outside the object more than others'."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from pipeline.audit.energy import Floats
from pipeline.audit.settings import AuditSettings
from pipeline.runs import RunStore
from pipeline.tables.wilcoxon import holm


@dataclass(frozen=True)
class BackgroundSuspicion:
    """A class whose maps have more energy outside the object than those of others.

    Attributes:
        p: of the one-sided Mann-Whitney test, corrected by Holm over the classes.
        rows: images of the class, those with the most energy outside first.
        share: mean share outside, of the class.
        other_share: the same of the other classes.
    """

    class_name: str
    p: float
    rows: NDArray[np.int64]
    share: float
    other_share: float


def shares_outside(store: RunStore, method: str) -> dict[str, tuple[NDArray[np.int64], Floats]]:
    """Return class name -> rows and shares of energy outside the annotated region.

    Only images that have a region count.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    shares: dict[str, list[float]] = defaultdict(list)
    for part in store.record_parts(["row", "method", "rank", "target_name", "proportion"]):
        chosen = part.filter(pc.and_(pc.equal(part["method"], method), pc.and_(pc.equal(part["rank"], 0), pc.is_valid(part["proportion"]))))
        for row in chosen.to_pylist():
            rows[row["target_name"]].append(row["row"])
            shares[row["target_name"]].append(1 - row["proportion"])
    return {name: (np.array(rows[name]), np.array(shares[name])) for name in sorted(rows)}


def background_suspicions(outside: Mapping[str, tuple[NDArray[np.int64], Floats]], settings: AuditSettings) -> list[BackgroundSuspicion]:
    """Compare every class's shares outside the object with those of the others."""
    names = [name for name, (rows, _) in outside.items() if len(rows) >= settings.min_images]
    if len(outside) < 2 or not names:
        return []
    others = {name: np.concatenate([shares for other, (_, shares) in outside.items() if other != name]) for name in names}
    p = holm([float(stats.mannwhitneyu(outside[name][1], others[name], alternative="greater").pvalue) for name in names])
    found = []
    for name, value in zip(names, p, strict=True):
        rows, shares = outside[name]
        if value <= settings.alpha:
            order = np.argsort(-shares, kind="stable")
            found.append(BackgroundSuspicion(name, value, rows[order], float(shares.mean()), float(others[name].mean())))
    return found
