"""The promises of a method about its entry, maps, targets and images.

The promises about networks and passes are in `hdm_core.testing.method_networks`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hdm_core.masking.ops import normalise
from hdm_core.methods import METHODS, get_method
from hdm_core.network.logits import resolve_targets
from hdm_core.testing.method_case import MethodCase
from hdm_core.testing.networks import (
    assert_unchanged,
    sample_images,
    snapshot,
)
from hdm_core.testing.promises import Promises, double_precision

METHOD_PROMISES: Promises[MethodCase] = Promises()
_promise = METHOD_PROMISES.add


# The registry


@_promise()
def the_entry_is_complete(case: MethodCase) -> None:
    entry = case.entry
    assert entry.id == entry.id.lower()
    assert entry.id.isidentifier()
    assert entry.title
    assert entry.source
    assert entry.default in entry.presets
    assert entry.configure() == entry.presets[entry.default]
    assert get_method(entry.id) is entry is METHODS[entry.id]
    for settings in entry.presets.values():
        assert isinstance(settings, entry.settings)
        again = entry.settings.model_validate_json(settings.model_dump_json())
        assert again == settings
        assert hash(again) == hash(settings), "the check looks settings up"
        assert entry.passes(settings, 224, 224) >= 1


@_promise()
def an_unknown_preset_is_refused_with_those_to_choose_from(case: MethodCase) -> None:
    message = refusal(case, ValueError, case.smooth_network(), sample_images(1), preset="best")
    assert "unknown preset 'best'" in message
    assert all(name in message for name in case.entry.presets)


@_promise()
def an_unknown_setting_is_refused_by_name_in_one_line(case: MethodCase) -> None:
    message = refusal(case, ValueError, case.smooth_network(), sample_images(1), flavour=3)
    assert message.startswith(f"{case.entry.id} has no setting 'flavour'")
    assert "\n" not in message


def refusal(case: MethodCase, kind: type[Exception], network: nn.Module, images: Tensor, **arguments: Any) -> str:
    """Return the message with which an explanation is refused; fail if it is not."""
    try:
        case.explain(network, images, **arguments)
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__} was raised")


# The result


@_promise((16, 16), (16, 24), (21, 17))
def maps_are_float32_in_zero_to_one_of_the_images_size(case: MethodCase, size: tuple[int, int]) -> None:
    result = case.explain(case.smooth_network(), sample_images(3, *size))
    assert result.maps.shape == (3, *size)
    assert result.maps.dtype == torch.float32
    assert not result.maps.requires_grad
    assert result.maps.min() >= 0
    assert result.maps.max() <= 1
    assert len(result.status) == 3
    assert result.status == ["ok" if image.max() > image.min() else "flat" for image in result.maps]
    assert "ok" in result.status
    assert result.logits.shape == (3, 3)
    assert result.logits.dtype == torch.float32
    assert (result.stages is None) == (result.stage_weights is None)


@_promise()
def signed_values_are_scaled_to_one_and_make_the_map(case: MethodCase) -> None:
    images = sample_images(3, 16, 20)
    result = case.explain(case.smooth_network(), images)
    assert (result.signed is not None) == case.entry.signed, "the entry and RawMaps say the same"
    if result.signed is None:
        return
    assert result.signed.shape == result.maps.shape
    assert result.signed.dtype == torch.float32
    assert not result.signed.requires_grad
    for signed, map_, status in zip(result.signed, result.maps, result.status, strict=True):
        assert float(signed.abs().max()) == (1 if status == "ok" else 0)
        of_sign, of_size = normalise(signed), normalise(signed.abs())
        assert min(float((each - map_).abs().max()) for each in (of_sign, of_size)) < 1e-5
    for b in range(3):
        alone = case.explain(case.smooth_network(), images[b : b + 1]).signed
        assert alone is not None
        torch.testing.assert_close(result.signed[b], alone[0], rtol=0, atol=1e-4)  # as of maps


@_promise()
def a_network_of_two_classes_is_explained(case: MethodCase) -> None:
    result = case.explain(case.smooth_network(2), sample_images(2))
    assert set(result.status) <= {"ok", "flat"}
    assert (result.targets < 2).all()


@_promise()
def what_is_no_logit_is_refused(case: MethodCase) -> None:
    # The softmax of one logit is 1 for every image; that of probabilities is no probability.
    assert "one logit" in refusal(case, ValueError, case.smooth_network(1), sample_images(2))
    for ending in (nn.Softmax(1), nn.Sigmoid()):
        message = refusal(case, ValueError, nn.Sequential(case.smooth_network(), ending), sample_images(2))
        assert "probabilities" in message
        assert "\n" not in message


@_promise()
def a_batch_equals_its_singles(case: MethodCase) -> None:
    network, images = case.smooth_network(), sample_images(4, 16, 20)
    together = case.explain(network, images)
    for b in range(4):
        alone = case.explain(network, images[b : b + 1])
        # Another batch is summed in another order: 1e-7 in float32, which Adam and N may magnify.
        torch.testing.assert_close(together.maps[b], alone.maps[0], rtol=0, atol=1e-4)
        assert together.status[b] == alone.status[0]
        assert together.passes == alone.passes


@_promise()
def a_batch_equals_its_singles_to_many_digits(case: MethodCase) -> None:
    with double_precision():
        network, images = case.smooth_network(), sample_images(3)
        together = case.explain(network, images)
        for b in range(3):
            torch.testing.assert_close(together.maps[b], case.explain(network, images[b : b + 1]).maps[0], rtol=0, atol=1e-6)


@_promise(1, 2, 64)
def the_batch_size_of_forward_passes_changes_nothing(case: MethodCase, batch: int) -> None:
    network, images = case.smooth_network(), sample_images(3)
    expected, result = case.explain(network, images, batch=3), case.explain(network, images, batch=batch)
    torch.testing.assert_close(result.maps, expected.maps, rtol=0, atol=1e-4)
    assert result.passes == expected.passes


@_promise()
def the_same_call_gives_the_same_maps_and_disturbs_no_random_state(case: MethodCase) -> None:
    first = case.explain(case.smooth_network(), sample_images(2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        state = torch.random.get_rng_state()
        assert torch.equal(case.explain(case.smooth_network(), sample_images(2)).maps, first.maps)
        assert torch.equal(torch.random.get_rng_state(), state)


@_promise()
def it_works_where_gradients_are_switched_off(case: MethodCase) -> None:
    expected = case.explain(case.smooth_network(), sample_images(2))
    with torch.no_grad():
        assert torch.equal(case.explain(case.smooth_network(), sample_images(2)).maps, expected.maps)


# Targets


@_promise()
def the_predicted_class_is_explained_unless_another_is_requested(case: MethodCase) -> None:
    network, images = case.smooth_network(), sample_images(3)
    predicted = network(images).argmax(1)
    result = case.explain(network, images)
    assert torch.equal(result.targets, predicted)
    assert torch.equal(case.explain(network, images, targets=predicted).maps, result.maps)


@_promise()
def every_image_has_the_target_that_was_requested(case: MethodCase) -> None:
    network, images = case.smooth_network(), sample_images(3)
    mixed = case.explain(network, images, targets=[2, 0, 1])
    assert mixed.targets.tolist() == [2, 0, 1]
    for target in range(3):
        uniform = case.explain(network, images, targets=target)
        assert uniform.targets.tolist() == [target] * 3
        b = [2, 0, 1].index(target)
        torch.testing.assert_close(mixed.maps[b], uniform.maps[b], rtol=0, atol=1e-5)


@_promise()
def another_target_gives_another_map(case: MethodCase) -> None:
    maps = torch.stack([case.explain(case.smooth_network(), sample_images(3), targets=target).maps for target in range(3)])
    alike = all(torch.allclose(maps[0], other, atol=1e-3) for other in maps[1:])
    assert alike == case.class_agnostic


@_promise([0], [0, 1, 2], 3, [0, -1], [0.0, 1.0])
def wrong_targets_are_refused_and_the_network_is_left_alone(case: MethodCase, targets: Any) -> None:
    network, images = case.mixed_state_network(), sample_images(2)
    before = snapshot(network)
    kind, message = _refusal_of(targets)
    assert kind is (TypeError if targets == [0.0, 1.0] else ValueError)
    assert refusal(case, kind, network, images, targets=targets) == message
    assert_unchanged(network, before)


def _refusal_of(targets: Any) -> tuple[type[Exception], str]:
    try:
        resolve_targets(torch.zeros(2, 3), targets)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    raise AssertionError(f"targets {targets} were accepted")


# Images without evidence


@_promise(0.0, 0.7, -3.0)
def an_image_of_one_colour_is_explained_or_flat(case: MethodCase, value: float) -> None:
    result = case.explain(case.smooth_network(), torch.full((2, 3, 16, 16), value))
    for image, status in zip(result.maps, result.status, strict=True):
        assert status in ("ok", "flat")
        assert (status == "flat") == bool(image.max() == image.min() == 0)


@_promise(0, 1, 2)
def an_image_of_nans_has_the_status_nan_and_harms_no_neighbour(case: MethodCase, position: int) -> None:
    network, images = case.smooth_network(), sample_images(3)
    others = [b for b in range(3) if b != position]
    damaged = images.clone()
    damaged[position] = torch.nan
    expected, result = (case.explain(network, batch, targets=[0, 1, 2]) for batch in (images, damaged))
    assert result.status[position] == "nan"
    assert torch.equal(result.maps[position], torch.zeros(16, 16))
    assert result.passes == expected.passes
    for b in others:
        assert result.status[b] == expected.status[b]
        torch.testing.assert_close(result.maps[b], expected.maps[b], rtol=0, atol=1e-6)
