"""What an explanation shows of itself: a line, heatmaps, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hdm_core import Classifier, Explanation, Preprocess, explain
from hdm_core.heatmap import colour, overlay
from tests.support.tiny_networks import pictures, smooth

HDM = {"sizes": (2, 3), "ratios": (2,), "steps": 2, "stages": 2, "mix_steps": 2}


@pytest.fixture
def explanation() -> Explanation:
    return explain(smooth(), pictures(2, 16, 20), "grad_cam")


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


def test_a_notebook_shows_its_maps(explanation: Explanation) -> None:
    shown = explanation._repr_html_()
    assert shown.count('<img src="data:image/png;base64,') == 2
    assert f"class {int(explanation.targets[0])}, ok" in shown
    assert "Explanation(grad_cam: 2 maps" in shown


def test_it_is_one_short_line(explanation: Explanation) -> None:
    assert repr(explanation) == "Explanation(grad_cam: 2 maps of 16 x 20, 2 ok, 1 pass per image)"
    images = pictures(3)
    images[1] = torch.nan
    assert "2 ok, 1 nan" in repr(explain(smooth(), images, "gradient"))


# Heatmaps


def test_a_heatmap_lies_on_the_crop_that_the_network_saw() -> None:
    preprocess = Preprocess(resize=20, crop=16)
    classifier = Classifier.from_module(smooth(), preprocess)
    photographs = [photograph(40, 30), photograph(20, 50, seed=1)]
    explanation = explain(classifier, classifier.prepare(photographs), "gradient")
    drawn = explanation.overlay(photographs)
    assert len(drawn) == 2
    for image, each, values in zip(drawn, photographs, explanation.maps.numpy(), strict=True):
        assert image.size == (16, 16)
        assert image.tobytes() == overlay(preprocess.cropped(each), values).tobytes()


def test_one_photograph_gives_one_heatmap_and_may_be_an_array() -> None:
    explanation = explain(smooth(), pictures(1, 16, 20), "gradient")
    image = photograph(20, 16)
    expected = explanation.overlay(image).tobytes()
    array = np.asarray(image)
    for same in (array, array / 255):
        assert explanation.overlay(same).tobytes() == expected
    assert explanation.overlay([array])[0].tobytes() == expected
    assert explanation.overlay(array[..., 0]).size == (20, 16)


def test_photographs_that_do_not_fit_are_refused_in_one_line(explanation: Explanation) -> None:
    with pytest.raises(ValueError, match=r"^2 maps need a list of as many photographs, not 1$"):
        explanation.overlay(photograph(20, 16))
    with pytest.raises(ValueError, match="the photograph has 16 x 20 pixels and the maps 20 x 16; give the classifier a preprocess, or"):
        explanation.overlay([photograph(16, 20)] * 2)
    with pytest.raises(ValueError, match=r"has the shape \(H, W\) or \(H, W, 3\), not \(3, 16, 20\)"):
        explanation.overlay([np.zeros((3, 16, 20))] * 2)


@pytest.mark.parametrize("channels", [1, 5])
def test_heatmaps_over_photographs_of_other_channels(channels: int) -> None:
    """Grey is shown as grey, of five channels the first three."""
    preprocess = Preprocess((16, 20), None, (0.5,) * channels, (0.5,) * channels)
    network = torch.nn.Sequential(torch.nn.Conv2d(channels, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    classifier = Classifier.from_module(network, preprocess)
    array = np.random.default_rng(0).integers(0, 65536, (30, 40, channels), np.uint16)
    explanation = explain(classifier, classifier.prepare([array]), "gradient")
    assert explanation.maps.shape == (1, 16, 20)
    drawn = explanation.overlay(array)
    assert drawn.tobytes() == overlay(preprocess.cropped(array), explanation.maps[0].numpy()).tobytes()
    crop = np.asarray(preprocess.cropped(array))
    assert (crop[..., 0] == crop[..., 1]).all() == (channels == 1)


# Files


def test_maps_are_saved_as_arrays(tmp_path: Path) -> None:
    explanation = explain(smooth(), pictures(2), "hdm", **HDM)
    assert explanation.save(tmp_path / "maps.npy") == [tmp_path / "maps.npy"]
    assert np.array_equal(np.load(tmp_path / "maps.npy"), explanation.maps.numpy())
    explanation.save(str(tmp_path / "all.npz"))
    with np.load(tmp_path / "all.npz") as arrays:
        assert set(arrays) == {"maps", "targets", "logits", "status", "stages", "stage_weights"}
        assert np.array_equal(arrays["stages"], explanation.stages.numpy())
        assert arrays["status"].tolist() == explanation.status


def test_heatmaps_are_saved_one_per_map(explanation: Explanation, tmp_path: Path) -> None:
    paths = explanation.save(tmp_path / "cam.png")
    assert [path.name for path in paths] == ["cam-0.png", "cam-1.png"]
    assert Image.open(paths[1]).tobytes() == colour(explanation.maps[1].numpy()).tobytes()
    photographs = [photograph(20, 16), photograph(20, 16, seed=1)]
    paths = explanation.save(tmp_path / "over.png", photographs)
    assert Image.open(paths[0]).tobytes() == explanation.overlay(photographs)[0].tobytes()
    one = explain(smooth(), pictures(1), "gradient")
    assert one.save(tmp_path / "one.png", photograph(16, 16)) == [tmp_path / "one.png"]


@pytest.mark.parametrize(("name", "found"), [("maps.jpg", ".jpg"), ("maps", "without a suffix")])
def test_another_suffix_is_refused(explanation: Explanation, tmp_path: Path, name: str, found: str) -> None:
    with pytest.raises(ValueError, match=f"maps are saved as .png, .npy, .npz, not {found}"):
        explanation.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
