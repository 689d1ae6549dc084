"""A yes/no network through the real command, to the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from hdm_core.sources.checkpoint import build
from tests.support.plans import save_picture
from tests.support.small_run import LOCAL, hdm


@pytest.mark.server
def test_a_yes_no_network_is_explained_for_the_answer_of_each_folder(tmp_path: Path) -> None:
    for number in range(4):
        save_picture(tmp_path / "xrays" / ("normal", "pneumonia")[number % 2] / f"{number}.png", 80, 70, number)
    torch.manual_seed(0)
    torch.save(build("mobilenet_v2", 1).state_dict(), tmp_path / "lungs.pth")
    classifier = {"source": "checkpoint", "path": str(tmp_path / "lungs.pth"), "arch": "mobilenet_v2", "resize": 72, "crop": 64}
    config: dict[str, Any] = {
        "name": "lungs",
        "dataset": {"kind": "folder", "root": str(tmp_path / "xrays")},
        "classifier": {**classifier, "classes": ["normal", "pneumonia"]},
        "methods": ["hdm", "rise", "score_cam", "grad_cam"],
        "hdm": {"sizes": [4], "ratios": [2], "steps": 3, "stages": 2, "mix_steps": 2},
        "rise": {"masks": 20},
        "target": "label",
        "compute": LOCAL,
        "output": str(tmp_path / "runs"),
    }
    source = tmp_path / "lungs.yaml"
    source.write_text(yaml.safe_dump({**config, "classifier": {**classifier, "classes": 1}}))
    refused = hdm("run", source)
    assert refused.returncode == 2
    assert "set problem_type to multi_label_classification if it is the logit of yes" in refused.stderr.splitlines()[-1]

    source.write_text(yaml.safe_dump({**config, "classifier": {**config["classifier"], "problem_type": "multi_label_classification"}}))
    checked = hdm("check", source, "--json")
    assert checked.returncode == 0, checked.stderr
    facts = json.loads(checked.stdout)
    assert facts["refused"] == []
    assert facts["findings"][0]["text"] == "2 labels, float32, logits"

    ended = hdm("run", source)
    assert ended.returncode == 0, ended.stderr
    run = tmp_path / "runs" / "lungs"
    records = pq.read_table(run / "records").to_pylist()
    assert {(record["image_id"].partition("/")[0], record["target_name"]) for record in records} == {("normal",) * 2, ("pneumonia",) * 2}
    for record in records:
        assert record["probability"] == pytest.approx(1 / (1 + math.exp(-record["logit"])), abs=1e-6)
        assert record["status"] == "flat" or 0 <= record["insertion_auc"] < 1
    page = (run / "report" / "index.html").read_text()
    assert "the sigmoid of a label" in page
    assert "not pneumonia" not in page
