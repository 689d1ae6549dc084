from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, Preprocess, evaluate, explain, explain_with, get_method
from hdm_core.masking.hierarchical import hdm_passes
from hdm_core.methods import RawMaps
from hdm_core.settings import DMSettings
from hdm_core.testing.networks import attention_network
from tests.support import reference
from tests.support.tiny_networks import Constant, Pair, assert_unchanged, mixed_state, pictures, smooth, snapshot

QUICK = {"preset": "fast", "sizes": (2, 3), "ratios": (2,), "steps": 3, "learning_rate": 0.1, "eta": 2.0, "stages": 2, "mix_steps": 3}
CHEAP = {
    "hdm": QUICK,
    "dm": {"preset": "fast", "sizes": (2, 3), "steps": 3},
    "integrated_gradients": {"steps": 8},
    "rise": {"masks": 16},
    "mask": {"steps": 20},
}


@pytest.fixture
def classifier() -> Classifier:
    return Classifier.from_module(smooth())


# What goes in


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 16, 16),
        torch.zeros(1, 2, 3, 16, 16),
        torch.zeros(0, 3, 16, 16),
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(2, 3, 16, 16, dtype=torch.int64),
        torch.zeros(2, 3, 16, 16, dtype=torch.bool),
    ],
    ids=lambda images: f"{tuple(images.shape)} {images.dtype}",
)
def test_images_of_another_kind_are_refused(classifier: Classifier, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"images must be a batch of floats \(B, C, H, W\), not") as caught:
        explain(classifier, images)
    assert str(tuple(images.shape)) in str(caught.value)
    assert str(images.dtype) in str(caught.value)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_nothing_is_refused(classifier: Classifier, batch: int) -> None:
    with pytest.raises(ValueError, match=f"batch must be at least 1, not {batch}"):
        explain(classifier, pictures(1), batch=batch)


def test_a_batch_is_an_integer_of_python_numpy_or_torch(classifier: Classifier) -> None:
    images = pictures(3)
    expected = explain(classifier, images, "gradient").maps
    for batch in (np.int64(2), np.uint8(2), torch.tensor(2), np.array(2)):
        torch.testing.assert_close(explain(classifier, images, "gradient", batch=batch).maps, expected)
        found = evaluate(classifier, images, expected, np.int64(1), index=np.arange(3), batch=batch).values
        torch.testing.assert_close(found, evaluate(classifier, images, expected, 1).values, equal_nan=True)
    for wrong in (2.0, True, "2", np.float32(2), torch.tensor([1, 2]), torch.tensor(True)):
        with pytest.raises(TypeError, match="batch must be an integer, not"):
            explain(classifier, images, batch=wrong)


def test_targets_of_numpy_and_torch_are_those_of_python(classifier: Classifier) -> None:
    classifier.class_names = ("ant", "caf\u00e9", "bee")
    images = pictures(2)
    for targets in (1, np.int64(1), np.array(1), torch.tensor(1), "caf\u00e9", "cafe\u0301", np.str_("caf\u00e9"), np.array("caf\u00e9")):
        assert explain(classifier, images, "gradient", targets=targets).targets.tolist() == [1, 1]
    for targets in ([2, 1], np.array([2, 1]), [np.int64(2), "caf\u00e9"], np.array(["bee", "caf\u00e9"]), ("bee", torch.tensor(1))):
        assert explain(classifier, images, "gradient", targets=targets).targets.tolist() == [2, 1]
        assert evaluate(classifier, images, torch.rand(2, 16, 16), targets).deletion.shape == (2, 101)


def test_a_number_that_torch_would_count_from_the_end_is_refused(classifier: Classifier) -> None:
    images, maps = pictures(2), torch.rand(2, 16, 16)
    with pytest.raises(ValueError, match="target -1 is no class"):
        evaluate(classifier, images, maps, [0, -1])
    for index in ([0, -1], [0, 2]):
        with pytest.raises(ValueError, match=f"index {index[1]} is none of the 2 images"):
            evaluate(classifier, images, maps, 0, index=index)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_in_double_precision_has_the_same_map(method: str) -> None:
    images, settings = pictures(2), CHEAP.get(method, {})
    build = attention_network if METHODS[method].needs_attention else smooth
    found = explain(build().double(), images.double(), method, targets=1, **settings).maps
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, explain(build(), images, method, targets=1, **settings).maps, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_is_refused(dtype: torch.dtype) -> None:
    classifier = Classifier.from_module(smooth().to(dtype), Preprocess(16, 16))
    images = classifier.prepare([Image.new("RGB", (20, 20))])
    assert images.dtype == dtype
    with pytest.raises(ValueError, match=f"gradients in {dtype} round too much for a map: convert network and images, such as module"):
        explain(classifier, images, "gradient")
    with pytest.raises(ValueError, match="convert one, such as module"):
        explain(classifier, images.float(), "gradient")


