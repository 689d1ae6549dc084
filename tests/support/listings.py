"""Folders of photographs, and their listings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.datasets import Listing, Sample, list_samples
from pipeline.datasets.folder import FolderConfig
from tests.support.plans import save_picture


def listed(root: Path | str, **keys: Any) -> Listing:
    return list_samples(FolderConfig(kind="folder", root=str(root), **keys), {})


def classes(samples: list[Sample]) -> dict[str, tuple[str | None, str | None]]:
    return {sample.image_id: (sample.split, sample.class_name) for sample in samples}


def save(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        save_picture(root / name, seed=seed)
    return root


def line(samples: Listing) -> str:
    (only,) = samples.notes.lines()
    return only
