"""Images of every depth and mode: as a viewer shows them, and in the channels that a network takes."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from hdm_core import Classifier, Preprocess
from hdm_core.photograph import displayed, to_rgb, with_channels
from tests.support.tiny_networks import smooth

LEVELS: NDArray[np.uint16] = np.array([[0, 10, 200, 255]], np.uint16) * 257


def tiff(
    data: bytes, bits: tuple[int, ...] = (8,), order: str = "<", photometric: int = 1, planes: int = 1, sample_format: int = 1
) -> bytes:
    """Build an uncompressed TIFF of 4 x 1 pixels, also of kinds that Pillow does not write."""
    channels = len(bits)
    head = 8 + 2 + 12 * 11 + 4
    extra = struct.pack(f"{order}{channels}H", *bits) if channels > 2 else b""
    sizes = [len(data) // channels] * channels if planes == 2 else [len(data)]
    starts = [head + len(extra) + sum(sizes[:number]) for number in range(len(sizes))]
    lists = head + len(extra) + len(data)
    entries = [
        (256, 4, 1, 4),
        (257, 4, 1, 1),
        (258, 3, channels, head if extra else bits[0]),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, len(starts), starts[0] if len(starts) == 1 else lists),
        (277, 3, 1, channels),
        (278, 4, 1, 1),
        (279, 4, len(sizes), sizes[0] if len(sizes) == 1 else lists + 4 * len(starts)),
        (284, 3, 1, planes),
        (339, 3, 1, sample_format),
    ]
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        out += struct.pack(f"{order}HHI", tag, kind, count) + (
            struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
        )
    out += struct.pack(f"{order}I", 0) + extra + data
    return out + struct.pack(f"{order}{2 * len(starts)}I", *starts, *sizes) if len(starts) > 1 else out


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def grey(data: bytes) -> list[int]:
    image = to_rgb(opened(data))
    assert image.mode == "RGB"
    pixels = np.asarray(image)
    assert (pixels == pixels[..., :1]).all()
    found: list[int] = pixels[0, :, 0].tolist()
    return found


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bits_of_grey_keep_their_levels(form: str) -> None:
    assert grey(saved(Image.fromarray(np.repeat(LEVELS, 4, 0)), form)) == [0, 10, 200, 255]


@pytest.mark.parametrize("order", "<>")
def test_sixteen_bits_in_both_orders_of_bytes(order: str) -> None:
    assert grey(tiff(LEVELS.astype(f"{order}u2").tobytes(), (16,), order)) == [0, 10, 200, 255]


def test_white_is_zero() -> None:
    assert grey(tiff(bytes([0, 10, 200, 255]), photometric=0)) == [255, 245, 55, 0]
    assert grey(tiff(LEVELS.astype("<u2").tobytes(), (16,), photometric=0)) == [255, 245, 55, 0]
    assert grey(tiff(bytes([0b01010000]), (1,), photometric=0)) == [255, 0, 255, 0]
    assert grey(tiff(bytes([0x0A, 0xF5]), (4,), photometric=0)) == [255, 85, 0, 170]


def test_twelve_bits_fill_the_range() -> None:
    packed = int("".join(f"{value:012b}" for value in (0, 160, 3200, 4095)), 2).to_bytes(6, "big")
    assert grey(tiff(packed, (12,))) == [0, 10, 200, 255]


def test_a_portable_greymap_of_ten_bits_fills_the_range() -> None:
    assert grey(b"P5 4 1 1023\n" + np.array([0, 512, 800, 1023], ">u2").tobytes()) == [0, 128, 200, 255]


def test_separate_channels() -> None:
    channels = np.array([[0, 10, 200, 255], [1, 2, 3, 4], [9, 8, 7, 6]], np.uint8)
    found = np.asarray(to_rgb(opened(tiff(channels.tobytes(), (8, 8, 8), photometric=2, planes=2))))
    np.testing.assert_array_equal(found[0].T, channels)
    with pytest.raises(ValueError, match="16 bits that are stored one after the other"):  # Pillow reads each byte as a pixel
        to_rgb(opened(tiff((channels.astype("<u2") * 257).tobytes(), (16, 16, 16), photometric=2, planes=2)))


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.ones((2, 2), np.int32)),
        Image.fromarray(np.ones((2, 2), np.float32)),
        opened(tiff(bytes([0, 128, 255, 127]), sample_format=2)),
        opened(tiff(np.arange(4, dtype="<i2").tobytes(), (16,), sample_format=2)),
    ],
    ids=["int32", "float32", "signed 8", "signed 16"],
)
def test_pixels_without_a_known_range_are_refused(image: Image.Image) -> None:
    with pytest.raises(ValueError, match="no known range; save the image with 8 or 16 bits per channel"):
        to_rgb(image)
    with pytest.raises(ValueError, match="no known range"):
        Classifier.from_module(smooth(), Preprocess(8, 8)).prepare([image])


def test_every_mode_of_pillow_becomes_rgb() -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "LA", "PA", "RGBX", "RGBa", "La"):
        steps = {"LA": ("L",), "PA": ("P",), "LAB": (), "La": ("LA",), "RGBa": ("RGBA",)}.get(mode, ())
        image = Image.new("LAB", (2, 2)) if mode == "LAB" else red
        for step in (*steps, mode):
            image = image.convert(step) if image.mode != step else image
        assert to_rgb(image).mode == "RGB"


def test_an_inverted_cmyk_photograph_is_not_a_negative() -> None:
    blue = Image.new("RGB", (16, 16), (20, 60, 200)).convert("CMYK")
    pixel = to_rgb(opened(saved(blue, "JPEG", quality=95))).getpixel((8, 8))
    assert np.abs(np.array(pixel) - (20, 60, 200)).max() < 20


def test_prepare_keeps_sixteen_bits() -> None:
    """Networks got 128 / 255 before: the upper 8 bits."""
    classifier = Classifier.from_module(smooth(), Preprocess(4, 4, (0.0,) * 3, (1.0,) * 3))
    images = classifier.prepare([Image.fromarray(np.full((4, 4), 128 * 256 + 7, np.uint16))])
    assert torch.equal(images, torch.full((1, 3, 4, 4), (128 * 256 + 7) / 65535))


# Channels


def channels_of(image: Any, channels: int) -> NDArray[np.float32]:
    """Return what a network of that many channels gets, (H, W, C) in [0, 1]."""
    found = with_channels(image, channels)
    if isinstance(found, Image.Image):
        assert found.mode == {1: "L", 3: "RGB"}[channels]
        return np.asarray(found, np.float32).reshape(found.height, found.width, channels) / 255
    assert found.dtype == np.float32
    return found


def test_grey_of_a_colour_is_that_of_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(channels_of(image, 1)[:, :, 0] * 255, np.asarray(image.convert("L")))
    np.testing.assert_allclose(channels_of(pixels / 255, 1)[:, :, 0] * 255, np.asarray(image.convert("L")), atol=0.51)  # Pillow rounds
    np.testing.assert_array_equal(channels_of(image.convert("L"), 3), np.asarray(image.convert("L").convert("RGB")) / np.float32(255))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "LA", "PA", "La"])
def test_every_mode_becomes_grey_as_its_colours_do(mode: str) -> None:
    steps = {"LA": ("L",), "PA": ("P",), "LAB": (), "La": ("LA",)}.get(mode, ())
    image = Image.new("LAB", (2, 2)) if mode == "LAB" else Image.new("RGB", (2, 2), (200, 30, 60))
    for step in (*steps, mode):
        image = image.convert(step) if image.mode != step else image
    np.testing.assert_array_equal(channels_of(image, 1), np.asarray(to_rgb(image).convert("L"))[:, :, None] / np.float32(255))


def test_an_image_of_exactly_the_channels_is_taken_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 4), np.uint8)
    np.testing.assert_array_equal(channels_of(Image.fromarray(pixels), 4), pixels / np.float32(255))
    array = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(channels_of(array, 7), array)
    np.testing.assert_array_equal(channels_of((array * 65535).astype(np.uint16), 7), (array * 65535).astype(np.uint16) / np.float32(65535))


@pytest.mark.parametrize(
    ("image", "channels", "message"),
    [
        (Image.new("RGB", (2, 2)), 4, "the image has 3 channels, and the network takes 4"),
        (Image.new("L", (2, 2)), 2, "the image has 1 channel, and the network takes 2"),
        (np.zeros((2, 2, 5), np.uint8), 3, "the image has 5 channels, and the network takes 3"),
        (np.zeros((2, 2, 2), np.uint16), 1, "the image has 2 channels, and the network takes 1"),
        (np.zeros((2, 2), np.int32), 1, "pixels of type int32 have no known range"),
        (np.full((2, 2), 300.0), 1, "a photograph of floats has values in 0 to 1, not 300 to 300"),
        (np.full((2, 2), np.nan), 1, "a photograph of floats has values in 0 to 1, not nan to nan"),
        (np.zeros(4), 1, "a photograph as an array has the shape (H, W) or (H, W, C), not (4,)"),
        (np.zeros((0, 4)), 1, "a photograph as an array has the shape (H, W) or (H, W, C), not (0, 4)"),
    ],
)
def test_other_channels_and_unknown_ranges_are_one_line(image: Any, channels: int, message: str) -> None:
    with pytest.raises(ValueError) as error:
        with_channels(image, channels)
    assert str(error.value).startswith(message)
    classifier = Classifier.from_module(smooth(), Preprocess(4, 4, (0.0,) * channels, (1.0,) * channels))
    with pytest.raises(ValueError, match=r"channel|range|values|shape"):
        classifier.prepare([image])


def test_a_value_range_by_hand() -> None:
    """torchxrayvision's own: 2 x / largest - 1, times 1024."""
    pixels = np.random.default_rng(0).integers(0, 65536, (8, 8), np.uint16)
    preprocess = Preprocess((8, 8), None, (0.0,), (1.0,), value_range=(-1024, 1024))
    expected = (2 * (pixels.astype(np.float32) / 65535) - 1) * 1024
    np.testing.assert_allclose(preprocess(pixels)[0].numpy(), expected, atol=1e-3)
    np.testing.assert_allclose(preprocess(Image.fromarray(pixels))[0].numpy(), expected, atol=1e-3)


def test_shown_are_grey_colours_or_the_first_three() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 6), np.uint8)
    for channels, shown in ((1, (0, 0, 0)), (2, (0, 0, 0)), (3, (0, 1, 2)), (6, (0, 1, 2))):
        image = displayed(pixels[:, :, :channels] / np.float32(255))
        np.testing.assert_array_equal(np.asarray(image), pixels[:, :, list(shown)])
