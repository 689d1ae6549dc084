"""Batches of the corpus of broken and odd images: each image is read, or its row has the reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hdm_core import Preprocess
from pipeline.datasets import Sample, list_samples
from pipeline.datasets.batches import LoadedSample, UnreadableSample, read_batches
from pipeline.datasets.images import read_image
from tests.support.plans import configuration

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


READ: dict[str, Callable[[], bytes]] = {
    "animated.gif": lambda: encode(PICTURE.convert("P"), "GIF", save_all=True, append_images=[Image.new("P", (120, 90))]),
    "cmyk.jpg": lambda: encode(PICTURE.convert("CMYK"), "JPEG"),
    "palette.png": lambda: encode(PICTURE.convert("P"), "PNG", transparency=3),
    "sixteen.png": lambda: encode(Image.fromarray(np.full((90, 120), 40_000, np.uint16)), "PNG"),
    "turned.jpg": lambda: encode(PICTURE, "JPEG", exif=_turned()),
}
NOT_READ: dict[str, tuple[Callable[[], bytes], str]] = {
    "bomb.png": (lambda: encode(Image.new("1", (20_000, 10_000)), "PNG"), "decompression bomb"),
    "empty.png": (lambda: b"", "the file is empty"),
    "float.tif": (lambda: encode(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF"), "no known range"),
    "text.jpg": (lambda: b"no image at all", "no image of a format that is known"),
    "truncated.jpg": (lambda: encode(PICTURE, "JPEG")[:1500], "the image cannot be decoded"),
}
LINKS = {"dead.png": "cannot read", "loop.png": "cannot read", "outside.png": "leads out of the dataset's root"}


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PREPROCESS = Preprocess(resize=16, crop=16)


@pytest.fixture
def items(tmp_path: Path) -> dict[str, tuple[Sample, LoadedSample | UnreadableSample]]:
    root = tmp_path / "root"
    root.mkdir()
    for name, make in {**READ, **{name: make for name, (make, _) in NOT_READ.items()}}.items():
        (root / name).write_bytes(make())
    (tmp_path / "secret.png").write_bytes(encode(PICTURE, "PNG"))
    (root / "outside.png").symlink_to("../secret.png")
    (root / "dead.png").symlink_to("nowhere.png")
    (root / "loop.png").symlink_to("loop.png")
    config = configuration(dataset={"kind": "folder", "root": str(root)})
    samples = list_samples(config.dataset, {})
    read = [item for batch in read_batches(samples, config.storage, PREPROCESS, 4, timeout=10) for item in batch.items]
    assert [item.row for item in read] == list(range(len(samples)))
    return {sample.image_id: (sample, item) for sample, item in zip(samples, read, strict=True)}


def test_every_image_of_a_bad_folder_is_read_or_says_why_not(items: dict[str, tuple[Sample, LoadedSample | UnreadableSample]]) -> None:
    reasons = {name: words for name, (_, words) in NOT_READ.items()} | LINKS
    assert set(items) == set(READ) | set(reasons)
    for name, (sample, item) in items.items():
        if name in READ:
            assert isinstance(item, LoadedSample), name
            decoded = read_image(sample, {}, PREPROCESS)
            assert torch.equal(item.image, PREPROCESS(decoded.image))
            size = (16, 21) if name == "turned.jpg" else (21, 16)
            if name == "sixteen.png":  # was RGB with 8 bits
                np.testing.assert_allclose(decoded.image, np.full((*size[::-1], 3), 40_000 / 65_535), atol=1e-6)
            else:
                assert (decoded.image.mode, decoded.image.size) == ("RGB", size)
            assert (item.image_facts["width"], item.image_facts["height"]) == ((90, 120) if name == "turned.jpg" else (120, 90))
        else:
            assert isinstance(item, UnreadableSample), name
            assert reasons[name] in item.error
            assert "\n" not in item.error


def test_what_is_written_down_of_a_large_photograph_is_of_the_photograph_and_not_of_its_draft(tmp_path: Path) -> None:
    PICTURE.resize((1200, 900)).save(tmp_path / "a.jpg", exif=_turned())
    config = configuration(dataset={"kind": "folder", "root": str(tmp_path)})
    preprocess = Preprocess(resize=64, crop=56)
    (batch,) = read_batches(list_samples(config.dataset, {}), config.storage, preprocess, 4, timeout=10)
    (item,) = batch.items
    assert isinstance(item, LoadedSample)
    assert item.image.shape == (3, 56, 56)
    assert {name: item.image_facts[name] for name in ("width", "height", "crop")} == {
        "width": 900,
        "height": 1200,
        "crop": preprocess.crop_box(900, 1200),
    }
