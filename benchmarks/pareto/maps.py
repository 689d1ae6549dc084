"""Figure of the maps that `python -m benchmarks pareto` compares."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib.figure import Figure

from hdm_core.heatmap import overlay
from pipeline.report.crop import read_crop
from pipeline.runs import RunStore
from pipeline.runs.maps import read_map


def maps_figure(stores: Mapping[str, RunStore]) -> bytes:
    """Draw a PNG with one row per photograph and one column per run.

    It shows the photographs that all runs have in common. A run has one method.

    Args:
        stores: title -> run.
    """
    columns = {title: _maps(store) for title, store in stores.items()}
    common = [image for image in next(iter(columns.values())) if all(image in maps for maps in columns.values())]
    figure = Figure(figsize=(1.7 * (1 + len(columns)), 1.8 * len(common)), layout="constrained")
    axes = figure.subplots(len(common), 1 + len(columns), squeeze=False)
    for line, (row, image) in enumerate(zip(axes, common, strict=True)):
        for axis in row:
            axis.axis("off")
        for axis, (title, maps) in zip(row[1:], columns.items(), strict=True):
            store, method, index = maps[image]
            values = read_map(store.storage.zarr("maps.zarr"), method, index)
            crop = read_crop(store.images().slice(index, 1).to_pylist()[0], values.shape, {})
            row[0].imshow(crop)
            axis.imshow(overlay(crop, values))
            if line == 0:
                axis.set_title(title, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _maps(store: RunStore) -> dict[str, tuple[RunStore, str, int]]:
    """Return image_id -> run, method and row of its map, for images that have one."""
    rows = store.records().select(["image_id", "method", "row", "status"]).to_pylist()
    return {row["image_id"]: (store, row["method"], row["row"]) for row in rows if row["status"] == "ok"}
