"""The page with the images: filters, histograms, tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from hdm_core import METRICS, method_title
from pipeline.report.gallery import NOTES
from pipeline.view.columns import OTHER_COLUMNS
from pipeline.view.query import PAGE, Histogram
from pipeline.view.run_view import RunView
from pipeline.view.state import State

WIDTH, HEIGHT = 240, 46  # of a histogram, in pixels


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, in pixels from the top left."""

    x: float
    y: float
    width: float
    height: float
    title: str


def grid_page(view: RunView, state: State, error: str = "") -> dict[str, Any]:
    """Return the values of grid.html.

    Args:
        error: one line about a filter that is not valid; no images are shown then.
    """
    common = {**page_values(view, state), "error": error, "columns": view.columns, "page_size": PAGE}
    if error or not view.catalogue.loaded:
        return {**common, "tiles": [], "total": 0, "pages": 1, "facets": [], "histograms": [], "bars": {}}
    records, total = view.query.page(state)
    facets, histograms = view.query.counts(state)
    return {
        **common,
        "tiles": [_tile(view, state, record, (state.page - 1) * PAGE + place) for place, record in enumerate(records)],
        "total": total,
        "pages": max(1, -(-total // PAGE)),
        "facets": facets,
        "histograms": histograms,
        "bars": {each.column: _bars(each) for each in histograms},
    }


def page_values(view: RunView, state: State) -> dict[str, Any]:
    """Return the values that every page has."""
    return {
        "run": view.title,
        "url": view.store.url,
        "other": None if view.other is None else view.other.title,
        "other_url": None if view.other is None else view.other.store.url,
        "state": state,
        "methods": [(method, method_title(method)) for method in view.methods],
        "progress": progress(view),
        "theme": state.theme,
        "theme_next": {"auto": "dark", "dark": "light", "light": "auto"}[state.theme],
    }


def progress(view: RunView) -> dict[str, Any]:
    """Return how much of the run is shown, as state.json has it."""
    catalogue = view.catalogue
    loaded, total = len(catalogue.loaded), catalogue.shards
    text = f"{loaded:,} of {total:,} shards"
    if loaded == total:
        text = "complete"
    elif catalogue.loading:
        text += ", reading"
    notes = [each for each in (catalogue.error, view.columns.note) if each]
    if catalogue.broken:
        first = next(iter(catalogue.broken.values()))
        notes.append(f"{len(catalogue.broken):,} shards cannot be read, see hdm verify; {first}")
    if view.other is not None and (other := view.other.catalogue) and len(other.loaded) < other.shards:
        text += f"; other run {len(other.loaded):,} of {other.shards:,}"
    return {"loaded": loaded, "shards": total, "text": text, "notes": notes}


def picture_url(row: int, kind: str, **parameters: object) -> str:
    """Return the URL of a picture."""
    query = urlencode([(name, str(value)) for name, value in parameters.items() if value not in (None, "", 0)])
    return f"/picture/{row}/{kind}" + (f"?{query}" if query else "")


def note_of(record: Mapping[str, Any]) -> str:
    """Return why a result has no map, or an empty text."""
    return "" if record["status"] == "ok" else str(record["error"] or NOTES.get(record["status"], "There is no map."))


def _tile(view: RunView, state: State, record: Mapping[str, Any], at: int) -> dict[str, Any]:
    """Return the values of one image's tile."""
    method, row = state.method, record["row"]
    shown = state.sort if state.sort in (*METRICS, *view.columns.numbers, "seconds") else ""
    if shown in ("probability", OTHER_COLUMNS[1]):  # every tile has them
        shown = ""
    tile = {
        "record": record,
        "at": at,
        "url": state.url(f"/image/{row}", at=at, page=1),
        "picture": picture_url(row, "overlay.jpg", method=method) if record["status"] == "ok" else "",
        "note": note_of(record),
        "metric": (view.columns.title(shown), record[shown]) if shown else None,
        "alt": f"{method_title(method)} heatmap of {record['image_id']}",
        "other": None,
    }
    if view.other is not None:
        value, reason = view.agreement(record, method)
        has_map = record.get("other_row") is not None and record["other_status"] == "ok" and method in view.other.methods
        tile["other"] = {
            "picture": picture_url(record["other_row"], "overlay.jpg", method=method, run="other") if has_map else "",
            "spearman": value,
            "reason": reason,
            "change": record[OTHER_COLUMNS[1]],
            "target_name": record["other_target_name"],
        }
    return tile


def _bars(histogram: Histogram) -> list[Bar]:
    """Return the bars of a histogram; one image has a bar of at least one pixel."""
    highest, width = max(1, *histogram.counts), WIDTH / len(histogram.counts)
    step = (histogram.high - histogram.low) / len(histogram.counts)
    bars = []
    for number, count in enumerate(histogram.counts):
        height = max(1.0, count / highest * HEIGHT) if count else 0.0
        low = histogram.low + number * step
        bars.append(
            Bar(
                round(number * width, 2),
                round(HEIGHT - height, 2),
                round(width - 0.6, 2),
                round(height, 2),
                f"{low:.3g} to {low + step:.3g}: {count:,}",
            )
        )
    return bars
