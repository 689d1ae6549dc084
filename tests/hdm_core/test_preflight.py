"""`check`: findings about a classifier for several methods at once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, Preprocess, check
from hdm_core.testing.families import FAMILIES, transformer
from hdm_core.testing.networks import assert_unchanged, mixed_state_network, sample_images, smooth_network, snapshot

CAMS = ("grad_cam", "grad_cam_pp", "score_cam", "ablation_cam", "xgrad_cam", "eigen_cam", "layer_cam", "opti_cam", "finer_cam")


class OnlyOf(nn.Module):
    """A network for images of one size."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != 20:
            raise RuntimeError("the width\nmust be 20")
        return images.mean((2, 3))


def test_an_ordinary_network_has_all_methods_and_is_left_as_it_was() -> None:
    network = mixed_state_network()
    before = snapshot(network)
    result = check(network, sample_images(4))
    assert result.methods == tuple(METHODS)
    assert result.usable == tuple(method for method, entry in METHODS.items() if not entry.needs_attention)
    assert result.refused.startswith("legrad, attention_rollout: this network has no attention of tokens to each other")
    assert (result.classes, result.photographs) == (3, 4)
    assert [(each.subject, each.verdict) for each in result.findings][:5] == [
        (subject, "ok") for subject in ("output", "repetition", "independence", "gradient", "folded copy")
    ]
    assert result.findings[-1].subject == "preprocessing"
    assert_unchanged(network, before)


def test_methods_with_the_same_layer_share_a_finding() -> None:
    (layer,) = (each for each in check(FAMILIES["mobilenet"](), sample_images(1, 32)).findings if each.subject == "layer")
    assert layer.methods == CAMS
    assert layer.text.startswith("features has 16 maps of ")


def test_what_a_network_lacks_is_refused_for_the_methods_that_need_it() -> None:
    result = check(transformer(), sample_images(2, 32))
    assert set(result.methods) - set(result.usable) == {"full_grad"}
    assert {"hdm", "rise", "gradient", "integrated_gradients", "legrad", *CAMS} < set(result.usable)
    assert result.refused.startswith("full_grad: ")
    (layer,) = (each for each in result.findings if each.subject == "layer")
    assert layer.text == "encoder.layers.encoder_layer_0.ln_1 has 16 maps of 4 x 4, which are 17 tokens, 1 of them no patch of the image"
    assert (layer.verdict, layer.methods) == ("handled", CAMS)


def test_what_is_no_logit_is_refused_for_all() -> None:
    result = check(nn.Sequential(smooth_network(), nn.Softmax(1)), sample_images(2))
    assert result.usable == ()
    assert len(result.findings) == 1
    facts = json.loads(json.dumps(result.as_dict()))
    assert facts["refused"] == list(METHODS)
    assert facts["findings"][0]["verdict"] == "refused"


def test_a_network_that_does_not_take_the_size_is_one_line() -> None:
    classifier = Classifier.from_module(OnlyOf(), Preprocess(16, 16))
    result = check(classifier)
    assert result.refused == "the network does not take images of 16 x 16 (the width must be 20)"
    assert result.classes is None
    assert check(classifier, sample_images(2, 20), ["gradient"]).refused == ""


def test_half_precision_is_refused() -> None:
    result = check(smooth_network().half(), sample_images(2))
    assert result.refused.startswith("gradients in torch.float16 round too much for a map")
    assert result.usable == ()


def test_noise_without_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="check needs images, or a classifier with a preprocess"):
        check(smooth_network())


def test_photographs_arrive_as_in_training() -> None:
    network = torchvision.models.mobilenet_v2(weights=None)
    generator = torch.Generator().manual_seed(0)
    photographs = torch.randn(4, 3, 64, 64, generator=generator)
    norm = network.get_submodule("features.0.1")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        seen = network.get_submodule("features.0.0")(photographs).transpose(0, 1).flatten(1)
        norm.running_mean, norm.running_var = seen.mean(1), seen.var(1)

    def judged(images: Tensor) -> tuple[str, str]:
        finding = check(network, images, []).findings[-1]
        assert finding.subject == "preprocessing"
        return finding.verdict, finding.text

    verdict, text = judged(photographs)
    assert verdict == "ok"
    assert "sees 1 of the spread of its training, shifted by" in text
    verdict, text = judged(photographs * 60 + 110)  # grey levels of 0 to 255
    assert verdict == "doubtful"
    assert "compare mean and std with those of the training" in text
    assert judged(torch.zeros(2, 3, 64, 64))[0] == "doubtful"


def test_without_batch_normalisation_the_range_is_judged() -> None:
    assert check(smooth_network(), sample_images(4), []).findings[-1].verdict == "ok"
    finding = check(smooth_network(), sample_images(4) * 70 + 120, []).findings[-1]
    assert (finding.subject, finding.verdict) == ("preprocessing", "doubtful")


def test_a_network_of_other_channels_is_one_line() -> None:
    result = check(Classifier.from_module(nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), Preprocess(16, 16)))
    assert result.refused == (
        "channels: the first convolution of the network takes 1, and images have 3: "
        "give as many values of mean and std, and channels in a configuration"
    )


def test_the_range_is_judged_in_units_of_the_value_range() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    preprocess = Preprocess((16, 20), None, (0.0,), (1.0,), value_range=(-1024, 1024))
    classifier = Classifier.from_module(network, preprocess)
    noise = np.random.default_rng(0).random((4, 30, 30), np.float32)
    photographs = classifier.prepare(list(noise))
    assert photographs.shape == (4, 1, 16, 20)
    assert check(classifier, photographs, []).findings[-1].verdict == "ok"
    assert check(network, photographs, []).findings[-1].verdict == "doubtful"  # without a preprocess the range is unknown
    assert check(classifier, photographs / 40_000, []).findings[-1].verdict == "doubtful"
    assert check(classifier, methods=["gradient", "grad_cam"]).refused == ""  # noise alone has that spread, too
