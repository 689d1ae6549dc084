"""The page of one image: maps of all methods, stages, curves, ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hdm_core import method_title
from pipeline.config.schema import EVIDENCE_METHOD
from pipeline.datasets.images import UnreadableError
from pipeline.errors import InputError
from pipeline.runs.maps import STAGES
from pipeline.view.grid import note_of, page_values, picture_url
from pipeline.view.pictures import has_signed
from pipeline.view.query import PAGE
from pipeline.view.run_view import RunView
from pipeline.view.similar import MOST_MAPS
from pipeline.view.state import State

WIDTH, HEIGHT = 420, 180  # of the curves, in pixels


def detail_page(view: RunView, state: State, image: Mapping[str, Any], step: int | None = None) -> dict[str, Any]:
    """Return the values of detail.html.

    Args:
        image: row of images.parquet.
        step: point of the curves that is shown; None for a fifth of the way, where both images show something.
    """
    row = image["row"]
    records = view.query.image(row)
    order = {method: number for number, method in enumerate(view.methods)}
    records.sort(key=lambda record: (record["rank"], order.get(record["method"], len(order))))
    problem = view.pictures.problem(image)
    curves = view.curves(row)
    around = {} if state.at is None else view.query.around(state, state.at)
    at = state.at or 0
    places = {"previous": at - 1, "next": at + 1}
    links = {name: state.url(f"/image/{around[place]}", at=place) if place in around else "" for name, place in places.items()}
    page = 1 if state.at is None else at // PAGE + 1
    curve = curves.get((state.method, 0))
    return {
        **page_values(view, state),
        "image": image,
        "facts": _facts(view, image),
        "problem": problem,
        "photo": picture_url(row, "photo.jpg"),
        "size": view.pictures.size,
        "records": [_figure(view, record) for record in records],
        "chosen": method_title(state.method),
        "stages": _stages(view, records),
        **_evidence(view, records),
        "truth": _truth(view, image, records, problem),
        "curves": None if curve is None else _curves(view, row, state, curve, step),
        "back": state.url("/", at=None, page=page) + f"#row-{row}",
        "links": links,
        "similar": state.url(f"/image/{row}/similar"),
    }


def similar_page(view: RunView, state: State, image: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of similar.html."""
    row, method = image["row"], state.method
    record = next((each for each in view.query.image(row) if each["method"] == method and each["rank"] == 0), None)
    found: Sequence[tuple[int, float]] = []
    compared = 0
    if record is not None and record["status"] == "ok":
        found, compared = view.similar.nearest(method, row, sorted(view.catalogue.loaded))
    names = view.images([other for other, _ in found])
    tiles = [
        {
            "name": names[other]["image_id"],
            "url": state.url(f"/image/{other}", at=None),
            "picture": picture_url(other, "overlay.jpg", method=method),
            "cosine": cosine,
        }
        for other, cosine in found
        if other in names
    ]
    sampled = compared < view.info["images"] and compared >= MOST_MAPS // 2
    values = {"image": image, "tiles": tiles, "compared": compared, "sampled": sampled, "chosen": method_title(method)}
    return {**page_values(view, state), **values, "back": state.url(f"/image/{row}")}


