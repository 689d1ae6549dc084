"""CAMs of tokens, and LeGrad, against pytorch-grad-cam and torch-cam with their reshape transforms.

The heads are scaled up: pytorch-grad-cam adds constants to denominators, which outweigh small gradients, and also larger ones where the
denominators nearly vanish.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from hdm_core import Classifier, explain
from hdm_core.masking.ops import normalise, upsample
from tests.support.tiny_networks import pictures

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by their imports
    import pytorch_grad_cam
    import torchcam.methods as torchcam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

# In float32 the denominators of Grad-CAM++, 2 + g sum A, lose digits where the normalised tokens sum to nearly zero: up to 3e-4.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("double")]
TARGETS = [2, 0]


def torchvisions() -> tuple[nn.Module, str, int]:
    torch.manual_seed(0)
    network = VisionTransformer(48, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    nn.init.normal_(network.heads.head.weight, std=1e5)
    return network, "encoder.layers.encoder_layer_2.ln_1", 1


def timms(arch: str, layer: str, others: int, **arguments: object) -> tuple[nn.Module, str, int]:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    torch.manual_seed(0)
    sizes = {"embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 5}
    network = timm.create_model(arch, **sizes, **arguments)
    for module in network.modules():
        if isinstance(module, nn.Linear) and module.out_features == 5:
            nn.init.normal_(module.weight, std=1e5)
    return network, layer, others


NETWORKS: dict[str, Callable[[], tuple[nn.Module, str, int]]] = {
    "torchvision ViT": torchvisions,
    "timm ViT": partial(timms, "vit_tiny_patch16_224", "blocks.2.norm1", 1, img_size=48, patch_size=8),
    "timm ViT, not square": partial(timms, "vit_tiny_patch16_224", "blocks.2.norm1", 1, img_size=(48, 32), patch_size=8),
    "timm DeiT": partial(timms, "deit_tiny_distilled_patch16_224", "blocks.2.norm1", 2, img_size=48, patch_size=8),
    "timm registers": partial(timms, "vit_medium_patch16_reg4_gap_256", "blocks", 4, img_size=48, patch_size=8),
}


def sides(name: str) -> tuple[int, int]:
    return (48, 32) if "not square" in name else (48, 48)


def to_maps(tokens: Tensor, others: int, rows: int, columns: int) -> Tensor:
    """Return tokens (B, N, K) as (B, K, h, w), as the libraries' documentation shows for their networks."""
    return tokens[:, others:].reshape(len(tokens), rows, columns, -1).permute(0, 3, 1, 2)


def by_grad_cam(kind: str, network: nn.Module, layer: nn.Module, reshape: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    with getattr(pytorch_grad_cam, kind)(network, [layer], reshape_transform=reshape) as cam:
        return torch.from_numpy(cam(images, [ClassifierOutputTarget(target) for target in TARGETS]))


def by_torchcam(kind: str, network: nn.Module, layer: nn.Module, reshape: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    with getattr(torchcam, kind)(network, layer, reshape_transform=reshape) as cam:
        return enlarged(cam(TARGETS, network(images))[0].detach(), images)


def enlarged(maps: Tensor, images: Tensor) -> Tensor:
    """Upsample and normalise maps as `explain` does."""
    return normalise(upsample(torch.relu(maps)[:, None], *images.shape[2:])[:, 0])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("method", "library", "kind"),
    [
        ("grad_cam", by_grad_cam, "GradCAM"),
        ("grad_cam", by_torchcam, "GradCAM"),
        ("grad_cam_pp", by_grad_cam, "GradCAMPlusPlus"),
        ("xgrad_cam", by_grad_cam, "XGradCAM"),
        ("layer_cam", by_grad_cam, "LayerCAM"),
        ("layer_cam", by_torchcam, "LayerCAM"),
    ],
)
def test_the_library_with_its_reshape_transform_gives_the_same_map(
    method: str, library: Callable[..., Tensor], kind: str, name: str
) -> None:
    network, layer, others = NETWORKS[name]()
    images = pictures(2, *sides(name), seed=5)
    found = explain(Classifier.from_module(network.eval()), images, method, targets=TARGETS)
    assert found.status == ["ok", "ok"]
    reshape = partial(to_maps, others=others, rows=images.shape[2] // 8, columns=images.shape[3] // 8)
    expected = library(kind, network, network.get_submodule(layer), reshape, images)
    torch.testing.assert_close(found.maps, expected.float(), rtol=0, atol=1e-5)


def test_legrad_is_torchcams() -> None:
    network, _, _ = torchvisions()
    images = pictures(2, 48, seed=5)
    found = explain(Classifier.from_module(network.eval()), images, "legrad", targets=TARGETS)
    with torchcam.LeGrad(network, list(network.encoder.layers)) as cam:
        expected = cam(TARGETS, network(images))[0].detach()
    torch.testing.assert_close(found.maps, enlarged(expected, images).float(), rtol=0, atol=1e-5)
    assert found.status == ["ok", "ok"]
