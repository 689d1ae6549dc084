"""Folding: the cached copy of a network, and the reasons to do without one."""

from __future__ import annotations

import gc
import linecache
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import graph_module
from torch.fx._symbolic_trace import is_fx_tracing

from hdm_core import Classifier, explain
from hdm_core.network import folding
from hdm_core.network.folding import ContiguousInput, fold_network
from hdm_core.network.outputs import SelectedOutput
from tests.support.tiny_networks import Pair, Untraceable, assert_unchanged, normalised, pictures, smooth, snapshot


def copies(network: nn.Module) -> nn.Module:
    """The copy of a network that can be folded."""
    folded = fold_network(network, pictures(1))
    assert folded.reason is None
    assert folded.network is not network
    return folded.network


def test_the_copy_has_the_same_logits_and_the_network_is_not_changed() -> None:
    network, images = normalised().eval(), pictures(3, 32)
    before, seen = snapshot(network), images.clone()
    copy = fold_network(network, images[:1]).network
    assert copy is not network
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    torch.testing.assert_close(copy(images), network(images), rtol=1e-4, atol=1e-4)
    assert torch.equal(images, seen)
    assert_unchanged(network, before)


def test_a_network_that_cannot_be_traced_is_used_as_it_is() -> None:
    network = Untraceable(smooth()).eval()
    folded = fold_network(network, pictures(1))
    assert folded.network is network
    assert folded.reason == (
        "torch.fx cannot trace it (TraceError: symbolically traced variables cannot be used as inputs to control flow)"
    )


