"""`hdm explain` of an image whose class is the answer for grey as well."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

CLASSIFIER = "{source: import, factory: 'tests.support.retina_network:make', classes: [healthy, ill], resize: 16, crop: 16}"


def explained(here: Callable[..., Any], folder: Path, colour: tuple[int, int, int], *options: str) -> dict[str, Any]:
    Image.new("RGB", (24, 20), colour).save(folder / "eye.png")
    ended = here("explain", folder / "eye.png", "--classifier", CLASSIFIER, "--out", folder / "map.png", "--json", *options)
    assert ended.code == 0, ended.err
    facts: dict[str, Any] = json.loads(ended.out)
    return facts


def test_it_says_what_such_a_map_means(tmp_path: Path, here: Callable[..., Any]) -> None:
    facts = explained(here, tmp_path, (110, 130, 100), "--method", "integrated_gradients")
    assert facts["class"] == "healthy"
    assert (facts["baseline"], facts["baseline_probability"], facts["no_contrast"]) == ("mean", 0.74, True)
    assert facts["remark"].startswith("the network answers healthy for a grey image as well (p 0.740): the map shows what raises")


def test_it_says_nothing_of_other_images_and_of_methods_without_a_baseline(tmp_path: Path, here: Callable[..., Any]) -> None:
    facts = explained(here, tmp_path, (200, 90, 100), "--method", "integrated_gradients")
    assert (facts["class"], facts["baseline_probability"], facts["no_contrast"]) == ("ill", 0.26, False)
    assert "remark" not in facts
    assert "baseline" not in explained(here, tmp_path, (110, 130, 100), "--method", "gradient")


def test_it_draws_the_signed_map_of_a_method_that_has_one(tmp_path: Path, here: Callable[..., Any]) -> None:
    facts = explained(here, tmp_path, (200, 90, 100), "--method", "occlusion", "--signed")
    assert facts["signed_map"] == str(tmp_path / "map-signed.png")
    with Image.open(facts["signed_map"]) as picture:
        assert picture.size == (16, 16)
    ended = here("explain", tmp_path / "eye.png", "--classifier", CLASSIFIER, "--method", "hdm", "--signed")
    assert ended.code == 2
    assert "--signed: hdm has no signed map; methods that have one are gradient," in ended.err
