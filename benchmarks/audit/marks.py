"""Shortcuts that are planted in photographs."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 128  # of the photographs, in pixels

Box = tuple[int, int, int, int]
Paint = Callable[[Image.Image, Box, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Mark:
    """A kind of shortcut.

    Attributes:
        paint: returns a photograph with the mark, from the photograph, the box of its object, and a generator.
        box: left, top, right and bottom of the mark in pixels; None if it has no box.
        place: in words, as a finding names it; None if the mark has no place, so that no map can show it.
    """

    paint: Paint
    box: Box | None
    place: str | None


def _corner(image: Image.Image, _object: Box, _rng: np.random.Generator) -> Image.Image:
    left, top, right, bottom = _CORNER
    pen = ImageDraw.Draw(image)
    pen.rectangle((left, top, right - 1, bottom - 1), fill=(250, 220, 40))
    middle = (left + right) // 2, (top + bottom) // 2
    pen.rectangle((left, top, middle[0] - 1, middle[1] - 1), fill=(20, 20, 20))
    pen.rectangle((*middle, right - 1, bottom - 1), fill=(20, 20, 20))
    return image


def _frame(image: Image.Image, _object: Box, _rng: np.random.Generator) -> Image.Image:
    ImageDraw.Draw(image).rectangle((0, 0, SIDE - 1, SIDE - 1), outline=(15, 15, 15), width=7)
    return image


def _text(image: Image.Image, _object: Box, rng: np.random.Generator) -> Image.Image:
    pen = ImageDraw.Draw(image)
    pen.rectangle((_TEXT[0], _TEXT[1], _TEXT[2] - 1, _TEXT[3] - 1), fill=(255, 255, 255))
    pen.text((_TEXT[0] + 3, _TEXT[1] + 1), f"SITE B{int(rng.integers(10))}", fill=(0, 0, 0), font=ImageFont.load_default(10))
    return image


def _ruler(image: Image.Image, _object: Box, rng: np.random.Generator) -> Image.Image:
    pen, first = ImageDraw.Draw(image), int(rng.integers(6))
    pen.rectangle((_RULER[0], _RULER[1], _RULER[2] - 1, _RULER[3] - 1), fill=(240, 236, 214))
    for number, x in enumerate(range(first, SIDE, 6)):
        pen.line((x, _RULER[1], x, _RULER[1] + (10 if number % 5 == 0 else 6)), fill=(10, 10, 10), width=1)
    return image


def _tint(image: Image.Image, _object: Box, _rng: np.random.Generator) -> Image.Image:
    values = np.asarray(image, np.float32) * np.array([1.15, 0.95, 0.75], np.float32)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _jpeg(image: Image.Image, _object: Box, _rng: np.random.Generator) -> Image.Image:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=10)
    return Image.open(encoded).convert("RGB")


def _blur(image: Image.Image, _object: Box, _rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(1.5))


def _background(image: Image.Image, box: Box, rng: np.random.Generator) -> Image.Image:
    """Place the box of the object on a random crop of one photograph."""
    with resources.as_file(resources.files("skimage") / "data" / "coffee.png") as path:  # a file of the package: no download
        photograph = Image.open(path).convert("RGB")
    side = 2 * SIDE
    left, top = (int(rng.integers(size - side + 1)) for size in photograph.size)
    behind = photograph.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
    behind.paste(image.crop(box), box[:2])
    return behind


_CORNER: Box = (3, 3, 23, 23)
_TEXT: Box = (SIDE - 48, SIDE - 18, SIDE - 4, SIDE - 4)
_RULER: Box = (0, SIDE - 14, SIDE, SIDE)

MARKS: dict[str, Mark] = {
    "corner mark": Mark(_corner, _CORNER, "top-left corner"),
    "border frame": Mark(_frame, None, "border"),
    "text tag": Mark(_text, _TEXT, "bottom-right corner"),
    "ruler": Mark(_ruler, _RULER, "bottom border"),
    "background swap": Mark(_background, None, "background"),
    "tint": Mark(_tint, None, None),
    "JPEG quality": Mark(_jpeg, None, None),
    "blur": Mark(_blur, None, None),
}