class Surprising(nn.Module):
    """Network that computes something else while it is traced, as some libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = smooth()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) + (1 if is_fx_tracing() else 0)


def test_the_copy_runs_the_networks_own_forward_and_not_what_tracing_saw() -> None:
    network = Surprising().eval()
    torch.testing.assert_close(copies(network)(pictures(2)), network(pictures(2)))


def test_a_network_with_dropout_is_folded_in_evaluation_mode_and_restored() -> None:
    classifier, images = Classifier.from_module(normalised()), pictures(2, 32)
    before = snapshot(classifier.module)
    with classifier.folded(images[:1]) as network:
        found = network(images)
        assert torch.equal(network(images), found)
    assert_unchanged(classifier.module, before)
    torch.testing.assert_close(found, classifier.module.eval()(images), rtol=1e-4, atol=1e-4)


def test_a_network_in_training_mode_is_not_folded() -> None:
    network = normalised()
    before = snapshot(network)
    folded = fold_network(network, pictures(1, 32))
    assert (folded.network, folded.reason) == (network, "it is in training mode")
    assert network.training
    assert before["training"] == snapshot(network)["training"]


def test_one_of_two_outputs_is_not_guessed() -> None:
    with pytest.raises(TypeError) as caught:
        fold_network(Pair(smooth()).eval(), pictures(1))
    assert str(caught.value) == (
        "the network must return logits (B, classes); it returned a tuple with 2 such tensors, 0 (1, 3), 1 (1, 3): "
        "name the logits with output= (classifier.output in a configuration), such as 0"
    )


def test_a_network_of_which_an_output_is_selected_is_folded() -> None:
    network = SelectedOutput(Pair(normalised()).eval(), 1)
    folded = fold_network(network, pictures(1, 32))
    assert folded.reason is None
    torch.testing.assert_close(folded.network(pictures(1, 32)), network(pictures(1, 32)), rtol=1e-4, atol=1e-4)


# Agreement with the network


class Doctored(nn.Module):
    """Network whose copies answer otherwise, as a wrong fusion would."""

    def __init__(self, change: Callable[[Tensor], Tensor], factor: float = 1.0) -> None:
        super().__init__()
        self.network, self.change, self.factor, self.copied = smooth(), change, factor, False

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images) * self.factor
        return self.change(logits) if self.copied else logits

    def __deepcopy__(self, memo: dict[int, Any]) -> Doctored:
        copy = Doctored(self.change, self.factor).eval()
        copy.copied = True
        return copy


# What a copy's logits become, and the reason not to use it.
WRONG: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "scaled": (lambda logits: logits * 1.1, "its copy gives other logits"),
    "shifted": (lambda logits: logits + 0.1 * logits.detach().std(), "its copy gives other logits"),
    "detached": (lambda logits: logits.detach(), "the gradient reaches the input in it only"),
    "a lost path": (lambda logits: logits.detach() + 0.5 * (logits - logits.detach()), "its copy gives another gradient"),
    "one image for all": (lambda logits: logits[:1] + 0 * logits, "its copy gives other logits"),
    "fewer classes": (lambda logits: logits[:, :2], "its copy returns (3, 2)"),
    "another type": (lambda logits: logits.double(), "its copy returns (3, 3) torch.float64"),
    "an exception": (lambda logits: logits.view(7, 7), "its copy fails (RuntimeError"),
    "NaN": (lambda logits: logits * torch.nan, "its copy gives other logits"),
}


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", WRONG)
def test_a_copy_that_answers_otherwise_is_not_used(kind: str, factor: float) -> None:
    change, reason = WRONG[kind]
    network = Doctored(change, factor).eval()
    folded = fold_network(network, pictures(1))
    assert folded.network is network
    assert str(folded.reason).startswith(reason)


@pytest.mark.parametrize("factor", [1e-6, 1e-4, 1.0, 1e4, 1e6])
def test_logits_of_any_size_are_folded(factor: float) -> None:
    network = normalised().eval()
    with torch.no_grad():
        network.head.weight.mul_(factor)
        network.head.bias.mul_(factor)
    torch.testing.assert_close(copies(network)(pictures(3)), network(pictures(3)), rtol=1e-4, atol=1e-5 * factor)


def test_a_small_difference_beside_a_large_constant_is_noticed() -> None:
    network = Doctored(lambda logits: logits + 0.01 * (logits - logits.mean(1, keepdim=True)), 1e-2).eval()
    network.network[-1].bias.data.add_(50.0)
    assert fold_network(network, pictures(1)).network is network


def test_a_network_of_nans_is_used_as_it_is() -> None:
    network = smooth()
    network[0].weight.data.fill_(torch.nan)
    folded = fold_network(network, pictures(1))
    assert (folded.network, folded.reason) == (network, "its logits are not finite, so that its copy cannot be checked")


def test_one_bad_image_is_explained_unfolded_and_later_ones_folded() -> None:
    class Overflowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = smooth()

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images) + torch.exp(images.amax((1, 2, 3)))[:, None]

    network = Overflowing().eval()
    copy = copies(network)
    assert fold_network(network, pictures(1) + 1000).network is network
    assert fold_network(network, pictures(1)).reason is None
    assert copy is not network


# Layout


class Lenet(nn.Module):
    """Network whose `view` needs activations in the contiguous layout."""

    def __init__(self, traceable: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Softplus(), nn.MaxPool2d(2))
        self.head = nn.Linear(6 * 64, 3)
        self.traceable = traceable

    def forward(self, images: Tensor) -> Tensor:
        if not self.traceable and images.shape[0] < 0:
            raise AssertionError
        return self.head(self.features(images).view(-1, 6 * 64))


@pytest.mark.parametrize("traceable", [True, False])
def test_a_network_that_views_its_activations_is_explained(traceable: bool) -> None:
    network, images = Lenet(traceable).eval(), pictures(2)
    folded = fold_network(network, images[:1])
    assert isinstance(folded.network, ContiguousInput)
    assert (folded.reason is None) == traceable
    torch.testing.assert_close(folded.network(images.contiguous(memory_format=torch.channels_last)), network(images), rtol=1e-4, atol=1e-5)
    for method, settings in (("hdm", {"steps": 2}), ("rise", {"masks": 4}), ("mask", {"steps": 2})):
        assert explain(network, images, method, **settings).status == ["ok", "ok"]


def test_a_bad_image_of_such_a_network_is_given_contiguous_too() -> None:
    network = Lenet().eval()
    fold_network(network, pictures(1))
    network.head.register_forward_hook(lambda _module, inputs, logits: logits * (torch.inf if inputs[0].amax() > 100 else 1))
    folded = fold_network(network, pictures(1) * 1e6)
    assert folded.reason is not None
    assert isinstance(folded.network, ContiguousInput)
    assert folded.network.network is network


# The cache


def step(network: Any) -> None:
    network(pictures(4)).square().sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()


def replace_at_the_same_place(network: Any) -> None:
    del network.head
    gc.collect()
    network.head = nn.Linear(6, 3).eval()


CHANGES: dict[str, Callable[[Any], object]] = {
    "weights behind autograd's back": lambda network: network.conv.weight.data.mul_(2),
    "a little": lambda network: network.head.bias.data.add_(1e-5),
    "statistics": lambda network: network.norm.running_mean.data.add_(1e-3),
    "a state dict": lambda network: network.load_state_dict(normalised(seed=5).state_dict()),
    "a step of an optimiser": step,
    "a new layer": lambda network: setattr(network, "head", nn.Linear(6, 3)),
    "a new layer in the memory of the old": replace_at_the_same_place,
    "another activation": lambda network: setattr(network, "relu", nn.Tanh()),
    "a flag": lambda network: setattr(network.relu, "inplace", False),
    "a number": lambda network: setattr(network.norm, "eps", 0.5),
    "a hook": lambda network: network.conv.register_forward_hook(lambda _module, _inputs, output: output * 2),
    "a forward": lambda network: setattr(network.relu, "forward", torch.tanh),
    "one more layer": lambda network: network.features.insert(0, nn.Tanh()),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_network_is_copied_again(kind: str) -> None:
    network, images = normalised().eval(), pictures(4)
    first = copies(network)
    assert copies(network) is first
    CHANGES[kind](network)
    copy = copies(network)
    assert copy is not first
    torch.testing.assert_close(copy(images), network.eval()(images), rtol=1e-4, atol=1e-4)


def test_a_network_of_another_data_type_is_copied_again() -> None:
    network = normalised().eval()
    copies(network)
    network.double()
    folded = fold_network(network, pictures(2).double())
    assert folded.reason is None
    assert next(folded.network.parameters()).dtype == torch.float64


def test_changes_between_calls_give_the_maps_of_the_changed_network() -> None:
    network, images = normalised(), pictures(2)
    explain(network, images, "integrated_gradients", steps=3, targets=1)
    network.conv.weight.data.mul_(-3)
    found = explain(network, images, "integrated_gradients", steps=3, targets=1).maps
    expected = explain(Untraceable(network), images, "integrated_gradients", steps=3, targets=1).maps
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_a_wrapped_network_is_copied_once() -> None:
    network, images = normalised(), pictures(1)
    with Classifier.from_module(network).folded(images) as first, Classifier.from_module(network).folded(images) as second:
        assert first is second


def test_an_unfolded_network_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Untraceable(smooth()).eval()
    reason = fold_network(network, pictures(1)).reason
    monkeypatch.setattr(folding, "fused_copy", None)
    assert fold_network(network, pictures(1)).reason == reason


def test_an_exception_while_the_network_runs_leaves_nothing_half_done() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.options = smooth(), {"fails": [True] * 100}

        def forward(self, images: Tensor) -> Tensor:
            if len(self.options["fails"]) == 100 and not is_fx_tracing():
                raise KeyError("not yet")
            return self.network(images)

    network = Failing().eval()
    with pytest.raises(KeyError, match="not yet"):
        fold_network(network, pictures(1))
    network.options["fails"].clear()
    copies(network)


def test_nothing_is_stored_after_the_network_is_dropped_nor_by_repeated_calls() -> None:
    def stored() -> tuple[int, int, int]:
        gc.collect()
        loader: Any = graph_module._loader
        return len(loader.eval_cache), len(linecache.cache), len(folding._CACHE)

    before = stored()
    network: nn.Module | None = normalised().eval()
    assert network is not None
    copy, alive = weakref.ref(copies(network)), weakref.ref(network)
    for _ in range(5):
        copies(network)
    assert stored() == (before[0], before[1], before[2] + 1)
    network = None
    assert stored() == before
    assert (copy(), alive()) == (None, None)


def test_another_thread_can_run_networks_while_one_is_traced() -> None:
    network, other, images = normalised().eval(), smooth(), pictures(1)
    failures: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            while not done.is_set():
                network(images)
                other(images)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(20):
            network.conv.weight.data.mul_(1.01)
            copies(network)
    finally:
        done.set()
        thread.join()
    assert failures == []


def test_random_draws_of_a_check_do_not_reach_the_caller() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = smooth()

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images) + torch.randn(3)

    network = Noisy().eval()
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    folded = fold_network(network, pictures(1))
    assert folded.network is network
    assert torch.equal(torch.randn(3), expected)


def test_a_copy_made_in_inference_mode_has_gradients() -> None:
    network = normalised().eval()
    with torch.inference_mode():
        copy = copies(network)
    images = pictures(1).requires_grad_()
    assert torch.autograd.grad(copy(images).sum(), images)[0].any()
