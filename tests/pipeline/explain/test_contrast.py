"""Columns of the records about the baselines: a network that answers grey with a class."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import pipeline.explain.contrast as contrast
from hdm_core import Classifier, Preprocess, measure_baselines
from pipeline.datasets import Sample
from pipeline.explain.contrast import fixed_baselines
from pipeline.explain.results import ShardResult
from pipeline.explain.shard import explain_shard
from pipeline.plan import Shard
from pipeline.runs.parts import encode_records
from pipeline.runs.records import RECORDS, Record, from_parquet
from tests.support.plans import DM, HDM, configuration
from tests.support.retina_network import EMPTY, Retina
from tests.support.tiny_networks import smooth

SIDE = 16
PREPROCESS = Preprocess(resize=SIDE, crop=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)


def retina() -> Classifier:
    return Classifier.from_module(Retina(), PREPROCESS, ("healthy", "ill"))


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Two green images, which are healthy, and a red one."""
    found = []
    for number, (red, green) in enumerate([(100, 150), (120, 140), (190, 90)]):
        pixels = np.random.default_rng(number).integers(0, 40, (20, 24, 3)) + np.array([red, green, 100])
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        found.append(Sample(f"{number}.png", str(tmp_path / f"{number}.png"), label=0, root=str(tmp_path)))
    return found


def work(classifier: Classifier, samples: Sequence[Sample], methods: Sequence[str], **changes: Any) -> ShardResult:
    config = configuration({"compute.batch_size": 4, **changes}, methods=list(methods), dm=dict(DM), hdm=dict(HDM))
    return explain_shard(classifier, config, Shard(0, 0, len(samples)), samples)


def of_method(result: ShardResult, method: str) -> list[Record]:
    return [record for record in result.records if record.method == method]


def test_the_records_say_what_the_class_keeps_on_both_baselines(samples: list[Sample]) -> None:
    records = work(retina(), samples, ["hdm", "gradient"], **{"metrics.baseline": "blur"}).records
    assert [record.target_name for record in records] == ["healthy", "healthy"] * 2 + ["ill", "ill"]
    for record in records:
        on_grey = 0.74 if record.target_name == "healthy" else 0.26
        if record.method == "hdm":
            assert record.baseline == "mean"
            assert record.baseline_probability == pytest.approx(on_grey, abs=1e-6)
            assert record.no_contrast is (record.target_name == "healthy")
        else:
            assert (record.baseline, record.baseline_probability, record.no_contrast) == (None, None, None)
        # The blurred image has the same mean colour, up to its edges: nothing of the class is lost.
        assert record.probability is not None
        assert record.metrics_baseline_probability == pytest.approx(record.probability, abs=0.02)
        assert record.metrics_no_contrast is True


