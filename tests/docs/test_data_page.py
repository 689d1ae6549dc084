"""docs/data.md: every kind has a block to copy, and the manifest of the page is read; test_blocks.py validates the blocks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pipeline.config.load import load_config, presets
from pipeline.datasets import DATASETS, list_samples, parse_dataset
from tests.support.paths import ROOT
from tests.support.plans import configuration

TEXT = (ROOT / "docs" / "data.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_every_kind_has_its_block() -> None:
    assert {yaml.safe_load(block)["dataset"]["kind"] for block in BLOCKS} == set(DATASETS)


def test_the_manifest_is_read(tmp_path: Path) -> None:
    (table,) = re.findall(r"```csv\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "images.csv").write_text(table)
    samples = list_samples(parse_dataset({"kind": "manifest", "root": str(tmp_path / "images.csv")}), {})
    assert [(sample.image_id, sample.label, sample.split) for sample in samples] == [
        ("first", 0, "test"),
        ("second", 1, "test"),
        ("third", 0, "train"),
    ]
    assert [sample.masks is not None for sample in samples] == [True, False, True]
    assert samples[1].bbox == (10.0, 20.0, 110.0, 220.0)


@pytest.mark.parametrize(("preset", "kind"), [("cub-full", "cub"), ("pm-full", "palm")])
def test_the_papers_presets_draw_as_the_page_says(preset: str, kind: str) -> None:
    assert preset in presets()
    (block,) = [block for block in BLOCKS if f"kind: {kind}," in block and "s3:" not in block]
    root = yaml.safe_load(block)["dataset"]["root"]
    assert load_config(preset, {"dataset.root": root}).dataset == configuration(**yaml.safe_load(block)).dataset
