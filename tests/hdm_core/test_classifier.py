from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from hdm_core.classifier import Classifier
from hdm_core.device import default_batch
from hdm_core.preprocess import Preprocess
from tests.support.tiny_networks import (
    Constant,
    InterruptionError,
    Untraceable,
    assert_unchanged,
    mixed_state,
    normalised,
    pictures,
    smooth,
    snapshot,
)


class Shared(nn.Module):
    """One convolution, called twice, before two batch normalisations: folding it is wrong."""

    def __init__(self) -> None:
        super().__init__()
        network = normalised(seed=3)
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        for norm, offset in ((self.first, 1.0), (self.second, -2.0)):
            norm.running_mean.fill_(offset)
            norm.running_var.fill_(0.3)
            nn.init.constant_(norm.bias, offset)
        self.rest = network

    def forward(self, images: Tensor) -> Tensor:
        return self.rest(self.second(self.conv(self.first(self.conv(images)))))


# Contexts


@pytest.mark.parametrize("context", ["frozen", "folded"])
@pytest.mark.parametrize("make", [mixed_state, normalised, smooth, lambda: Untraceable(mixed_state())])
@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_handed_back_as_it_was(context: str, make: Callable[[], nn.Module], fails: bool) -> None:
    network, images = make(), pictures(2)
    before = snapshot(network)
    classifier = Classifier.from_module(network)
    with classifier.frozen() if context == "frozen" else classifier.folded(images) as inner:
        assert not any(part.training for part in inner.modules())
        assert not any(parameter.requires_grad for parameter in inner.parameters())
        inner(images)
    if fails:
        with pytest.raises(InterruptionError), classifier.frozen() if context == "frozen" else classifier.folded(images):
            raise InterruptionError
    assert_unchanged(network, before)


def test_contexts_nest() -> None:
    network = mixed_state()
    before = snapshot(network)
    classifier = Classifier.from_module(network)
    with classifier.frozen():
        with classifier.folded(pictures(1)):
            pass
        assert not any(part.training for part in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert_unchanged(network, before)


def test_a_folded_network_answers_as_the_plain_one() -> None:
    network, images = normalised(), pictures(4)
    classifier = Classifier.from_module(network)
    with classifier.folded(images[:1]) as folded:
        assert folded is not network
        assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
        found = folded(images)
    with classifier.frozen() as plain:
        torch.testing.assert_close(found, plain(images), rtol=1e-4, atol=1e-5)


def test_folding_copies_the_weights() -> None:
    network = normalised()
    with Classifier.from_module(network).folded(pictures(1)) as folded:
        ours = {parameter.data_ptr() for parameter in network.parameters()}
        assert ours.isdisjoint(parameter.data_ptr() for parameter in folded.parameters())


def test_a_network_that_cannot_be_folded_is_used_as_it_is() -> None:
    network = Untraceable(normalised())
    with Classifier.from_module(network).folded(pictures(1)) as folded:
        assert folded is network


def test_a_convolution_that_is_called_twice_is_not_fused() -> None:
    network, images = Shared(), pictures(3)
    with Classifier.from_module(network).folded(images[:1]) as folded:
        assert sum(isinstance(part, nn.BatchNorm2d) for part in folded.modules()) == 2
        torch.testing.assert_close(folded(images), network.eval()(images), rtol=1e-4, atol=1e-4)


def test_mobilenet_folds_to_the_same_logits() -> None:
    classifier = Classifier.from_torchvision("mobilenet_v2", weights="IMAGENET1K_V1")
    images = classifier.prepare([Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 300, 3), dtype=np.uint8))])
    with torch.no_grad(), classifier.folded(images) as folded:
        assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
        torch.testing.assert_close(folded(images), classifier.module.eval()(images), rtol=1e-3, atol=1e-3)
    assert len(classifier.class_names or ()) == 1000
    assert classifier.class_name(207) == "golden retriever"
    assert classifier.name == "mobilenet_v2 IMAGENET1K_V1"


# Where networks come from


