"""Table of all registered methods, generated from METHODS."""

from __future__ import annotations

import re
from functools import cache

import torch
from md_table import cell, code, table

from hdm_core import METHODS, Classifier, Method

NETWORK, SIDE = "resnet50", 224  # passes are those of this network for an image of this side in pixels

# The baselines of methods without a setting for it.
FIXED_BASELINES = {"score_cam": "mean (fixed)"}


@cache
def network() -> Classifier:
    """Return the network whose passes the table gives, with random weights."""
    return Classifier.from_torchvision(NETWORK)


def passes(method: Method, preset: str) -> str:
    """Return the passes per image of a preset."""
    if method.needs_attention:  # the network has none, and their passes do not depend on it
        return f"{method.passes(method.presets[preset], SIDE, SIDE):,}"
    return f"{method.cost(method.presets[preset], network(), torch.zeros(1, 3, SIDE, SIDE)):,}"


def baseline(method: Method) -> str:
    """Return the default baseline of a method, or a dash if it has none."""
    if "baseline" in method.settings.model_fields:
        return str(method.presets[method.default].model_dump()["baseline"])
    return FIXED_BASELINES.get(method.id, "-")


def paper(method: Method) -> str:
    """Return the paper of a method, with its arXiv number as a link."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", cell(method.source))


def method_table() -> str:
    """Build the table, one row per method, and below it the list of papers."""
    rows, papers = [], []
    for method in METHODS.values():
        presets = ", ".join(
            f"{code(name)} {passes(method, name)}" + (" (default)" if name == method.default and len(method.presets) > 1 else "")
            for name in method.presets
        )
        gradients = "yes" if method.backward else "no"
        family, sign = (cell(text) or "-" for text in (method.family, method.sign))
        rows.append([code(method.id), cell(method.title), family, presets, gradients, baseline(method), sign])
        papers.append(f"- {code(method.id)}: {paper(method)}")
    header = ["id", "method", "family", f"passes per image ({NETWORK}, {SIDE} x {SIDE})", "gradients", "baseline", "sign"]
    return table(header, rows) + "\nPapers:\n\n" + "\n".join(papers) + "\n"
