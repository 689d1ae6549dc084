"""A folder of broken, odd and hostile images, with the expected status of each."""

from __future__ import annotations

import os
import struct
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.broken_files import (
    DEEP,
    EXIF,
    HIDDEN,
    JPEG,
    NAN,
    PICTURE,
    PNG,
    PROFILE,
    Make,
    data,
    declared,
    declared_png,
    encode,
    endpoint,
    frames,
    half,
    huge,
    link,
    png,
    text_bomb,
    turned,
)

SIDE = 32  # of the crop, the network's input
MAGENTA = (255, 0, 255)  # the colour for which `NETWORK` returns NaN

# A small network that returns NaN for some images, as networks in half precision do.
NETWORK = """
import torch
from torch import nn

class Fragile(nn.Sequential):
    def forward(self, images):
        red, green, blue = images.unbind(1)
        broken = (red > 2.2) & (green < -2) & (blue > 2.6)
        return super().forward(images).masked_fill(broken.all(2).all(1)[:, None], float("nan"))

def make():
    layers = nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    return Fragile(*layers)
"""


@dataclass(frozen=True)
class Kind:
    """Files with the same expected status: a line of the table in docs/data.md.

    Attributes:
        what: description of the files, as in the table.
        status: worst status of their records; None for files that are not images and have no row.
        message: part of the error in their records.
        files: name -> function that writes the file.
    """

    what: str
    status: str | None
    message: str
    files: dict[str, Make]


UNKNOWN, BROKEN, CANNOT = "no image of a format that is known", "the image cannot be decoded", "cannot read"
NAMES = {
    "spaces": " two  spaces .png",
    "accents, composed": unicodedata.normalize("NFC", "été.png"),
    "accents, decomposed": unicodedata.normalize("NFD", "été.png"),
    "an emoji of several characters": "🐈\u200d⬛.png",
    "a line break": "new\nline.png",
    "quotes": "\"double\" 'single' `back`.png",
    "HTML": "<script>document.title='owned'<script>.png",
    "HTML in an attribute": "\"><img src=x onerror=document.title='owned'>.png",
    "an encoded parent": "%2e%2e%2fup.png",
    "a leading dash": "--json.png",
    "255 bytes": f"{'n' * 251}.png",
    "a backslash": "back\\slash.png",
    "a command": "$(touch owned);&|.png",
    "a template": "{{ 7 * 7 }}{% raw %}.png",
    "a formula": "=1+1.png",
    "an escape of the terminal": "\x1b[31m\x1b]0;owned\x07red.png",
    "a turn of the writing direction": "\u202egnp.exe.png",
    "rich's markup": "[bold red]markup.png",
    "a URL's query and fragment": "a?token=x#b.png",
    "a glob": "[a-z]*?.png",
    "another suffix before": "a.exe.png",
    "an upper-case suffix": "UPPER.PNG",
    "bytes that are no UTF-8": os.fsdecode(b"\xff\xfe.png"),
}


