from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision.ops import FrozenBatchNorm2d

from hdm_core import Classifier, explain
from hdm_core.methods.full_grad import full_gradient
from tests.support import reference
from tests.support.tiny_networks import Untraceable, pictures
from tests.support.tricky_networks import Dense, Pooled, Residual, seeded

pytestmark = pytest.mark.usefixtures("double")
TARGETS = torch.tensor([2, 0, 1])


@pytest.mark.parametrize("make", [Residual, Dense, Pooled])
def test_all_terms_sum_to_the_logit(make: Callable[[], nn.Module]) -> None:
    network, images = seeded(make), pictures(3, 12)
    full = full_gradient(network, images, TARGETS)
    total = sum(term.flatten(1).sum(1) for term in (full.pixels, *full.layers, *full.heads, *full.functions))
    torch.testing.assert_close(total, network(images).gather(1, TARGETS[:, None])[:, 0], rtol=0, atol=1e-10)


def test_a_layer_that_is_called_twice_has_two_terms() -> None:
    full = full_gradient(seeded(Residual), pictures(3, 12), TARGETS)
    assert len(full.layers) == 1 + 2 * 2  # the stem's normalisation, and two calls of a convolution and its normalisation
    assert len(full.heads) == 1


def test_full_grad_equals_the_reference() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 12, 3))
    with torch.no_grad():
        network[1].running_mean.copy_(torch.linspace(-1, 1, 4))
        network[1].running_var.copy_(torch.linspace(0.5, 2, 4))
        network[1].bias.copy_(torch.linspace(0, 1, 4))
        network[1].weight.copy_(torch.linspace(2, 1, 4))
    network.eval().requires_grad_(False)
    conv, norm, _, _, head = network
    images = pictures(3, 9, 7)
    result = explain(Classifier.from_module(network), images, "full_grad", targets=TARGETS.tolist(), batch=2)
    for b, image in enumerate(images):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        convolved = conv(image[None])[0]
        normal = scale[:, None, None] * (convolved - norm.running_mean[:, None, None]) + norm.bias[:, None, None]
        to_normal = head.weight[TARGETS[b]].reshape(normal.shape) * (normal > 0)
        to_conv = to_normal * scale[:, None, None]
        to_image = torch.nn.grad.conv2d_input((1, 3, 9, 7), conv.weight, to_conv[None], stride=2)[0]
        effective = norm.bias - norm.running_mean * scale
        total = torch.zeros(9, 7)
        for term in (image * to_image, conv.bias[:, None, None] * to_conv, effective[:, None, None] * to_normal):
            for channel in reference.N(term.abs()):
                total += reference.g(channel, 9, 7)
        torch.testing.assert_close(result.maps[b].double(), reference.N(total), rtol=0, atol=1e-6)
    assert result.passes == 1


def test_normalisation_without_statistics_of_its_own_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.LazyLinear(2))
    network(pictures(1, 6))
    with pytest.raises(ValueError, match="running statistics"):
        explain(Classifier.from_module(network), pictures(2, 6), "full_grad")


def test_normalisation_without_weights_has_a_bias_all_the_same() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Flatten(), nn.Linear(27, 3, bias=False)).eval().requires_grad_(False)
    network[0].running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    images = pictures(3, 3)
    full = full_gradient(network, images, TARGETS)
    torch.testing.assert_close(
        full.pixels.sum((1, 2, 3)) + full.layers[0].sum((1, 2, 3)), network(images).gather(1, TARGETS[:, None])[:, 0]
    )


# Biases, whoever adds them


class NormAct(nn.BatchNorm2d):
    """Batch normalisation with its activation inside, as timm has it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x), inplace=True)


class Functional(nn.Module):
    """The network of `build`, as functions of its parameters."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        conv, norm, _, last, *_, head = self.network
        x = F.conv2d(images, conv.weight, None, padding=1)
        x += conv.bias[:, None, None]
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        x = torch.conv2d(x.relu_(), last.weight, bias=last.bias, padding=1)
        return F.linear(x.relu().mean((2, 3)), head.weight) + head.bias