def test_the_type_of_a_network_is_that_of_its_floating_point_parameters() -> None:
    mixed = nn.Sequential(nn.Conv2d(3, 4, 3).half(), nn.BatchNorm2d(4))
    assert Classifier.from_module(mixed).dtype is None
    assert Classifier.from_module(nn.Flatten()).dtype is None
    counted = nn.Sequential(nn.Flatten(), nn.Linear(2, 2).double())
    counted.register_parameter("steps", nn.Parameter(torch.tensor(1), requires_grad=False))
    assert Classifier.from_module(counted).dtype == torch.float64


def test_an_unknown_method_is_refused_with_those_to_choose_from(classifier: Classifier) -> None:
    with pytest.raises(ValueError, match="unknown method 'lime': choose from hdm, dm") as caught:
        explain(classifier, pictures(1), "lime")
    assert all(name in str(caught.value) for name in METHODS)


def test_a_mask_larger_than_the_image_is_refused(classifier: Classifier) -> None:
    with pytest.raises(ValueError, match="mask size 17 is not between 1 and the image's side 16"):
        explain(classifier, pictures(1), "dm", sizes=[17])


def test_a_network_with_another_answer_is_refused() -> None:
    network = Pair(mixed_state())
    before = snapshot(network)
    with pytest.raises(TypeError, match="must return logits"):
        explain(Classifier.from_module(network), pictures(1))
    assert_unchanged(network, before)


def test_the_wrong_number_of_channels_is_torchs_error_and_leaves_the_network_alone() -> None:
    network = mixed_state()
    before = snapshot(network)
    with pytest.raises(RuntimeError, match="channels"):
        explain(Classifier.from_module(network), pictures(1, channels=1))
    assert_unchanged(network, before)


# What comes out


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 24), (25, 16)])
@pytest.mark.parametrize("classes", [2, 3])
def test_hdm_gives_all_that_it_promises(height: int, width: int, classes: int) -> None:
    network, images = smooth(classes), pictures(3, height, width)
    result = explain(Classifier.from_module(network), images, "hdm", **QUICK)
    logits = network(images).detach()
    assert result.maps.shape == (3, height, width)
    assert result.maps.dtype == torch.float32
    assert result.stages.shape == (3, 2, height, width)
    assert result.stage_weights.sum(1).tolist() == pytest.approx([1, 1, 1])
    assert (result.stage_weights.diff(dim=1) <= 0).all()
    torch.testing.assert_close(result.logits, logits)
    assert torch.equal(result.targets, logits.argmax(1))
    assert result.targets.dtype == torch.int64
    settings = get_method("hdm").configure(**QUICK)
    assert result.passes == hdm_passes(settings, height, width)
    mixed = (result.stage_weights[:, :, None, None] * result.stages).sum(1)
    torch.testing.assert_close(result.maps, mixed)


@pytest.mark.parametrize("method", ["dm", "grad_cam"])
def test_only_hdm_has_stages(classifier: Classifier, method: str) -> None:
    result = explain(classifier, pictures(1), method)
    assert result.stages is None
    assert result.stage_weights is None


def test_one_channel_is_enough() -> None:
    assert explain(Classifier.from_module(smooth(channels=1)), pictures(2, channels=1), **QUICK).status == ["ok", "ok"]


def test_the_default_is_hdm_with_its_default_preset(classifier: Classifier) -> None:
    images = pictures(1)
    entry = get_method("hdm")
    expected = explain_with(classifier, images, "hdm", entry.presets[entry.default])
    assert torch.equal(explain(classifier, images).maps, expected.maps)


def test_a_setting_replaces_the_presets(classifier: Classifier) -> None:
    images = pictures(1)
    settings = get_method("dm").presets["paper-cub"].model_copy(update={"steps": 2, "sizes": (2, 3)})
    found = explain(classifier, images, "dm", preset="paper-cub", steps=2, sizes=[2, 3])
    assert torch.equal(found.maps, explain_with(classifier, images, "dm", settings).maps)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("baseline", ["mean", "blur"])
@pytest.mark.parametrize("activation", ["logit", "probability"])
def test_hdm_from_the_front_door_is_the_slow_one(baseline: str, activation: str) -> None:
    network, images, targets = smooth().requires_grad_(False), pictures(2, 12), [1, 0]
    changes = {"noise": 0.0, **QUICK, "baseline": baseline, "activation": activation, "keep_fraction": 0.4, "eta": 0.5}
    settings = get_method("hdm").configure(**changes)
    result = explain(Classifier.from_module(network), images, "hdm", targets=targets, **changes)
    block = reference.HDM(**{field: getattr(settings, field) for field in reference.HDM.__dataclass_fields__ if field != "backgrounds"})
    # A Gaussian of 12 / 20 pixels on 3 pixels, mirrored at the edges without the edge itself.
    ends, middle = torch.tensor(-1 / (2 * 0.6**2)).exp(), 1.0
    kernel = torch.tensor([ends, middle, ends]) / (2 * ends + middle)
    for b, image in enumerate(images):
        muted = torch.zeros_like(image)
        if baseline == "blur":
            place = [1, *range(12), 10]
            for y in range(12):
                for x in range(12):
                    for i in range(3):
                        for j in range(3):
                            muted[:, y, x] += kernel[i] * kernel[j] * image[:, place[y + i], place[x + j]]

        def score(x: Tensor, target: int = targets[b]) -> Tensor:
            logits = network(x[None])[0]
            return (logits.softmax(0) if activation == "probability" else logits)[target]

        expected, _, shares = block.hdm(score, image, muted)
        torch.testing.assert_close(result.maps[b].double(), expected, rtol=0, atol=1e-5)  # maps are float32
        torch.testing.assert_close(result.stage_weights[b], shares, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["hdm", "dm"])
