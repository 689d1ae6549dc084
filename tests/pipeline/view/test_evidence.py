"""Pieces of evidence on the page of an image."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from hdm_core.evidence.draw import COLOURS, draw_borders
from pipeline.view import RunView
from tests.pipeline.report.test_figures import with_pieces
from tests.pipeline.view.test_view import client


def test_an_image_has_its_pieces_as_pictures_and_as_a_layer(tmp_path: Path) -> None:
    view = RunView(with_pieces(tmp_path, stages=1))
    opened = client(view)
    page = opened.get("/image/0").text
    assert page.count("/picture/0/piece.png") == 2
    assert "2 found (complete), 25.0% of the pixels; 0.900 of the score is lost without all of them" in page
    assert "keeps 0.910 alone; 0.125 is lost without it" in page
    assert 'id="borders"' in page
    layer = Image.open(io.BytesIO(opened.get("/picture/0/pieces.png?method=hdm").content))
    assert layer.mode == "RGBA"
    pixels = np.asarray(layer)
    # The pieces are row 0 and row 3 of the map: nothing but border.
    assert (pixels[0] == (*COLOURS[0], 255)).all()
    assert (pixels[3] == (*COLOURS[1], 255)).all()
    assert not pixels[[1, 2, *range(4, len(pixels))]].any()
    assert opened.get("/picture/0/piece.png?method=hdm&number=1").status_code == 200
    assert opened.get("/picture/0/piece.png?method=hdm&number=3").status_code == 404
    without = opened.get("/image/1").text
    assert "0 found" in without
    assert 'id="borders"' not in without
    view.close()


def test_borders_are_two_pixels_thick_and_the_inside_is_transparent() -> None:
    piece = np.zeros((1, 9, 9), bool)
    piece[0, 1:8, 1:8] = True
    alpha = np.asarray(draw_borders(piece))[..., 3] > 0
    expected = piece[0].copy()
    expected[3:6, 3:6] = False
    assert (alpha == expected).all()
