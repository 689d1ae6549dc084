"""JPEGs decoded at a reduced size: the network's input and the position of the ground truth are the same."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import data as photographs
from torchvision.transforms import InterpolationMode

from hdm_core import Preprocess
from pipeline.datasets import Masks, Sample
from pipeline.datasets.images import UnreadableError, read_image, read_region

PREPROCESS = Preprocess(resize=64, crop=56)


def large(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Generate a photograph with fine grain."""
    pixels = np.asarray(Image.fromarray(photographs.chelsea()).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = pixels + np.random.default_rng(0).integers(-8, 9, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def save(folder: Path, image: Image.Image, name: str = "a.jpg", orientation: int = 1, **keys: Any) -> Sample:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(folder / name, quality=92, exif=exif)
    return Sample(name, str(folder / name), root=str(folder), **keys)


def both(sample: Sample, preprocess: Preprocess = PREPROCESS) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Return the network's input, (crop, crop, 3), from the full image and from the reduced one."""
    whole, read = read_image(sample, {}), read_image(sample, {}, preprocess)
    assert read.size == whole.size == whole.image.size
    assert read.sha256 == whole.sha256
    assert read.image.size == preprocess.resized(*whole.size)
    views = [np.asarray(preprocess.cropped(picture.image)).astype(np.int16) for picture in (whole, read)]
    return views[0], views[1]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Record the sizes to which images are decoded."""
    sizes: list[tuple[int, int]] = []
    original = Image.Image.resize

    def resize(image: Image.Image, *args: Any, **keys: Any) -> Image.Image:
        sizes.append(image.size)
        return original(image, *args, **keys)

    monkeypatch.setattr(Image.Image, "resize", resize)
    return sizes


@pytest.mark.parametrize("size", [(1071, 711), (711, 1071), (1024, 1024), (513, 2001), (640, 300)])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_a_large_jpeg_is_the_same_picture_to_a_small_tolerance(tmp_path: Path, size: tuple[int, int], orientation: int) -> None:
    whole, read = both(save(tmp_path, large(*size), orientation=orientation))
    difference = np.abs(whole - read)
    assert difference.mean() < 0.9
    assert np.percentile(difference, 99) <= 3
    assert abs((whole - read).mean()) < 0.3


OBLONG = [
    Preprocess((40, 88), None),
    Preprocess((88, 40), None, pad=True, fill=0.4),
    Preprocess(48, (40, 72)),
    Preprocess((50, 90), (40, 72)),
]


@pytest.mark.parametrize("preprocess", OBLONG)
@pytest.mark.parametrize("size", [(1071, 711), (711, 1071)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_so_it_is_for_inputs_that_are_no_squares(tmp_path: Path, preprocess: Preprocess, size: tuple[int, int], orientation: int) -> None:
    """The size of a rotated JPEG is exchanged before it is resized exactly."""
    whole, read = both(save(tmp_path, large(*size), orientation=orientation), preprocess)
    assert whole.shape == (*preprocess.size, 3)
    difference = np.abs(whole - read)
    assert difference.mean() < 1.1
    assert np.percentile(difference, 99) <= 4


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_so_it_is_without_colours_and_with_four(tmp_path: Path, mode: str) -> None:
    whole, read = both(save(tmp_path, large(1000, 700, mode)))
    assert np.abs(whole - read).mean() < 0.9


def test_a_photograph_is_decoded_to_at_least_twice_what_is_needed(tmp_path: Path, decoded: list[tuple[int, int]]) -> None:
    expected = {(1100, 1030): (138, 129), (1020, 1020): (255, 255), (510, 510): (255, 255), (250, 250): (250, 250), (900, 250): (900, 250)}
    for size, first in expected.items():
        sample = save(tmp_path, Image.new("RGB", size))
        decoded.clear()
        read_image(sample, {}, PREPROCESS)
        assert decoded[0] == first, size


@pytest.mark.parametrize("interpolation", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp"])
def test_what_is_not_drafted_is_the_same_to_the_bit(tmp_path: Path, name: str, interpolation: InterpolationMode) -> None:
    """Decode small JPEGs and all other formats at full size."""
    preprocess = Preprocess(resize=64, crop=56, interpolation=interpolation)
    whole, read = both(save(tmp_path, large(120, 90), name), preprocess)
    np.testing.assert_array_equal(whole, read)


def test_a_picture_smaller_than_the_crop_is_the_same(tmp_path: Path) -> None:
    whole, read = both(save(tmp_path, large(300, 200)), Preprocess(resize=16, crop=24))
    assert np.abs(whole - read).mean() < 0.9
    assert not whole[:3].any()
    assert not read[:3].any()


def test_a_truncated_jpeg_is_unreadable_also_when_it_is_drafted(tmp_path: Path) -> None:
    sample = save(tmp_path, large(1000, 700))
    data = Path(sample.path).read_bytes()
    Path(sample.path).write_bytes(data[: len(data) // 2])
    for preprocess in (None, PREPROCESS):
        with pytest.raises(UnreadableError, match="truncated"):
            read_image(sample, {}, preprocess)


def test_a_picture_of_200_megapixels_is_not_unpacked(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    for preprocess in (None, PREPROCESS):
        with pytest.raises(UnreadableError, match="decompression bomb"):
            read_image(Sample("a", str(tmp_path / "a.png")), {}, preprocess)


def test_a_line_of_pixels_is_not_blown_up(tmp_path: Path) -> None:
    Image.new("RGB", (40_000, 1)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableError, match=r"40000 x 1 is too narrow: with a short side of 64 it is 2560000 x 64"):
        read_image(Sample("a", str(tmp_path / "a.png")), {}, PREPROCESS)


# Ground truth

SIZES = [(640, 480), (480, 640), (640, 360), (600, 600), (100, 75)]


def mark(size: tuple[int, int]) -> tuple[Image.Image, Image.Image, tuple[float, float, float, float]]:
    """Return a black photograph with a white mark, the mask of the mark, and its box."""
    width, height = size
    box = (round(0.42 * width), round(0.3 * height), round(0.62 * width), round(0.47 * height))
    picture, mask = Image.new("RGB", size), Image.new("L", size)
    for image in (picture, mask):
        ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill="white")
    return picture, mask, (float(box[0]), float(box[1]), float(box[2]), float(box[3]))


def stored(image: Image.Image, orientation: int) -> Image.Image:
    """Rotate an upright image as a camera stores it with this EXIF orientation."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # FLIP_LEFT_RIGHT, ROTATE_180, FLIP_TOP_BOTTOM, TRANSPOSE, ROTATE_90, ...
    return image.transpose(Image.Transpose(back[orientation])) if orientation in back else image


def seen(picture: Image.Image, preprocess: Preprocess) -> torch.Tensor:
    return torch.from_numpy(np.asarray(preprocess.cropped(picture).convert("L")) >= 128)


@pytest.mark.parametrize("preprocess", [PREPROCESS, Preprocess((64, 48), None), Preprocess((48, 64), None, pad=True)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_drawn_on_the_picture_moves_with_it(tmp_path: Path, size: tuple[int, int], orientation: int, preprocess: Preprocess) -> None:
    """Follow a mark through rotation, draft, resize and crop, with a mask that is upright or rotated like its image."""
    picture, mask, box = mark(size)
    sample = save(tmp_path, stored(picture, orientation), orientation=orientation)
    mask.save(tmp_path / "upright.png")
    save(tmp_path, stored(mask, orientation), "turned.png", orientation)
    read = read_image(sample, {}, preprocess)
    assert read.size == size
    white = seen(read.image, preprocess)
    assert white.any()
    masks = [Masks((str(tmp_path / name),), root=str(tmp_path)) for name in ("upright.png", "turned.png")]
    for truth in ({"masks": masks[0]}, {"masks": masks[1]}, {"bbox": box}):
        inside, kind = read_region(Sample("a", sample.path, **truth), read, preprocess, {})
        assert kind == ("bbox" if "bbox" in truth else "segmentation")
        wrong = inside ^ white
        inner = white[1:-1, 1:-1]
        assert not (wrong & ~_edge(white)).any()
        assert wrong.sum() <= 0.5 * _edge(white).sum()
        assert (inside[1:-1, 1:-1] & inner).sum() >= 0.8 * inner.sum()


def _edge(region: torch.Tensor) -> torch.Tensor:
    """Return the pixels within one pixel of the border of a region."""
    region = region[None, None].float()
    grown = torch.nn.functional.max_pool2d(region, 3, 1, 1)
    shrunk = 1 - torch.nn.functional.max_pool2d(1 - region, 3, 1, 1)
    return (grown > shrunk)[0, 0]


def test_a_mask_of_the_stored_size_of_a_turned_picture_is_refused_and_not_guessed(tmp_path: Path) -> None:
    picture, mask, _ = mark((640, 480))
    sample = save(tmp_path, stored(picture, 6), orientation=6)
    stored(mask, 6).save(tmp_path / "mask.png")
    sample = Sample("a", sample.path, masks=Masks((str(tmp_path / "mask.png"),)))
    with pytest.raises(UnreadableError, match=r"mask\.png is 480 x 640, the image 640 x 480"):
        read_region(sample, read_image(sample, {}, PREPROCESS), PREPROCESS, {})


@pytest.mark.parametrize("box", [(-9.0, 2.0, 0.0, 9.0), (640.0, 2.0, 650.0, 9.0), (1.0, 480.0, 9.0, 481.0), (1.0, -4.0, 9.0, -1.0)])
def test_a_box_outside_the_picture_is_unreadable(tmp_path: Path, box: tuple[float, float, float, float]) -> None:
    sample = save(tmp_path, mark((640, 480))[0], bbox=box)
    with pytest.raises(UnreadableError, match=r"the box .* lies outside the image of 640 x 480"):
        read_region(sample, read_image(sample, {}, PREPROCESS), PREPROCESS, {})


def test_a_box_that_reaches_out_of_the_picture_is_cut(tmp_path: Path) -> None:
    sample = save(tmp_path, mark((640, 480))[0], bbox=(-50.0, -50.0, 700.0, 240.0))
    inside, kind = read_region(sample, read_image(sample, {}, PREPROCESS), PREPROCESS, {})
    assert kind == "bbox"
    assert inside[:28].all()
    assert not inside[28:].any()
