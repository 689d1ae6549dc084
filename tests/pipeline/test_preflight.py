"""The photographs that a run's classifier is checked with."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdm_core import Classifier, Preprocess
from hdm_core.testing.networks import smooth_network
from pipeline.datasets import Sample
from pipeline.preflight import read_photographs
from tests.support.plans import save_picture


@pytest.mark.parametrize(("count", "rows"), [(1, [0]), (3, [0, 1, 2]), (7, [0, 1, 3, 5]), (100, [0, 25, 50, 75])])
def test_photographs_are_taken_from_the_whole_dataset(tmp_path: Path, count: int, rows: list[int]) -> None:
    classifier = Classifier.from_module(smooth_network(), Preprocess(16, 16))
    samples = [Sample(str(row), str(tmp_path / f"{row}.png")) for row in range(count)]
    for row in rows:  # the others do not exist: to read one of them would leave a photograph out
        save_picture(tmp_path / f"{row}.png", seed=row)
    photographs = read_photographs(classifier, samples, {})
    assert photographs is not None
    assert len(photographs) == len(rows)


def test_without_a_readable_photograph_there_is_none(tmp_path: Path) -> None:
    classifier = Classifier.from_module(smooth_network(), Preprocess(16, 16))
    assert read_photographs(classifier, [Sample("0", str(tmp_path / "none.png"))], {}) is None
