"""`baseline: auto` of HDM and DM: of each image the baseline on which its class loses most."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, Preprocess, explain, measure_baselines
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.methods.base import ExplainJob
from hdm_core.methods.dm import consistency_losses
from hdm_core.methods.job_baseline import job_baseline
from tests.support.tiny_networks import pictures, smooth

SIDE = 16
SHORT: dict[str, Any] = {"sizes": [2, 5], "ratios": [2], "steps": 3, "learning_rate": 0.1, "eta": 0.02, "relative": True}
PREPROCESS = Preprocess(resize=SIDE, crop=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
METHODS_AND_SETTINGS = [("dm", SHORT), ("hdm", {**SHORT, "stages": 2, "mix_steps": 3})]


class Levels(nn.Module):
    """Network whose class 0 is dark, class 1 is grey and class 2 is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.tensor([-2.0, 0.0, 2.0]))

    def forward(self, images: Tensor) -> Tensor:
        return -((images.mean((1, 2, 3))[:, None] - self.centres) ** 2)


def levels() -> tuple[Classifier, Tensor]:
    """A dark, a grey and a bright image with some texture."""
    texture = pictures(3, SIDE)
    texture = texture - texture.mean((1, 2, 3), keepdim=True)
    return Classifier.from_module(Levels(), PREPROCESS), texture + torch.tensor([-2.0, 0.0, 2.0])[:, None, None, None]


@pytest.mark.parametrize(("method", "settings"), METHODS_AND_SETTINGS)
def test_each_image_has_the_baseline_on_which_it_loses_most(method: str, settings: dict[str, Any]) -> None:
    classifier, images = levels()
    explanation = explain(classifier, images, method, baseline="auto", **settings)
    assert explanation.targets.tolist() == [0, 1, 2]
    # Black is -2 here: what is dark loses least on it, and what is grey or bright loses most. Noise has the mean of grey.
    scores = measure_baselines(classifier, images)
    best = [scores.kinds[int(row.argmax())] for row in scores.contrast]
    assert explanation.baselines == best
    assert best[0] in ("mean", "noise")
    assert best[1:] == ["black", "black"]
    assert explanation.baseline_scores is not None
    torch.testing.assert_close(explanation.baseline_scores.baseline, scores.baseline, rtol=0, atol=0)
    torch.testing.assert_close(explanation.baseline_scores.image, scores.image)


