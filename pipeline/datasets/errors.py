"""Error of an image that cannot be read or decoded."""

from __future__ import annotations

from PIL import Image


class UnreadableError(Exception):
    """An image that cannot be read or decoded.

    Its record gets the status `unreadable` with the text of this error.

    Attributes:
        sha256: checksum of the image's file, if it could be read but not decoded.
    """

    sha256: str | None = None


def refuse_bomb(width: int, height: int, channels: int = 1) -> None:
    """Refuse an image that Pillow's limit against decompression bombs would refuse.

    The limit is for RGB, so that the channels count as a share of three.

    Raises:
        UnreadableError: if it has more than twice Pillow's number of pixels.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height * max(1, channels / 3) > 2 * limit:
        raise UnreadableError(f"{width} x {height} pixels of {channels} channels are more than is safe: a decompression bomb?")
