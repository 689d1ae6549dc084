"""Formats: one list for the suffixes that are listed and the files that are decoded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.formats import FORMATS, has_image_suffix, image_suffixes
from pipeline.datasets.images import read_image
from tests.support.listings import listed

PICTURE = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3)))
SAVED_AS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx"), "JPEG2000"),
    **dict.fromkeys((".png", ".apng"), "PNG"),
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".bmp": "BMP",
    ".dib": "DIB",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".mpo": "MPO",
}


@pytest.mark.parametrize("suffix", SAVED_AS)
def test_a_file_with_any_usual_suffix_of_a_format_is_listed_and_decoded(tmp_path: Path, suffix: str) -> None:
    buffer = io.BytesIO()
    PICTURE.convert({".pgm": "L", ".pbm": "1"}.get(suffix, "RGB")).save(buffer, SAVED_AS[suffix])
    for name in (f"x{suffix}", f"y{suffix.upper()}"):
        (tmp_path / name).write_bytes(buffer.getvalue())
    samples = listed(tmp_path)
    assert len(samples) == 2
    assert samples.notes.lines() == []
    for sample in samples:
        assert read_image(sample, {}).size == (64, 64)


def test_the_suffixes_are_those_that_pillow_registers_for_the_decoded_formats_and_dicoms() -> None:
    known = {name: {suffix for suffix, each in Image.registered_extensions().items() if each == name} for name in (*FORMATS, "MPO")}
    assert all(known.values())
    assert image_suffixes() == set.union({".dcm", ".dicom"}, *known.values())
    assert not any(has_image_suffix(f"a{suffix}") for suffix in (".eps", ".pdf", ".svg", ".nii", ".npy", ".ico", ".txt", ""))
