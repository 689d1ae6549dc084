from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms import InterpolationMode

from hdm_core.preprocess import Preprocess

SIZES = [(300, 200), (200, 300), (256, 256), (257, 255), (20, 31), (31, 20), (500, 221), (224, 900), (1, 1), (640, 480)]
SMALL = Preprocess(resize=40, crop=32)
WIDE = Preprocess(resize=24, crop=32)  # the crop is larger than the image: padded


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def drawn(width: int, height: int, box: tuple[int, int, int, int]) -> tuple[Image.Image, Image.Image]:
    """Draw an image with a red rectangle, right and bottom edge excluded, and its mask."""
    image, mask = Image.new("RGB", (width, height)), Image.new("L", (width, height))
    inside = (box[0], box[1], box[2] - 1, box[3] - 1)
    ImageDraw.Draw(image).rectangle(inside, fill=(255, 0, 0))
    ImageDraw.Draw(mask).rectangle(inside, fill=255)
    return image, mask


def red(preprocess: Preprocess, image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(preprocess.cropped(image)))[:, :, 0] / 255


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize(
    "weights", ["MobileNet_V2_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V2", "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1"]
)
def test_is_the_weights_own_transform_bit_for_bit(width: int, height: int, weights: str) -> None:
    transforms = torchvision.models.get_weight(weights).transforms()
    image = photograph(width, height)
    assert torch.equal(Preprocess.from_weights(transforms)(image), transforms(image))


def test_the_default_is_what_most_weights_use() -> None:
    assert Preprocess.from_weights(torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()) == Preprocess()


def test_the_tensor_is_the_normalised_crop() -> None:
    image = photograph(70, 50)
    pixels = torch.from_numpy(np.array(SMALL.cropped(image))).permute(2, 0, 1) / 255
    expected = (pixels - torch.tensor(SMALL.mean)[:, None, None]) / torch.tensor(SMALL.std)[:, None, None]
    torch.testing.assert_close(SMALL(image), expected)


def test_black_is_black_after_normalisation() -> None:
    assert torch.equal(SMALL(Image.new("RGB", (50, 40))), SMALL.black().expand(3, 32, 32))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_crop_is_centred_and_square_up_to_rounding(width: int, height: int) -> None:
    left, top, right, bottom = Preprocess().crop_box(width, height)
    pixel = max(width, height) / 256 + min(width, height) / 256
    assert (left + right) / 2 == pytest.approx(width / 2, abs=pixel)
    assert (top + bottom) / 2 == pytest.approx(height / 2, abs=pixel)
    assert right - left == pytest.approx(min(width, height) * 224 / 256, rel=0.02, abs=pixel)


@pytest.mark.parametrize(("width", "height"), [(500, 333), (333, 500), (256, 256), (4288, 2848), (2056, 2124), (7, 300), (100, 99)])
def test_the_resized_image_is_that_of_torchvision(width: int, height: int) -> None:
    resized = torchvision.transforms.functional.resize(Image.new("L", (width, height)), [64])
    assert Preprocess(resize=64, crop=56).resized(width, height) == resized.size
    assert Preprocess(resize=64, crop=56).resized(*resized.size) == resized.size


def test_the_crop_box_by_hand() -> None:
    assert Preprocess(resize=4, crop=2).crop_box(8, 4) == (3, 1, 5, 3)
    assert Preprocess(resize=4, crop=2).crop_box(8, 16) == (2, 6, 6, 10)
    assert Preprocess(resize=4, crop=6).crop_box(4, 4) == (-1, -1, 5, 5)