def build(norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        norm(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )
    return _with_statistics(network)


def _with_statistics(network: nn.Sequential) -> nn.Sequential:
    values = {"weight": (2, 1), "bias": (0, 1), "running_mean": (-1, 1), "running_var": (0.5, 2)}
    with torch.no_grad():
        for name, (low, high) in values.items():
            getattr(network[1], name).copy_(torch.linspace(low, high, 4))
    return network.eval()


def frozen_norm(channels: int) -> nn.Module:
    return FrozenBatchNorm2d(channels, eps=1e-5)


def norm_with_activation() -> nn.Module:
    network = build(NormAct)
    network[2] = nn.Identity()
    return network


def parametrised() -> nn.Module:
    network = build()
    parametrizations.weight_norm(network[0])
    return network


def compiled_part() -> nn.Module:
    network = build()
    network[3] = torch.compile(network[3], backend="eager")
    with torch.no_grad():
        network(pictures(2, 12))
    return network


VARIANTS: dict[str, Callable[[], nn.Module]] = {
    "SyncBatchNorm": lambda: build(nn.SyncBatchNorm),
    "frozen batch norm": lambda: build(frozen_norm),
    "norm with activation": norm_with_activation,
    "functional": lambda: Functional(build()),
    "untraceable": lambda: Untraceable(build()),
    "parametrised": parametrised,
    "compiled part": compiled_part,
    "compiled": lambda: torch.compile(build(), backend="eager"),
    "DataParallel": lambda: nn.DataParallel(build()),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_map_does_not_depend_on_who_adds_a_bias(variant: str) -> None:
    images = pictures(3, 12)
    expected = explain(Classifier.from_module(build()), images, "full_grad", targets=[2, 0, 1])
    found = explain(Classifier.from_module(VARIANTS[variant]()), images, "full_grad", targets=[2, 0, 1])
    assert found.status == expected.status == ["ok"] * 3
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-6)


class Head(nn.Module):
    """Convolution with a bias, a function of its maps, and a linear head."""

    def __init__(self, function: Callable[[Tensor], Tensor], channels: int = 6) -> None:
        super().__init__()
        self.conv, self.function, self.head = nn.Conv2d(3, channels, 3), function, nn.Linear(channels, 3)
        self.gate = nn.Conv2d(channels, channels, 1)
        nn.init.constant_(self.conv.bias, 0.7)
        with torch.no_grad():
            self.conv.weight.mul_(9)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.function(self.conv(images), self.gate).mean((2, 3)))


def squeeze_and_excite(x: Tensor, gate: nn.Module) -> Tensor:
    return x * torch.sigmoid(gate(x.mean((2, 3), keepdim=True)))


COMPLETE: dict[str, Callable[[Tensor, nn.Module], Tensor]] = {
    "ReLU6": lambda x, _: F.relu6(x),
    "in place": lambda x, _: F.hardtanh_(x, -1, 2),
    "SiLU": lambda x, _: F.silu(x, inplace=True),
    "GELU": lambda x, _: F.gelu(x),
    "hardswish": lambda x, _: F.hardswish(x),
    "leaky": lambda x, _: F.leaky_relu(x, 0.2),
    "written out": lambda x, _: x * torch.sigmoid(x),
    "squeeze and excitation": squeeze_and_excite,
    "numbers": lambda x, _: 1 - (2 + x - 0.5) * 3,
    "parameter": lambda x, gate: x + gate.bias[:, None, None],
    "reversed": lambda x, gate: gate.bias[:, None, None] - x,
    "position": lambda x, gate: x + torch.linspace(0, 1, x.shape[-1]),
    "channels last": lambda x, gate: F.linear(x.permute(0, 2, 3, 1), gate.weight.flatten(1), gate.bias).permute(0, 3, 1, 2),
    "three axes": lambda x, gate: F.conv1d(x.flatten(2), gate.weight.flatten(2), gate.bias).unflatten(2, x.shape[2:]),
    "transposed": lambda x, gate: F.conv_transpose2d(x, gate.weight, gate.bias),
    "two powers": lambda x, _: (x * x) * x,
}


