"""Start of DM's and HDM's masks from a CAM."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, check, explain, get_method
from hdm_core.masking.dynamic import dynamic_mask
from hdm_core.settings import DMSettings
from tests.support.tiny_networks import pictures, smooth

CHANGES: dict[str, Any] = {"sizes": (4,), "ratios": (2,), "steps": 3, "start": "cam", "relative": True, "eta": 0.3, "learning_rate": 0.05}
SETTINGS = {"preset": "fast", **CHANGES}


class Flat(nn.Module):
    """Network without a layer that has maps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.flatten(1))
        return logits


@pytest.mark.parametrize("method", ["dm", "hdm"])
def test_masks_start_from_grad_cams_map(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor | None] = []

    def watch(consistency: Any, settings: DMSettings, start: Tensor | None = None) -> Tensor:
        seen.append(start)
        return dynamic_mask(consistency, settings, start)

    monkeypatch.setattr("hdm_core.masking.dynamic.dynamic_mask", watch)
    classifier, images = Classifier.from_module(smooth()), pictures(3, 16)
    stages = {"stages": 1} if method == "hdm" else {}
    found = explain(classifier, images, method, targets=[0, 2, 1], **SETTINGS, **stages)
    cam = explain(classifier, images, "grad_cam", targets=[0, 2, 1])
    assert len(seen) == 1
    torch.testing.assert_close(seen[0][:, 0], cam.maps)
    assert found.passes == 1 + 3 * 3, "one of Grad-CAM, and three steps of masks of 4, 8 and 16 cells"


@pytest.mark.parametrize("method", ["dm", "hdm"])
def test_the_planned_passes_are_those_that_are_done(method: str) -> None:
    classifier, images = Classifier.from_module(smooth()), pictures(2, 16)
    entry = get_method(method)
    changes = {**SETTINGS, "ensemble": ({"steps": 2},)}
    assert entry.cost(entry.configure(**changes), classifier, images[:1]) == explain(classifier, images, method, **changes).passes


def test_a_network_without_maps_starts_from_tau_and_the_check_says_so() -> None:
    classifier, images = Classifier.from_module(Flat()), pictures(2, 16)
    from_tau = explain(classifier, images, "dm", **{**SETTINGS, "start": "tau"})
    found = explain(classifier, images, "dm", **SETTINGS)
    assert torch.equal(found.maps, from_tau.maps)
    assert found.passes == from_tau.passes
    settings = {"dm": get_method("dm").configure(**SETTINGS)}
    (finding,) = [each for each in check(classifier, images, settings).findings if each.subject == "start"]
    assert (finding.verdict, finding.methods) == ("handled", ("dm",))
    assert finding.text == "this network has no layer with maps for a CAM: masks start from 0.5"
    assert not [each for each in check(Classifier.from_module(smooth()), images, settings).findings if each.subject == "start"]


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_a_map_from_a_cam_depends_neither_on_the_batch_nor_on_the_other_images(batch: int) -> None:
    classifier, images = Classifier.from_torchvision("mobilenet_v2"), pictures(5, 64)
    together = explain(classifier, images, "dm", targets=[1, 0, 2, 1, 0], batch=batch, **SETTINGS)
    for place, target in ((3, 1), (0, 1)):
        alone = explain(classifier, images[place : place + 1], "dm", targets=target, **SETTINGS)
        assert torch.equal(together.maps[place], alone.maps[0])


def test_members_share_the_job_and_differ_in_their_loss() -> None:
    settings = DMSettings(**CHANGES, ensemble=({"activation": "log_odds", "noise": 0.5, "loss": "linear"},))
    assert [member.ensemble for member in settings.members()] == [(), ()]
    assert [(member.activation, member.noise, member.loss, member.steps) for member in settings.members()] == [
        ("logit", 0.0, "square", 3),
        ("log_odds", 0.5, "linear", 3),
    ]


@pytest.mark.parametrize("method", ["dm", "hdm"])
def test_the_preset_that_uses_all_of_this_passes_the_check(method: str) -> None:
    settings = get_method(method).configure("faithful", sizes=(4,), max_size=8)
    findings = check(Classifier.from_module(smooth()), pictures(2, 16), {method: settings}).findings
    assert [finding.text for finding in findings if finding.verdict == "refused"] == []
