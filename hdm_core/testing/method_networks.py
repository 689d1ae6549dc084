"""The promises of a method about networks, passes, memory and CUDA."""

from __future__ import annotations

import gc
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from hdm_core.classifier import Classifier
from hdm_core.explain import explain
from hdm_core.network.outputs import SelectedOutput
from hdm_core.preprocess import Preprocess
from hdm_core.sources.exported import Exported
from hdm_core.testing.families import FAMILIES, transformer
from hdm_core.testing.method_case import MethodCase
from hdm_core.testing.methods import METHOD_PROMISES, refusal
from hdm_core.testing.networks import (
    FailingNetwork,
    InterruptionError,
    SeveralOutputs,
    Untraceable,
    assert_unchanged,
    sample_images,
    smooth_network,
    snapshot,
)

_promise = METHOD_PROMISES.add


# The network


@_promise()
def the_network_is_left_as_it_was(case: MethodCase) -> None:
    network = case.mixed_state_network()
    before = snapshot(network)
    case.explain(network, sample_images(2))
    assert_unchanged(network, before)


@_promise()
def gradients_that_the_user_holds_are_preserved(case: MethodCase) -> None:
    network = case.smooth_network()
    network(sample_images(1)).sum().backward()
    before = [None if parameter.grad is None else parameter.grad.clone() for parameter in network.parameters()]
    case.explain(network, sample_images(2))
    for parameter, gradient in zip(network.parameters(), before, strict=True):
        assert parameter.grad is not None
        assert gradient is not None
        assert torch.equal(parameter.grad, gradient)


