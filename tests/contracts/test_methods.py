"""What every method of the registry promises. A new method is tested by its line in the registry alone.

A method runs here with its default preset, unless that is slow and QUICK names cheaper settings.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, Explanation, Method, explain, get_method
from hdm_core.network.logits import resolve_targets
from hdm_core.preprocess import Preprocess
from hdm_core.settings import Settings
from hdm_core.sources.exported import Exported
from tests.support.tiny_networks import Failing, InterruptionError, Untraceable, assert_unchanged, mixed_state, pictures, smooth, snapshot
from tests.support.torchvision_families import FAMILIES, transformer

# A light eta: where sparsity outweighs the consistency everywhere, all pixels sink alike and N stretches their rounding.
DM = {"sizes": (2, 5), "ratios": (2,), "steps": 4, "learning_rate": 0.1, "eta": 0.02}
QUICK: dict[str, dict[str, Any]] = {
    "dm": DM,
    "hdm": {**DM, "stages": 2, "mix_steps": 4},
    "integrated_gradients": {"steps": 6},
    "rise": {"masks": 24},
    "mask": {"steps": 6, "cell": 2, "blur": 1.0, "circles": 4},
}
# On larger networks, and a hundred times over.
SHORT = {"sizes": (4,), "steps": 1}
CHEAPEST: dict[str, dict[str, Any]] = {
    "dm": SHORT,
    "hdm": {**SHORT, "stages": 1},
    "integrated_gradients": {"steps": 2},
    "rise": {"masks": 8},
    "mask": {"steps": 2, "cell": 2, "blur": 1.0, "circles": 2},
}
# Methods whose map does not ask which class is explained.
CLASS_AGNOSTIC = {"eigen_cam"}

pytestmark = pytest.mark.parametrize("method", METHODS)


def run(network: nn.Module, images: Tensor, method: str, **arguments: Any) -> Explanation:
    classifier = Classifier.from_module(network, Preprocess(resize=16, crop=16))
    return explain(classifier, images, method, **{**QUICK.get(method, {}), **arguments})


def settings_of(method: str) -> Settings:
    return get_method(method).configure(None, **QUICK.get(method, {}))


# The registry


def test_the_entry_is_complete(method: str) -> None:
    entry: Method = METHODS[method]
    assert entry.id == method == method.lower()
    assert method.isidentifier()
    assert entry.title
    assert entry.source
    assert entry.default in entry.presets
    assert entry.configure() == entry.presets[entry.default]
    assert get_method(method) is entry
    for settings in entry.presets.values():
        assert isinstance(settings, entry.settings)
        assert entry.settings.model_validate_json(settings.model_dump_json()) == settings
        assert entry.passes(settings, 224, 224) >= 1


def test_an_unknown_preset_is_refused_with_those_to_choose_from(method: str) -> None:
    with pytest.raises(ValueError, match="unknown preset 'best'") as caught:
        run(smooth(), pictures(1), method, preset="best")
    assert all(name in str(caught.value) for name in METHODS[method].presets)


def test_an_unknown_setting_is_refused_by_name(method: str) -> None:
    with pytest.raises(ValueError, match="flavour"):
        run(smooth(), pictures(1), method, flavour=3)


# The result


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 24), (21, 17)])
def test_maps_are_float32_in_zero_to_one_of_the_images_size(method: str, height: int, width: int) -> None:
    result = run(smooth(), pictures(3, height, width), method)
    assert result.maps.shape == (3, height, width)
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


@pytest.mark.parametrize("classes", [1, 2])
def test_a_network_of_few_classes_is_explained(method: str, classes: int) -> None:
    result = run(smooth(classes), pictures(2), method)
    assert set(result.status) <= {"ok", "flat"}
    assert (result.targets < classes).all()


def test_a_batch_equals_its_singles(method: str) -> None:
    network, images = smooth(), pictures(4, 16, 20)
    together = run(network, images, method)
    for b in range(4):
        alone = run(network, images[b : b + 1], method)
        # Another batch is summed in another order: 1e-7 in float32, which Adam and N may magnify.
        torch.testing.assert_close(together.maps[b], alone.maps[0], rtol=0, atol=1e-4)
        assert together.status[b] == alone.status[0]
        assert together.passes == alone.passes


@pytest.mark.usefixtures("double")
def test_a_batch_equals_its_singles_to_many_digits(method: str) -> None:
    network, images = smooth(), pictures(3)
    together = run(network, images, method)
    for b in range(3):
        torch.testing.assert_close(together.maps[b], run(network, images[b : b + 1], method).maps[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_how_many_go_through_the_network_at_once_changes_nothing(method: str, batch: int) -> None:
    network, images = smooth(), pictures(3)
    expected, found = run(network, images, method, batch=3), run(network, images, method, batch=batch)
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-4)
    assert found.passes == expected.passes


def test_the_same_call_gives_the_same_maps_and_disturbs_no_random_state(method: str) -> None:
    first = run(smooth(), pictures(2), method)
    torch.manual_seed(4)
    state = torch.random.get_rng_state()
    assert torch.equal(run(smooth(), pictures(2), method).maps, first.maps)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_it_works_where_gradients_are_switched_off(method: str) -> None:
    expected = run(smooth(), pictures(2), method)
    with torch.no_grad():
        assert torch.equal(run(smooth(), pictures(2), method).maps, expected.maps)


# Targets


def test_the_predicted_class_is_explained_unless_another_is_asked_for(method: str) -> None:
    network, images = smooth(), pictures(3)
    predicted = network(images).argmax(1)
    result = run(network, images, method)
    assert torch.equal(result.targets, predicted)
    assert torch.equal(run(network, images, method, targets=predicted).maps, result.maps)


def test_every_image_has_the_target_that_was_asked_for(method: str) -> None:
    network, images = smooth(), pictures(3)
    mixed = run(network, images, method, targets=[2, 0, 1])
    assert mixed.targets.tolist() == [2, 0, 1]
    for target in range(3):
        uniform = run(network, images, method, targets=target)
        assert uniform.targets.tolist() == [target] * 3
        b = [2, 0, 1].index(target)
        torch.testing.assert_close(mixed.maps[b], uniform.maps[b], rtol=0, atol=1e-5)


def test_another_target_gives_another_map(method: str) -> None:
    maps = torch.stack([run(smooth(), pictures(3), method, targets=target).maps for target in range(3)])
    alike = all(torch.allclose(maps[0], other, atol=1e-3) for other in maps[1:])
    assert alike == (method in CLASS_AGNOSTIC)


@pytest.mark.parametrize(
    ("targets", "error"),
    [([0], ValueError), ([0, 1, 2], ValueError), (3, ValueError), ([0, -1], ValueError), ([0.0, 1.0], TypeError)],
    ids=str,
)
def test_targets_that_are_none_are_refused_and_the_network_left_alone(method: str, targets: object, error: type[Exception]) -> None:
    network, images = mixed_state(), pictures(2)
    before = snapshot(network)
    with pytest.raises(error) as refused:
        resolve_targets(torch.zeros(2, 3), targets)
    with pytest.raises(error) as caught:
        run(network, images, method, targets=targets)
    assert str(caught.value) == str(refused.value)
    assert_unchanged(network, before)


# Images that say nothing


@pytest.mark.parametrize("value", [0.0, 0.7, -3.0])
def test_a_picture_of_one_colour_is_explained_or_flat(method: str, value: float) -> None:
    result = run(smooth(), torch.full((2, 3, 16, 16), value), method)
    for image, status in zip(result.maps, result.status, strict=True):
        assert status in ("ok", "flat")
        assert (status == "flat") == (image.max() == image.min() == 0)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_image_of_nans_is_told_apart_and_harms_no_neighbour(method: str, place: int) -> None:
    network, images = smooth(), pictures(3)
    others = [b for b in range(3) if b != place]
    spoilt = images.clone()
    spoilt[place] = torch.nan
    expected, found = run(network, images, method, targets=[0, 1, 2]), run(network, spoilt, method, targets=[0, 1, 2])
    assert found.status[place] == "nan"
    assert torch.equal(found.maps[place], torch.zeros(16, 16))
    assert found.passes == expected.passes
    for b in others:
        assert found.status[b] == expected.status[b]
        torch.testing.assert_close(found.maps[b], expected.maps[b], rtol=0, atol=1e-6)


# The network


def test_the_network_is_left_as_it_was(method: str) -> None:
    network = mixed_state()
    before = snapshot(network)
    run(network, pictures(2), method)
    assert_unchanged(network, before)


def test_gradients_that_the_user_holds_are_kept(method: str) -> None:
    network = smooth()
    network(pictures(1)).sum().backward()
    kept = [parameter.grad.clone() for parameter in network.parameters()]
    run(network, pictures(2), method)
    assert all(torch.equal(parameter.grad, grad) for parameter, grad in zip(network.parameters(), kept, strict=True))


def test_the_network_is_left_as_it_was_after_an_exception_in_any_call(method: str) -> None:
    counting = Failing(mixed_state())
    run(counting, pictures(2), method)
    assert counting.calls >= 1
    for at in sorted({1, 2, counting.calls // 2, counting.calls} & set(range(1, counting.calls + 1))):
        network = Failing(mixed_state(), at)
        before = snapshot(network)
        with pytest.raises(InterruptionError):
            run(network, pictures(2), method)
        assert network.calls == at
        assert_unchanged(network, before)


def test_a_network_that_cannot_be_folded_is_explained_alike(method: str) -> None:
    images = pictures(2)
    # Folding rounds the logits at 1e-6; the kinks of ReLU and Adam's division magnify that.
    folded, plain = run(mixed_state(), images, method), run(Untraceable(mixed_state()), images, method)
    torch.testing.assert_close(folded.maps, plain.maps, rtol=0, atol=1e-2)


def test_the_images_are_left_as_they_were(method: str) -> None:
    images = pictures(2)
    before = images.clone()
    run(mixed_state(), images, method)
    assert torch.equal(images, before)


# Families of networks: torchvision's own classes, made small


@pytest.mark.parametrize("family", FAMILIES)
def test_torchvisions_families_are_explained(method: str, family: str) -> None:
    network, images = FAMILIES[family](), pictures(2, 32)
    before = snapshot(network)
    found = run(network, images, method, targets=1, **CHEAPEST.get(method, {}))
    assert "nan" not in found.status
    assert_unchanged(network, before)
    alone = run(network, images[1:], method, targets=1, **CHEAPEST.get(method, {}))
    torch.testing.assert_close(found.maps[1], alone.maps[0], rtol=0, atol=1e-3)


def test_a_vision_transformer_is_explained_or_refused(method: str) -> None:
    network, images = transformer(), pictures(2, 32)
    before = snapshot(network)
    found, refusal = None, ""
    try:
        found = run(network, images, method, **CHEAPEST.get(method, {}))
    except ValueError as error:
        refusal = str(error)
    if found is None:
        assert "tokens" in refusal
        assert "layer=" in refusal
    else:
        assert found.maps.shape == (2, 32, 32)
        assert set(found.status) <= {"ok", "flat"}
    assert_unchanged(network, before)


@pytest.fixture(scope="module")
def program() -> Exported:
    return Exported(torch.export.export(smooth(), (pictures(2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)))


def test_an_exported_program_is_explained_or_refused(method: str, program: Exported) -> None:
    images, before = pictures(2), snapshot(program)
    if METHODS[method].layer or method == "full_grad":
        with pytest.raises(ValueError, match="an exported program has no layers"):
            run(program, images, method)
    else:
        expected, found = run(smooth(), images, method), run(program, images, method)
        assert found.status == expected.status
        torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-2)  # as where a network is folded
    assert_unchanged(program, before)


# The work


def test_memory_does_not_grow_with_the_number_of_batches(method: str) -> None:
    classifier, images = Classifier.from_module(mixed_state(), Preprocess(resize=8, crop=8)), pictures(2, 8)

    def alive_after(batches: int) -> tuple[int, int]:
        for _ in range(batches):
            explain(classifier, images, method, **{**QUICK.get(method, {}), **CHEAPEST.get(method, {})})
        gc.collect()
        objects = gc.get_objects()
        return sum(issubclass(type(found), Tensor) for found in objects), len(objects)

    tensors, objects = alive_after(3)
    more_tensors, more_objects = alive_after(100)
    assert more_tensors == tensors
    # torch.fx keeps the source of what it compiles: a few objects per batch, and ten in Python 3.13 (1,001 after 100 batches).
    assert more_objects - objects < 11 * 100


@pytest.mark.parametrize("batch", [1, 3, None])
def test_progress_tells_of_every_pass(method: str, batch: int | None) -> None:
    told: list[int] = []
    result = run(smooth(), pictures(4), method, batch=batch, progress=told.append)
    assert all(passes > 0 for passes in told)
    assert sum(told) == result.passes * 4
    classifier = Classifier.from_module(smooth())
    assert result.passes == METHODS[method].cost(settings_of(method), classifier, pictures(1))
    assert result.passes >= METHODS[method].passes(settings_of(method), 16, 16)


def test_the_entry_says_whether_a_pass_has_a_backward(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = torch.autograd.grad, []
    monkeypatch.setattr(torch.autograd, "grad", lambda *inputs, **options: (calls.append(1), real(*inputs, **options))[1])
    run(smooth(), pictures(1), method)
    assert bool(calls) == METHODS[method].backward


def test_an_exception_of_the_listener_reaches_the_caller(method: str) -> None:
    def listen(_passes: int) -> None:
        raise InterruptionError

    network = mixed_state()
    before = snapshot(network)
    with pytest.raises(InterruptionError):
        run(network, pictures(1), method, progress=listen)
    assert_unchanged(network, before)


# CUDA


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnCuda:
    def test_the_maps_are_those_of_the_cpu(self, method: str) -> None:
        images = pictures(3)
        here, there = run(smooth(), images, method), run(smooth().to("cuda"), images.to("cuda"), method, precision="float32")
        assert there.maps.device.type == "cuda"
        assert there.status == here.status
        torch.testing.assert_close(there.maps.cpu(), here.maps, rtol=0, atol=1e-2)

    def test_a_batch_equals_its_singles(self, method: str) -> None:
        network, images = smooth().to("cuda"), pictures(3).to("cuda")
        together = run(network, images, method, precision="float32")
        for b in range(3):
            torch.testing.assert_close(
                together.maps[b], run(network, images[b : b + 1], method, precision="float32").maps[0], rtol=0, atol=1e-3
            )

    def test_bfloat16_which_is_the_default_there_gives_nearly_the_same_map(self, method: str) -> None:
        images = pictures(3)
        here, there = run(smooth(), images, method), run(smooth().to("cuda"), images.to("cuda"), method)
        for one, other in zip(here.maps, there.maps.cpu(), strict=True):
            assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.9

    def test_the_network_is_left_as_it_was(self, method: str) -> None:
        network = mixed_state().to("cuda")
        before = snapshot(network)
        run(network, pictures(2), method)
        assert_unchanged(network, before)
