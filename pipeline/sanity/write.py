"""Write sanity.parquet and the page of a sanity check with its images."""

from __future__ import annotations

import json

from hdm_core import method_title
from hdm_core.heatmap import overlay
from pipeline.classifiers.load import preprocess_of
from pipeline.config.schema import RunConfig
from pipeline.report.gallery import encode_jpeg
from pipeline.runs.records import to_parquet
from pipeline.sanity.figure import draw_cascading
from pipeline.sanity.page import ExampleImage, ExampleMap, render_page
from pipeline.sanity.run import SHOWN, SanityResult
from pipeline.sanity.schema import SANITY
from pipeline.storage.objects import Storage

NAME, PAGE, FIGURE, FOLDER = "sanity.parquet", "index.html", "cascading.png", "maps"


def sanity_storage(config: RunConfig) -> Storage:
    """Return the folder of a sanity check beside the runs: NAME-sanity.

    Raises:
        InputError: if the output's protocol is unknown.
    """
    return Storage.of(config.output, f"{config.name}-sanity", config.storage, config.compute.storage_timeout)


def write_sanity(result: SanityResult, target: Storage) -> str:
    """Write sanity.parquet and index.html, and return the page's URL.

    Both replace those of an earlier check in the same place.
    """
    for name in [PAGE, FIGURE, *(f"{FOLDER}/{image}" for image in target.names(FOLDER))]:
        target.remove(name)  # so that a page never shows the maps of another check
    schema = SANITY.with_metadata({**SANITY.metadata, b"hdm.sanity": json.dumps(describe(result), ensure_ascii=False).encode()})
    target.write(NAME, to_parquet([row.as_dict() for row in result.rows], schema))
    figure = draw_cascading(result.rows, result.limits.cascading)
    if figure is not None:
        target.write(FIGURE, figure)
    target.write(PAGE, render_page(result, _draw_examples(result, target), FIGURE if figure is not None else None))
    return target.url(PAGE)


def describe(result: SanityResult) -> dict[str, object]:
    """Return what was checked, as JSON has it."""
    return {
        "name": result.config.name,
        "config_hash": result.config.hash(),
        "classifier": result.classifier,
        "against": result.against,
        "images": len(result.data.samples),
        "left_out": list(result.data.skipped),
        "limits": result.limits.model_dump(),
    }


def _draw_examples(result: SanityResult, target: Storage) -> list[ExampleImage]:
    """Write the maps of the first images by stage, and return their places."""
    preprocess, data = preprocess_of(result.data.subject.classifier), result.data
    examples = []
    for number in range(min(SHOWN, len(data.samples))):
        crop = preprocess.cropped(data.photographs[number])
        photograph = f"{FOLDER}/{number}.jpg"
        target.write(photograph, encode_jpeg(crop))
        methods: dict[str, list[ExampleMap]] = {}
        for place, (method, stages) in enumerate(result.examples.items()):
            methods[method_title(method)] = tiles = []
            for step, (stage, maps) in enumerate(stages):
                path = None
                if maps.status[number] == "ok":
                    path = f"{FOLDER}/{number}-{place}-{step}.jpg"
                    target.write(path, encode_jpeg(overlay(crop, maps.values[number])))
                tiles.append(ExampleMap(stage, path, maps.status[number]))
        examples.append(ExampleImage(data.samples[number].image_id, photograph, methods))
    return examples
