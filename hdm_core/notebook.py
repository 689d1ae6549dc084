"""Pictures in a notebook: HTML that Jupyter shows for an object."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable

from PIL import Image

_SIDE = 224  # pixels of the long side, at most

_FIGURE = (
    '<figure style="display:inline-block;margin:0 8px 8px 0;max-width:{side}px;vertical-align:top">'
    '<img src="data:image/png;base64,{data}" alt="{caption}" style="max-width:100%;height:auto">'
    '<figcaption style="font-size:85%;overflow-wrap:anywhere">{caption}</figcaption></figure>'
)


def pictures_html(title: str, pictures: Iterable[tuple[Image.Image, str]]) -> str:
    """Return a title and pictures with captions as HTML; texts are escaped.

    Args:
        title: one line.
        pictures: images and captions; a larger image than 224 pixels is made smaller.
    """
    figures = [_FIGURE.format(side=_SIDE, data=_data(image), caption=html.escape(caption)) for image, caption in pictures]
    return f"<div><p><code>{html.escape(title)}</code></p>{''.join(figures)}</div>"


def _data(image: Image.Image) -> str:
    smaller = image.copy()
    smaller.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    smaller.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
