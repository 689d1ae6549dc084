from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hdm_core.masking import hierarchical
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.hierarchical import hdm_passes, hierarchical_mask, mix_stages, optimize_stage_weights, stage_weights
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.methods.presets import HDM_PRESETS
from hdm_core.settings import HDMSettings
from tests.support import reference
from tests.support.tiny_networks import pictures, smooth

SETTINGS = HDMSettings(
    sizes=(2, 3),
    ratios=(2,),
    steps=5,
    learning_rate=0.08,
    eta=2.0,
    keep_fraction=0.5,
    stages=3,
    mix_steps=12,
    mix_learning_rate=0.1,
    mix_weight=0.1,
)
TARGETS = torch.tensor([2, 0])
SHARES = st.lists(st.floats(-3, 3).filter(lambda v: abs(v) > 1e-3), min_size=1, max_size=6)


def loss_of(images: Tensor, baseline: Tensor, passes: PassCounter, settings: HDMSettings = SETTINGS) -> ConsistencyLoss:
    network = smooth().requires_grad_(False)
    return ConsistencyLoss(network, images, TARGETS[: len(images)], baseline, settings.activation, 16, passes, relative=settings.relative)


def reference_of(settings: HDMSettings) -> reference.HDM:
    return reference.HDM(**{field: value for field, value in settings if field in reference.HDM.__dataclass_fields__})


def score_of(target: int) -> reference.Score:
    network = smooth().requires_grad_(False)
    return lambda image: network(image[None])[0, target]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("kind", ["mean", "one per image"])
def test_hdm_equals_the_reference(stages: int, kind: str) -> None:
    settings = SETTINGS.model_copy(update={"stages": stages})
    images = pictures(2, 12, 14)
    baseline = torch.zeros(1, 3, 1, 1) if kind == "mean" else 0.4 * images.flip(2)
    passes = PassCounter()
    maps, masks, weights = hierarchical_mask([(loss_of(images, baseline, passes, settings), settings)], settings)
    assert maps.shape == (2, 12, 14)
    assert masks.shape == (2, stages, 12, 14)
    for b, image in enumerate(images):
        expected = reference_of(settings).hdm(score_of(int(TARGETS[b])), image, baseline[b % len(baseline)])
        # float64 on both sides; the difference is rounding, magnified by Adam and N in every stage.
        for found, value in zip((maps[b], masks[b], weights[b]), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=0, atol=1e-6)
    assert passes.total == 2 * hdm_passes(settings, 12, 14)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("with_start", [False, True], ids=["from tau", "from a map"])
@pytest.mark.parametrize("changes", [{"stage_unit": "remaining"}, {"mixing": "sum"}, {"stage_unit": "remaining", "mixing": "sum"}], ids=str)
def test_sums_of_stages_in_units_of_what_is_left_equal_the_reference(stages: int, with_start: bool, changes: dict[str, str]) -> None:
    settings = SETTINGS.model_copy(update={"stages": stages, "relative": True, "eta": 0.5, **changes})
    images, baseline, passes = pictures(3, 12, 14)[:2], torch.zeros(1, 3, 1, 1), PassCounter()
    start = torch.rand(2, 1, 12, 14, generator=torch.Generator().manual_seed(5)) if with_start else None
    if start is not None:
        start[1] = 0.0  # a flat map: tau
    maps, masks, weights = hierarchical_mask([(loss_of(images, baseline, passes, settings), settings)], settings, start)
    for b, image in enumerate(images):
        cam = None if start is None else start[b, 0]
        expected = reference_of(settings).hdm(score_of(int(TARGETS[b])), image, baseline[0], cam)
        for found, value in zip((maps[b], masks[b], weights[b]), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=0, atol=1e-6)
    assert passes.total == 2 * hdm_passes(settings, 12, 14)