@_promise()
def the_network_is_left_as_it_was_after_an_exception_in_any_call(case: MethodCase) -> None:
    counting = FailingNetwork(case.mixed_state_network())
    case.explain(counting, sample_images(2))
    assert counting.calls >= 1
    for at in sorted({1, 2, counting.calls // 2, counting.calls} & set(range(1, counting.calls + 1))):
        network = FailingNetwork(case.mixed_state_network(), at)
        before = snapshot(network)
        refusal(case, InterruptionError, network, sample_images(2))
        assert network.calls == at
        assert_unchanged(network, before)


@_promise()
def a_network_that_cannot_be_folded_is_explained_alike(case: MethodCase) -> None:
    images = sample_images(2)
    # Folding rounds the logits at 1e-6; the kinks of ReLU and Adam's division magnify that.
    folded, plain = case.explain(case.mixed_state_network(), images), case.explain(Untraceable(case.mixed_state_network()), images)
    torch.testing.assert_close(folded.maps, plain.maps, rtol=0, atol=1e-2)


@_promise("tuple", "dict", "heads")
def logits_among_other_outputs_are_found(case: MethodCase, form: str) -> None:
    images, expected = sample_images(2), case.explain(case.smooth_network(), sample_images(2))
    several = SeveralOutputs(case.smooth_network(), form)
    result = case.explain(SelectedOutput(several, "heads.1") if form == "heads" else several, images)
    assert torch.equal(result.targets, expected.targets)
    torch.testing.assert_close(result.maps, expected.maps, rtol=0, atol=1e-2)  # as where a network is folded


@_promise()
def the_images_are_left_as_they_were(case: MethodCase) -> None:
    images = sample_images(2)
    before = images.clone()
    case.explain(case.mixed_state_network(), images)
    assert torch.equal(images, before)


# Families of networks: torchvision's own classes, made small


@_promise(*FAMILIES)
def torchvisions_families_are_explained_or_refused_in_words(case: MethodCase, family: str) -> None:
    network, images = FAMILIES[family](), sample_images(2, 32)
    before = snapshot(network)
    if family in case.refused:
        assert case.refused[family] in refusal(case, ValueError, network, images, **case.cheapest)
        assert_unchanged(network, before)
        return
    result = case.explain(network, images, targets=1, **case.cheapest)
    assert "nan" not in result.status
    assert_unchanged(network, before)
    alone = case.explain(network, images[1:], targets=1, **case.cheapest)
    torch.testing.assert_close(result.maps[1], alone.maps[0], rtol=0, atol=1e-3)


@_promise()
def a_vision_transformer_is_explained_or_refused(case: MethodCase) -> None:
    network, images = transformer(), sample_images(2, 32)
    before = snapshot(network)
    try:
        result = case.explain(network, images, **case.cheapest)
    except ValueError as error:
        words = case.refused.get("transformer")
        assert all(each in str(error) for each in ([words] if words else ["tokens", "layer="]))
    else:
        assert result.maps.shape == (2, 32, 32)
        assert set(result.status) <= {"ok", "flat"}
    assert_unchanged(network, before)


@cache
def _program() -> Exported:
    program = torch.export.export(smooth_network(), (sample_images(2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    return Exported(program)


@_promise()
def an_exported_program_is_explained_or_refused(case: MethodCase) -> None:
    program, images = _program(), sample_images(2)
    before = snapshot(program)
    if case.needs_layers:
        assert "an exported program has no layers" in refusal(case, ValueError, program, images)
    else:
        # Masks cannot start from the CAM of a program: it has no layers.
        start = {"start": "tau"} if "start" in case.entry.settings.model_fields else {}
        expected, result = case.explain(case.smooth_network(), images, **start), case.explain(program, images, **start)
        assert result.status == expected.status
        torch.testing.assert_close(result.maps, expected.maps, rtol=0, atol=1e-2)  # as where a network is folded
    assert_unchanged(program, before)


# The work


@_promise()
def memory_does_not_grow_with_the_number_of_batches(case: MethodCase) -> None:
    classifier, images = Classifier.from_module(case.mixed_state_network(), Preprocess(resize=8, crop=8)), sample_images(2, 8)

    def alive_after(batches: int) -> tuple[int, int]:
        for _ in range(batches):
            explain(classifier, images, case.entry.id, **{**case.settings, **case.cheapest})
        gc.collect()
        objects = gc.get_objects()
        return sum(issubclass(type(each), Tensor) for each in objects), len(objects)

    tensors, objects = alive_after(3)
    more_tensors, more_objects = alive_after(10)
    assert more_tensors == tensors
    # Nothing per batch: all methods were measured to leave 0 objects after 100 batches. One object per batch would be 10.
    assert more_objects - objects < 5


@_promise(1, 3, None)
def progress_reports_every_pass_and_the_entry_knows_their_number(case: MethodCase, batch: int | None) -> None:
    reported: list[int] = []
    result = case.explain(case.smooth_network(), sample_images(4), batch=batch, progress=reported.append)
    assert all(passes > 0 for passes in reported)
    assert sum(reported) == result.passes * 4
    classifier = Classifier.from_module(case.smooth_network())
    assert result.passes == case.entry.cost(case.configure(), classifier, sample_images(1))
    assert result.passes >= case.entry.passes(case.configure(), 16, 16)


@_promise()
def the_entry_says_that_a_pass_has_a_backward_if_it_has(case: MethodCase) -> None:
    network = case.smooth_network()
    case.explain(network, sample_images(1))  # the first call compares the gradient of the folded copy, whatever the method
    with mock.patch.object(torch.autograd, "grad", wraps=torch.autograd.grad) as gradient:
        case.explain(network, sample_images(1))
    assert gradient.called == case.entry.backward


@_promise()
def an_exception_of_the_listener_reaches_the_caller(case: MethodCase) -> None:
    def listen(_passes: int) -> None:
        raise InterruptionError

    network = case.mixed_state_network()
    before = snapshot(network)
    refusal(case, InterruptionError, network, sample_images(1), progress=listen)
    assert_unchanged(network, before)


# CUDA


def _to_cuda(*values: Any) -> Any:
    return (value.to("cuda") for value in values)


@_promise(cuda=True)
def the_maps_on_cuda_are_those_of_the_cpu(case: MethodCase) -> None:
    images = sample_images(3)
    expected, result = (
        case.explain(case.smooth_network(), images),
        case.explain(*_to_cuda(case.smooth_network(), images), precision="float32"),
    )
    assert result.maps.device.type == "cuda"
    assert result.status == expected.status
    torch.testing.assert_close(result.maps.cpu(), expected.maps, rtol=0, atol=1e-2)


@_promise(cuda=True)
def a_batch_on_cuda_equals_its_singles(case: MethodCase) -> None:
    network, images = _to_cuda(case.smooth_network(), sample_images(3))
    together = case.explain(network, images, precision="float32")
    for b in range(3):
        alone = case.explain(network, images[b : b + 1], precision="float32")
        torch.testing.assert_close(together.maps[b], alone.maps[0], rtol=0, atol=1e-3)


@_promise(cuda=True)
def bfloat16_which_is_the_default_on_cuda_gives_nearly_the_same_map(case: MethodCase) -> None:
    images = sample_images(3)
    expected, result = case.explain(case.smooth_network(), images), case.explain(*_to_cuda(case.smooth_network(), images))
    for one, other in zip(expected.maps, result.maps.cpu(), strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.9


@_promise(cuda=True)
def the_network_on_cuda_is_left_as_it_was(case: MethodCase) -> None:
    network = case.mixed_state_network().to("cuda")
    before = snapshot(network)
    case.explain(network, sample_images(2))
    assert_unchanged(network, before)
