"""Table of all registered methods, generated from METHODS."""

from __future__ import annotations

import re

from md_table import cell, code, table

from hdm_core import METHODS, Method
from hdm_core.methods.cam import CAMSettings
from hdm_core.settings import DMSettings

SIDE = 224  # pixels; passes are those of an image of this size

# What no entry states: the family of a method, and the treatment of evidence against the class.
FAMILIES = {
    "gradient": "gradient",
    "deeplift": "gradient",
    "integrated_gradients": "gradient",
    "full_grad": "gradient",
    "rise": "random masks",
    "mask": "mask optimisation",
}
SIGNS = {
    "CAM": "only evidence for the class",
    "gradient": "absolute values",
    "random masks": "mean probability, no sign",
    "mask optimisation": "only evidence for the class",
}
NO_CLASS = {"eigen_cam": "independent of the class"}
FIXED_BASELINES = {"score_cam": "mean (fixed)"}


def family(method: Method) -> str:
    """Return the family of a method; a dash for one of a plugin that fits none."""
    if issubclass(method.settings, CAMSettings):
        return "CAM"
    if issubclass(method.settings, DMSettings):
        return "mask optimisation"
    return FAMILIES.get(method.id, "-")


def passes(method: Method, preset: str) -> str:
    """Return the passes per image of a preset."""
    count = f"{method.passes(method.presets[preset], SIDE, SIDE):,}"
    return f"{count} + those of the network" if method.network_passes else count


def baseline(method: Method) -> str:
    """Return the default baseline of a method, or a dash if it has none."""
    if "baseline" in method.settings.model_fields:
        return str(method.presets[method.default].model_dump()["baseline"])
    return FIXED_BASELINES.get(method.id, "-")


def paper(method: Method) -> str:
    """Return the paper of a method, with its arXiv number as a link."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", cell(method.source))


def method_table() -> str:
    """Build the table: one row per method."""
    rows = []
    for method in METHODS.values():
        kind = family(method)
        presets = ", ".join(
            f"{code(name)} {passes(method, name)}" + (" (default)" if name == method.default and len(method.presets) > 1 else "")
            for name in method.presets
        )
        sign = NO_CLASS.get(method.id, SIGNS.get(kind, "-"))
        rows.append(
            [code(method.id), cell(method.title), kind, presets, "yes" if method.backward else "no", baseline(method), sign, paper(method)]
        )
    header = ["id", "method", "family", f"passes per image at {SIDE} x {SIDE}", "gradients", "baseline", "sign", "paper"]
    return table(header, rows)
