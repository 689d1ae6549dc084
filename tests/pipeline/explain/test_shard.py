"""One shard of small images: records and maps of every status."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hdm_core import METHODS, METRICS, Classifier, Method, Preprocess, evaluate, explain_with
from hdm_core.masking.ops import normalise
from hdm_core.methods import ExplainJob, RawMaps
from hdm_core.metrics.registry import chosen_metrics
from hdm_core.settings import Settings
from pipeline.config.schema import RunConfig
from pipeline.datasets import Masks, Sample
from pipeline.datasets.images import read_image
from pipeline.explain.results import ShardResult
from pipeline.explain.shard import explain_shard
from pipeline.plan import Plan, Shard
from pipeline.runs import RunStore
from pipeline.runs.images import FACTS
from pipeline.runs.parts import encode_records
from pipeline.runs.records import RECORDS, from_parquet, to_parquet
from tests.support.plans import DM, configuration, save_picture
from tests.support.tiny_networks import Untraceable, normalised, smooth

SIDE = 16
PREPROCESS = Preprocess(resize=SIDE, crop=SIDE)


def _run(job: ExplainJob, settings: Settings) -> RawMaps:
    """Return the red channel: flat for a grey image, NaN for a black one; the method fails on a white one."""
    job.passes.add(2 * len(job.images))
    if (job.images > job.images.new_tensor([2.2, 2.4, 2.6])[:, None, None]).all((1, 2, 3)).any():
        raise RuntimeError("too bright\nto see")
    maps = normalise(job.images[:, :1])[:, 0]
    maps[(job.images < -1.7).all((1, 2, 3))] = torch.nan
    return RawMaps(maps)


PROBE = Method("probe", "Probe", "tests", Settings, {"only": Settings()}, "only", _run, lambda settings, height, width: 2)


@pytest.fixture(autouse=True)
def _probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "probe", PROBE)


@pytest.fixture
def classifier() -> Classifier:
    return Classifier(smooth(3), PREPROCESS, ("ant", "bee", "cat"), "insects")


def config_of(methods: Sequence[str] = ("probe",), batch: int | str = 4, **changes: Any) -> RunConfig:
    return configuration({"compute.batch_size": batch, **changes}, methods=list(methods), dm=DM)


def photograph(folder: Path, name: str, seed: int) -> Sample:
    return Sample(name, str(save_picture(folder / name, seed=seed)), label=seed, root=str(folder))


def plain(folder: Path, name: str, grey: int) -> Sample:
    Image.new("RGB", (24, 20), (grey, grey, grey)).save(folder / name)
    return Sample(name, str(folder / name), root=str(folder))


def broken(folder: Path, name: str, data: bytes = b"no image") -> Sample:
    (folder / name).write_bytes(data)
    return Sample(name, str(folder / name), label=7, root=str(folder))


def work(classifier: Classifier, config: RunConfig, samples: Sequence[Sample], start: int = 0, index: int = 0) -> ShardResult:
    return explain_shard(classifier, config, Shard(index, start, start + len(samples)), samples)


def rows(result: ShardResult, method: str = "probe") -> list[dict[str, Any]]:
    return [record.to_row() for record in result.records if record.method == method]


# Every status


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """ok, flat, nan, unreadable, failed, ok."""
    return [
        photograph(tmp_path, "0.png", 0),
        plain(tmp_path, "1.png", 128),
        plain(tmp_path, "2.png", 0),
        broken(tmp_path, "3.png"),
        plain(tmp_path, "4.png", 255),
        photograph(tmp_path, "5.png", 5),
    ]


STATUSES = ["ok", "flat", "nan", "unreadable", "failed", "ok"]


@pytest.mark.parametrize("batch", [1, 2, 4, 6, 64, "auto"])
def test_every_image_has_its_status_at_every_batch_size(classifier: Classifier, samples: list[Sample], batch: int | str) -> None:
    result = work(classifier, config_of(batch=batch), samples)
    assert [record["status"] for record in rows(result)] == STATUSES
    for row, status in enumerate(STATUSES):
        assert bool(result.arrays["probe"][row].any()) == (status == "ok")
    assert np.isfinite(result.arrays["probe"]).all()


def test_records_describe_every_status(classifier: Classifier, samples: list[Sample]) -> None:
    config = config_of(seed=3)
    ok, flat, nan, unreadable, failed, _ = rows(work(classifier, config, samples, start=10, index=2))
    for record, row in ((ok, 10), (flat, 11), (nan, 12), (unreadable, 13), (failed, 14)):
        assert record["row"] == row
        assert (record["run"], record["shard"], record["seed"], record["device"]) == ("tiny", 2, 3, "cpu")
        assert record["image_id"] == f"{row - 10}.png"
    assert (ok["label"], unreadable["label"], flat["label"]) == (0, 7, None)
    for record in (ok, flat, nan):
        assert record.get("error") is None
        assert record["target_name"] == ("ant", "bee", "cat")[record["target"]]
        assert 0 < record["probability"] <= 1
        assert record["passes"] == 2
        assert record["seconds"] >= 0
    assert unreadable["error"] == "no image of a format that is known"
    assert failed["error"] == "RuntimeError: too bright to see"
    for record in (unreadable, failed):
        assert record["passes"] == 0
        assert record["region"] == "none"
        assert all(record.get(name) is None for name in ("target", "target_name", "probability", "logit", "seconds", "stage_weights"))


def test_only_maps_that_are_ok_are_measured(classifier: Classifier, samples: list[Sample]) -> None:
    for record in rows(work(classifier, config_of(), samples)):
        for metric in {name for name in chosen_metrics(None) if not METRICS[name].needs_region} | {"deletion", "insertion"}:
            assert (record.get(metric) is not None) == (record["status"] == "ok")


def test_every_file_has_its_facts(classifier: Classifier, samples: list[Sample]) -> None:
    facts = work(classifier, config_of(), samples, start=10).image_facts
    assert [fact["row"] for fact in facts] == [10, 11, 12, 13, 14, 15]
    assert facts[3] == {"row": 13, "sha256": hashlib.sha256(Path(samples[3].path).read_bytes()).hexdigest()}
    for row in (0, 1, 2, 4, 5):
        assert (facts[row]["width"], facts[row]["height"]) == (24, 20)
        assert facts[row]["sha256"] == hashlib.sha256(Path(samples[row].path).read_bytes()).hexdigest()
        assert facts[row]["crop"] == PREPROCESS.crop_box(24, 20)


def test_records_and_facts_fit_their_schemas(classifier: Classifier, samples: list[Sample]) -> None:
    result = work(classifier, config_of(["probe", "grad_cam"]), samples)
    assert from_parquet([encode_records(result.records)["records"]], RECORDS).num_rows == 12
    assert from_parquet([to_parquet(result.image_facts, FACTS)], FACTS)["width"].to_pylist() == [24, 24, 24, None, 24, 24]


def test_a_shard_of_unreadable_images_is_done(classifier: Classifier, tmp_path: Path) -> None:
    samples = [broken(tmp_path, f"{i}.png", data) for i, data in enumerate((b"", b"x", b"\x89PNG\r\n\x1a\n"))]
    result = work(classifier, config_of(["probe", "grad_cam"], batch=2), samples)
    assert [record.status for record in result.records] == ["unreadable"] * 6
    assert not any(array.any() for array in result.arrays.values())
    sums = [hashlib.sha256(Path(sample.path).read_bytes()).hexdigest() for sample in samples]
    assert result.image_facts == [{"row": row, "sha256": sha256} for row, sha256 in enumerate(sums)]


def test_a_method_that_fails_costs_no_other_method_its_map(classifier: Classifier, samples: list[Sample]) -> None:
    result = work(classifier, config_of(["probe", "grad_cam"]), samples)
    assert [record["status"] for record in rows(result)][4] == "failed"
    assert [record["status"] for record in rows(result, "grad_cam")][4] != "failed"
    assert [record["status"] for record in rows(result, "grad_cam")][3] == "unreadable"


def test_an_image_that_fails_costs_the_others_of_its_batch_nothing(classifier: Classifier, samples: list[Sample]) -> None:
    together = work(classifier, config_of(batch=6), samples)
    without = work(classifier, config_of(batch=6), [*samples[:4], samples[5]])
    np.testing.assert_array_equal(np.delete(together.arrays["probe"], 4, axis=0), without.arrays["probe"])


def test_records_are_ordered_by_row_and_then_by_method(classifier: Classifier, samples: list[Sample]) -> None:
    result = work(classifier, config_of(["grad_cam", "probe"], batch=2), samples)
    assert [(record.row, record.method) for record in result.records] == [(row, m) for row in range(6) for m in ("grad_cam", "probe")]


# The maps and the metrics


def test_a_map_is_that_of_the_image_of_its_row(classifier: Classifier, samples: list[Sample]) -> None:
    result = work(classifier, config_of(batch=2), samples)
    for row in (0, 5):
        red = PREPROCESS(read_image(samples[row], {}).image)[None, :1]
        np.testing.assert_array_equal(result.arrays["probe"][row], normalise(red)[0, 0].half().numpy())


def test_metrics_are_those_of_the_stored_map(classifier: Classifier, tmp_path: Path) -> None:
    sample = Sample("a", str(save_picture(tmp_path / "a.png")), bbox=(2.0, 2.0, 12.0, 12.0))
    result = work(classifier, config_of(["grad_cam"]), [sample])
    (record,) = rows(result, "grad_cam")
    image = read_image(sample, {}).image
    region = PREPROCESS.region_of_box((2.0, 2.0, 12.0, 12.0), 24, 20)[None]
    stored = torch.from_numpy(result.arrays["grad_cam"]).float()
    metrics = evaluate(classifier, classifier.prepare([image]), stored, torch.tensor([record["target"]]), region, batch=4)
    for name, values in metrics.values.items():
        assert record[name] == pytest.approx(float(values[0]), rel=1e-6), name
    assert record["region"] == "bbox"
    assert 0 < record["proportion"] <= 1
    for name, curve in (("deletion", metrics.deletion[0]), ("insertion", metrics.insertion[0])):
        assert record[name] == pytest.approx(curve.tolist(), rel=1e-6)
        assert np.trapezoid(record[name]) / (len(record[name]) - 1) == pytest.approx(record[f"{name}_auc"], rel=1e-5)


@pytest.mark.parametrize("fails", [False, True])
def test_every_image_is_measured_against_its_own_ground_truth(classifier: Classifier, tmp_path: Path, fails: bool) -> None:
    """Also beside images without metrics, and after the batch failed and was repeated image by image."""
    boxes = [None, (2.0, 0.0, 9.0, 9.0), (2.0, 9.0, 22.0, 20.0), None, (12.0, 0.0, 22.0, 20.0)]
    first = plain(tmp_path, "0.png", 255 if fails else 128)
    samples = [first, *(photograph(tmp_path, f"{seed}.png", seed) for seed in range(1, 5))]
    samples = [replace(sample, bbox=box) for sample, box in zip(samples, boxes, strict=True)]
    together = rows(work(classifier, config_of(batch=8), samples))
    assert [record["status"] for record in together] == ["failed" if fails else "flat", "ok", "ok", "ok", "ok"]
    for sample, record in zip(samples[1:], together[1:], strict=True):
        (alone,) = rows(work(classifier, config_of(batch=8), [sample]))
        assert record["region"] == alone["region"] == ("none" if sample.bbox is None else "bbox")
        for metric in chosen_metrics(None):
            assert record[metric] == pytest.approx(alone[metric], abs=1e-5), metric
    proportions = [record["proportion"] for record in together[1:]]
    assert proportions[2] is None
    assert len(set(proportions)) == 4


def test_without_ground_truth_there_is_no_proportion(classifier: Classifier, tmp_path: Path) -> None:
    Image.new("L", (24, 20), 255).save(tmp_path / "mask.png")
    without, mask = photograph(tmp_path, "0.png", 0), Sample("1", str(tmp_path / "0.png"), masks=Masks((str(tmp_path / "mask.png"),)))
    first, second = work(classifier, config_of(), [without, mask]).records
    assert (first.region, first.metrics["proportion"]) == ("none", None)
    assert (second.region, second.metrics["proportion"]) == ("segmentation", pytest.approx(1.0))


def test_a_ground_truth_that_cannot_be_read_makes_the_image_unreadable(classifier: Classifier, tmp_path: Path) -> None:
    Image.new("L", (5, 5)).save(tmp_path / "mask.png")
    save_picture(tmp_path / "0.png")
    (record,) = work(classifier, config_of(), [Sample("0", str(tmp_path / "0.png"), masks=Masks((str(tmp_path / "mask.png"),)))]).records
    assert record.status == "unreadable"
    assert record.error is not None
    assert "5 x 5" in record.error


def test_hdm_stores_its_stages_and_their_weights(classifier: Classifier, tmp_path: Path) -> None:
    samples = [photograph(tmp_path, "0.png", 0), broken(tmp_path, "1.png"), photograph(tmp_path, "2.png", 2)]
    config = config_of(["hdm", "dm"])
    result = work(classifier, config, samples)
    assert {name: array.shape for name, array in result.arrays.items()} == {
        "hdm": (3, SIDE, SIDE),
        "dm": (3, SIDE, SIDE),
        "hdm_stages": (3, 2, SIDE, SIDE),
    }
    assert all(array.dtype == np.float16 for array in result.arrays.values())
    expected = explain_with(
        classifier, classifier.prepare([read_image(samples[row], {}).image for row in (0, 2)]), "hdm", config.settings["hdm"], batch=4
    )
    assert expected.stages is not None
    np.testing.assert_array_equal(result.arrays["hdm"][[0, 2]], expected.maps.half().numpy())
    np.testing.assert_array_equal(result.arrays["hdm_stages"][[0, 2]], expected.stages.half().numpy())
    assert not result.arrays["hdm_stages"][1].any()
    first, unreadable, last = rows(result, "hdm")
    assert unreadable.get("stage_weights") is None
    for record in (first, last):
        assert sum(record["stage_weights"]) == pytest.approx(1.0)
        assert record["passes"] == METHODS["hdm"].passes(config.settings["hdm"], SIDE, SIDE)
    assert rows(result, "dm")[0]["stage_weights"] is None


def test_the_requested_class_is_explained(classifier: Classifier, tmp_path: Path) -> None:
    samples = [photograph(tmp_path, f"{i}.png", i) for i in range(3)]
    for target in range(3):
        records = work(classifier, config_of(["grad_cam"], target=target), samples).records
        assert {(record.target, record.target_name) for record in records} == {(target, ("ant", "bee", "cat")[target])}
    predicted = classifier.module(classifier.prepare([read_image(sample, {}).image for sample in samples])).argmax(1)
    assert [record.target for record in work(classifier, config_of(["grad_cam"]), samples).records] == predicted.tolist()


def test_passes_are_reported_as_they_are_done(classifier: Classifier, samples: list[Sample]) -> None:
    done: list[int] = []
    explain_shard(classifier, config_of(["grad_cam"], batch=2), Shard(0, 0, 6), samples, done.append)
    assert sum(done) == 5
    assert len(done) > 1


# The same, however it is done


def test_neighbours_that_cannot_be_read_change_no_row(classifier: Classifier, tmp_path: Path) -> None:
    good = [photograph(tmp_path, f"{i}.png", i) for i in range(3)]
    bad = [broken(tmp_path, f"bad{i}.png") for i in range(4)]
    alone = work(classifier, config_of(["probe", "grad_cam"], batch=2), good)
    mixed = work(classifier, config_of(["probe", "grad_cam"], batch=2), [bad[0], good[0], bad[1], bad[2], good[1], good[2], bad[3]])
    good_rows = [1, 4, 5]
    np.testing.assert_array_equal(mixed.arrays["probe"][good_rows], alone.arrays["probe"])
    # Other batches are summed in another order; float16 keeps three digits.
    np.testing.assert_allclose(mixed.arrays["grad_cam"][good_rows], alone.arrays["grad_cam"], rtol=0, atol=1e-3)
    assert [record["image_id"] for record in rows(mixed)] == ["bad0.png", "0.png", "bad1.png", "bad2.png", "1.png", "2.png", "bad3.png"]
    assert [rows(mixed)[row]["status"] for row in good_rows] == ["ok"] * 3
    assert [mixed.image_facts[row]["sha256"] for row in good_rows] == [fact["sha256"] for fact in alone.image_facts]


def test_the_same_shard_twice_has_the_same_bytes(samples: list[Sample], tmp_path: Path) -> None:
    config = config_of(["hdm", "grad_cam", "probe"], batch=2)
    contents = []
    for turn in ("a", "b"):
        classifier = Classifier(normalised(3), PREPROCESS, name="insects")
        result = work(classifier, config, samples)
        config_of_turn = config.model_copy(update={"output": str(tmp_path / turn)})
        plan = Plan(config_of_turn, samples, [Shard(0, 0, 6)], (SIDE, SIDE), classifier.weights_digest(), {})
        store = RunStore.from_config(plan.config)
        store.create(plan)
        records = [replace(record, seconds=0.0) for record in result.records]
        store.write_shard(plan.shards[0], result.arrays, records, result.image_facts, config)
        contents.append((Path(store.url) / "commits/000000.json").read_bytes())
    assert contents[0] == contents[1]  # a commit holds the checksums of all that was written


def test_the_network_is_left_as_it_was(samples: list[Sample]) -> None:
    network = normalised(3)
    classifier = Classifier(network, PREPROCESS)
    before = classifier.weights_digest()
    work(classifier, config_of(["hdm", "probe"]), samples)
    assert classifier.weights_digest() == before
    assert network.training


class FailsOnDark(Untraceable):
    """Network that fails on batches with a dark image."""

    def forward(self, images: Tensor) -> Tensor:
        if (images.mean((1, 2, 3)) < -1.7).any():
            raise ValueError("too dark")
        return super().forward(images)


def test_a_network_that_fails_on_an_image_fails_on_that_image(tmp_path: Path) -> None:
    samples = [photograph(tmp_path, "0.png", 0), plain(tmp_path, "1.png", 0), photograph(tmp_path, "2.png", 2)]
    network: nn.Module = FailsOnDark(smooth(3))
    records = work(Classifier(network, PREPROCESS), config_of(["grad_cam"], batch=4), samples).records
    assert [record.status for record in records] == ["ok", "failed", "ok"]
    assert records[1].error == "ValueError: too dark"
    assert records[0].target_name == str(records[0].target)  # without names a class is its number


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Results are the same bytes for the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
