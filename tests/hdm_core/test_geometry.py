"""Every combination of resize, pad and crop: against torchvision, pixel by pixel, and there and back."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from hdm_core import Preprocess
from hdm_core.geometry import Geometry

LANDSCAPE, PORTRAIT, SQUARE, SMALL = (97, 61), (61, 97), (80, 80), (20, 15)
PHOTOGRAPHS = [LANDSCAPE, PORTRAIT, SQUARE, SMALL]
RESIZES: list[Any] = [None, 40, 41, (40, 40), (48, 32), (31, 45)]
CROPS: list[Any] = [None, 32, (40, 24), (24, 41), 56, 120]
COMBINATIONS = [
    {"resize": resize, "crop": crop, "pad": pad}
    for resize, crop, pad in itertools.product(RESIZES, CROPS, (False, True))
    if not (pad and resize is None) and not (crop is None and not isinstance(resize, tuple) and not pad)
]


def photograph(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def by_torchvision(image: Image.Image, fill: int = 0, **settings: Any) -> Tensor:
    """Preprocess with torchvision's own functions: resize to a size computed here, then pad and crop at the centre."""
    resize, crop, interpolation = settings["resize"], settings["crop"], InterpolationMode.BILINEAR
    if settings["pad"]:
        height, width = (resize, resize) if isinstance(resize, int) else resize
        shrink = max(image.height / height, image.width / width)
        image = F.resize(image, [round(image.height / shrink), round(image.width / shrink)], interpolation)
        crop = crop or (height, width)
    elif resize is not None:
        image = F.resize(image, [resize] if isinstance(resize, int) else list(resize), interpolation)
    if crop is not None:
        height, width = (crop, crop) if isinstance(crop, int) else crop
        across, down = max(0, width - image.width), max(0, height - image.height)
        image = F.pad(image, [across // 2, down // 2, (across + 1) // 2, (down + 1) // 2], fill=fill)
        image = F.center_crop(image, [height, width])
    tensor: Tensor = F.normalize(F.to_tensor(image), [0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    return tensor


@pytest.mark.parametrize("size", PHOTOGRAPHS)
@pytest.mark.parametrize("settings", COMBINATIONS)
@pytest.mark.parametrize("fill", [0, 114])
def test_every_combination_is_torchvisions(settings: dict[str, Any], size: tuple[int, int], fill: int) -> None:
    image = photograph(*size)
    preprocess = Preprocess(**settings, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), fill=fill / 255)
    ours = preprocess(image)
    assert ours.shape == (3, *preprocess.size)
    torch.testing.assert_close(ours, by_torchvision(image, fill, **settings), rtol=0, atol=1e-6)
    shown = torch.from_numpy(np.array(preprocess.cropped(image))).permute(2, 0, 1) / 255
    torch.testing.assert_close(ours, F.normalize(shown, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))


@pytest.mark.parametrize("settings", [{"resize": (48, 32)}, {"resize": 40, "pad": True}, {"resize": (31, 45), "crop": (24, 41)}])
def test_floats_have_the_geometry_of_bytes(settings: dict[str, Any]) -> None:
    """An array of floats is resized and placed as an image of 8 bits is, up to that image's own rounding."""
    image = photograph(*LANDSCAPE)
    preprocess = Preprocess(**{"crop": None, **settings}, mean=(0.0,) * 3, std=(1.0,) * 3, fill=0.25)
    torch.testing.assert_close(preprocess(np.asarray(image) / 255), preprocess(image), rtol=0, atol=1.01 / 255)


def test_each_channel_has_its_own_fill() -> None:
    preprocess = Preprocess((4, 8), None, (0.0,) * 3, (1.0,) * 3, pad=True, fill=(0.2, 0.4, 0.6))
    found = preprocess(Image.new("RGB", (10, 10), "white"))
    assert torch.equal(found[:, :, 2:6], torch.ones(3, 4, 4))
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([51, 102, 153]) / 255)
    torch.testing.assert_close(found[:, 3, 7], torch.tensor([51, 102, 153]) / 255)


# There and back


@pytest.mark.parametrize("size", PHOTOGRAPHS)
@pytest.mark.parametrize("settings", COMBINATIONS)
def test_a_point_goes_there_and_back(settings: dict[str, Any], size: tuple[int, int]) -> None:
    geometry = Preprocess(**settings).geometry(*size)
    for x, y in itertools.product((-3.5, 0.0, 7.25, size[0] / 2, float(size[0])), (-2.0, 0.5, size[1] / 3, float(size[1]))):
        assert geometry.to_photograph(*geometry.to_input(x, y)) == pytest.approx((x, y), abs=1e-9)
    height, width = geometry.size
    assert geometry.to_photograph(0.0, 0.0) == pytest.approx(geometry.box[:2])
    assert geometry.to_photograph(float(width), float(height)) == pytest.approx(geometry.box[2:])


@pytest.mark.parametrize("size", PHOTOGRAPHS)
@pytest.mark.parametrize("settings", COMBINATIONS)
def test_the_map_is_where_the_pixels_are(settings: dict[str, Any], size: tuple[int, int]) -> None:
    """A ramp of x (and of y) has, at each pixel of the input, the coordinate to which the map takes the pixel's centre."""
    width, height = size
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    preprocess = Preprocess(**settings, mean=(0.0,) * 3, std=(1.0,) * 3)
    ramps = preprocess(np.stack([x, y, np.ones_like(x)], axis=2))
    shown = preprocess.region(Image.new("L", size, 255))
    rows, columns = np.where(shown.numpy())
    there_x, there_y = preprocess.geometry(width, height).to_photograph(torch.from_numpy(columns) + 0.5, torch.from_numpy(rows) + 0.5)
    # Away from the edges, where the filter is cut off, a linear resize leaves a ramp as it is, up to the sum of Pillow's weights, 6% of a
    # pixel of the input; a map that is off by one rounding is wrong by 50%.
    reach = [2 * max(1.0, side / new) for side, new in zip(size, preprocess.resized(*size), strict=True)]
    inner = (there_x > reach[0]) & (there_x < width - reach[0]) & (there_y > reach[1]) & (there_y < height - reach[1])
    for axis, (ramp, there) in enumerate(((ramps[0], there_x), (ramps[1], there_y))):
        pixel = size[axis] / preprocess.resized(*size)[axis]
        torch.testing.assert_close(ramp[rows, columns][inner].double() * size[axis], there[inner].double(), rtol=0, atol=0.1 * pixel)


@pytest.mark.parametrize("size", PHOTOGRAPHS)
@pytest.mark.parametrize("settings", COMBINATIONS)
def test_a_region_pixel_by_pixel(settings: dict[str, Any], size: tuple[int, int]) -> None:
    width, height = size
    preprocess, box = Preprocess(**settings), (0.2 * width, 0.31 * height, 0.72 * width, 0.93 * height)
    found = preprocess.region_of_box(box, width, height)
    left, top, right, bottom = preprocess.crop_box(width, height)
    rows, columns = preprocess.size
    for row, column in itertools.product(range(rows), range(columns)):
        x, y = left + (column + 0.5) * (right - left) / columns, top + (row + 0.5) * (bottom - top) / rows
        edge = min(abs(x - box[0]), abs(x - box[2]), abs(y - box[1]), abs(y - box[3]))
        assert bool(found[row, column]) == (box[0] <= x < box[2] and box[1] <= y < box[3]) or edge < 1e-4


@pytest.mark.parametrize("size", PHOTOGRAPHS)
@pytest.mark.parametrize("settings", COMBINATIONS)
def test_a_mask_pixel_by_pixel(settings: dict[str, Any], size: tuple[int, int]) -> None:
    """Of a mask, an input pixel shows the photograph's pixel that its centre lies in."""
    width, height = size
    pixels = np.random.default_rng(1).integers(0, 2, (height, width), dtype=np.uint8) * 255
    preprocess = Preprocess(**settings)
    found = preprocess.region(Image.fromarray(pixels))
    geometry = preprocess.geometry(width, height)
    differing = 0
    for row, column in itertools.product(*map(range, preprocess.size)):
        x, y = geometry.to_photograph(column + 0.5, row + 0.5)
        inside = 0 <= x < width and 0 <= y < height
        if bool(found[row, column]) != (inside and pixels[math.floor(y), math.floor(x)] == 255):
            differing += min(x % 1, 1 - x % 1, y % 1, 1 - y % 1) > 1e-6  # at an edge rounding decides
    assert differing == 0


def test_a_geometry_by_hand() -> None:
    letterbox = Preprocess((100, 200), None, pad=True).geometry(50, 50)
    assert letterbox == Geometry((-25.0, 0.0, 75.0, 50.0), (100, 200))
    assert letterbox.visible(50, 50) == (0.0, 0.0, 50.0, 50.0)
    assert letterbox.to_input(0.0, 0.0) == (50.0, 0.0)
    squashed = Preprocess((10, 20), None).geometry(40, 60)
    assert squashed.box == (0.0, 0.0, 40.0, 60.0)
    assert squashed.to_photograph(1.0, 1.0) == (2.0, 6.0)
    assert Preprocess(10, (10, 20)).geometry(40, 20) == Geometry((0.0, 0.0, 40.0, 20.0), (10, 20))


@pytest.mark.parametrize(("width", "height"), [(4000, 3000), (31, 900), (900, 31), (640, 481), (1, 7)])
@pytest.mark.parametrize("settings", [settings for settings in COMBINATIONS if settings["resize"] is not None])
def test_a_resized_photograph_is_not_resized_again(settings: dict[str, Any], width: int, height: int) -> None:
    """Large JPEGs are resized when they are decoded, and pass through the preprocessing afterwards."""
    preprocess = Preprocess(**settings)
    once = preprocess.resized(width, height)
    assert preprocess.resized(*once) == once


def test_the_size_of_the_input() -> None:
    assert Preprocess().size == (224, 224)
    assert Preprocess((320, 256), None).size == (320, 256)
    assert Preprocess(256, (320, 256)).size == (320, 256)
    assert Preprocess(64, None, pad=True).size == (64, 64)
    assert Preprocess((320, 256), None).blank().shape == (1, 3, 320, 256)
    assert Preprocess.of_size((224, 224)) == Preprocess()
    assert Preprocess.of_size((320, 256)) == Preprocess((320, 256), None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"resize": 256, "crop": None}, "without crop the inputs have no fixed size: give crop, resize as (height, width), or pad"),
        ({"resize": None, "crop": None}, "without crop the inputs have no fixed size"),
        ({"resize": None, "pad": True}, "pad needs resize"),
        ({"resize": (1, 2, 3)}, "resize must be one side or (height, width)"),
        ({"resize": (224, 0)}, "resize must be at least 1 pixel, not 0"),
        ({"crop": (224, 2.5)}, "crop must be an integer"),
        ({"fill": 114}, "fill must be a value in 0 to 1, or one for each of the 3 channels, not 114.0"),
        ({"fill": (0.1, 0.2)}, "fill must be a value in 0 to 1"),
        ({"mean": (0.5,)}, "mean and std need one value per channel each; they have 1 and 3"),
        ({"mean": (), "std": ()}, "mean and std need one value per channel each; they have 0 and 0"),
        ({"value_range": (1, 0)}, "value_range must be two numbers (low, high), low first"),
        ({"value_range": (-1024, 1024)}, "mean and std are ImageNet's, for values in 0 to 1"),
    ],
)
def test_settings_that_cannot_be(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        Preprocess(**arguments)
    assert words in str(error.value)


def test_numbers_of_numpy_and_torch_are_those_of_python_here_too() -> None:
    found = Preprocess(np.array([32, 24]), [np.int64(16), 8], fill=np.float32(0.5))
    assert found == Preprocess((32, 24), (16, 8), fill=0.5)
    assert hash(found) == hash(Preprocess((32, 24), (16, 8), fill=0.5))
