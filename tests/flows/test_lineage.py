"""Artifacts for OpenLineage's Prefect integration, read as it reads them."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from flows import lineage
from pipeline.config.schema import RunConfig


def test_the_images_are_an_input_and_the_run_is_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(lineage, "create_table_artifact", lambda **artifact: made.append(artifact))
    sections = {"classifier": {"arch": "some_net"}, "methods": ["grad_cam"], "output": "s3://bucket/runs"}
    birds = RunConfig.model_validate({"name": "My.birds", "dataset": {"kind": "folder", "root": str(tmp_path)}, **sections})
    lineage.lineage_artifacts(birds, "s3://bucket/runs/My.birds")
    lineage.lineage_artifacts(RunConfig.model_validate({"name": "demo", "dataset": {"kind": "demo"}, **sections}), "s3://bucket/runs/demo")
    assert [each["key"] for each in made] == ["my-birds-input", "my-birds-output", "demo-output"]
    read = []
    for each in made:
        # As the integration does: the end of the description, and the first row of the data, which Prefect stores as JSON.
        assert "ol-dataset" in each["description"]
        row = ast.literal_eval(json.dumps(each["table"]))[0]
        read.append((each["description"].split("_")[-1], row["database_uri"], row["table"]))
    assert read == [
        ("input", "file", str(tmp_path)),
        ("output", "s3://bucket", "runs/My.birds"),
        ("output", "s3://bucket", "runs/demo"),
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/a/b/", ("file", "/a/b")),
        ("file:///a/b", ("file", "/a/b")),
        ("a", ("file", f"{Path.cwd()}/a")),
        ("s3://bucket/runs/m/", ("s3://bucket", "runs/m")),
        ("s3://bucket", ("s3://bucket", "/")),
    ],
)
def test_a_dataset_is_named_as_openlineage_names_it(url: str, expected: tuple[str, str]) -> None:
    assert lineage.dataset_name(url) == expected