KINDS = [
    Kind(
        "truncated JPEG, PNG, GIF, WebP or TIFF",
        "unreadable",
        BROKEN,
        {f"truncated.{form}": half(encode(PICTURE, form)) for form in ("jpeg", "png", "gif", "webp", "tiff")},
    ),
    Kind("0 bytes", "unreadable", "the file is empty", {"empty.png": data(b"")}),
    Kind(
        "text, HTML, SVG, PDF, an executable or zeros with an image's suffix",
        "unreadable",
        UNKNOWN,
        {
            "text.jpg": data(b"no image\n"),
            "page.png": data(b"<!doctype html><p>404"),
            "svg.png": data(b"<svg onload='owned()'/>"),
            "pdf.png": data(b"%PDF-1.7\n%%EOF"),
            "program.png": data(b"\x7fELF\2\1\1" * 99),
            "zeros.gif": data(bytes(999)),
        },
    ),
    Kind("EPS, a program that Pillow would have run", "unreadable", UNKNOWN, {"eps.jpg": data(encode(PICTURE, "EPS"))}),
    Kind(
        "a signature or a directory, and no more",
        "unreadable",
        UNKNOWN,
        {"signature.png": data(PNG[:8]), "directory.tif": data(b"II*\0\xff\xff\xff\x7f")},
    ),
    Kind("a PNG with a wrong checksum", "unreadable", BROKEN, {"checksum.png": data(PNG[:60] + bytes(4) + PNG[64:])}),
    Kind(
        "a bomb: 30,000 x 30,000 pixels in 110 kB",
        "unreadable",
        "decompression bomb",
        {"bomb.png": data(lambda: png(30_000, 30_000))},
    ),
    Kind(
        "a header that declares more pixels than are safe",
        "unreadable",
        "decompression bomb",
        {
            "declared.png": data(declared_png()),
            "declared.gif": data(declared(encode(PICTURE, "GIF"), 6, b"\xff" * 4)),
            "declared.bmp": data(declared(encode(PICTURE, "BMP"), 18, struct.pack("<II", 90_000, 90_000))),
        },
    ),
    Kind("a comment of 80 MB in a PNG of 78 kB", "unreadable", BROKEN, {"comment.png": data(text_bomb)}),
    Kind("a file of 2 GiB", "unreadable", "more than 1 GiB", {"huge.png": huge}),
    Kind("1 x 80,000 pixels, 104 million after the resize", "unreadable", "too narrow", {"narrow.png": data(lambda: png(1, 80_000))}),
    Kind(
        "32 bits per pixel: float with NaN, integers",
        "unreadable",
        "no known range",
        {
            "float.tif": data(encode(Image.fromarray(NAN), "TIFF")),
            "integer.tif": data(encode(Image.fromarray(np.nan_to_num(NAN).astype(np.int32)), "TIFF")),
        },
    ),
    Kind("EXIF whose header is broken", "unreadable", BROKEN, {"exif.png": data(encode(PICTURE, exif=b"Exif\0\0MM\xfe\xfe" + EXIF[10:]))}),
    Kind("EXIF that ends too early", "ok", "", {"exif-end.png": data(encode(PICTURE, exif=EXIF))}),
    Kind(
        "a link out of the root, or a device",
        "unreadable",
        "leads out",
        {"outside.png": link("../secret.png"), "zero.png": link("/dev/zero")},
    ),
    Kind("a link to nowhere, or to itself", "unreadable", CANNOT, {"dead.png": link("nowhere.png"), "loop.png": link("loop.png")}),
    Kind(
        "a FIFO, a socket, a link to a folder",
        "unreadable",
        "it is no file",
        {"fifo.png": os.mkfifo, "socket.png": endpoint, "folder-link.png": link(".")},
    ),
    Kind("an image on which the network answers NaN", "nan", "", {"nan.png": data(encode(Image.new("RGB", (96, 80), MAGENTA)))}),
    Kind(
        "one colour, 1 x 1 pixel",
        "flat",
        "",
        {"colour.png": data(encode(Image.new("RGB", (96, 80), "grey"))), "one.png": data(encode(Image.new("RGB", (1, 1), "red")))},
    ),
    Kind(
        "1 x 96 or 96 x 1 pixels",
        "ok",
        "",
        {"tall.png": data(encode(PICTURE.resize((1, 96)))), "wide.png": data(encode(PICTURE.resize((96, 1))))},
    ),
    Kind(
        "1 bit per pixel; grey of 8 or 16 bits",
        "ok",
        "",
        {
            "bit.png": data(encode(PICTURE.convert("1"))),
            "grey.png": data(encode(PICTURE.convert("L"))),
            "deep.png": data(encode(DEEP)),
            "deep.tif": data(encode(DEEP, "TIFF")),
        },
    ),
    Kind(
        "transparency: of a palette, with grey, with colours",
        "ok",
        "",
        {
            "palette.png": data(encode(PICTURE.convert("P"), transparency=bytes(range(256)))),
            "la.png": data(encode(HIDDEN.convert("LA"))),
            "rgba.png": data(encode(HIDDEN)),
        },
    ),
    Kind(
        "CMYK, in JPEG inverted as Adobe does",
        "ok",
        "",
        {"cmyk.jpg": data(encode(PICTURE.convert("CMYK"), "JPEG")), "cmyk.tif": data(encode(PICTURE.convert("CMYK"), "TIFF"))},
    ),
    Kind(
        "JPEG, progressive too, PNG, BMP, WebP, PPM",
        "ok",
        "",
        {
            "plain.jpg": data(JPEG),
            "progressive.jpg": data(encode(PICTURE, "JPEG", progressive=True)),
            **{f"plain.{form}": data(encode(PICTURE, form)) for form in ("png", "bmp", "webp", "ppm")},
        },
    ),
    Kind(
        "animated GIF, WebP or PNG, TIFF of several pages, MPO: the first image",
        "ok",
        "",
        {**{f"frames.{form}": data(frames(form)) for form in ("gif", "webp", "png", "tiff")}, "mpo.jpg": data(frames("mpo"))},
    ),
    Kind("EXIF orientation 1 to 8: upright", "ok", "", {f"turned-{number}.png": data(turned(number)) for number in range(1, 9)}),
    Kind("EXIF orientation that is none: as it is", "ok", "", {"turned-99.png": data(turned(99))}),
    Kind(
        "ICC profile, also a broken one: not applied",
        "ok",
        "",
        {
            "icc.jpg": data(encode(PICTURE, "JPEG", icc_profile=PROFILE)),
            "broken-icc.jpg": data(encode(PICTURE, "JPEG", icc_profile=PROFILE[:99])),
        },
    ),
    Kind("the suffix of another format; bytes after the image", "ok", "", {"png.jpg": data(PNG), "tail.png": data(PNG + b"PK\3\4" * 99)}),
    Kind("the same content twice; a link within the root", "ok", "", {"twin.png": data(PNG), "inside.png": link("twin.png")}),
    Kind(f"a name with {', '.join(NAMES)}", "ok", "", {name: data(PNG) for name in NAMES.values()}),
    Kind(
        "the same of a broken image",
        "unreadable",
        UNKNOWN,
        {f"{NAMES['HTML'][:-4]}broken.png": data(b"<script>document.title='owned'</script>")},
    ),
    Kind("a hidden file", None, "", {".hidden.png": data(PNG)}),
    Kind("a folder with an image's name", None, "", {"folder.png": Path.mkdir}),
]


def build(root: Path, names: Iterable[str] | None = None) -> None:
    """Fill a new folder with all files, or those of some names; `secret.png` next to it must never be read."""
    root.mkdir(parents=True)
    (root.parent / "secret.png").write_bytes(PNG)
    for kind in KINDS:
        for name, make in kind.files.items():
            if names is None or name in names:
                make(root / name)


def image_id(name: str) -> str:
    """Return the image id of a file's name."""
    return name.encode(errors="backslashreplace").decode()


def expected() -> dict[str, Kind]:
    """Map the id of each image that has a row to its kind."""
    return {image_id(name): kind for kind in KINDS if kind.status is not None for name in kind.files}


def table() -> str:
    """Format the corpus as the table of docs/data.md."""
    rows = [f"| {kind.what} | {kind.status or 'no row'} | {kind.message or '-'} |" for kind in KINDS]
    return "\n".join(["| kind of file | status | a part of its error |", "| --- | --- | --- |", *rows])
