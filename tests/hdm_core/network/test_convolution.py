"""DirectConv2d against PyTorch's convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdm_core.network.convolution import DirectConv2d
from hdm_core.network.folding import fold_network
from tests.support.tiny_networks import mixed_state, normalised, pictures


def convolution(kernel: int | tuple[int, int], padding: int | tuple[int, int] = 0, bias: bool = True) -> nn.Conv2d:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Conv2d(3, 5, kernel, padding=padding, bias=bias).requires_grad_(False)


def answer_and_gradient(module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    answer = module(images)
    weights = torch.linspace(-1, 1, answer[0].numel()).view(answer.shape[1:])
    return answer.detach(), torch.autograd.grad((answer * weights).sum(), images)[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 0), (3, 1), (3, 2), (5, 2), ((1, 3), (0, 1)), ((4, 2), (1, 0))], ids=str)
def test_output_and_gradient_are_pytorchs(kernel: int | tuple[int, int], padding: int | tuple[int, int], bias: bool) -> None:
    module = convolution(kernel, padding, bias)
    assert DirectConv2d.fits(module)
    for found, expected in zip(
        answer_and_gradient(DirectConv2d(module), pictures(2, 9, 12)), answer_and_gradient(module, pictures(2, 9, 12)), strict=True
    ):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
def test_an_images_bits_do_not_depend_on_the_batch(kernel: int) -> None:
    module, images = DirectConv2d(convolution(kernel, kernel // 2)), pictures(20, 24)
    answers, gradients = answer_and_gradient(module, images)
    for batch in (2, 8, 15, 16, 17):
        found = answer_and_gradient(module, images[:batch])
        assert torch.equal(found[0], answers[:batch])
        assert torch.equal(found[1], gradients[:batch])


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 1, padding=1),
        nn.Conv2d(4, 4, 3).double(),
        nn.Conv2d(4, 4, 3).bfloat16(),
        nn.Linear(4, 4),
    ],
    ids=lambda module: f"{module} {module.weight.dtype}",
)
def test_modules_that_are_not_replaced(module: nn.Module) -> None:
    assert not DirectConv2d.fits(module)


def test_bfloat16_is_left_to_autocast() -> None:
    module, images = convolution(3, 1), pictures(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = DirectConv2d(module)(images)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), F.conv2d(images, module.weight, module.bias, padding=1), rtol=0, atol=0.1)


def test_an_image_without_a_batch_is_convolved_too() -> None:
    module, image = convolution(3, 1), pictures(1)[0]
    torch.testing.assert_close(DirectConv2d(module)(image), module(image), rtol=1e-5, atol=1e-5)


def test_a_folded_network_has_it_and_the_users_does_not() -> None:
    network = normalised().eval().requires_grad_(False)
    folded = fold_network(network, pictures(1)).network
    assert isinstance(folded.get_submodule("conv"), DirectConv2d)
    assert type(folded.get_submodule("features.0")) is nn.Conv2d  # strided
    assert type(network.conv) is nn.Conv2d
    torch.testing.assert_close(folded(pictures(3)), network(pictures(3)), rtol=1e-4, atol=1e-4)


def test_a_convolution_that_is_used_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.rest = mixed_state()

        def forward(self, images: Tensor) -> Tensor:
            return self.rest(self.conv(self.conv(images)))

    network = Twice().eval().requires_grad_(False)
    folded = fold_network(network, pictures(1)).network
    for found, expected in zip(answer_and_gradient(folded, pictures(2)), answer_and_gradient(network, pictures(2)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
