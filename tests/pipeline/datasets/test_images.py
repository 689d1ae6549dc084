"""Decoding of every kind of file that occurs in a folder of photographs, and the errors of broken ones."""

from __future__ import annotations

import hashlib
import io
import re
import zlib
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode

from hdm_core import Preprocess
from pipeline.datasets import Masks, Sample
from pipeline.datasets.images import DecodedImage, UnreadableError, read_image, read_region

PIXELS: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
COLOUR = Image.fromarray(PIXELS)


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def read(folder: Path, data: bytes, name: str = "a.png") -> DecodedImage:
    (folder / name).write_bytes(data)
    return read_image(Sample(name, str(folder / name), root=str(folder)), {})


def unreadable(folder: Path, data: bytes, name: str = "a.png") -> str:
    """Return the error of an image: one line, the same every time, without the address of an object."""
    messages = []
    for _ in range(2):
        with pytest.raises(UnreadableError) as caught:
            read(folder, data, name)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0]
    assert "\n" not in messages[0]
    assert not re.search(r"0x[0-9a-f]{6}", messages[0])
    return messages[0]


def pixels(picture: DecodedImage) -> NDArray[np.uint8]:
    assert picture.image.mode == "RGB"
    return np.asarray(picture.image)


# Readable files


def test_a_picture_has_its_pixels_and_the_checksum_of_its_file(tmp_path: Path) -> None:
    data = encode(COLOUR)
    picture = read(tmp_path, data)
    np.testing.assert_array_equal(pixels(picture), PIXELS)
    assert picture.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", "L"), ("PNG", "1"), ("PNG", "LA"), ("PNG", "P"), ("GIF", "P"), ("PNG", "RGBA"), ("TIFF", "CMYK"), ("BMP", "RGB")],
)
def test_every_mode_becomes_rgb_as_pillow_has_it(tmp_path: Path, form: str, mode: str) -> None:
    image = COLOUR.convert("RGBA").convert("LA") if mode == "LA" else COLOUR.convert(mode)
    expected = image.convert("RGBA").convert("RGB") if mode in {"LA", "RGBA", "P"} else image.convert("RGB")
    np.testing.assert_array_equal(pixels(read(tmp_path, encode(image, form))), np.asarray(expected))


def test_grey_is_grey_in_all_three_channels(tmp_path: Path) -> None:
    found = pixels(read(tmp_path, encode(Image.fromarray(PIXELS[..., 0]))))
    np.testing.assert_array_equal(found, np.repeat(PIXELS[..., :1], 3, axis=2))


def test_a_cmyk_photograph_is_read(tmp_path: Path) -> None:
    blue = Image.new("RGB", (16, 16), (20, 60, 200))
    found = pixels(read(tmp_path, encode(blue.convert("CMYK"), "JPEG", quality=95), "a.jpg"))
    assert np.abs(found.astype(int) - (20, 60, 200)).max() < 20


def test_a_palette_with_transparency_keeps_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    for data in (encode(image, transparency=b"\x00\x80"), encode(image, "GIF", transparency=0)):
        np.testing.assert_array_equal(pixels(read(tmp_path, data)), [[[255, 0, 0], [0, 0, 255]]])


def test_sixteen_bits_of_grey_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 255, 256], [32768, 65279, 65535]], dtype=np.uint16)
    for form in ("PNG", "TIFF"):
        found = pixels(read(tmp_path, encode(Image.fromarray(deep), form)))
        np.testing.assert_array_equal(found[..., 0], [[0, 0, 1], [128, 254, 255]])


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_without_a_known_range_are_refused(tmp_path: Path, kind: type) -> None:
    message = unreadable(tmp_path, encode(Image.fromarray(np.ones((3, 3), kind)), "TIFF"), "a.tif")
    assert "no known range" in message
    assert "8 or 16 bits" in message


def test_white_is_zero_and_still_turned_upright(tmp_path: Path) -> None:
    deep = np.array([[0, 65535], [32768, 65535], [257, 0]], dtype=np.uint16)
    for form, expected in ((0, [[254, 127, 255], [255, 0, 0]]), (1, [[1, 128, 0], [0, 255, 255]])):
        found = pixels(read(tmp_path, encode(Image.fromarray(deep), "TIFF", tiffinfo={262: form, 274: 6}), "a.tif"))
        np.testing.assert_array_equal(found[..., 0], expected)