def test_an_answer_that_never_changes_gives_flat_maps(method: str) -> None:
    result = explain(Classifier.from_module(Constant()), pictures(2), method)
    assert result.status == ["flat", "flat"]
    assert torch.equal(result.maps, torch.zeros(2, 16, 16))


def test_a_class_that_is_certain_gives_flat_maps() -> None:
    # Logits so far apart have the softmax 1 and 0, whatever the image shows.
    network = smooth(classes=2)
    with torch.no_grad():
        network[-1].bias.copy_(torch.tensor([1e3, 0.0]))
    result = explain(Classifier.from_module(network), pictures(2), "hdm", "fast", activation="probability")
    assert result.status == ["flat", "flat"]


def test_a_map_that_says_nothing_is_blank_and_has_a_status(monkeypatch: pytest.MonkeyPatch, classifier: Classifier) -> None:
    good = torch.linspace(0, 1, 16 * 16).reshape(16, 16)
    cases = {"ok": good, "flat": torch.full((16, 16), 0.4), "nan": good.clone()}
    cases["nan"][3, 3] = torch.nan
    infinite, empty = good.clone(), torch.full((16, 16), torch.nan)
    infinite[0, 0] = torch.inf
    maps = torch.stack([*cases.values(), infinite, empty])
    stub = replace(get_method("dm"), run=lambda job, _settings: RawMaps(maps[: len(job.images)].double()))
    monkeypatch.setitem(METHODS, "dm", stub)
    result = explain(classifier, pictures(5), "dm")
    assert result.status == ["ok", "flat", "nan", "nan", "nan"]
    assert torch.equal(result.maps[0], good)
    assert torch.equal(result.maps[1:], torch.zeros(4, 16, 16))
    assert result.maps.dtype == torch.float32


@pytest.mark.parametrize("changes", [{}, {"activation": "probability"}, {"baseline": "blur"}], ids=str)
def test_dm_is_hdm_of_one_stage(classifier: Classifier, changes: dict[str, str]) -> None:
    block = {name: value for name, value in QUICK.items() if name in {*DMSettings.model_fields, "preset"}}
    one, dm = (
        explain(classifier, pictures(2), "hdm", **{**QUICK, "stages": 1}, **changes),
        explain(classifier, pictures(2), "dm", **block, **changes),
    )
    assert torch.equal(one.maps, dm.maps)
    assert one.passes == dm.passes
    assert changes == {} or not torch.equal(dm.maps, explain(classifier, pictures(2), "dm", **block).maps)


# How it is called


def test_it_works_where_gradients_are_switched_off(classifier: Classifier) -> None:
    images = pictures(2)
    expected = explain(classifier, images, **QUICK).maps
    with torch.no_grad():
        assert torch.equal(explain(classifier, images, **QUICK).maps, expected)
        assert not torch.is_grad_enabled()


def test_images_that_carry_gradients_get_none(classifier: Classifier) -> None:
    images = pictures(2).requires_grad_()
    result = explain(classifier, images, **QUICK)
    assert not result.maps.requires_grad
    assert images.grad is None


def test_the_images_are_left_alone(classifier: Classifier) -> None:
    images = pictures(2)
    before = images.clone()
    explain(classifier, images, **QUICK)
    assert torch.equal(images, before)


def test_the_same_call_gives_the_same_maps_whatever_the_random_state(classifier: Classifier) -> None:
    first = explain(classifier, pictures(2), **QUICK)
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    assert torch.equal(explain(classifier, pictures(2), **QUICK).maps, first.maps)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_strided_images_are_images(classifier: Classifier) -> None:
    images = pictures(2)
    strided = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(explain(classifier, strided, **QUICK).maps, explain(classifier, images, **QUICK).maps, rtol=0, atol=1e-4)


def test_mobilenet_is_explained_where_its_evidence_is() -> None:
    """One half of the image is grey: there is no evidence in it."""
    classifier = Classifier.from_torchvision("mobilenet_v2", weights="IMAGENET1K_V1")
    images = torch.zeros(1, 3, 96, 96)
    images[..., :48] = pictures(1, 96, 48, seed=2)
    result = explain(classifier, images, "dm", sizes=[4], ratios=[5], steps=25, learning_rate=0.05, keep_fraction=0.3)
    assert result.status == ["ok"]
    assert result.maps[0, :, :48].mean() > 2 * result.maps[0, :, 52:].mean()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", ["hdm", "dm", "grad_cam"])
def test_images_may_lie_on_another_device_than_the_network(method: str) -> None:
    classifier = Classifier.from_module(nn.Sequential(*smooth())).to("cuda")
    result = explain(classifier, pictures(2), method)
    assert result.maps.device.type == "cuda"
