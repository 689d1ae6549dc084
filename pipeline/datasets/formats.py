"""Image formats that are decoded, and the suffixes of their files."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import cache

from PIL import Image

# Pillow knows many more formats, rare and old, and runs an interpreter of programs for one of them, EPS.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})  # read by pydicom, whatever the suffix, but listed with these
DICOM_HINT = "DICOM is read by pydicom, which is not installed: pip install 'hdm-pipeline[medical]'"
_READ_AS_JPEG = "MPO"  # several JPEG images in one file: Pillow's decoder of JPEG reads the first one


def missing_reader(paths: Iterable[str]) -> str | None:
    """Return what to install to read files of these names; None if nothing is missing."""
    if importlib.util.find_spec("pydicom") is None and any(suffix_of(path) in DICOM_SUFFIXES for path in paths):
        return DICOM_HINT
    return None


@cache
def image_suffixes() -> frozenset[str]:
    """Return the lower-case suffixes of the decoded formats: Pillow's, and DICOM's."""
    formats = {*FORMATS, _READ_AS_JPEG}
    return DICOM_SUFFIXES.union(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def suffix_of(path: str) -> str:
    """Return the lower-case suffix of a file's name; empty if it has none."""
    stem, _, suffix = path.rpartition("/")[2].rpartition(".")  # a Path takes ten times as long, for each of a million files
    return f".{suffix}".lower() if stem.strip(".") and suffix else ""


def has_image_suffix(path: str) -> bool:
    """Return True if the suffix of a file's name is that of a decoded format."""
    return suffix_of(path) in image_suffixes()
