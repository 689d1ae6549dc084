"""Texts and numbers of the report page: header, metrics by method, problems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hdm_core import METRICS, is_control, method_title
from pipeline.report.gallery import NOTES
from pipeline.tables.aggregate import best, metrics_of

DEFINITIONS = {name: metric.definition for name, metric in METRICS.items()}

_LISTED = 100  # problems that the page lists


def facts(info: Mapping[str, Any]) -> dict[str, str]:
    """Return the page's header, from run.json."""
    config = info["config"]
    dataset, classifier = config["dataset"], config["classifier"]
    choice = {"split": "split {}", "per_class": "{} per class", "limit": "at most {}"}
    chosen = [text.format(dataset[key]) for key, text in choice.items() if dataset[key] is not None]
    return {
        "Classifier": _classifier(classifier),
        "Digest of its weights": info["model_fingerprint"][:12],
        "Dataset": ", ".join([dataset["kind"], *([dataset["root"]] if dataset["root"] else []), *chosen]),
        **_meaning(info.get("interface") or {}),
        "Explained class": _target(config["target"]),
        "Configuration": info["config_hash"][:12],
        **({"Checks of the classifier": _checks(info["checks"])} if info.get("checks") else {}),  # runs of 0.1.0 have none
        "Seed": str(info["seed"]),
        "Software": ", ".join(f"{name} {info['versions'][name]}" for name in ("hdm-pipeline", "torch")),
    }


def _classifier(config: Mapping[str, Any]) -> str:
    """Describe the source of the network."""
    given = [config.get(key) for key in ("arch", "path", "factory", "weights")]
    parts = [str(part) for part in given if part is not None]
    random = config["source"] in ("torchvision", "timm") and len(parts) == 1
    return ", ".join([*parts, *(["random weights"] if random else [])])


def _meaning(interface: Mapping[str, Any]) -> dict[str, str]:
    """Describe what stands for a probability, where it is no softmax."""
    match interface.get("problem_type"):
        case "multi_label_classification":
            return {"Probability": "the sigmoid of a label's logit"}
        case "regression":
            return {
                "Probability": "the output of a regression; in metrics and curves its change from the baseline image, 1 for the whole image"
            }
        case _:
            return {}


def _checks(findings: Sequence[Mapping[str, Any]]) -> str:
    """Summarise the findings before the run; what is not as expected is quoted."""
    unusual = [f"{each['verdict']}: {each['text']}" for each in findings if each["verdict"] != "ok"]
    return "; ".join([f"{len(findings) - len(unusual)} ok", *unusual])


def _target(target: Any) -> str:
    if isinstance(target, Mapping):
        if "contrast" in target:
            return "{} rather than {}".format(*target["contrast"])
        if "labels" in target:
            return f"those of the label, up to {target['labels']}"
        return f"the {target['top']} most probable" + (f", above {target['above']:g}" if target.get("above") is not None else "")
    words = {
        "predicted": "the predicted one",
        "label": "the label",
        "runner_up": "the predicted one rather than the next",
        "wrong": "of misclassified images, the predicted one and the label",
    }
    return words.get(target, f"number {target}")


def settings(info: Mapping[str, Any]) -> str:
    """Return run.json as text, without the configuration.

    The configuration holds locations and workers.
    """
    return json.dumps({key: value for key, value in info.items() if key != "config"}, indent=2, ensure_ascii=False)


def head(table: pa.Table) -> list[dict[str, str]]:
    """Return the columns of a table's metrics: title, direction and definition."""
    return [_column(name) for name in metrics_of(table)]


def _column(name: str) -> dict[str, str]:
    if name not in METRICS:
        return {"title": name, "arrow": "", "better": "", "definition": "metric of a plugin that is not installed here"}
    metric = METRICS[name]
    better = "less" if metric.lower_is_better else "more"
    return {"title": metric.title, "arrow": metric.arrow, "better": better, "definition": metric.definition}


def body(table: pa.Table, records: pa.Table, passes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the metrics' rows, one per method.

    Each has a cell per metric, and `counts`, of which the numbers of images are taken. The best mean of a metric is marked if there are
    several methods. The controls are last, and the first one below a method has a line.
    """
    cells = {(row["method"], row["metric"]): row for row in table.to_pylist()}
    any_cells = {method: row for (method, _), row in reversed(cells.items())}
    methods = sorted(dict.fromkeys(method for method, _ in cells), key=is_control)
    first_control = next((method for method in methods[1:] if is_control(method) and not is_control(methods[0])), None)
    winners, metrics = best(table) if len(methods) > 1 else set(), metrics_of(table)
    seconds = records.group_by("method").aggregate([("seconds", "mean")]).to_pylist()
    seconds_of = {row["method"]: row["seconds_mean"] for row in seconds}
    return [
        {
            "title": method_title(method),
            "line": method == first_control,
            "cells": [{**cells[method, metric], "best": (method, metric) in winners} for metric in metrics],
            "counts": cells[method, metrics[0]] if metrics else any_cells[method],
            "passes": passes[method],
            "seconds": seconds_of[method],
        }
        for method in methods
    ]


def without_contrast(table: pa.Table) -> str:
    """Return a paragraph about the images whose class a baseline keeps.

    It is empty if there are none, or the run did not measure it.
    """
    rows = {row["method"]: row for row in table.to_pylist()}
    of_maps = [f"{method_title(method)} {row['n_no_contrast']:,}" for method, row in rows.items() if row["n_no_contrast"]]
    of_metrics = max((row["n_metrics_no_contrast"] or 0 for row in rows.values()), default=0)
    if not of_maps and not of_metrics:
        return ""
    counts = [f"of the maps: {', '.join(of_maps)}"] if of_maps else []
    counts += [f"of the metrics: {of_metrics:,}"] if of_metrics else []
    return (
        "Images without contrast, whose class is kept by the baseline, on which nothing of the image is left, "
        f"{'; '.join(counts)}. A map of what is removed does not explain the answer there, and deletion, insertion and drop say little; "
        "their numbers are part of the means above."
    )


def problems(records: pa.Table) -> tuple[list[dict[str, Any]], int]:
    """Return the images that a method could not explain.

    There is one line per image and error: the first hundred, and the number of all.
    """
    bad = records.filter(pc.invert(pc.is_in(records["status"], value_set=pa.array(["ok", "skipped", "flat"])))).to_pylist()
    lines: dict[tuple[int, str, str], dict[str, Any]] = {}
    for record in bad:
        error = record["error"] or NOTES[record["status"]]
        key = (record["row"], record["status"], error)
        line = lines.setdefault(key, {"image_id": record["image_id"], "status": record["status"], "error": error, "methods": []})
        if (title := method_title(record["method"])) not in line["methods"]:  # it may have failed on several classes
            line["methods"].append(title)
    return list(lines.values())[:_LISTED], len(lines)