def test_no_map_and_no_number_changes(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    found = work(retina(), samples, ["hdm", "gradient"])
    monkeypatch.setattr("pipeline.explain.shard.add_contrast", lambda classifier, config, batch, records, known, limit: list(records))
    without = work(retina(), samples, ["hdm", "gradient"])
    new = {"baseline_probability", "no_contrast", "metrics_baseline_probability", "metrics_no_contrast", "seconds"}
    for record, old in zip(found.records, without.records, strict=True):
        assert {name: value for name, value in record.to_row().items() if name not in new} == {
            name: value for name, value in old.to_row().items() if name not in new
        }
    measured = [record.status == "ok" for record in of_method(found, "hdm")]
    assert [record.metrics.get("deletion_auc") is not None for record in of_method(found, "hdm")] == measured
    assert any(measured)
    for name, array in found.arrays.items():
        np.testing.assert_array_equal(array, without.arrays[name])


def test_each_image_and_baseline_is_scored_once(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[tuple[str, int]] = []
    score = contrast.score_baselines

    def counting(classifier: Classifier, network: nn.Module, images: Tensor, *rest: Any) -> Any:
        scored.extend((kind, len(images)) for kind in rest[2])
        return score(classifier, network, images, *rest)

    monkeypatch.setattr(contrast, "score_baselines", counting)
    work(retina(), samples, ["hdm", "dm", "rise", "mask", "gradient"], **{"rise.masks": 4, "mask.steps": 2, "mask.circles": 2})
    assert scored == [("mean", 3), ("blur", 3)]  # blur is Mask's


def test_the_plan_counts_those_baselines() -> None:
    assert fixed_baselines(configuration(methods=["gradient"])) == {"mean"}
    assert fixed_baselines(configuration(methods=["hdm", "mask"])) == {"mean", "blur"}
    assert fixed_baselines(configuration({"hdm.baseline": "auto", "metrics.baseline": "black"}, methods=["hdm"])) == {"black"}


def test_auto_is_recorded_per_image_and_scored_by_the_method_alone(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = retina()
    images = torch.stack([PREPROCESS(Image.open(sample.path).convert("RGB")) for sample in samples])
    scores = measure_baselines(classifier, images)
    scored: list[str] = []
    score = contrast.score_baselines
    monkeypatch.setattr(contrast, "score_baselines", lambda *given: (scored.extend(given[5]), score(*given))[1])
    records = of_method(work(classifier, samples, ["hdm"], **{"hdm.baseline": "auto", "metrics.baseline": "mean"}), "hdm")
    chosen = scores.largest_contrast().tolist()
    assert [record.baseline for record in records] == [scores.kinds[number] for number in chosen]
    for i, record in enumerate(records):
        assert record.baseline_probability == scores.baseline[i, chosen[i]].item()
        assert record.metrics_baseline_probability == scores.baseline[i, 0].item()
        assert record.no_contrast == scores.no_contrast[i, chosen[i]].item()
    assert scored == []  # the metrics' baseline is one of the candidates


@pytest.mark.parametrize("batch", [1, 2, 3, 64])
def test_the_batch_size_changes_no_bit(samples: list[Sample], batch: int) -> None:
    classifier = Classifier(smooth(3), PREPROCESS, ("a", "b", "c"), "letters")
    names = ("baseline", "baseline_probability", "no_contrast", "metrics_baseline_probability", "metrics_no_contrast")
    found, expected = (
        [[getattr(record, name) for name in names] for record in work(classifier, samples, ["dm"], **{"compute.batch_size": size}).records]
        for size in (batch, 4)
    )
    assert found == expected


def test_several_classes_of_an_image_have_their_own_scores(samples: list[Sample]) -> None:
    records = work(retina(), samples[:1], ["dm"], target={"top": 2}).records
    assert [(record.target_name, record.no_contrast) for record in records] == [("healthy", True), ("ill", True)]
    # "ill" is not the answer for grey, but more probable there than for the green image.
    assert [record.baseline_probability for record in records] == [pytest.approx(0.74), pytest.approx(0.26)]


def test_a_comparison_of_classes_has_the_probability_of_the_difference(samples: list[Sample]) -> None:
    record = work(retina(), samples[:1], ["dm"], target={"contrast": ["healthy", "ill"]}).records[0]
    assert record.target_name == "healthy rather than ill"
    assert record.baseline_probability == pytest.approx(0.74)
    assert record.no_contrast is True


def test_a_regression_has_outputs(samples: list[Sample]) -> None:
    classifier = Classifier.from_module(Retina(), PREPROCESS, ("a", "b"), problem_type="regression")
    record = work(classifier, samples[:1], ["dm"], target=0).records[0]
    assert record.baseline_probability == pytest.approx(EMPTY, abs=1e-6)
    assert record.no_contrast is False
    constant = work(classifier, samples[:1], ["dm"], target=1).records[0]
    assert (constant.baseline_probability, constant.no_contrast) == (0.0, True)


def test_a_flat_map_is_scored_and_one_of_a_broken_score_is_not_judged(samples: list[Sample]) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, 0.2]))

        def forward(self, images: Tensor) -> Tensor:
            bad = torch.where(images.mean((1, 2, 3)) < -0.05, torch.nan, 0.0)
            return self.weight.expand(len(images), -1) + bad[:, None] + 0 * images.mean((1, 2, 3))[:, None]

    records = work(Classifier.from_module(Broken(), PREPROCESS), samples, ["gradient"]).records
    for record in records:
        if record.status == "nan":
            assert record.metrics_no_contrast is None
        else:
            assert record.status == "flat"
            assert record.metrics_no_contrast is True


def test_an_image_that_cannot_be_scored_keeps_its_map_and_numbers(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: Any) -> Any:
        raise RuntimeError("no such\nkernel")

    monkeypatch.setattr(contrast, "score_baselines", broken)
    with caplog.at_level(logging.WARNING, "pipeline"):
        records = work(retina(), samples[:1], ["dm"]).records
    assert [record.status for record in records] == ["ok"]
    assert records[0].metrics["deletion_auc"] is not None
    assert (records[0].baseline, records[0].baseline_probability, records[0].no_contrast) == ("mean", None, None)
    assert "0.png: dm: the baselines could not be scored (RuntimeError: no such kernel)" in caplog.text


def test_unreadable_images_have_no_scores(samples: list[Sample]) -> None:
    Path(samples[0].path).write_bytes(b"no image")
    record = work(retina(), samples, ["dm"]).records[0]
    assert (record.status, record.baseline, record.no_contrast, record.metrics_no_contrast) == ("unreadable", None, None, None)


def test_the_columns_are_stored_and_files_without_them_have_null(samples: list[Sample]) -> None:
    data = encode_records(work(retina(), samples, ["hdm"]).records)["records"]
    table = from_parquet([data], RECORDS)
    assert table["no_contrast"].to_pylist() == [True, True, False]
    assert table["baseline"].to_pylist() == ["mean"] * 3
    old = table.drop_columns(["baseline", "baseline_probability", "no_contrast", "metrics_baseline_probability", "metrics_no_contrast"])
    sink = io.BytesIO()
    pq.write_table(old, sink)
    assert from_parquet([sink.getvalue()], RECORDS)["no_contrast"].to_pylist() == [None] * 3
