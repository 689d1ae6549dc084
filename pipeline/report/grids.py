"""The paper's figures that are made of the gallery's pictures: methods side by side (Figure 4) and HDM's stages (Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.gallery import Entry, Tile, spread

SHOWN = 6  # photographs a figure, as in the paper's Figure 4


@dataclass(frozen=True)
class Grid:
    """Pictures in rows and columns.

    Attributes:
        columns: their heads; empty where the row's titles say all.
        rows: a title and a tile for every column; None where there is nothing to show.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Tile | None]]]


def comparison(entries: Sequence[Entry]) -> Grid | str:
    """A row a photograph: the photograph and every method's heatmap; or why there is none."""
    entries = pick(entries)
    if not entries:
        return "The photographs are not available any more."
    columns = ["Photograph", *(tile.title for tile in entries[0].maps)]
    return Grid(columns, [(str(entry.image["image_id"]), [entry.photograph, *entry.maps]) for entry in entries])


def stages(entries: Sequence[Entry]) -> Grid | str:
    """A row a photograph: the photograph, the mask of every DM and their mix; or why there is none."""
    entries = pick([entry for entry in entries if len(entry.stages) > 1])
    if not entries:
        return "None of the photographs shown has a map of HDM with several stages."
    columns = ["Photograph", *(tile.title for tile in entries[0].stages), "Their mix"]
    return Grid(columns, [(str(entry.image["image_id"]), [entry.photograph, *entry.stages, hdm_tile(entry)]) for entry in entries])


def pick(entries: Sequence[Entry]) -> list[Entry]:
    """At most as many entries as a figure shows, spread evenly over those whose photograph is there."""
    there = [entry for entry in entries if entry.photograph.picture]
    return [there[place] for place in spread(range(len(there)), SHOWN)]


def hdm_tile(entry: Entry) -> Tile | None:
    """HDM's heatmap of an entry."""
    return next((tile for tile in entry.maps if tile.record and tile.record["method"] == "hdm"), None)
