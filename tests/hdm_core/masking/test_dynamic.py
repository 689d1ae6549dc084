from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.dynamic import dm_passes, dynamic_mask
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.methods.presets import DM_PRESETS
from hdm_core.settings import DMSettings
from tests.support import reference
from tests.support.tiny_networks import Constant, pictures, smooth

pytestmark = pytest.mark.usefixtures("double")

SETTINGS = DMSettings(sizes=(2, 3), ratios=(2, 3), steps=6, learning_rate=0.08, eta=2.0, tau=0.5, keep_fraction=0.3)


def run(images: Tensor, targets: Tensor, settings: DMSettings, network: torch.nn.Module | None = None) -> tuple[Tensor, PassCounter]:
    passes = PassCounter()
    network = (smooth() if network is None else network).requires_grad_(False)
    baseline = torch.zeros(1, 3, 1, 1)
    loss = ConsistencyLoss(network, images, targets, baseline, settings.activation, 16, passes)
    return dynamic_mask(loss, settings), passes


@pytest.mark.parametrize(
    ("height", "width", "changes"),
    [
        (16, 16, {}),
        (18, 13, {}),
        (13, 18, {"keep_fraction": 1.0}),
        (16, 16, {"activation": "probability", "eta": 0.05}),
        (12, 12, {"sizes": (4,), "ratios": (5,), "tau": 0.9}),
    ],
    ids=["square", "tall", "wide, no gamma", "probability", "no auxiliary mask"],
)
def test_dm_equals_the_reference(height: int, width: int, changes: dict[str, object]) -> None:
    settings = SETTINGS.model_copy(update=changes)
    images, targets = pictures(2, height, width), torch.tensor([2, 0])
    found, passes = run(images, targets, settings)
    assert found.shape == (2, 1, height, width)
    network = smooth().requires_grad_(False)
    fields = ("sizes", "ratios", "steps", "learning_rate", "eta", "tau", "keep_fraction")
    block = reference.HDM(**{field: getattr(settings, field) for field in fields})
    for b, image in enumerate(images):

        def score(x: Tensor, target: int = int(targets[b])) -> Tensor:
            logits = network(x[None])[0]
            return (logits.softmax(0) if settings.activation == "probability" else logits)[target]

        expected = block.dm(score, image, torch.zeros(3, 1, 1))
        assert expected.max() == 1
        # float64 on both sides; the difference is rounding, magnified by Adam and N.
        torch.testing.assert_close(found[b, 0], expected, rtol=0, atol=1e-7)
    assert passes.total == len(images) * dm_passes(settings, height, width)


@pytest.mark.parametrize(("preset", "trainings", "stages_passes"), [("paper-cub", 56, 44_800), ("paper-pm", 33, 26_400)])
def test_the_papers_passes(preset: str, trainings: int, stages_passes: int) -> None:
    settings = DM_PRESETS[preset]
    assert dm_passes(settings, 224, 224) == trainings * 800 == stages_passes


def test_a_mask_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="mask size 9"):
        run(pictures(1, 16, 8), torch.tensor([0]), SETTINGS.model_copy(update={"sizes": (2, 9)}))


def test_constant_logits_give_a_flat_mask() -> None:
    # Enough steps for the sparsity term, which nothing opposes, to bring every mask to 0.
    settings = SETTINGS.model_copy(update={"steps": 12})
    found, _ = run(pictures(2, 12), torch.tensor([1, 2]), settings, Constant())
    assert torch.equal(found, torch.zeros(2, 1, 12, 12))


@pytest.mark.parametrize("preset", [name for name, settings in DM_PRESETS.items() if settings.schedule == "constant"])
def test_every_preset_trains_long_enough_to_empty_a_mask(preset: str) -> None:
    assert DM_PRESETS[preset].steps * DM_PRESETS[preset].learning_rate > max(DM_PRESETS[preset].tau, 1 - DM_PRESETS[preset].tau)


def test_the_mask_is_high_where_the_evidence_is() -> None:
    # The logit depends on a corner only: the mask must find it.
    class Corner(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            score = images[:, :, :4, :4].mean((1, 2, 3))
            return torch.stack([4 * score, -4 * score], 1)

    settings = DMSettings(sizes=(4,), ratios=(2,), steps=60, learning_rate=0.05, eta=1.0)
    found, _ = run(torch.ones(1, 3, 16, 16), torch.tensor([0]), settings, Corner())
    assert found[0, 0, :4, :4].mean() > 0.3
    assert found[0, 0, 8:, 8:].max() == 0
