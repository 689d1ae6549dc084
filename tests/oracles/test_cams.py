"""CAMs against other libraries: equal maps, or the documented differences.

The networks' heads are scaled up: pytorch-grad-cam adds constants to denominators, which outweigh small gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, explain
from hdm_core.masking.ops import normalise, upsample
from hdm_core.network.hooks import activations_and_logits
from hdm_core.testing.families import FAMILIES
from tests.support.tiny_networks import activations_and_gradients, pictures

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by their imports
    import pytorch_grad_cam
    import torchcam.methods as torchcam
    from captum import attr as captum
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

LAYERS = {"resnet": "layer4", "mobilenet": "features"}
HEADS = {"resnet": "fc", "mobilenet": "classifier.1"}

pytestmark = pytest.mark.filterwarnings("ignore")


def network_of(family: str, scale: float = 100.0) -> tuple[nn.Module, nn.Module]:
    """Build a network where all libraries use the same layer, and that layer.

    It ends in a ReLU, pooling and a linear layer without a bias.
    """
    network = FAMILIES[family]()
    head = network.get_submodule(HEADS[family])
    with torch.no_grad():
        head.weight.mul_(scale)
        head.bias.zero_()
    return network, network.get_submodule(LAYERS[family])


def case(family: str, scale: float = 100.0, least: bool = False) -> tuple[nn.Module, nn.Module, Tensor, list[int]]:
    """Return network, layer, images and each image's class of highest, or least, logit."""
    network, layer = network_of(family, scale)
    images = pictures(2, 64, seed=5)
    with torch.no_grad():
        logits = network(images)
    return network, layer, images, (logits.argmin(1) if least else logits.argmax(1)).tolist()


def ours(method: str, network: nn.Module, layer: nn.Module, images: Tensor, targets: list[int]) -> Tensor:
    return explain(Classifier.from_module(network), images, method, targets=targets).maps


def by_grad_cam(kind: str, network: nn.Module, layer: nn.Module, images: Tensor, targets: list[int]) -> Tensor:
    with getattr(pytorch_grad_cam, kind)(network, [layer]) as cam:
        return torch.from_numpy(cam(images, [ClassifierOutputTarget(target) for target in targets]))


def by_torchcam(kind: str, network: nn.Module, layer: nn.Module, images: Tensor, targets: list[int]) -> Tensor:
    with getattr(torchcam, kind)(network, layer) as cam:
        return enlarged(cam(targets, network(images))[0].detach(), images)


def by_captum(kind: str, network: nn.Module, layer: nn.Module, images: Tensor, targets: list[int]) -> Tensor:
    cam = getattr(captum, kind)(network, layer).attribute(images, target=torch.tensor(targets), relu_attributions=True)
    return enlarged(cam[:, 0].detach(), images)


def enlarged(maps: Tensor, images: Tensor) -> Tensor:
    """Upsample and normalise maps as `explain` does."""
    return normalise(upsample(torch.relu(maps)[:, None], *images.shape[2:])[:, 0])


def least_correlation(one: Tensor, other: Tensor) -> float:
    return min(float(np.corrcoef(a.flatten(), b.flatten())[0, 1]) for a, b in zip(one, other, strict=True))


# Where the formula is the same


@pytest.mark.parametrize("family", LAYERS)
@pytest.mark.parametrize(
    ("method", "library", "kind"),
    [
        ("grad_cam", by_captum, "LayerGradCam"),
        ("grad_cam", by_grad_cam, "GradCAM"),
        ("grad_cam", by_torchcam, "GradCAM"),
        ("grad_cam_pp", by_grad_cam, "GradCAMPlusPlus"),
        ("xgrad_cam", by_grad_cam, "XGradCAM"),
        ("xgrad_cam", by_torchcam, "XGradCAM"),
        ("layer_cam", by_grad_cam, "LayerCAM"),
        ("layer_cam", by_torchcam, "LayerCAM"),
        ("ablation_cam", by_grad_cam, "AblationCAM"),
    ],
)
def test_the_library_gives_the_same_map(method: str, library: Callable[..., Tensor], kind: str, family: str) -> None:
    given = case(family)
    assert least_correlation(ours(method, *given), library(kind, *given)) >= 0.999


# Where it is not: the rows of the table in docs/methods.md


def test_grad_cam_pp_of_pytorch_grad_cam_damps_small_gradients() -> None:
    given = case("resnet", scale=0.01)
    theirs, pp = by_grad_cam("GradCAMPlusPlus", *given), ours("grad_cam_pp", *given)
    assert not torch.allclose(theirs, pp, atol=1e-2)
    A, g = activations_and_gradients(*given[:3], torch.tensor(given[3]))
    by_hand = (g**2 / (2 * g**2 + A.sum((2, 3), keepdim=True) * g**3 + 1e-6) * torch.relu(g)).sum((2, 3), keepdim=True)
    assert least_correlation(theirs, enlarged((by_hand * A).sum(1), given[2])) >= 0.999


def test_grad_cam_pp_of_torchcam_divides_a_copy() -> None:
    given = case("mobilenet")
    A, g = activations_and_gradients(*given[:3], torch.tensor(given[3]))
    by_hand = (g**2 * torch.relu(g)).sum((2, 3), keepdim=True)  # alpha without its denominator
    theirs = by_torchcam("GradCAMpp", *given)
    assert least_correlation(theirs, enlarged((by_hand * A).sum(1), given[2])) >= 0.999
    assert not torch.allclose(theirs, ours("grad_cam_pp", *given), atol=1e-2)


def test_eigen_cam_of_pytorch_grad_cam_is_centred_and_has_the_sign_of_lapack() -> None:
    network, layer, images, _ = case("resnet")
    A, _ = activations_and_logits(network, layer, images)
    for image, theirs in zip(A.flatten(2).mT, torch.from_numpy(get_2d_projection(A.numpy())), strict=True):
        centred = image - image.mean(0)
        by_hand = centred @ torch.linalg.svd(centred)[2][0]
        torch.testing.assert_close(theirs.flatten().abs(), by_hand.abs(), rtol=1e-3, atol=1e-3)


def test_ablation_cam_of_pytorch_grad_cam_inverts_with_a_negative_logit() -> None:
    given = case("mobilenet", least=True)
    A, g = activations_and_gradients(*given[:3], torch.tensor(given[3]))
    cam = ((g * A).sum((2, 3), keepdim=True) * A).sum(1)
    assert least_correlation(by_grad_cam("AblationCAM", *given), enlarged(-cam, given[2])) >= 0.999
    torch.testing.assert_close(ours("ablation_cam", *given), enlarged(cam, given[2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("library", "corners"), [(by_grad_cam, True), (by_torchcam, False)])
def test_score_cam_of_the_libraries_is_a_softmax_over_channels(library: Callable[..., Tensor], corners: bool) -> None:
    network, layer, images, targets = given = case("mobilenet", scale=10)
    A, _ = activations_and_logits(network, layer, images)
    cams = []
    for image, maps, target in zip(images, A, targets, strict=True):
        masks = normalise(nn.functional.interpolate(maps[:, None], images.shape[2:], mode="bilinear", align_corners=corners))
        with torch.no_grad():
            weights = network(image * masks)[:, target].softmax(0)
        cams.append((weights[:, None, None] * maps).sum(0))
    assert least_correlation(library("ScoreCAM", *given), enlarged(torch.stack(cams), images)) >= 0.999