def test_random_weights_come_from_the_seed_and_from_nothing_else() -> None:
    before = torch.random.get_rng_state()
    first = Classifier.from_torchvision("squeezenet1_1", seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(5)
    again = Classifier.from_torchvision("squeezenet1_1", seed=1)
    other = Classifier.from_torchvision("squeezenet1_1", seed=2)
    assert first.weights_digest() == again.weights_digest() != other.weights_digest()
    assert first.preprocess == Preprocess()
    assert first.class_names is None
    assert first.class_name(3) == "3"


def test_an_unknown_network_is_refused_with_names_to_choose_from() -> None:
    with pytest.raises(ValueError, match=r"no classification network 'resnet_50': choose from .*resnet50"):
        Classifier.from_torchvision("resnet_50")


@pytest.mark.parametrize("arch", ["fasterrcnn_resnet50_fpn", "", "r3d_18"])
def test_a_network_of_another_task_is_no_classifier(arch: str) -> None:
    with pytest.raises(ValueError, match="no classification network"):
        Classifier.from_torchvision(arch)


def test_unknown_weights_are_refused_with_names_to_choose_from() -> None:
    with pytest.raises(ValueError, match="resnet50 has no weights 'IMAGENET1K_V3': choose from IMAGENET1K_V1, IMAGENET1K_V2"):
        Classifier.from_torchvision("resnet50", weights="IMAGENET1K_V3")


@pytest.mark.parametrize(
    ("arch", "weights"), [("googlenet", "DEFAULT"), ("inception_v3", "DEFAULT"), ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")]
)
def test_weights_get_the_network_that_torchvision_builds_for_them(monkeypatch: pytest.MonkeyPatch, arch: str, weights: str) -> None:
    entry = torchvision.models.get_model_weights(arch)[weights]
    with torch.device("meta"):
        monkeypatch.setattr(type(entry), "get_state_dict", lambda *_args, **_kwargs: {})
        monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_args, **_kwargs: None)
        expected = torchvision.models.get_model(arch, weights=entry)
        found = Classifier.from_torchvision(arch, weights=weights).module
    assert getattr(found, "transform_input", None) == getattr(expected, "transform_input", None)
    assert getattr(found, "image_size", None) == getattr(expected, "image_size", None)
    answers = {name: tensor.shape for name, tensor in expected.state_dict().items()}
    assert answers.items() <= {name: tensor.shape for name, tensor in found.state_dict().items()}.items()


def test_a_preprocess_of_ones_own_is_kept() -> None:
    own = Preprocess(resize=32, crop=32)
    assert Classifier.from_torchvision("squeezenet1_1", preprocess=own).preprocess == own


def test_photographs_become_a_batch() -> None:
    classifier = Classifier.from_module(smooth(), Preprocess(resize=16, crop=16))
    photographs = [Image.new("RGB", (30, 20), (200, 10, 10)), Image.new("L", (20, 40), 77), Image.new("RGBA", (16, 16), (1, 2, 3, 4))]
    images = classifier.prepare(photographs)
    assert images.shape == (3, 3, 16, 16)
    for image, photograph in zip(images, photographs, strict=True):
        assert torch.equal(image, classifier.preprocess(photograph.convert("RGB")))


def test_photographs_need_a_preprocess() -> None:
    with pytest.raises(ValueError, match="has no preprocess"):
        Classifier.from_module(smooth()).prepare([Image.new("RGB", (16, 16))])


def test_names() -> None:
    classifier = Classifier.from_module(smooth(), class_names=["ant", "bee", "cat"])
    assert classifier.class_name(1) == "bee"
    assert classifier.name == "Sequential"
    assert Classifier(smooth(), name="mine").name == "mine"


@pytest.mark.parametrize("names", ["ant", [1, 2], ["ant", None]])
def test_names_that_are_no_texts_are_refused(names: object) -> None:
    with pytest.raises(TypeError, match="class_names must be texts, one per class"):
        Classifier.from_module(smooth(), class_names=names)


def test_names_of_numpy_are_texts() -> None:
    names = Classifier.from_module(smooth(), class_names=np.array(["ant", "bee"])).class_names
    assert names == ("ant", "bee")
    assert {type(name) for name in names} == {str}


def test_a_network_without_parameters_is_on_the_cpu() -> None:
    assert Classifier.from_module(nn.Flatten()).device == torch.device("cpu")


def test_to_moves_the_network() -> None:
    classifier = Classifier.from_module(Constant())
    assert classifier.to("meta") is classifier
    assert classifier.device.type == "meta"


def test_the_batch_is_larger_on_a_gpu() -> None:
    assert 1 <= default_batch(torch.device("cpu")) < default_batch(torch.device("cuda"))


# Fingerprint


def test_the_same_weights_give_the_same_fingerprint() -> None:
    network = normalised()
    before = Classifier.from_module(network).weights_digest()
    assert Classifier.from_module(normalised()).weights_digest() == before
    with Classifier.from_module(network).folded(pictures(1)):
        assert Classifier.from_module(network.eval()).weights_digest() == before
    assert len(before) == 64


@pytest.mark.parametrize("name", ["conv.weight", "norm.running_mean", "norm.num_batches_tracked", "head.bias", "features.1.weight"])
def test_one_changed_number_changes_the_fingerprint(name: str) -> None:
    network = normalised()
    before = Classifier.from_module(network).weights_digest()
    tensor = network.state_dict()[name]
    flat = tensor.view(-1)
    flat[-1] = torch.nextafter(flat[-1], flat[-1] + 1) if flat.is_floating_point() else flat[-1] + 1
    assert Classifier.from_module(network).weights_digest() != before


def test_the_layout_in_memory_does_not_count() -> None:
    network = smooth()
    before = Classifier.from_module(network).weights_digest()
    assert Classifier.from_module(network.to(memory_format=torch.channels_last)).weights_digest() == before


def test_name_shape_and_type_count_where_the_bytes_are_equal() -> None:
    def fingerprint(name: str, tensor: Tensor) -> str:
        network = nn.Module()
        network.register_buffer(name, tensor)
        return Classifier.from_module(network).weights_digest()

    zeros = torch.zeros(2, 3)
    others = [("b", zeros), ("a", zeros.reshape(3, 2)), ("a", zeros.int())]
    assert len({fingerprint("a", zeros), *(fingerprint(*other) for other in others)}) == 4
    assert fingerprint("a", zeros.clone()) == fingerprint("a", zeros)
