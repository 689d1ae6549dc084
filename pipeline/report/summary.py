"""A run in words and numbers: what it was, how far it is, how the methods compare, and what went wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hdm_core import METHODS, METRICS
from pipeline.report.gallery import NOTES
from pipeline.tables.aggregate import TITLES, best

DEFINITIONS = {
    "average_drop_80": "share of the class's probability that is lost when only the most important 20% of the pixels are shown",
    "average_drop_70": "the same when the most important 30% are shown",
    "increase_80": "share of the images on which the class's probability rises when only the most important 20% of the pixels are shown",
    "increase_70": "the same when the most important 30% are shown",
    "deletion_auc": "area under the class's probability while pixels are hidden, the most important first",
    "insertion_auc": "area under the class's probability while pixels appear on an empty picture, the most important first",
    "proportion": "share of the map's total that lies inside the annotated region, a segmentation or else a box",
}

_LISTED = 100  # problems that the page spells out


def facts(info: Mapping[str, Any]) -> dict[str, str]:
    """The page's header, from run.json."""
    config = info["config"]
    dataset, classifier = config["dataset"], config["classifier"]
    choice = {"split": "split {}", "per_class": "{} a class", "limit": "at most {}"}
    chosen = [text.format(dataset[key]) for key, text in choice.items() if dataset[key] is not None]
    return {
        "Classifier": _classifier(classifier),
        "Fingerprint of its weights": info["model_fingerprint"][:12],
        "Dataset": ", ".join([dataset["kind"], *([dataset["root"]] if dataset["root"] else []), *chosen]),
        "Explained class": _target(config["target"]),
        "Configuration": info["config_hash"][:12],
        "Seed": str(info["seed"]),
        "Software": ", ".join(f"{name} {info['versions'][name]}" for name in ("hdm-pipeline", "torch")),
    }


def _classifier(config: Mapping[str, Any]) -> str:
    """Where the network came from, as far as its source says."""
    given = [config.get(key) for key in ("arch", "path", "factory", "weights")]
    parts = [str(part) for part in given if part is not None]
    random = config["source"] in ("torchvision", "timm") and len(parts) == 1
    return ", ".join([*parts, *(["random weights"] if random else [])])


def _target(target: Any) -> str:
    if isinstance(target, Mapping):
        return f"the {target['top']} likeliest"
    return {"predicted": "the predicted one", "label": "the label"}.get(target, f"number {target}")


def settings(info: Mapping[str, Any]) -> str:
    """run.json as text, without where the run was sent and how it was staffed."""
    return json.dumps({key: value for key, value in info.items() if key != "config"}, indent=2, ensure_ascii=False)


def head() -> list[dict[str, str]]:
    """The metrics' columns: title with its direction, and definition."""
    return [
        {"title": TITLES[metric], "arrow": "↓" if less else "↑", "better": "less" if less else "more", "definition": DEFINITIONS[metric]}
        for metric, less in METRICS.items()
    ]


def body(table: pa.Table, records: pa.Table, passes: Mapping[str, int]) -> list[dict[str, Any]]:
    """The metrics' rows, one a method; the best mean of a metric is marked where methods compete."""
    cells = {(row["method"], row["metric"]): row for row in table.to_pylist()}
    methods = list(dict.fromkeys(method for method, _ in cells))
    winners = best(table) if len(methods) > 1 else set()
    seconds = records.group_by("method").aggregate([("seconds", "mean")]).to_pylist()
    seconds_of = {row["method"]: row["seconds_mean"] for row in seconds}
    return [
        {
            "title": METHODS[method].title,
            "cells": [{**cells[method, metric], "best": (method, metric) in winners} for metric in METRICS],
            "passes": passes[method],
            "seconds": seconds_of[method],
        }
        for method in methods
    ]


def problems(records: pa.Table) -> tuple[list[dict[str, Any]], int]:
    """Images that a method could not explain, those with one error in one line; the first hundred, and how many there are."""
    bad = records.filter(pc.invert(pc.is_in(records["status"], value_set=pa.array(["ok", "flat"])))).to_pylist()
    found: dict[tuple[int, str, str], dict[str, Any]] = {}
    for record in bad:
        error = record["error"] or NOTES[record["status"]]
        key = (record["row"], record["status"], error)
        line = found.setdefault(key, {"image_id": record["image_id"], "status": record["status"], "error": error, "methods": []})
        if (title := METHODS[record["method"]].title) not in line["methods"]:  # it may have failed on several classes
            line["methods"].append(title)
    return list(found.values())[:_LISTED], len(found)
