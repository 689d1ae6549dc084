"""Explanation of one photograph, without a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fsspec
from PIL import Image
from torch import Tensor

from hdm_core import (
    METHODS,
    Classifier,
    EvidenceSettings,
    Explanation,
    explain_with,
    find_evidence,
    get_method,
    measure_baselines,
)
from hdm_core.baseline_contrast import no_contrast_sentence
from hdm_core.evidence.draw import draw_pieces
from hdm_core.heatmap import diverging
from pipeline.classifiers.load import check_class_names, load_classifier, preprocess_of
from pipeline.config.schema import ClassifierConfig
from pipeline.datasets import Sample
from pipeline.datasets.images import UnreadableError, read_image
from pipeline.errors import InputError, one_line
from pipeline.preflight import preflight
from pipeline.report import overlay


def explain_image(
    image: str,
    out: str,
    classifier: ClassifierConfig,
    *,
    method: str,
    preset: str | None,
    target: int | None,
    evidence: EvidenceSettings | None = None,
    signed: bool = False,
) -> dict[str, Any]:
    """Write the heatmap of one photograph; return the facts to print.

    Args:
        evidence: search for pieces of evidence as well, and draw them beside the heatmap, in a file NAME-evidence.
        signed: draw the signed map as well, in a file NAME-signed.

    Raises:
        InputError: if the photograph, the method, the classifier, the target or the output cannot be used.
    """
    try:
        settings = get_method(method).configure(preset)
    except ValueError as error:
        raise InputError(one_line(error)) from None
    if signed and not get_method(method).signed:
        having = ", ".join(name for name, entry in METHODS.items() if entry.signed)
        raise InputError(f"--signed: {method} has no signed map; methods that have one are {having}")
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
    crop, target_class = preprocess_of(loaded).cropped(photograph), int(result.targets[0])
    _write(overlay(crop, result.maps[0].numpy()), out)
    found: dict[str, Any] = {}
    if signed and result.signed is not None:
        found["signed_map"] = _beside(out, "signed")
        _write(diverging(result.signed[0].numpy()), found["signed_map"])
    if evidence is not None:
        try:
            pieces = find_evidence(loaded, prepared, target_class, evidence)
        except ValueError as error:  # masks that are larger than the image
            raise InputError(f"evidence: {one_line(error)}") from None
        drawn = _beside(out, "evidence")
        _write(draw_pieces(crop, pieces.masks(evidence.max_pieces)[0].cpu().numpy()), drawn)
        found["evidence"] = {**pieces.as_dict(0), "image": drawn}
    probability = float(loaded.probabilities(result.logits)[0, target_class])
    return {
        "image": image,
        "method": method,
        "settings": settings.model_dump(mode="json"),
        "class": loaded.class_name(target_class),
        "target": target_class,
        "probability": round(probability, 4),
        "status": result.status[0],
        **_baseline(loaded, prepared, result, loaded.class_name(target_class)),
        "passes": result.passes,
        "heatmap": out,
        **found,
    }


def _beside(out: str, what: str) -> str:
    """Return the path NAME-WHAT of a further picture."""
    return f"{out.removesuffix(Path(out).suffix)}-{what}{Path(out).suffix}"


def _baseline(classifier: Classifier, image: Tensor, result: Explanation, name: str) -> dict[str, Any]:
    """Return the facts about the map's baseline; none for a method without one.

    Args:
        image: (1, C, H, W).
        name: of the class.
    """
    if result.baselines is None:
        return {}
    kind = result.baselines[0]
    measured = measure_baselines(classifier, image, result.targets, [kind])
    score, keeps = float(measured.baseline[0, 0]), bool(measured.no_contrast[0, 0])
    facts: dict[str, Any] = {"baseline": kind, "baseline_probability": round(score, 4), "no_contrast": keeps}
    if keeps:
        facts["remark"] = no_contrast_sentence(name, kind, float(measured.image[0]), score, classifier.problem_type)
    return facts


def evidence_lines(facts: dict[str, Any]) -> dict[str, str]:
    """Return the facts of a search for evidence as lines to print."""
    count = "1 piece" if facts["count"] == 1 else f"{facts['count']} pieces"
    lines = {"evidence": f"{count}, {facts['area']:.1%} of the pixels ({facts['status']}: {facts['reason']})"}
    for number, piece in enumerate(facts["pieces"], 1):
        lines[f"piece {number}"] = (
            f"{piece['area']:.1%} of the pixels keep {piece['sufficiency']:.3f} of the class alone; "
            f"{piece['necessity']:.3f} is lost without them"
        )
    if facts["pieces"]:
        lines["comprehensiveness"] = f"{facts['comprehensiveness']:.3f} of the class is lost without all pieces"
    return {**lines, "evidence passes": f"{facts['passes']:,}", "evidence image": facts["image"]}


def _write(image: Image.Image, path: str) -> None:
    """Write an image in the format of its suffix."""
    buffer = io.BytesIO()
    image.save(buffer, format=Image.registered_extensions()[Path(path).suffix.lower()])
    try:
        with fsspec.open(path, "wb") as file:
            file.write(buffer.getvalue())
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written ({one_line(error)})") from None
