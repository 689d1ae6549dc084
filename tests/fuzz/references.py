"""Slow references of the methods, from their definitions: autograd on the grammar's network, image by image, without hooks.

Every function takes a freshly built network, one image (C, H, W) and a target, and returns the map, in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from tests.fuzz.taps import LastCall, RescaledPart, Tap, gradients_of, leaf, replace, roles
from tests.support.reference import N
from tests.support.reference import g as upsampled


def score_of(network: nn.Module, image: Tensor, target: int) -> Tensor:
    """Return the logit of an image (1, C, H, W), which goes through the network beside a copy of itself.

    Alone, torch's own gradient can be wrong: `batch_norm` in evaluation mode, of one image whose axes are permuted.
    """
    return network(torch.cat([image, image.detach()]))[0, target]


def g(v: Tensor, height: int, width: int) -> Tensor:
    return upsampled(v.double(), height, width)


# Pixels


def gradient(network: nn.Module, image: Tensor, target: int) -> Tensor:
    x = leaf(image[None])
    (slope,) = gradients_of(score_of(network, x, target), [x])
    return N(slope[0].abs().amax(0)).double()


def integrated_gradients(network: nn.Module, image: Tensor, target: int, steps: int) -> Tensor:
    """From an image of zeros, by numpy's Gauss-Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(image)
    for node, weight in zip(nodes, weights, strict=True):
        x = leaf((node + 1) / 2 * image[None])
        (slope,) = gradients_of(score_of(network, x, target), [x])
        total += weight / 2 * slope[0]
    return N((total * image).sum(0).abs()).double()


def deeplift(network: nn.Module, image: Tensor, target: int, start: float = 0.0) -> Tensor:
    """From an image of zeros, or nearly so with a tiny `start`, which runs through the network first."""
    parts = [replace(network, name, lambda part: RescaledPart(part, _activation)) for name in _rescaled(network)]
    parts += [replace(network, name, lambda part: RescaledPart(part, _max_pool)) for name in roles(network, "maxpool")]
    with torch.no_grad():
        score_of(network, start * image[None], target)
    for part in parts:
        part.known = part.recording
    x = leaf(image[None])
    (multipliers,) = gradients_of(score_of(network, x, target), [x])
    return N((multipliers[0] * image).sum(0).abs()).double()


def _rescaled(network: nn.Module) -> list[str]:
    return [name for name in roles(network, "act") if network.get_submodule(name).rescaled]


def _activation(part: nn.Module, x: Tensor, x0: Tensor, y0: Tensor) -> Tensor:
    free = leaf(x)
    y = part(free.clone())
    (own,) = torch.autograd.grad(y.sum(), free)
    change = x.detach() - x0
    near = change.abs() < 1e-6
    slope = torch.where(near, own, (y.detach() - y0) / torch.where(near, torch.ones_like(change), change))
    return y.detach() + slope * (x - x.detach())


def _max_pool(part: nn.Module, x: Tensor, x0: Tensor, y0: Tensor) -> Tensor:
    """All of y - y' goes to the image's largest pixel where the maximum grew, else to the reference's."""
    places = torch.arange(x[0, 0].numel(), dtype=x.dtype).view(1, 1, *x.shape[2:]).expand_as(x)
    free, free0 = leaf(x), leaf(x0)
    y, y_start = part(free), part(free0)
    output = y.detach().clone()
    for k in range(y.shape[1]):
        for i in range(y.shape[2]):
            for j in range(y.shape[3]):
                grew = bool(y[0, k, i, j] >= y_start[0, k, i, j])
                value, source = (y, free) if grew else (y_start, free0)
                (one,) = torch.autograd.grad(value[0, k, i, j], source, retain_graph=True)
                place = int((one * (places + 1)).sum()) - 1
                pixel = x[0, k].flatten()[place]
                change = pixel.detach() - x0[0, k].flatten()[place]
                slope = (y[0, k, i, j] - y_start[0, k, i, j]).detach() / change if change.abs() >= 1e-6 else 1.0
                output = output.index_put(
                    (torch.tensor(0), torch.tensor(k), torch.tensor(i), torch.tensor(j)), slope * (pixel - pixel.detach()), accumulate=True
                )
    return output


def full_grad(network: nn.Module, image: Tensor, target: int) -> tuple[Tensor, float]:
    """Return the map, and the share of the logit that no term explains.

    Counted are the pixels, the biases of all affine parts (what a part returns for zeros), and the constants f(x) - f'(x) x of activations
    and products. The map has the pixels and the biases per channel of maps.
    """
    for name, module in list(network.named_modules()):
        if hasattr(module, "apart"):
            network.set_submodule(name, module.apart())
    taps = [(network.get_submodule(name).role, name) for name in roles(network, "bias", "linear", "act", "product")]
    taps = [(role, replace(network, name, Tap)) for role, name in taps]
    x = leaf(image[None])
    score = score_of(network, x, target)
    (slope,) = gradients_of(score, [x])
    pixels = (slope * x).detach()
    terms, others = [pixels], []
    for role, tap in taps:
        for given, output, flow in zip(tap.inputs, tap.outputs, gradients_of(score, tap.outputs), strict=True):
            (terms if role == "bias" else others).append(flow * _constant(role, tap.part, given, output.detach()))
    total = sum(term.sum() for term in [*terms, *others])
    absolute = sum(term.abs().sum() for term in [*terms, *others])
    summed = sum(g(N(term[0].abs()).sum(0), *image.shape[1:]) for term in terms)
    return N(summed), float((total - score).detach().abs() / (absolute + 1e-300))


