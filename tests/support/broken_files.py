"""Broken, odd and hostile files, and functions that write them."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((96, 80), Image.Resampling.BICUBIC)

Make = Callable[[Path], object]


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """Encode an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def data(content: bytes | Callable[[], bytes]) -> Make:
    """Return a function that writes these bytes."""
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content())


def half(image: bytes) -> Make:
    """Return a function that writes the first half of the bytes."""
    return data(image[: len(image) // 2])


def chunk(kind: bytes, body: bytes) -> bytes:
    """Build a chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *before: bytes) -> bytes:
    """Build a black PNG with one bit per pixel, without an array of its pixels."""
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def declared(image: bytes, offset: int, size: bytes) -> bytes:
    """Replace the size in the header of an image."""
    return image[:offset] + size + image[offset + len(size) :]


def declared_png() -> bytes:
    """Replace the size in the header of a PNG, which has a checksum."""
    header = chunk(b"IHDR", struct.pack(">II", 90_000, 90_000) + PNG[24:29])
    return PNG[:8] + header + PNG[33:]


def turned(orientation: int) -> bytes:
    """Encode the image as a camera stores it that is held in this EXIF orientation."""
    transpose = Image.Transpose
    transposes = {
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_90,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(PICTURE.transpose(transposes[orientation]) if orientation in transposes else PICTURE, exif=exif)


def frames(form: str) -> bytes:
    """Encode the image and a black frame as an animation."""
    return encode(
        PICTURE, form, save_all=True, append_images=[Image.new("RGB", PICTURE.size)], **({"lossless": True} if form == "WEBP" else {})
    )


def text_bomb() -> bytes:
    """Build a PNG with a comment that unpacks to 80 MB."""
    body = b"Comment\0\1\0\0\0" + zlib.compress(bytes(80_000_000), 9)
    return png(96, 80, chunk(b"iTXt", body))


def huge(path: Path) -> None:
    """Write a sparse file of 2 GiB."""
    with path.open("wb") as file:
        file.truncate(2 << 30)


def endpoint(path: Path) -> None:
    """Create a Unix socket."""
    previous = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has a maximum length
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(previous)


def link(target: str) -> Make:
    """Return a function that creates a symbolic link to a target."""
    return lambda path: path.symlink_to(target)


PNG, JPEG = encode(PICTURE), encode(PICTURE, "JPEG", quality=95)
DEEP = Image.fromarray(np.asarray(PICTURE.convert("L")).astype(np.uint16) * 257)
NAN = np.where(np.eye(80, 96) > 0, np.nan, 0.5).astype(np.float32)
HIDDEN = Image.merge("RGBA", [*PICTURE.split(), Image.new("L", PICTURE.size, 99)])
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xee" * 24  # declares 65,535 entries
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