@pytest.mark.parametrize("name", ["nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos"])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])  # a large JPEG is decoded at reduced size
def test_an_image_is_resized_with_every_interpolation(tmp_path: Path, name: str, form: str) -> None:
    preprocess = Preprocess(8, 8, interpolation=InterpolationMode(name))
    path, photograph = tmp_path / "a", COLOUR.resize((80, 64))
    path.write_bytes(encode(photograph, form))
    picture = read_image(Sample("a", str(path)), {}, preprocess)
    assert picture.image.size == (10, 8)
    if form == "PNG":
        np.testing.assert_array_equal(np.asarray(preprocess.cropped(picture.image)), np.asarray(preprocess.cropped(photograph)))


UPRIGHT = {
    1: PIXELS,
    2: np.fliplr(PIXELS),
    3: np.rot90(PIXELS, 2),
    4: np.flipud(PIXELS),
    5: PIXELS.transpose(1, 0, 2),
    6: np.rot90(PIXELS, -1),
    7: np.rot90(PIXELS.transpose(1, 0, 2), 2),
    8: np.rot90(PIXELS, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_photograph_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read(tmp_path, encode(COLOUR, exif=exif))
    np.testing.assert_array_equal(pixels(picture), UPRIGHT[orientation])
    assert picture.image.size == UPRIGHT[orientation].shape[1::-1]


def test_only_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(pixels(read(tmp_path, data, "a.gif"))[0, 0], (255, 0, 0))


def test_the_suffix_does_not_decide_the_format(tmp_path: Path) -> None:
    np.testing.assert_array_equal(pixels(read(tmp_path, encode(COLOUR, "BMP"), "a.jpg")), PIXELS)


# Unreadable files


def test_an_empty_file(tmp_path: Path) -> None:
    assert unreadable(tmp_path, b"") == "the file is empty"


@pytest.mark.parametrize("data", [b"this is a text\n", b"<html>not found</html>", b"\x00" * 100], ids=["text", "html", "zeros"])
def test_a_file_that_is_no_image(tmp_path: Path, data: bytes) -> None:
    assert unreadable(tmp_path, data, "a.jpg") == "no image of a format that is known"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"])
def test_a_truncated_image(tmp_path: Path, form: str) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    data = encode(noise, form)
    assert read(tmp_path, data).image.size == (40, 40)
    message = unreadable(tmp_path, data[: len(data) // 2])
    assert message.startswith(("the image cannot be decoded: ", "no image of a format that is known"))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"cannot read .*nowhere\.png: .*No such file"):
        read_image(Sample("a", str(tmp_path / "nowhere.png")), {})


def test_a_folder_a_url_of_nobody_and_an_impossible_name(tmp_path: Path) -> None:
    for path in (str(tmp_path), "nosuch://bucket/a.png", f"{tmp_path}/a\0b.png"):
        with pytest.raises(UnreadableError, match="cannot read"):
            read_image(Sample("a", path), {})


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert "decompression bomb" in unreadable(tmp_path, encode(COLOUR))


@pytest.mark.parametrize(("path", "root"), [("../a.png", "data"), ("../data2/a.png", "data"), ("/etc/hostname", "data")])
def test_a_path_that_leads_out_of_the_root_is_not_opened(tmp_path: Path, path: str, root: str) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UnreadableError, match="leads out of the dataset's root"):
        read_image(Sample("a", str(tmp_path / root / path), root=str(tmp_path / root)), {})


def _samples_of_bytes() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    plain = [encode(COLOUR, form) for form in ("PNG", "JPEG", "BMP", "WEBP", "PPM")]
    return [*plain, encode(COLOUR.convert("P"), "GIF"), encode(COLOUR, "PNG", exif=exif), encode(COLOUR, "JPEG", exif=exif)]


SEEDS = _samples_of_bytes()


@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 999), st.integers(0, 255)), max_size=6), st.integers(0, 999))
def test_whatever_the_bytes_it_is_a_picture_or_unreadable(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged if length % 3 else damaged[: length % len(damaged)])
    try:
        said = read_image(Sample("a", str(path)), {}).image.mode
    except UnreadableError as error:
        said = str(error)
    assert said
    assert not re.search(r"0x[0-9a-f]{6}", said)


