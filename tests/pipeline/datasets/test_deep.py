"""PNGs and TIFFs of 16 bits, of many channels and of several pages: every value arrives."""

from __future__ import annotations

import importlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image

from hdm_core import Preprocess
from pipeline.datasets import Sample
from pipeline.datasets.errors import UnreadableError
from pipeline.datasets.images import DecodedImage, read_image, read_mask
from pipeline.datasets.sample import Masks

HEIGHT, WIDTH = 12, 16
COLOUR_TYPES = {1: 0, 3: 2, 2: 4, 4: 6}  # of PNG, by the number of channels


def values(channels: int, dtype: Any = np.uint16) -> NDArray[Any]:
    shape = (HEIGHT, WIDTH, channels)
    return np.random.default_rng(channels).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def png(pixels: NDArray[np.uint16]) -> bytes:
    """Encode 16 bits per channel, which Pillow writes for grey only."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    options.setdefault("photometric", "rgb" if pixels.ndim == 3 and pixels.shape[2] in (3, 4) else "minisblack")
    tifffile.imwrite(buffer, pixels, metadata=None, **options)
    return buffer.getvalue()


def network(channels: int) -> Preprocess:
    return Preprocess((HEIGHT, WIDTH), None, (0.0,) * channels, (1.0,) * channels)


def read(folder: Path, data: bytes, channels: int, name: str = "a.tif") -> DecodedImage:
    (folder / name).write_bytes(data)
    return read_image(Sample(name, str(folder / name)), {}, network(channels))


def seen(folder: Path, data: bytes, channels: int) -> NDArray[np.float32]:
    """Return what a network gets, (H, W, C)."""
    decoded = read(folder, data, channels)
    assert decoded.size == (WIDTH, HEIGHT)
    tensor = network(channels)(decoded.image)
    assert tensor.dtype == torch.float32
    return tensor.permute(1, 2, 0).numpy()


def refused(folder: Path, data: bytes, channels: int) -> str:
    with pytest.raises(UnreadableError) as error:
        read(folder, data, channels)
    assert error.value.sha256
    return str(error.value)


# 16 bits


@pytest.mark.parametrize("encode", [png, lambda pixels: tiff(pixels[:, :, 0])], ids=["png", "tiff"])
def test_grey_keeps_16_bits(tmp_path: Path, encode: Any) -> None:
    pixels = values(1)
    np.testing.assert_array_equal(seen(tmp_path, encode(pixels), 1), pixels.astype(np.float32) / 65535)
    np.testing.assert_array_equal(seen(tmp_path, encode(pixels), 3), np.repeat(pixels.astype(np.float32) / 65535, 3, axis=2))


@pytest.mark.parametrize(
    "encode",
    [
        png,
        tiff,
        lambda pixels: tiff(pixels.transpose(2, 0, 1), planarconfig="separate", photometric="rgb"),
        lambda pixels: tiff(pixels, byteorder=">"),
        lambda pixels: tiff(pixels, compression="zlib", predictor=True),
    ],
    ids=["png", "tiff", "tiff, separate", "tiff, big-endian", "tiff, compressed"],
)
def test_colours_keep_16_bits(tmp_path: Path, encode: Any) -> None:
    pixels = values(3)
    expected = pixels.astype(np.float32) / 65535
    np.testing.assert_array_equal(seen(tmp_path, encode(pixels), 3), expected)
    grey = 0.299 * expected[:, :, 0] + 0.587 * expected[:, :, 1] + 0.114 * expected[:, :, 2]
    np.testing.assert_allclose(seen(tmp_path, encode(pixels), 1)[:, :, 0], grey, atol=1e-6)


@pytest.mark.parametrize("encode", [png, lambda pixels: tiff(pixels, extrasamples=["unassalpha"])], ids=["png", "tiff"])
def test_transparency_is_dropped_unless_four_channels_are_needed(tmp_path: Path, encode: Any) -> None:
    pixels = values(4)
    np.testing.assert_array_equal(seen(tmp_path, encode(pixels), 3), pixels[:, :, :3].astype(np.float32) / 65535)
    np.testing.assert_array_equal(seen(tmp_path, encode(pixels), 4), pixels.astype(np.float32) / 65535)


def test_grey_with_transparency(tmp_path: Path) -> None:
    pixels = values(2)
    np.testing.assert_array_equal(seen(tmp_path, png(pixels), 1), pixels[:, :, :1].astype(np.float32) / 65535)
    np.testing.assert_array_equal(seen(tmp_path, png(pixels), 2), pixels.astype(np.float32) / 65535)


def test_a_page_shows_the_upper_8_bits(tmp_path: Path) -> None:
    for channels in (1, 3):
        (tmp_path / "a.png").write_bytes(png(values(channels)))
        shown = np.asarray(read_image(Sample("a", str(tmp_path / "a.png")), {}).image)
        np.testing.assert_array_equal(shown, np.broadcast_to(values(channels) >> 8, (HEIGHT, WIDTH, 3)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_upright(tmp_path: Path, orientation: int) -> None:
    """As Pillow rotates 8 bits."""
    pixels = values(3)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    eight = io.BytesIO()
    Image.fromarray((pixels >> 8).astype(np.uint8)).save(eight, "PNG", exif=exif)
    data = png(pixels)
    chunk = eight.getvalue().index(b"eXIf") - 4
    length = struct.unpack(">I", eight.getvalue()[chunk : chunk + 4])[0]
    data = data[:33] + eight.getvalue()[chunk : chunk + length + 12] + data[33:]
    for encoded in (data, tiff(pixels, extratags=[(274, "H", 1, orientation)])):
        (tmp_path / "a").write_bytes(encoded)
        (tmp_path / "b").write_bytes(eight.getvalue())
        deep, flat = (read_image(Sample(name, str(tmp_path / name)), {}) for name in "ab")
        assert deep.size == flat.size == deep.image.size
        np.testing.assert_array_equal(np.asarray(deep.image), np.asarray(flat.image))


def test_resizing_loses_no_bits(tmp_path: Path) -> None:
    """A flat image of any level keeps that level through the resize."""
    pixels = np.full((50, 70, 1), 12_345, np.uint16)
    preprocess = Preprocess(20, (16, 24), (0.0,), (1.0,), interpolation="bicubic")
    (tmp_path / "a.png").write_bytes(png(pixels))
    tensor = preprocess(read_image(Sample("a", str(tmp_path / "a.png")), {}, preprocess).image)
    torch.testing.assert_close(tensor, torch.full((1, 16, 24), 12_345 / 65535), rtol=0, atol=1e-6)


# Many channels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_five_channels(tmp_path: Path, dtype: Any, planar: str) -> None:
    pixels = values(5, dtype)
    stored = pixels if planar == "contig" else pixels.transpose(2, 0, 1)
    data = tiff(np.ascontiguousarray(stored), planarconfig=planar, photometric="minisblack")
    np.testing.assert_array_equal(seen(tmp_path, data, 5), pixels.astype(np.float32) / np.iinfo(dtype).max)
    assert refused(tmp_path, data, 3) == "the image has 5 channels, and the network takes 3"
    assert refused(tmp_path, data, 1) == "the image has 5 channels, and the network takes 1"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("pages", [2, 3, 6])
def test_grey_pages_are_channels(tmp_path: Path, dtype: Any, pages: int) -> None:
    pixels = values(pages, dtype)
    data = tiff(np.ascontiguousarray(pixels.transpose(2, 0, 1)), photometric="minisblack")
    np.testing.assert_array_equal(seen(tmp_path, data, pages), pixels.astype(np.float32) / np.iinfo(dtype).max)
    assert refused(tmp_path, data, 1) == f"the image has {pages} channels, and the network takes 1" if pages != 3 else True


def test_a_preview_is_no_channel_and_of_coloured_pages_the_first_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    grey = values(2, np.uint8)
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(grey[:, :, 0], photometric="minisblack", metadata=None)
        writer.write(grey[::2, ::2, 1], photometric="minisblack", metadata=None, subfiletype=1)
    np.testing.assert_array_equal(seen(tmp_path, buffer.getvalue(), 1), grey[:, :, :1].astype(np.float32) / 255)
    frames = [Image.fromarray(values(3, np.uint8)), Image.new("RGB", (WIDTH, HEIGHT))]
    buffer = io.BytesIO()
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(seen(tmp_path, buffer.getvalue(), 3), values(3, np.uint8).astype(np.float32) / 255)


def test_white_may_be_zero(tmp_path: Path) -> None:
    pixels = values(5)
    data = tiff(pixels, photometric="miniswhite", planarconfig="contig")
    np.testing.assert_allclose(seen(tmp_path, data, 5), 1 - pixels.astype(np.float32) / 65535, atol=1e-6)


def test_an_image_with_too_few_channels_says_so(tmp_path: Path) -> None:
    for image, found in (
        (Image.new("RGB", (9, 9)), "3 channels"),
        (Image.new("L", (9, 9)), "1 channel"),
        (Image.new("P", (9, 9)), "3 channels"),
    ):
        image.save(tmp_path / "a.png")
        with pytest.raises(UnreadableError, match=f"^the image has {found}, and the network takes 6$"):
            read_image(Sample("a", str(tmp_path / "a.png")), {}, network(6))


def test_without_tifffile_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    data, grey, colours = tiff(values(5), planarconfig="contig"), tiff(values(1)[:, :, 0]), tiff(values(3))
    monkeypatch.setattr(importlib, "import_module", missing)
    assert refused(tmp_path, data, 5) == (
        "a TIFF with 5 channels of 16 bits is read by tifffile, which is not installed: pip install 'hdm-pipeline[tiff]'"
    )
    for read_by_pillow, channels in ((grey, 1), (colours, 3)):
        np.testing.assert_array_equal(seen(tmp_path, read_by_pillow, channels), values(channels).astype(np.float32) / 65535)


@pytest.mark.parametrize(
    ("pixels", "options", "words"),
    [
        (values(5).astype(np.float32), {}, "no known range"),
        (values(5).astype(np.int16), {}, "no known range"),
        (values(5).astype(np.uint32), {}, "no known range"),
        (values(5), {"photometric": "separated"}, "is read as grey or RGB only"),
    ],
)
def test_values_without_a_range_are_refused(tmp_path: Path, pixels: NDArray[Any], options: dict[str, Any], words: str) -> None:
    assert words in refused(tmp_path, tiff(pixels, planarconfig="contig", **options), 5)


def test_broken_files_are_one_line(tmp_path: Path) -> None:
    data = tiff(values(5), planarconfig="contig")
    for cut in (6, 40, 150, len(data) // 2):
        assert "\n" not in refused(tmp_path, data[:cut], 5)
    assert "cannot be decoded" in refused(tmp_path, png(values(3))[:200], 3)
    huge = tiff(np.zeros((1, 1, 5), np.uint8), planarconfig="contig")
    assert huge[10:18] == struct.pack("<HHI", 256, 4, 1)  # the width
    assert "decompression bomb" in refused(tmp_path, huge[:18] + struct.pack("<I", 400_000_000) + huge[22:], 5)


def test_a_mask_of_16_bits_or_several_pages_is_read_as_before(tmp_path: Path) -> None:
    """By its upper 8 bits, and its first page."""
    pixels = np.zeros((2, HEIGHT, WIDTH), np.uint16)
    pixels[0, 2:5, 3:9], pixels[1] = 40_000, 65_535
    (tmp_path / "mask.tif").write_bytes(tiff(pixels, photometric="minisblack"))
    mask = read_mask(Sample("a", "a.png", masks=Masks((str(tmp_path / "mask.tif"),))), (WIDTH, HEIGHT), {})
    assert mask is not None
    np.testing.assert_array_equal(np.asarray(mask), pixels[0] > 0)
