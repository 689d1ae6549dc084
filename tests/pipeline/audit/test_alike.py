from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.audit.alike import alike_places, look_alike
from pipeline.audit.finding import Finding
from pipeline.audit.place import bounding_box
from pipeline.audit.review import _action
from pipeline.audit.spatial import in_middle
from pipeline.audit.tested import corrected, merged


def pictures(count: int, seed: int) -> Tensor:
    """Smooth noise, as photographs have: neighbouring pixels are alike."""
    noise = torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=(64, 64), mode="bicubic")


@pytest.mark.parametrize("marked", [4, 12, 40])
def test_a_mark_in_some_images_is_found_with_its_box_and_its_images(marked: int) -> None:
    own, others = pictures(40, 0), pictures(90, 1)
    own[:marked, :, 3:11, 52:62] = 2.0
    own[:marked, 1, 5:8, 54:58] = -2.0
    place = alike_places(own, others)[0]
    assert place.images.tolist() == list(range(marked))
    assert bounding_box(place.pixels) == (52, 3, 62, 11)


def test_a_frame_is_one_place_that_leaves_the_middle_free() -> None:
    own, others = pictures(20, 2), pictures(60, 3)
    frame = torch.ones(64, 64, dtype=torch.bool)
    frame[4:-4, 4:-4] = False
    own[:, :, frame] = -2.0
    place = alike_places(own, others)[0]
    np.testing.assert_array_equal(place.pixels, frame.numpy())


def test_images_without_a_mark_and_objects_at_changing_places_have_no_place() -> None:
    rng, own, others = np.random.default_rng(0), pictures(40, 4), pictures(90, 5)
    assert alike_places(own, others) == []
    for image in own:
        top, left = rng.integers(0, 44, 2)
        image[:, top : top + 20, left : left + 20] = 2.0
    assert alike_places(own, others) == []
    assert alike_places(own[:2], others) == []
    assert alike_places(own, others[:0]) == []


def test_images_look_alike_as_a_slow_loop_says() -> None:
    own, others = torch.randn(5, 2, 32, 32), torch.randn(4, 2, 32, 32)
    own[:3, :, 8:12, 4:8] = own[0, :, 8:12, 4:8].clone() + 0.01 * torch.randn(3, 2, 4, 4)
    found = look_alike(own, others)
    patches, other_patches = own[:, :, 8:12, 4:8].flatten(1), others[:, :, 8:12, 4:8].flatten(1)
    for number in range(5):
        distances = sorted(float((patches[number] - patches[other]).norm()) for other in range(5) if other != number)
        nearest = min(float((patches[number] - patch).norm()) for patch in other_patches)
        assert bool(found[number, 8, 4]) == (distances[1] <= 0.5 * nearest)
    assert found[:3, 8, 4].all()


def test_places_that_reach_into_the_middle_are_recognised() -> None:
    pixels = np.zeros((60, 60), bool)
    pixels[:20, 10:50] = True
    assert not in_middle(pixels)
    pixels[20:30, 10:50] = True  # 200 of 1,200 pixels are in the middle
    assert not in_middle(pixels)
    pixels[30:40, 20:40] = True
    assert in_middle(pixels)


def test_findings_of_one_place_are_joined_corrected_and_only_marks_are_removed() -> None:
    maps = Finding("a", "spatial", "grad_cam", 9, "maps", box=(0, 0, 40, 40), confirmed=False, p=0.001, share=0.5)
    alike = Finding("a", "spatial", "grad_cam", 9, "alike", box=(3, 3, 9, 9), confirmed=True, causal_p=0.03)
    (joined,) = merged([maps], [alike])
    assert (joined.box, joined.p, joined.share) == ((3, 3, 9, 9), 0.001, 0.5)
    assert len(merged([replace(maps, box=(20, 20, 40, 40))], [alike])) == 2
    assert len(merged([maps], [replace(alike, confirmed=False)])) == 2
    first, second = corrected([joined, replace(joined, class_name="b", causal_p=0.001)])
    assert (first.confirmed, second.confirmed) == (True, True)  # Holm: 0.002 and 0.03
    assert [each.confirmed for each in corrected([joined, joined, joined])] == [False] * 3  # 0.09 each
    assert _action([joined]) == "remove"
    assert _action([replace(joined, kind="background")]) == "open"
