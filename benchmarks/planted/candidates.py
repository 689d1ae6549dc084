"""Candidates of the benchmark `planted`: HDM at equal passes, and other methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hdm_core import METHODS, Settings
from hdm_core.methods.presets import HDM_PRESETS


@dataclass(frozen=True)
class Candidate:
    """Method with settings.

    Attributes:
        one_stage: id of the candidate with one stage, the same loss and as many passes; None for candidates that have one stage.
    """

    id: str
    method: str
    preset: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    one_stage: str | None = None

    def settings(self) -> Settings:
        """Return the method's settings."""
        return METHODS[self.method].configure(self.preset, **self.changes)


REFERENCE = "faithful"
_ETAS = (1.0, 3.0, 5.0)
_MIX_STEPS = 20  # passes of the mixing by Eq. 3 to 5; two stages of 6 and three of 4 steps leave them of 140


def _faithful(first: int, second: int, **changes: Any) -> dict[str, Any]:
    """Return the changes that give both DM blocks of `faithful` other steps.

    The preset has 6 and 8: with ten masks, the calibration's nine passes and the start's one these are 150 passes.
    """
    (block,) = HDM_PRESETS["faithful"].ensemble
    return {"steps": first, "ensemble": ({**block, "steps": second},), **changes}


def _family() -> list[Candidate]:
    """Return `faithful` with one, two and three stages for each eta.

    Two stages have half the steps. Three with a third of them would have 4.67, so that they have 5, and their reference has 15 instead of
    14: 160 passes each.
    """
    candidates = []
    for eta in _ETAS:
        name = "faithful" + ("" if eta == 1 else f"-eta-{eta:g}")
        longer = f"{name}-160"
        candidates += [
            Candidate(name, "hdm", "faithful", {"eta": eta}),
            Candidate(longer, "hdm", "faithful", _faithful(7, 8, eta=eta)),
        ]
        for stages, sum_steps, optimised_steps, reference in ((2, (3, 4), (3, 3), name), (3, (2, 3), (2, 2), longer)):
            hierarchy: dict[str, Any] = {"eta": eta, "stages": stages, "stage_unit": "remaining"}
            optimised = {**hierarchy, "mixing": "optimised", "mix_steps": _MIX_STEPS}
            candidates += [
                Candidate(f"{name}-{stages}-stages", "hdm", "faithful", _faithful(*sum_steps, mixing="sum", **hierarchy), reference),
                Candidate(f"{name}-{stages}-stages-optimised", "hdm", "faithful", _faithful(*optimised_steps, **optimised), name),
            ]
    return candidates


def _from_tau() -> list[Candidate]:
    """Return candidates without a CAM as their start."""
    candidates = []
    for eta in (1.0, 5.0):
        name = "faithful-tau" + ("" if eta == 1 else f"-eta-{eta:g}")
        changes: dict[str, Any] = {"eta": eta, "start": "tau"}
        hierarchy: dict[str, Any] = {"stages": 2, "stage_unit": "remaining", "mixing": "sum"}
        candidates += [
            Candidate(name, "hdm", "faithful", changes),
            Candidate(f"{name}-2-stages", "hdm", "faithful", _faithful(3, 4, **changes, **hierarchy), name),
        ]
    return candidates


def _fast() -> list[Candidate]:
    """Return `fast`, at 150 passes also with another eta and with three stages.

    Up to 48 cells it has ten masks: 15 steps are 150 passes, and so are three stages of 5 steps.
    """
    shorter: dict[str, Any] = {"steps": 15, "max_size": 48}
    hierarchy = {"stages": 3, "steps": 5, "max_size": 48, "stage_unit": "remaining", "mixing": "sum"}
    candidates = [Candidate("fast", "hdm", "fast")]
    for eta in _ETAS:
        name = "fast-150" + ("" if eta == 1 else f"-eta-{eta:g}")
        candidates += [
            Candidate(name, "hdm", "fast", {**shorter, "eta": eta}),
            Candidate(f"{name}-3-stages", "hdm", "fast", {**hierarchy, "eta": eta}, name),
        ]
    return candidates


CANDIDATES: dict[str, Candidate] = {
    candidate.id: candidate
    for candidate in (
        *_family(),
        *_from_tau(),
        *_fast(),
        Candidate("grad_cam", "grad_cam"),
        Candidate("layer_cam", "layer_cam"),
        Candidate("rise-150", "rise", None, {"masks": 150}),
        Candidate("rise-1000", "rise", None, {"masks": 1000}),
        Candidate("integrated_gradients", "integrated_gradients"),
        Candidate("mask", "mask", None, {"cell": 2, "blur": 1.5, "jitter": 2}),  # as in `truth`: its lengths are for 224 pixels
    )
}