@pytest.mark.parametrize("preprocess", [SMALL, WIDE, Preprocess(resize=41, crop=32), Preprocess(resize=23, crop=32)])
@pytest.mark.parametrize(("width", "height"), [(160, 120), (120, 160), (97, 61), (61, 97), (20, 15), (33, 33)])
@pytest.mark.parametrize("place", [(0.2, 0.3, 0.7, 0.6), (0.0, 0.0, 0.5, 1.0), (0.4, 0.1, 1.0, 0.9)])
class TestRegions:
    def box(self, width: int, height: int, place: tuple[float, ...]) -> tuple[int, int, int, int]:
        return int(place[0] * width), int(place[1] * height), int(place[2] * width), int(place[3] * height)

    def test_a_region_covers_the_coloured_part_of_the_crop(
        self, preprocess: Preprocess, width: int, height: int, place: tuple[float, ...]
    ) -> None:
        box = self.box(width, height, place)
        image, mask = drawn(width, height, box)
        crop = red(preprocess, image)
        # At a straight edge a pixel is more than half coloured where its centre is inside; 2/255 is the image's own rounding, twice.
        for region in (preprocess.region(mask), preprocess.region_of_box(box, width, height)):
            assert region.shape == crop.shape
            assert region.dtype == torch.bool
            assert region[crop > 0.5 + 2 / 255].all()
            assert (crop[region] > 0.25 - 2 / 255).all()

    def test_a_box_and_its_mask_have_one_region(self, preprocess: Preprocess, width: int, height: int, place: tuple[float, ...]) -> None:
        box = self.box(width, height, place)
        _, mask = drawn(width, height, box)
        assert torch.equal(preprocess.region(mask), preprocess.region_of_box(box, width, height))

    def test_the_crop_box_is_what_the_crop_shows(self, preprocess: Preprocess, width: int, height: int, place: tuple[float, ...]) -> None:
        box = self.box(width, height, place)
        image, _ = drawn(width, height, box)
        rows, columns = torch.where(red(preprocess, image) > 0.5)
        left, top, right, bottom = preprocess.crop_box(width, height)
        across, down = (right - left) / preprocess.crop, (bottom - top) / preprocess.crop
        # The coloured part of the crop, mapped to the photograph, is the part of the box inside the crop, up to one pixel of the crop.
        assert left + float(columns.min()) * across == pytest.approx(max(box[0], left), abs=1.01 * across)
        assert left + (float(columns.max()) + 1) * across == pytest.approx(min(box[2], right), abs=1.01 * across)
        assert top + float(rows.min()) * down == pytest.approx(max(box[1], top), abs=1.01 * down)
        assert top + (float(rows.max()) + 1) * down == pytest.approx(min(box[3], bottom), abs=1.01 * down)


def test_padding_is_outside_every_region() -> None:
    region = WIDE.region(Image.new("L", (50, 40), 255))
    assert not region[:4].any()
    assert region[4:28].any()
    assert not WIDE.region_of_box((0, 0, 50, 40), 50, 40)[:4].any()


@pytest.mark.parametrize(("grey", "inside"), [(127, False), (128, True), (255, True), (0, False)])
def test_grey_levels_from_one_half_up_are_inside(grey: int, inside: bool) -> None:
    assert bool(SMALL.region(Image.new("L", (40, 40), grey)).all()) is inside
    assert bool(SMALL.region(Image.new("L", (40, 40), grey)).any()) is inside


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_a_mask_may_be_of_any_mode(mode: str) -> None:
    _, mask = drawn(60, 50, (10, 10, 40, 30))
    assert torch.equal(SMALL.region(mask.convert(mode)), SMALL.region(mask))


def test_a_box_outside_the_crop_has_an_empty_region() -> None:
    assert not SMALL.region_of_box((0, 0, 5, 40), 400, 40).any()


@pytest.mark.parametrize("name", ["nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos"])
def test_every_interpolation_is_the_one_of_torchvision(name: str) -> None:
    preprocess = Preprocess(resize=40, crop=40, interpolation=InterpolationMode(name))
    image = photograph(70, 70)
    assert np.array_equal(np.array(image.resize((40, 40), preprocess.resampling)), np.array(preprocess.cropped(image)))
    assert Preprocess(40, 40, interpolation=name) == preprocess


def test_numbers_of_numpy_and_torch_are_those_of_python() -> None:
    mean, std = np.array([0.5, 0.25, 0.5], np.float32), torch.tensor([0.5, 0.5, 0.25])
    found = Preprocess(np.int64(40), torch.tensor(32), mean, std)
    assert found == Preprocess(40, 32, (0.5, 0.25, 0.5), (0.5, 0.5, 0.25))
    assert [type(value) for value in (found.resize, found.crop, found.mean[0])] == [int, int, float]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"resize": 0}, "resize must be at least 1"),
        ({"crop": 224.0}, "crop must be an integer"),
        ({"crop": True}, "crop must be an integer"),
        ({"std": (0.2, 0.0, 0.2)}, "std must be positive"),
        ({"interpolation": "cubic"}, "'cubic' is not a valid InterpolationMode"),
    ],
)
def test_a_preprocess_that_cannot_be(arguments: dict[str, object], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        Preprocess(**arguments)