@pytest.mark.parametrize("order", [b"MM", b"II"])
def test_a_broken_header_of_the_camera_is_unreadable_and_no_crash(tmp_path: Path, order: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(COLOUR, "PNG", exif=exif)
    assert data.count(b"MM\x00*") == 1
    header = bytearray(data)
    start = data.index(b"eXIf")
    header[start + 4 : start + 8] = order + b"\xfe\xfe"
    length = int.from_bytes(data[start - 4 : start])
    header[start + 4 + length : start + 8 + length] = zlib.crc32(header[start : start + 4 + length]).to_bytes(4)
    message = unreadable(tmp_path, bytes(header))
    assert message.startswith("the image cannot be decoded: ")


# Ground truth

WIDE = Image.new("RGB", (20, 10))  # the crop of 10 x 10 has its columns 5 to 14


def region(folder: Path, picture: Image.Image = WIDE, **keys: Any) -> tuple[torch.Tensor, str]:
    sample = Sample("a", str(folder / "a.png"), root=str(folder), **keys)
    return read_region(sample, DecodedImage(picture, picture.size, "0"), Preprocess(resize=10, crop=10), {})


def test_without_ground_truth_nothing_is_inside(tmp_path: Path) -> None:
    inside, kind = region(tmp_path)
    assert kind == "none"
    assert inside.shape == (10, 10)
    assert inside.dtype == torch.bool
    assert not inside.any()


def test_a_box_is_seen_through_the_crop(tmp_path: Path) -> None:
    inside, kind = region(tmp_path, bbox=(8.0, 2.0, 30.0, 5.0))
    assert kind == "bbox"
    expected = torch.zeros(10, 10, dtype=torch.bool)
    expected[2:5, 3:] = True
    assert torch.equal(inside, expected)


def test_a_box_outside_the_crop_is_not_seen(tmp_path: Path) -> None:
    inside, kind = region(tmp_path, bbox=(0.0, 0.0, 4.0, 10.0))
    assert kind == "bbox"
    assert not inside.any()


def test_a_mask_is_seen_through_the_same_crop_and_counts_before_a_box(tmp_path: Path) -> None:
    mask = Image.new("L", (20, 10))
    mask.paste(255, (8, 2, 20, 5))
    mask.save(tmp_path / "mask.png")
    inside, kind = region(tmp_path, masks=Masks((str(tmp_path / "mask.png"),)), bbox=(0.0, 0.0, 1.0, 1.0))
    assert kind == "segmentation"
    assert torch.equal(inside, region(tmp_path, bbox=(8.0, 2.0, 20.0, 5.0))[0])


def test_grey_levels_from_one_half_up_are_inside(tmp_path: Path) -> None:
    mask = Image.fromarray(np.repeat(np.arange(20, dtype=np.uint8)[None] + 118, 10, axis=0))
    mask.save(tmp_path / "mask.png")
    inside, _ = region(tmp_path, masks=Masks((str(tmp_path / "mask.png"),)))
    assert inside[0].tolist() == [level + 118 + 5 >= 128 for level in range(10)]


def test_a_mask_of_another_size_is_unreadable_with_both_sizes(tmp_path: Path) -> None:
    Image.new("L", (10, 20)).save(tmp_path / "mask.png")
    with pytest.raises(UnreadableError, match=r"mask\.png is 10 x 20, the image 20 x 10"):
        region(tmp_path, masks=Masks((str(tmp_path / "mask.png"),)))


def test_a_mask_that_is_missing_or_leads_out_is_unreadable(tmp_path: Path) -> None:
    for mask, words in ((tmp_path / "nowhere.png", "cannot read"), (tmp_path.parent / "mask.png", "leads out")):
        with pytest.raises(UnreadableError, match=words):
            region(tmp_path, masks=Masks((str(mask),), root=str(tmp_path)))


def test_a_mask_elsewhere_is_read_for_a_picture_that_is_here(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/test_images/mask.png", encode(Image.new("L", (20, 10), 255)))
    try:
        inside, kind = region(tmp_path, masks=Masks(("memory://test_images/mask.png",)))
        assert kind == "segmentation"
        assert inside.all()
    finally:
        memory.rm("/test_images", recursive=True)