def _figure(view: RunView, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one map's figure."""
    row, method, rank = record["row"], record["method"], record["rank"]
    ok = record["status"] == "ok"
    name = method_title(method) + (f", class {rank + 1}" if rank else "")
    figure = {
        "record": record,
        "title": name,
        "heat": picture_url(row, "heat.png", method=method, rank=rank) if ok else "",
        "map": picture_url(row, "map.png", method=method, rank=rank) if ok else "",
        "signed": picture_url(row, "signed.png", method=method, rank=rank) if ok and has_signed(view.info, method) else "",
        "alt": f"{name} heatmap for the class {record['target_name'] or record['target']}",
        "note": note_of(record),
        "metrics": [(view.columns.title(metric), record[metric]) for metric in view.columns.metrics if record[metric] is not None],
        "other": None,
    }
    if view.other is not None and not rank:
        value, reason = view.agreement(record, method)
        has_map = record.get("other_row") is not None and record["other_status"] == "ok" and method in view.other.methods
        heat = picture_url(record["other_row"], "overlay.jpg", method=method, run="other") if has_map else ""
        figure["other"] = {"picture": heat, "spearman": value, "reason": reason, "record": record}
    return figure


def _facts(view: RunView, image: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known about an image, for people."""
    fact = view.pictures.fact(image["row"])
    facts = {"Label": image["class_name"], "Split": image["split"], "Row": image["row"]}
    facts["Photograph"] = f"{fact['width']} \u00d7 {fact['height']}" if fact["width"] else None
    facts |= {name: image[name] for name in view.columns.extra_names}
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def _stages(view: RunView, records: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the pictures of HDM's stages, empty for a run without."""
    record = next((each for each in records if each["method"] == "hdm" and each["rank"] == 0 and each["status"] == "ok"), None)
    if record is None:
        return []
    try:
        array = view.pictures.maps.array(STAGES)
    except KeyError:  # an old run
        return []
    return [
        {"title": f"Stage {number + 1}", "picture": picture_url(record["row"], "stage.jpg", method="hdm", number=number)}
        for number in range(array.shape[-3])
    ]


def _evidence(view: RunView, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return `pieces`, `evidence` and `borders`, empty for a run without a search."""
    record = next((each for each in records if each["method"] == EVIDENCE_METHOD and each["rank"] == 0 and each["status"] == "ok"), None)
    facts = None if record is None or view.info["config"].get("evidence") is None else view.evidence(record["row"])
    if record is None or facts is None:
        return {"pieces": [], "evidence": "", "borders": ""}
    pieces = [
        {
            "title": f"Piece {number + 1}",
            "picture": picture_url(record["row"], "piece.png", method=EVIDENCE_METHOD, number=number),
            "text": f"keeps {keeps:.3f} alone; {loses:.3f} is lost without it",
        }
        for number, (keeps, loses) in enumerate(zip(facts.evidence_sufficiency, facts.evidence_necessity, strict=True))
    ]
    text = f"{facts.evidence_count} found ({facts.evidence_status}), {facts.evidence_area:.1%} of the pixels"
    if facts.evidence_comprehensiveness is not None:
        text += f"; {facts.evidence_comprehensiveness:.3f} of the score is lost without all of them"
    return {
        "pieces": pieces,
        "evidence": text,
        "borders": picture_url(record["row"], "pieces.png", method=EVIDENCE_METHOD) if pieces else "",
    }


def _truth(view: RunView, image: Mapping[str, Any], records: Sequence[Mapping[str, Any]], problem: str) -> dict[str, str] | None:
    """Return the outline of the ground truth, or why it is missing; None without one."""
    if problem or not any(record["region"] in {"segmentation", "bbox"} for record in records):
        return None
    try:
        view.pictures.picture(image, "truth.png", "")
    except (UnreadableError, InputError) as error:
        return {"picture": "", "note": f"The ground truth is not available: {error}"}
    return {"picture": picture_url(image["row"], "truth.png"), "note": ""}


def _curves(view: RunView, row: int, state: State, curve: Mapping[str, Any], step: int | None) -> dict[str, Any] | None:
    """Return the lines of the curves, and the images at one point."""
    lengths = [len(curve[name] or ()) for name in ("deletion", "insertion")]
    if min(lengths) < 2:
        return None
    last = lengths[0] - 1
    step = last // 5 if step is None else min(step, last)

    def line(name: str) -> str:
        values = [(place, value) for place, value in enumerate(curve[name]) if value == value]
        return " ".join(f"{WIDTH * place / last:.1f},{HEIGHT * (1 - min(1.0, max(0.0, value))):.1f}" for place, value in values)

    return {
        "step": step,
        "last": last,
        "percent": 100 * step / last,
        "lines": {name: line(name) for name in ("deletion", "insertion")},
        "values": {name: [None if value != value else round(value, 4) for value in curve[name]] for name in ("deletion", "insertion")},
        "pictures": {name: picture_url(row, f"{name}.jpg", method=state.method, number=step) for name in ("deletion", "insertion")},
    }