@pytest.mark.parametrize("name", COMPLETE)
def test_the_constants_of_functions_complete_the_sum(name: str) -> None:
    network, images = seeded(lambda: Head(COMPLETE[name])), pictures(3, 12)
    full = full_gradient(network, images, TARGETS)
    total = sum(term.flatten(1).sum(1) for term in (full.pixels, *full.layers, *full.heads, *full.functions))
    torch.testing.assert_close(total, network(images).gather(1, TARGETS[:, None])[:, 0], rtol=0, atol=1e-9)
    assert len(full.layers) == 1 + {"squeeze and excitation": 1, "parameter": 1, "reversed": 1, "transposed": 1}.get(name, 0)


INCOMPLETE: dict[str, Callable[[Tensor, nn.Module], Tensor]] = {
    "layer norm": lambda x, _: F.layer_norm(x, x.shape[1:]),
    "group norm": lambda x, _: F.group_norm(x, 2),
    "instance norm": lambda x, _: F.instance_norm(x).relu(),
    "softmax": lambda x, _: x.flatten(2).softmax(2).unflatten(2, x.shape[2:]) * x,
    "division": lambda x, _: x / (1 + x.abs().amax(1, keepdim=True)),
    "constant channels": lambda x, gate: gate(torch.where(x > 0.1, x, 3.0)),
    "hidden function": lambda x, _: _Cube.apply(x),
}


class _Cube(torch.autograd.Function):
    """A function that no mode sees."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradients[0]


@pytest.mark.parametrize("name", INCOMPLETE)
def test_a_network_whose_terms_do_not_sum_to_the_logit_is_refused(name: str) -> None:
    network = seeded(lambda: Head(INCOMPLETE[name]))
    with pytest.raises(ValueError, match="pixels and biases do not sum to its logits") as caught:
        explain(Classifier.from_module(network), pictures(3, 12), "full_grad")
    assert "\n" not in str(caught.value)


def without_gradient(x: Tensor, gate: nn.Module) -> Tensor:
    with torch.no_grad():
        weights = torch.sigmoid(gate(x))
    return x * weights


def written_into(x: Tensor, gate: nn.Module) -> Tensor:
    x = x.clone()
    x[:, 1] = gate(x.data)[:, 1]
    return x


LOSSES = [lambda x, gate: x + gate(x.detach()), without_gradient, written_into, lambda x, gate: torch.cat([x[:, :3], x[:, 3:].detach()], 1)]


@pytest.mark.parametrize("function", LOSSES, ids=["detach", "no_grad", "written into", "cat"])
def test_a_branch_that_loses_its_gradient_is_refused(function: Callable[[Tensor, nn.Module], Tensor]) -> None:
    with pytest.raises(ValueError, match="only a part of the gradient of the network's logits reaches the images"):
        full_gradient(seeded(lambda: Head(function)), pictures(3, 12), TARGETS)


def log_and_choose(x: Tensor, gate: nn.Module) -> Tensor:
    x.detach().abs().mean()
    return torch.where(x > 0, x, torch.zeros_like(x)) + x.new_zeros(1)


def test_masks_and_detached_copies_that_nothing_uses_lose_no_gradient() -> None:
    logged: list[Tensor] = []
    network = seeded(lambda: Head(log_and_choose))
    network.conv.register_forward_hook(lambda _module, _inputs, output: logged.append(output.detach()))
    assert full_gradient(network, pictures(3, 12), TARGETS).pixels.any()
    assert len(logged) == 1


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused() -> None:
    network = build()
    network[3] = torch.jit.script(network[3])
    for each in (network, torch.jit.script(build())):
        with pytest.raises(ValueError, match="TorchScript gives no access to its layers"):
            explain(Classifier.from_module(each), pictures(3, 12), "full_grad")
