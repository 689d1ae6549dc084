"""Explanation of one photograph, without a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fsspec
from PIL import Image

from hdm_core import explain_with, get_method
from pipeline.classifiers.load import check_class_names, load_classifier, preprocess_of
from pipeline.config.schema import ClassifierConfig
from pipeline.datasets import Sample
from pipeline.datasets.images import UnreadableError, read_image
from pipeline.errors import InputError, one_line
from pipeline.preflight import preflight
from pipeline.report import overlay


def explain_image(
    image: str, out: str, classifier: ClassifierConfig, *, method: str, preset: str | None, target: int | None
) -> dict[str, Any]:
    """Write the heatmap of one photograph; return the facts to print.

    Raises:
        InputError: if the photograph, the method, the classifier, the target or the output cannot be used.
    """
    try:
        settings = get_method(method).configure(preset)
    except ValueError as error:
        raise InputError(one_line(error)) from None
    if Path(out).suffix.lower() not in Image.registered_extensions():
        raise InputError(f"--out {out}: no image format has this suffix; use .png")
    loaded = load_classifier(classifier, seed=0)
    try:
        photograph = read_image(Sample(image, image), {}, channels=preprocess_of(loaded).channels).image
    except UnreadableError as error:
        raise InputError(f"{image}: {error}") from None
    prepared = loaded.prepare([photograph])
    check_class_names(classifier, loaded, preflight(loaded, prepared, {method: settings}).classes or 0)
    try:
        result = explain_with(loaded, prepared, method, settings, target)
    except ValueError as error:  # a target that the network does not have
        raise InputError(one_line(error)) from None
    heatmap = overlay(preprocess_of(loaded).cropped(photograph), result.maps[0].numpy())
    buffer = io.BytesIO()
    heatmap.save(buffer, format=Image.registered_extensions()[Path(out).suffix.lower()])
    try:
        with fsspec.open(out, "wb") as file:
            file.write(buffer.getvalue())
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({one_line(error)})") from None
    target_class = int(result.targets[0])
    return {
        "image": image,
        "method": method,
        "settings": settings.model_dump(mode="json"),
        "class": loaded.class_name(target_class),
        "target": target_class,
        "probability": round(float(loaded.probabilities(result.logits)[0, target_class]), 4),
        "status": result.status[0],
        "passes": result.passes,
        "heatmap": out,
    }
