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
from hdm_core.photograph import to_rgb
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
