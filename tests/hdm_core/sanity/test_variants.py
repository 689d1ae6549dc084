"""Other classes, draws, images and checkpoints, and the comparison of maps."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hdm_core import Classifier, Preprocess, get_method
from hdm_core.draws import draws_of_seed, method_generator
from hdm_core.sanity import (
    Compute,
    LeftOutError,
    Maps,
    Subject,
    advantages,
    answers,
    as_jpeg,
    compare,
    compare_with_next,
    explain_variant,
    noisy,
    other_checkpoint,
    other_classes,
    recompressed,
    repeats,
)
from hdm_core.settings import Settings
from hdm_core.similarity import spearman
from tests.support.tiny_networks import pictures, smooth


def subject_of(classifier: Classifier | nn.Module, images: Tensor) -> tuple[Subject, Tensor]:
    classifier = classifier if isinstance(classifier, Classifier) else Classifier.from_module(classifier)
    logits = answers(classifier, images, 2)
    return Subject(classifier, images, logits.argmax(1)), logits


def settings_of(method: str, **changes: object) -> Settings:
    return get_method(method).configure(**changes)


def maps_of(values: list[list[list[float]]], *status: str) -> Maps:
    return Maps(np.array(values, np.float16), list(status) or ["ok"] * len(values))


# Classes


def test_the_other_classes_are_the_likeliest_and_a_random_one_of_the_rest() -> None:
    subject, logits = subject_of(smooth(5), pictures(6))
    second, third = other_classes(subject, logits, 0)
    assert second.targets.tolist() == logits.topk(2).indices[:, 1].tolist()
    for place in range(6):
        assert int(third.targets[place]) not in {int(subject.targets[place]), int(second.targets[place])}
    (_, again), (_, other) = other_classes(subject, logits, 0), other_classes(subject, logits, 3)
    assert torch.equal(again.targets, third.targets)
    assert not torch.equal(other.targets, third.targets)


def test_two_classes_have_one_other_class() -> None:
    subject, logits = subject_of(smooth(2), pictures(3))
    assert [variant.stage for variant in other_classes(subject, logits, 0)] == ["likeliest other class"]


@pytest.mark.parametrize(
    ("classes", "problem_type", "reason"),
    [(1, "multi_label_classification", "one logit"), (3, "regression", "a regression"), (1, "single_label_classification", "one class")],
)
def test_a_network_without_other_classes_is_left_out(classes: int, problem_type: str, reason: str) -> None:
    subject, logits = subject_of(Classifier(smooth(classes), problem_type=problem_type), pictures())  # type: ignore[arg-type]
    with pytest.raises(LeftOutError, match=reason):
        list(other_classes(subject, logits, 0))


def test_a_contrast_has_no_other_class() -> None:
    subject, logits = subject_of(smooth(), pictures())
    with pytest.raises(LeftOutError, match="rather than another"):
        list(other_classes(Subject(subject.classifier, subject.images, subject.targets, (subject.targets + 1) % 3), logits, 0))


# Draws


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("smooth_grad", {"samples": 3}),
        ("rise", {"masks": 20}),
        ("expected_gradients", {"samples": 3}),
        ("mask", {"steps": 3, "cell": 2, "blur": 1.5, "jitter": 4}),
        ("hdm", {"sizes": [4], "ratios": [2], "steps": 3, "stages": 1, "mix_steps": 2, "noise": 0.5}),
    ],
)
def test_methods_that_draw_have_other_maps_with_another_seed_and_the_same_bits_with_the_same(
    method: str, changes: dict[str, object]
) -> None:
    subject, _ = subject_of(smooth(), pictures(2, 20))
    settings = settings_of(method, **changes)
    original = explain_variant(subject, method, settings, Compute())
    same, other = repeats(subject)
    assert compare(original, explain_variant(same, method, settings, Compute())).equal.tolist() == [1, 1]
    assert compare(original, explain_variant(other, method, settings, Compute())).equal.tolist() == [0, 0]


def test_a_method_that_draws_nothing_has_the_same_map_with_every_seed() -> None:
    subject, _ = subject_of(smooth(), pictures())
    original = explain_variant(subject, "gradient", settings_of("gradient"), Compute())
    assert [
        compare(original, explain_variant(each, "gradient", settings_of("gradient"), Compute())).equal.tolist() for each in repeats(subject)
    ] == [[1] * 3] * 2


def test_the_seed_of_draws_is_restored_after_an_exception() -> None:
    def fail() -> None:
        with draws_of_seed(5):
            assert method_generator().initial_seed() == 5
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert method_generator().initial_seed() == 0


# Images


def test_noise_is_a_share_of_the_range_from_black_to_white_in_each_channel() -> None:
    preprocess = Preprocess(resize=64, crop=64, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 1.0))
    subject, logits = subject_of(Classifier.from_module(smooth(), preprocess), pictures(4, 64))
    weak, strong = noisy(subject, logits, 0, 2, (0.01, 0.05))
    difference = strong.images - subject.images
    for channel, std in enumerate(preprocess.std):
        assert float(difference[:, channel].std()) == pytest.approx(0.05 / std, rel=0.03)
    torch.testing.assert_close(difference, 5 * (weak.images - subject.images), rtol=1e-3, atol=1e-5)


def test_images_whose_class_changes_are_counted_and_not_compared() -> None:
    subject, logits = subject_of(smooth(), pictures(6))
    (variant,) = noisy(subject, logits, 0, 3, (3.0,))
    predicted = answers(subject.classifier, variant.images, 6).argmax(1)
    assert variant.concerned is not None
    assert variant.concerned.tolist() == (predicted == subject.targets).tolist()
    assert not variant.concerned.all()
    maps = explain_variant(subject, "gradient", settings_of("gradient"), Compute())
    found = compare(maps, maps, variant.concerned)
    assert [each == "changed" for each in found.status] == (~variant.concerned).tolist()
    assert np.isnan(found.spearman[np.array(found.status) == "changed"]).all()


def test_a_photograph_is_compressed_as_pillow_does_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
    found = as_jpeg(Image.fromarray(pixels))
    assert found is not None
    assert np.array_equal(np.asarray(found), np.asarray(Image.open(buffer)))
    assert as_jpeg(pixels.astype(np.float32) / 255) is None
    assert as_jpeg(Image.new("RGBA", (4, 4))) is None
    subject, logits = subject_of(smooth(), pictures())
    assert recompressed(subject, logits, subject.images, 2).concerned.all()  # type: ignore[union-attr]


def test_another_checkpoint_concerns_the_images_that_it_predicts_as_the_same_class() -> None:
    subject, logits = subject_of(smooth(), pictures(6))
    other = Classifier.from_module(smooth(seed=1))
    variant = other_checkpoint(subject, logits, other, subject.images, 2)
    assert variant.concerned is not None
    assert variant.concerned.tolist() == (answers(other, subject.images, 6).argmax(1) == subject.targets).tolist()
    with pytest.raises(LeftOutError, match="4 classes, not 3"):
        other_checkpoint(subject, logits, Classifier.from_module(smooth(4)), subject.images, 2)
    with pytest.raises(LeftOutError, match="maps of 8 x 8 pixels, not 16 x 16"):
        other_checkpoint(subject, logits, other, pictures(6, 8), 2)


# Comparison


def test_flat_and_failed_maps_are_counted_and_never_compared() -> None:
    one = maps_of([[[0, 1]], [[0, 1]], [[0, 0]], [[0, 1]]], "ok", "ok", "flat", "nan")
    other = maps_of([[[0, 1]], [[1, 0]], [[0, 1]], [[0, 1]]], "ok", "ok", "ok", "failed")
    found = compare(one, other)
    assert found.status == ["ok", "ok", "flat", "failed"]
    assert found.spearman[:2].tolist() == [1, -1]
    assert np.isnan(found.spearman[2:]).all()
    assert found.equal[:2].tolist() == [1, 0]
    assert np.isnan(found.equal[2:]).all()


def test_a_map_is_compared_with_that_of_the_next_image() -> None:
    maps = maps_of([[[0, 1, 2]], [[0, 2, 1]], [[2, 1, 0]]])
    expected = [float(spearman(maps.values[i : i + 1], maps.values[(i + 1) % 3 : (i + 1) % 3 + 1])[0]) for i in range(3)]
    assert compare_with_next(maps).spearman.tolist() == expected == [0.5, -0.5, -1.0]


def test_an_image_that_fails_costs_the_others_nothing() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = smooth()

        def forward(self, images: Tensor) -> Tensor:
            if (images > 50).any():
                raise ValueError("too bright")
            return self.network(images)

    images = pictures(3)
    images[1] += 100
    subject = Subject(Classifier.from_module(Picky()), images, torch.zeros(3, dtype=torch.int64))
    maps = explain_variant(subject, "gradient", settings_of("gradient"), Compute())
    assert maps.status == ["ok", "failed", "ok"]
    assert "too bright" in maps.error
    clean = Subject(subject.classifier, images[[0, 2]], subject.targets[:2])
    expected = explain_variant(clean, "gradient", settings_of("gradient"), Compute()).values
    np.testing.assert_allclose(maps.values[[0, 2]], expected, atol=1e-3)  # float16 of batches of one and of two images


def test_localisation_is_the_proportion_beyond_that_of_the_best_control() -> None:
    regions = torch.tensor([[[True, False]], [[True, False]], [[False, False]]])
    maps = maps_of([[[0.75, 0.25]], [[0, 0]], [[1, 0]]], "ok", "flat", "ok")
    controls = {"bad": maps_of([[[0, 1]]] * 3), "good": maps_of([[[0.5, 0.5]]] * 3)}
    best, values = advantages(maps, controls, regions)
    assert best == "good"
    assert values[0] == 0.25
    assert values[1:].isnan().all()  # a flat map, and an image without a region