@pytest.mark.usefixtures("double")
def test_an_ensemble_is_n_of_the_sum_of_its_blocks() -> None:
    settings = SETTINGS.model_copy(update={"stages": 1, "ensemble": ({"eta": 0.3, "steps": 3}, {"sizes": (4,)})})
    images, passes = pictures(2, 12, 14), PassCounter()
    members = [(loss_of(images, torch.zeros(1, 3, 1, 1), passes), member) for member in settings.members()]
    maps, _, _ = hierarchical_mask(members, settings)
    assert passes.total == 2 * hdm_passes(settings, 12, 14)
    for b, image in enumerate(images):
        blocks = ({}, *settings.ensemble)
        alone = [
            reference_of(settings.model_copy(update=changes)).dm(score_of(int(TARGETS[b])), image, torch.zeros(3, 1, 1))
            for changes in blocks
        ]
        torch.testing.assert_close(maps[b], reference.N(sum(alone)), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("double")
def test_the_second_stage_gets_the_image_without_what_the_first_found(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(2, 12)
    seen: list[Tensor] = []
    of = ConsistencyLoss.for_images

    def watch(self: ConsistencyLoss, x: Tensor, own_unit: bool) -> ConsistencyLoss:
        seen.append(x)
        return of(self, x, own_unit)

    monkeypatch.setattr(ConsistencyLoss, "for_images", watch)
    _, masks, _ = hierarchical_mask([(loss_of(images, torch.zeros(1, 3, 1, 1), PassCounter()), SETTINGS)], SETTINGS)
    assert len(seen) == 2
    for stage in (1, 2):
        for b in range(2):
            expected = (1 - reference.N(masks[b, :stage].sum(0))) * images[b]
            torch.testing.assert_close(seen[stage - 1][b], expected, rtol=0, atol=1e-12)


@given(SHARES)
def test_stage_weights_sum_to_one_and_never_grow(v: list[float]) -> None:
    weights = stage_weights(torch.tensor([v], dtype=torch.float64))[0]
    assert float(weights.sum()) == pytest.approx(1)
    assert (weights.diff() <= 0).all()
    assert (weights >= 0).all()


@given(SHARES)
def test_stage_weights_are_eq_3(v: list[float]) -> None:
    w = [sum(value**2 for value in v[j:]) for j in range(len(v))]
    assert stage_weights(torch.tensor([v], dtype=torch.float64))[0].tolist() == pytest.approx([each / sum(w) for each in w])


def test_equal_v_gives_falling_stage_weights() -> None:
    assert stage_weights(torch.ones(1, 3))[0].tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])


@given(SHARES)
def test_a_mixture_of_full_masks_is_full(v: list[float]) -> None:
    weights = stage_weights(torch.tensor([v], dtype=torch.float64))
    assert mix_stages(torch.ones(1, len(v), 2, 2, dtype=torch.float64), weights).flatten().tolist() == pytest.approx([1] * 4)


@pytest.mark.usefixtures("double")
def test_mixing_lowers_its_loss_and_keeps_the_weights_in_order() -> None:
    images = pictures(2, 12)
    masks = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(3)) ** 3
    settings = SETTINGS.model_copy(update={"mix_steps": 60, "mix_learning_rate": 0.05, "mix_weight": 1e-4})
    weights = optimize_stage_weights(masks, loss_of(images, torch.zeros(1, 3, 1, 1), PassCounter()), settings)
    assert weights.sum(1).tolist() == pytest.approx([1, 1])
    assert (weights.diff(dim=1) <= 0).all()
    assert not weights.requires_grad
    for b, image in enumerate(images):
        score = score_of(int(TARGETS[b]))

        def loss(share: Tensor, b: int = b, image: Tensor = image, score: reference.Score = score) -> float:
            fused = (share[:, None, None] * masks[b]).sum(0)
            return float((score(fused * image) - score(image)) ** 2 + settings.mix_weight * fused.mean())

        assert loss(weights[b]) < loss(stage_weights(torch.ones(1, 3))[0])


@pytest.mark.usefixtures("double")
def test_mixing_is_independent_of_the_other_images() -> None:
    images = pictures(2, 12)
    masks = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    together = optimize_stage_weights(masks, loss_of(images, torch.zeros(1, 3, 1, 1), PassCounter()), SETTINGS)
    alone = optimize_stage_weights(masks[:1], loss_of(images[:1], torch.zeros(1, 3, 1, 1), PassCounter()), SETTINGS)
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-9)


def test_a_map_never_exceeds_one_by_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = stage_weights(torch.randn(100, 3, generator=torch.Generator().manual_seed(0)))
    full = torch.ones(100, 1, 8, 8)
    assert mix_stages(full.expand(-1, 3, -1, -1), weights).max() > 1
    monkeypatch.setattr(hierarchical, "ensemble_mask", lambda _members, _start: full)
    monkeypatch.setattr(hierarchical, "optimize_stage_weights", lambda _masks, _consistency, _settings: weights)
    unused = SimpleNamespace(baseline=torch.zeros(1), contrast=torch.zeros(1), for_images=lambda _images, _own_unit: None)
    maps, _, _ = hierarchical_mask([(unused, SETTINGS)], SETTINGS)
    assert maps.max() == 1


def test_one_stage_is_not_mixed() -> None:
    settings = SETTINGS.model_copy(update={"stages": 1})
    images, baseline = pictures(2, 12), torch.zeros(1, 3, 1, 1)
    maps, masks, weights = hierarchical_mask([(loss_of(images, baseline, PassCounter(), settings), settings)], settings)
    assert torch.equal(maps, masks[:, 0])
    assert torch.equal(weights, torch.ones(2, 1))


@pytest.mark.parametrize(("preset", "passes"), [("paper-cub", 134_800), ("paper-pm", 26_400)])
def test_the_papers_passes(preset: str, passes: int) -> None:
    assert hdm_passes(HDM_PRESETS[preset], 224, 224) == passes


def test_a_single_stage_costs_no_mixing() -> None:
    three = SETTINGS.model_copy(update={"stages": 3})
    one = SETTINGS.model_copy(update={"stages": 1})
    assert hdm_passes(three, 16, 16) == 3 * hdm_passes(one, 16, 16) + three.mix_steps