@pytest.mark.parametrize(("method", "settings"), METHODS_AND_SETTINGS)
def test_the_map_is_that_of_the_chosen_baseline(method: str, settings: dict[str, Any]) -> None:
    classifier, images = levels()
    auto = explain(classifier, images, method, baseline="auto", **settings)
    assert auto.baselines is not None
    for i, kind in enumerate(auto.baselines):
        fixed = explain(classifier, images[i : i + 1], method, targets=auto.targets[i : i + 1], baseline=kind, **settings)
        assert fixed.baselines == [kind]
        assert fixed.baseline_scores is None
        torch.testing.assert_close(auto.maps[i], fixed.maps[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("method", "settings"), METHODS_AND_SETTINGS)
def test_the_batch_changes_no_bit(method: str, settings: dict[str, Any]) -> None:
    classifier, images = Classifier.from_module(smooth(), PREPROCESS), pictures(5, SIDE)
    together = explain(classifier, images, method, targets=[0, 1, 0, 1, 0], baseline="auto", batch=8, **settings)
    assert together.baselines is not None
    assert len(set(together.baselines)) > 1
    for i in range(5):
        alone = explain(classifier, images[i : i + 1], method, targets=i % 2, baseline="auto", batch=8, **settings)
        assert alone.baselines == [together.baselines[i]]
        assert torch.equal(alone.maps[0], together.maps[i])


@pytest.mark.parametrize(("method", "settings"), METHODS_AND_SETTINGS)
@pytest.mark.parametrize(("preprocess", "candidates"), [(PREPROCESS, 4), (None, 3)])
def test_each_candidate_is_a_pass(method: str, settings: dict[str, Any], preprocess: Preprocess | None, candidates: int) -> None:
    classifier, images = Classifier.from_module(smooth(), preprocess), pictures(2, SIDE)
    auto, fixed = (explain(classifier, images, method, baseline=baseline, **settings) for baseline in ("auto", "mean"))
    assert auto.passes == fixed.passes + candidates
    entry = METHODS[method]
    assert entry.cost(entry.configure(baseline="auto", **settings), classifier, images[:1]) == auto.passes


def test_a_class_compared_with_another_has_its_own_baseline() -> None:
    classifier, images = levels()
    explanation = explain(classifier, images, "dm", targets=[0, 1, 2], contrast=[1, 2, 1], baseline="auto", **SHORT)
    scores = measure_baselines(classifier, images, [0, 1, 2], contrast=[1, 2, 1])
    assert explanation.baselines == [scores.kinds[int(row.argmax())] for row in scores.contrast]
    assert explanation.baseline_scores is not None
    torch.testing.assert_close(explanation.baseline_scores.image, scores.image)


def test_a_regression_takes_the_largest_change() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: Tensor) -> Tensor:
            return self.weight * images.mean((1, 2, 3))[:, None]

    classifier = Classifier.from_module(Mean(), PREPROCESS, problem_type="regression")
    images = torch.stack([pictures(1, SIDE)[0] * 0.1 - 1.9, pictures(1, SIDE)[0] * 0.1 + 1.0])
    explanation = explain(classifier, images, "dm", targets=0, baseline="auto", **SHORT)
    assert explanation.baselines is not None
    assert explanation.baselines[0] in ("mean", "noise")  # -1.9 is far from 0 and near black's -2
    assert explanation.baselines[1] == "black"


def test_a_network_that_ignores_the_image_takes_the_first() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2))
    nn.init.zeros_(network[1].weight)
    explanation = explain(Classifier.from_module(network), pictures(2, SIDE), "dm", baseline="auto", **SHORT)
    assert explanation.baselines == ["mean", "mean"]


def test_methods_name_their_fixed_baseline_or_none() -> None:
    images = pictures(2, SIDE)
    assert explain(smooth(), images, "integrated_gradients", steps=2, baseline="blur").baselines == ["blur", "blur"]
    assert explain(smooth(), images, "mask", steps=2, circles=2).baselines == ["blur", "blur"]
    assert explain(smooth(), images, "gradient").baselines is None


def test_the_blocks_of_an_ensemble_share_the_baseline() -> None:
    classifier, images = levels()
    explanation = explain(classifier, images, "dm", baseline="auto", ensemble=({"steps": 2},), calibration=(0.1, 0.3), **SHORT)
    assert explanation.baselines is not None
    assert explanation.baselines[1:] == ["black", "black"]


def test_the_losses_of_a_job_resolve_the_baseline_by_themselves() -> None:
    classifier, images = levels()
    settings = METHODS["dm"].configure("fast", baseline="auto", **SHORT)
    with classifier.frozen() as network:
        job = ExplainJob(classifier, images, torch.tensor([0, 1, 2]), 8, PassCounter())
        ((loss, _),) = consistency_losses(job, network, settings)
        assert torch.equal(loss.baseline, job_baseline(job, settings).image)
    assert loss.baseline.shape == images.shape


def test_the_identity_is_that_of_before_unless_auto_is_chosen() -> None:
    for method in ("dm", "hdm"):
        for preset in METHODS[method].presets:
            assert METHODS[method].configure(preset).identity()["baseline"] == "mean"
        assert METHODS[method].configure(baseline="auto").identity()["baseline"] == "auto"


@pytest.mark.parametrize("method", ["rise", "mask", "integrated_gradients", "deeplift"])
def test_methods_without_auto_refuse_it(method: str) -> None:
    with pytest.raises(ValueError, match=rf"{method}.baseline: input should be 'mean', 'black', 'blur' or 'noise', not 'auto'"):
        METHODS[method].configure(baseline="auto")
