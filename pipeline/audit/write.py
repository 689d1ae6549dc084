"""Write audit.parquet, the files below audit/, and report/audit.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw

from hdm_core import method_title
from hdm_core.heatmap import overlay
from pipeline.audit.audit import Audit
from pipeline.audit.finding import AUDIT, Finding
from pipeline.audit.groups import CLUSTERS
from pipeline.audit.review import review_csv
from pipeline.report.crop import fill_colour
from pipeline.report.gallery import Tile, draw_photograph, encode_jpeg
from pipeline.report.heatmap import legend
from pipeline.report.templates import render
from pipeline.runs.maps import read_map
from pipeline.runs.records import to_parquet
from pipeline.storage.objects import Storage

NAME, CLUSTERS_NAME, REVIEW_NAME, PAGE = "audit.parquet", "audit/clusters.parquet", "audit/review.csv", "report/audit.html"

_FOLDER = "audit"  # below report/
_SHOWN = 40  # findings with images on the page
_IMAGES = 4  # of a finding
_BOX = (255, 64, 160)


@dataclass(frozen=True)
class ShownFinding:
    """A finding with the images of its page: photograph and heatmap in turn."""

    finding: Finding
    tiles: Sequence[Tile]


def write_audit(audit: Audit, out: Storage | None = None) -> str:
    """Write findings, clusters, images to review and the page; return the page's URL.

    They replace those of an earlier audit, and go into the run, whose commits they do not change, or to other storage.
    """
    target = out or audit.store.storage
    for name in [PAGE, *(f"report/{_FOLDER}/{image}" for image in target.names(f"report/{_FOLDER}"))]:
        target.remove(name)
    target.write(NAME, to_parquet([finding.as_dict() for finding in audit.findings], AUDIT))
    target.write(CLUSTERS_NAME, to_parquet(audit.clusters, CLUSTERS))
    target.write(REVIEW_NAME, review_csv(audit))
    shown = _draw(audit, target)
    metadata = audit.store.metadata()
    page = render(
        "audit.html",
        run=metadata["name"],
        url=audit.store.url,
        audit=audit,
        method=method_title(audit.method),
        legend=legend(),
        shown=shown,
        more=audit.findings[len(shown) :],
        confirmed=sum(finding.confirmed is True for finding in audit.findings),
    )
    target.write(PAGE, page)
    return target.url(PAGE)


def _draw(audit: Audit, target: Storage) -> list[ShownFinding]:
    """Draw the images of the strongest findings; without a photograph the map."""
    store = audit.store
    wanted = sorted({row for finding in audit.findings[:_SHOWN] for row in finding.examples[:_IMAGES]})
    table = store.images_with_facts()
    images = {row["row"]: row for row in table.take(pa.array(wanted, pa.int64())).to_pylist()}
    info = store.metadata()
    storage, fill = info["config"]["storage"], fill_colour(info)
    maps = store.storage.zarr("maps.zarr")

    def draw(finding: Finding, number: int, image: Mapping[str, Any]) -> list[Tile]:
        def save(kind: str, rendered: Image.Image) -> str:
            path = f"{_FOLDER}/{number:03d}-{image['row']:06d}-{kind}.jpg"
            target.write(f"report/{path}", encode_jpeg(rendered))
            return path

        values = read_map(maps, audit.method, image["row"])
        height, width = values.shape[-2:]
        crop, photograph = draw_photograph(
            image, (height, width), storage, lambda kind, picture: save(kind, _boxed(picture, finding)), fill
        )
        alt = f"{method_title(audit.method)} heatmap of {image['image_id']}"
        return [photograph, Tile(image["image_id"], alt, save("map", _boxed(overlay(crop, values), finding)))]

    shown = []
    for number, finding in enumerate(audit.findings[:_SHOWN]):
        tiles = [tile for row in finding.examples[:_IMAGES] if row in images for tile in draw(finding, number, images[row])]
        shown.append(ShownFinding(finding, tiles))
    return shown


def _boxed(picture: Image.Image, finding: Finding) -> Image.Image:
    """Return a picture with the outline of the finding's box."""
    if finding.box is None:
        return picture
    left, top, right, bottom = finding.box
    boxed = picture.copy()
    ImageDraw.Draw(boxed).rectangle((left, top, right - 1, bottom - 1), outline=_BOX, width=max(1, min(picture.size) // 100))
    return boxed
