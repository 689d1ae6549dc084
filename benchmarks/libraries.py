"""Implementations of our methods by other libraries, called as documented.

Each takes images and returns maps of the predicted class.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hdm_core.methods.rise import RandomMasks, RiseSettings
from pipeline.errors import InputError

# network, the CAM's layer, images (B, C, H, W), the method's settings -> maps, which are discarded: only the time counts
Program = Callable[[nn.Module, nn.Module, Tensor, Any], object]


def library(name: str) -> Any:
    """Import a library by its module name.

    Raises:
        InputError: if it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # raised by its own imports
            return importlib.import_module(name)
    except ImportError:
        raise InputError(f"{name} is not installed: the libraries to compare with come with hdm-pipeline[dev]") from None


def _predicted(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return network(images).argmax(1)  # type: ignore[no-any-return]


def _grad_cam(kind: str) -> Program:
    def program(network: nn.Module, layer: nn.Module, images: Tensor, settings: Any) -> object:
        # Its progress bars are discarded.
        with contextlib.redirect_stderr(io.StringIO()), getattr(library("pytorch_grad_cam"), kind)(network, [layer]) as cam:
            return cam(images, None)

    return program


def _full_grad(network: nn.Module, layer: nn.Module, images: Tensor, settings: Any) -> object:
    with library("pytorch_grad_cam").FullGrad(network, []) as cam:
        return cam(images, None)


def _torchcam(kind: str) -> Program:
    def program(network: nn.Module, layer: nn.Module, images: Tensor, settings: Any) -> object:
        with getattr(library("torchcam.methods"), kind)(network, layer) as cam:
            logits = network(images)
            return cam(logits.argmax(1).tolist(), logits)

    return program


def _saliency(network: nn.Module, layer: nn.Module, images: Tensor, settings: Any) -> object:
    return library("captum.attr").Saliency(network).attribute(images.clone().requires_grad_(), target=_predicted(network, images))


def _layer_grad_cam(network: nn.Module, layer: nn.Module, images: Tensor, settings: Any) -> object:
    return library("captum.attr").LayerGradCam(network, layer).attribute(images, target=_predicted(network, images))


def _integrated_gradients(network: nn.Module, layer: nn.Module, images: Tensor, settings: Any) -> object:
    attribution = library("captum.attr").IntegratedGradients(network)
    return attribution.attribute(images, target=_predicted(network, images), n_steps=settings.steps, internal_batch_size=8)


def _deep_lift(network: nn.Module, layer: nn.Module, images: Tensor, settings: Any) -> object:
    inner = library("captum.attr._core.deep_lift")
    inner.SUPPORTED_NON_LINEAR[nn.ReLU6] = inner.nonlinear  # else captum treats it as linear, and does less work than DeepLIFT
    return library("captum.attr").DeepLift(network).attribute(images, target=_predicted(network, images))


def _rise_loop(network: nn.Module, layer: nn.Module, images: Tensor, settings: RiseSettings) -> object:
    """Run RISE in a plain loop over masks, since no library has it."""
    masks = RandomMasks(settings, images.shape[-2], images.shape[-1], images)
    targets = _predicted(network, images)
    total = torch.zeros_like(images[:, 0])
    with torch.no_grad():
        for number in range(len(masks)):
            mask = masks[number : number + 1]
            total += network(mask * images).softmax(1).gather(1, targets[:, None])[:, :, None] * mask[0]
    return total / (len(masks) * settings.keep_probability)


PROGRAMS: Mapping[str, Mapping[str, Program]] = {
    "gradient": {"captum": _saliency},
    "deeplift": {"captum": _deep_lift},
    "integrated_gradients": {"captum": _integrated_gradients},
    "rise": {"plain loop": _rise_loop},
    "grad_cam": {"captum": _layer_grad_cam, "pytorch-grad-cam": _grad_cam("GradCAM"), "torchcam": _torchcam("GradCAM")},
    "grad_cam_pp": {"pytorch-grad-cam": _grad_cam("GradCAMPlusPlus"), "torchcam": _torchcam("GradCAMpp")},
    "score_cam": {"pytorch-grad-cam": _grad_cam("ScoreCAM"), "torchcam": _torchcam("ScoreCAM")},
    "ablation_cam": {"pytorch-grad-cam": _grad_cam("AblationCAM")},
    "xgrad_cam": {"pytorch-grad-cam": _grad_cam("XGradCAM"), "torchcam": _torchcam("XGradCAM")},
    "eigen_cam": {"pytorch-grad-cam": _grad_cam("EigenCAM")},
    "layer_cam": {"pytorch-grad-cam": _grad_cam("LayerCAM"), "torchcam": _torchcam("LayerCAM")},
    "full_grad": {"pytorch-grad-cam": _full_grad},
}
