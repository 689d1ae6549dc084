"""Views of masks, losses and the other settings of the optimiser, against the slow reference and by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from hdm_core import Classifier, explain
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.dynamic import dm_passes, dynamic_mask
from hdm_core.masking.ops import auxiliary_masks
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.masking.views import area, quantile, shown_pixels
from hdm_core.problem_type import log_odds
from hdm_core.settings import DMSettings
from tests.support import reference
from tests.support.tiny_networks import pictures, smooth

SETTINGS = DMSettings(sizes=(2, 3), ratios=(2,), steps=5, learning_rate=0.08, eta=0.5, relative=True, keep_fraction=1.0)
RANKED: dict[str, Any] = {
    "views": ("top", "rest", "soft"),
    "loss": "linear",
    "activation": "log_odds",
    "blur": 0.05,
    "max_size": 6,
    "schedule": "cosine",
    "average": 0.5,
}
CASES: list[dict[str, Any]] = [
    {"loss": "squared_hinge"},
    {"loss": "hinge"},
    {"loss": "linear"},
    {"activation": "log_odds"},
    {"views": ("top",)},
    {"views": ("rest",), "loss": "linear"},
    {"views": ("top", "rest"), "areas": (0.1, 0.4), "edge": 0.5},
    {"views": ("soft", "top"), "removal": 0.3},
    {"max_size": 6},
    {"max_size": 3},
    {"blur": 0.08},
    {"schedule": "cosine"},
    {"average": 0.5},
    {"average": 1.0},
    RANKED,
]


def score_of(target: int, activation: str) -> reference.Score:
    network = smooth().requires_grad_(False)

    def score(image: Tensor) -> Tensor:
        logits = network(image[None])[0]
        if activation == "log_odds":
            others = [logit for place, logit in enumerate(logits) if place != target]
            return logits[target] - torch.log(sum(torch.exp(other) for other in others))
        return logits[target]

    return score


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("noise", [0.0, 0.5], ids=["no noise", "noise"])
@pytest.mark.parametrize("changes", CASES, ids=str)
def test_dm_equals_the_reference(changes: dict[str, Any], noise: float) -> None:
    settings = SETTINGS.model_copy(update={**changes, "noise": noise})
    images, targets = pictures(2, 14, 12), torch.tensor([2, 0])
    network, passes = smooth().requires_grad_(False), PassCounter()
    options = {"relative": True, "noise": noise, "loss": settings.loss}
    loss, again = (
        ConsistencyLoss(network, images, targets, torch.zeros(1, 3, 1, 1), settings.activation, 16, passes, **options) for _ in range(2)
    )
    found = dynamic_mask(loss, settings)
    assert passes.total == 2 * dm_passes(settings, 14, 12)
    values = {name: value for name, value in settings if name in reference.HDM.__dataclass_fields__}
    levels = 1 + len(auxiliary_masks(settings.sizes, settings.ratios, 14, 12, settings.max_size))
    backgrounds = [[drawn[0] for drawn in again.noise_backgrounds(settings.steps)] for _ in range(levels)] if noise else ()
    block = reference.HDM(**values, backgrounds=backgrounds)
    for b, image in enumerate(images):
        expected = block.dm(score_of(int(targets[b]), settings.activation), image, torch.zeros(3, 1, 1))
        torch.testing.assert_close(found[b, 0], expected, rtol=0, atol=1e-7)


def test_the_areas_of_the_steps_by_hand() -> None:
    golden = (math.sqrt(5) - 1) / 2
    assert area(0, 0, 0.1, 0.5) == pytest.approx(0.1 + 0.4 * (0.5 + golden - 1))
    assert area(1, 2, 0.1, 0.5) == pytest.approx(0.1 + 0.4 * (0.5 + 2 * golden + 0.74 - 2))
    shares = sorted(area(step, 0, 0.0, 1.0) for step in range(12))
    gaps = [after - before for before, after in pairwise(shares)]
    assert max(gaps) < 0.15, "no part of the range is left out"


def test_a_quantile_by_hand() -> None:
    masks = torch.stack([torch.arange(12.0).view(1, 3, 4), torch.zeros(1, 3, 4)])
    assert quantile(masks, 0.25).flatten().tolist() == [9.0, 0.0]  # 11, 10, 9: the place int(0.25 * 11) = 2
    large = torch.rand(1, 1, 224, 300)
    exact = large.flatten().quantile(0.7)
    assert quantile(large, 0.3).item() == pytest.approx(float(exact), abs=0.02)


def test_the_pixels_of_a_view_by_hand() -> None:
    masks = torch.tensor([0.0, 0.4, 0.5, 0.6, 1.0]).view(1, 1, 1, 5)
    top = shown_pixels(masks, "top", 0.5, 0.25)  # the quantile is 0.5
    torch.testing.assert_close(top.pixels.flatten(), torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]))
    assert top.to_mask(torch.ones_like(masks)).flatten().tolist() == [0.0, 4.0, 4.0, 4.0, 0.0]
    rest = shown_pixels(masks, "rest", 0.5, 0.25)
    torch.testing.assert_close(rest.pixels + top.pixels, torch.ones_like(masks))
    assert rest.is_rest
    assert rest.to_mask(torch.ones_like(masks)).flatten().tolist() == [0.0, -4.0, -4.0, -4.0, 0.0]
    soft = shown_pixels(masks, "soft", 0.5, 0.25)
    assert soft.pixels is masks
    assert not soft.is_rest


def test_log_odds_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.5, -1.0, 0.0]], dtype=torch.float64)
    targets = torch.tensor([2, 1])
    probabilities = logits.softmax(1)[[0, 1], targets]
    torch.testing.assert_close(log_odds(logits, targets, "single_label_classification"), (probabilities / (1 - probabilities)).log())
    for problem_type in ("multi_label_classification", "regression"):
        assert log_odds(logits, targets, problem_type).tolist() == [4.0, -1.0]


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_a_map_depends_neither_on_the_batch_nor_on_the_other_images(batch: int) -> None:
    classifier, images = Classifier.from_module(smooth()), pictures(5)
    options = {**RANKED, "sizes": (3, 4), "ratios": (2,), "steps": 6, "learning_rate": 0.1, "noise": 0.5, "relative": True, "eta": 0.3}
    together = explain(classifier, images, "dm", targets=[1, 0, 2, 1, 0], batch=batch, **options)
    for place, target in ((3, 1), (0, 1), (4, 0)):
        alone = explain(classifier, images[place : place + 1], "dm", targets=target, **options)
        assert torch.equal(together.maps[place], alone.maps[0])


@pytest.mark.parametrize("changes", [{"scale": 1000.0}, {"shift": 50.0}], ids=str)
def test_a_map_does_not_change_with_the_scale_or_an_offset_of_the_logits(changes: dict[str, float]) -> None:
    class Changed(torch.nn.Module):
        def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
            super().__init__()
            self.inner, self.scale, self.shift = smooth(), scale, shift

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.inner(images)
            return logits * self.scale + self.shift

    # Log-odds do not change with an offset, and change with a scale as a probability does: of the scale the logit is asked.
    activation = "log_odds" if "shift" in changes else "logit"
    options = {**RANKED, "activation": activation, "sizes": (3, 4), "ratios": (2,), "steps": 6, "learning_rate": 0.1, "relative": True}
    maps = [
        explain(Changed(**each).double(), pictures(2).double(), "dm", targets=1, eta=0.3, keep_fraction=1.0, **options).maps
        for each in ({}, changes)
    ]
    torch.testing.assert_close(*maps, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_size": 5, "sizes": (6,)}, "max_size is 5, less than the size 6 of a benchmark mask"),
        ({"areas": (0.5, 0.1)}, "areas are 0.5 and 0.1: the smallest comes first"),
        ({"views": ()}, "views"),
        ({"views": ("hard",)}, "views"),
        ({"edge": 0.0}, "edge"),
        ({"ensemble": ({"step": 3},)}, "ensemble.0 has no setting 'step'; did you mean steps"),
        ({"ensemble": ({}, {"steps": 0})}, "ensemble.1.steps: "),
        ({"ensemble": ({"baseline": "black"},)}, "ensemble.0 has baseline, which all its blocks share"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(smooth(), pictures(1), "dm", **changes)


def test_settings_that_came_later_are_in_the_identity_only_if_they_are_set() -> None:
    assert not DMSettings.added & set(SETTINGS.identity())
    assert SETTINGS.model_copy(update={"loss": "linear"}).identity() == {**SETTINGS.identity(), "loss": "linear"}