def _constant(role: str, part: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    if role == "product":
        return -y
    if role == "act":
        free = leaf(x)
        (own,) = torch.autograd.grad(part(free.clone()).sum(), free)
        return y - own * x
    with torch.no_grad():
        return part(torch.zeros_like(x))


# CAMs


def cam(method: str, build: Callable[[], nn.Module], name: str, image: Tensor, target: int) -> Tensor:
    """Return the map of a CAM at the layer of this name, whose channels' axis the grammar knows."""
    network = build()
    axis = network.get_submodule(name).__dict__.get("axis", "first")
    activations, slopes = _activations_and_slopes(network, name, image, target)
    if method == "finer_cam":
        slopes = slopes - 0.6 * _mean_slopes_of_nearest(build, name, image, target)
    if axis == "last":
        activations, slopes = activations.permute(2, 0, 1), slopes.permute(2, 0, 1)
    elif axis == "transposed":
        activations, slopes = activations.transpose(1, 2), slopes.transpose(1, 2)
    elif axis.startswith("tokens"):
        activations, slopes = (each.T.unflatten(1, tuple(map(int, axis.split()[1:]))) for each in (activations, slopes))
    elif axis == "none":
        raise AssertionError(f"{name} has no rows and columns, and hdm explains with it")
    if method == "eigen_cam":
        evidence = _eigen(activations)
    elif method == "layer_cam":
        evidence = (slopes.clamp(min=0) * activations).sum(0)
    else:
        weights = slopes.mean((1, 2)) if method == "finer_cam" else _weights(method, build, name, axis, activations, slopes, image, target)
        evidence = sum(w * a for w, a in zip(weights, activations, strict=True))
    return N(g(N(evidence.clamp(min=0)), *image.shape[1:]))


def _activations_and_slopes(network: nn.Module, name: str, image: Tensor, target: int) -> tuple[Tensor, Tensor]:
    tap = replace(network, name, Tap)
    score = score_of(network, leaf(image[None]), target)
    (slope,) = gradients_of(score, [tap.outputs[-1]])
    return tap.outputs[-1][0].detach(), slope[0]


def _mean_slopes_of_nearest(build: Callable[[], nn.Module], name: str, image: Tensor, target: int) -> Tensor:
    """Return the mean slopes of the three classes whose logits are nearest to the target's."""
    with torch.no_grad():
        scores = build()(image[None].expand(2, -1, -1, -1))[0].tolist()
    others = sorted((number for number in range(len(scores)) if number != target), key=lambda number: abs(scores[number] - scores[target]))
    return torch.stack([_activations_and_slopes(build(), name, image, number)[1] for number in others[:3]]).mean(0)


def _eigen(activations: Tensor) -> Tensor:
    pixels = activations.double().flatten(1).T.numpy()
    _, _, right = np.linalg.svd(pixels)
    projection = torch.from_numpy(pixels @ right[0])
    sign = (projection * torch.from_numpy(np.abs(pixels).sum(1))).sum()
    projection = projection if sign >= 0 else -projection
    spread = projection.amax() - projection.amin()
    return (projection if spread > 1e-5 * projection.abs().amax() else 0 * projection).view(activations.shape[1:])


def _weights(
    method: str, build: Callable[[], nn.Module], name: str, axis: str, a: Tensor, slopes: Tensor, image: Tensor, target: int
) -> list[Tensor]:
    zero, one = torch.zeros((), dtype=a.dtype), torch.ones((), dtype=a.dtype)
    network = build()
    if method in ("score_cam", "ablation_cam"):
        layer = replace(network, name, lambda part: LastCall(part, axis))
        with torch.no_grad():
            blank = network(torch.zeros_like(image[None])).softmax(1)[0, target]
            layer.calls = 0
            logit = score_of(network, image[None], target)
    weights = []
    for k in range(len(a)):
        if method == "grad_cam":
            weights.append(slopes[k].mean())
        elif method == "grad_cam_pp":
            alpha = one / (2 + slopes[k] * a[k].sum())
            weights.append((torch.where(alpha.isfinite(), alpha, zero) * slopes[k].clamp(min=0)).sum())
        elif method == "xgrad_cam":
            vanishes = a[k].sum().abs() <= 1e-6 * a[k].abs().sum()
            weights.append(zero if vanishes else (a[k] * slopes[k]).sum() / a[k].sum())
        elif method == "score_cam":
            mask = N(g(a[k], *image.shape[1:]))
            layer.replacement = None
            with torch.no_grad():
                probability = network((mask.to(image) * image)[None]).softmax(1)[0, target]
            weights.append(zero if a[k].amax() == a[k].amin() else probability - blank)
        else:
            ablated = a.clone()
            ablated[k] = 0
            layer.calls, layer.replacement = 0, (ablated.transpose(1, 2) if axis == "transposed" else ablated).expand(2, -1, -1, -1)
            with torch.no_grad():
                weights.append(logit - score_of(network, image[None], target))
    return weights
