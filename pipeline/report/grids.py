"""Figures 4 and 5 of the paper: grids of the gallery's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.gallery import GalleryEntry, Tile, evenly_spaced

MAX_ENTRIES = 6  # photographs per figure, as in the paper's Figure 4


@dataclass(frozen=True)
class Grid:
    """Images in rows and columns.

    Attributes:
        columns: headings; empty if the titles of the rows suffice.
        rows: a title and one tile per column; None for an empty cell.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Tile | None]]]


def method_grid(entries: Sequence[GalleryEntry]) -> Grid | str:
    """Arrange the heatmaps of all methods, one row per photograph.

    Returns:
        The grid, or one sentence with the reason why there is none.
    """
    entries = select_entries(entries)
    if not entries:
        return "The photographs are not available any more."
    columns = ["Photograph", *(tile.title for tile in entries[0].maps)]
    return Grid(columns, [(str(entry.image["image_id"]), [entry.photograph, *entry.maps]) for entry in entries])


def stage_grid(entries: Sequence[GalleryEntry]) -> Grid | str:
    """Arrange HDM's stages, its map and the pieces of evidence by photograph.

    A single stage is the map itself, and has no column of its own.

    Returns:
        The grid, or one sentence with the reason why there is none.
    """
    entries = select_entries([entry for entry in entries if len(entry.stages) > 1 or entry.pieces])
    if not entries:
        return "None of the photographs shown has an HDM map with several stages."
    stages = [tile.title for tile in entries[0].stages] if len(entries[0].stages) > 1 else []
    most = max(len(entry.pieces) for entry in entries)
    columns = ["Photograph", *stages, "Weighted mean" if stages else "HDM", *(f"Piece {number + 1}" for number in range(most))]
    rows: list[tuple[str, Sequence[Tile | None]]] = []
    for entry in entries:
        missing = [None] * (most - len(entry.pieces))
        tiles = [entry.photograph, *(entry.stages if stages else ()), hdm_tile(entry), *entry.pieces, *missing]
        rows.append((str(entry.image["image_id"]), tiles))
    return Grid(columns, rows)


def select_entries(entries: Sequence[GalleryEntry]) -> list[GalleryEntry]:
    """Select the entries of a figure, evenly among those with a photograph."""
    available = [entry for entry in entries if entry.photograph.path]
    return [available[index] for index in evenly_spaced(range(len(available)), MAX_ENTRIES)]


def hdm_tile(entry: GalleryEntry) -> Tile | None:
    """Return HDM's heatmap of an entry, if it has one."""
    return next((tile for tile in entry.maps if tile.record and tile.record["method"] == "hdm"), None)
