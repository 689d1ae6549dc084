"""`python -m benchmarks pareto`: photographs, runs and differences, on a real Ray."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from PIL import Image

from benchmarks.pareto.benchmark import PARETO_METRICS, Candidate, candidates, compare, run_case
from benchmarks.pareto.figure import pareto_figure
from benchmarks.pareto.maps import maps_figure
from benchmarks.pareto.photographs import Photograph, evenly_spaced, split_by_confidence, write_manifest
from hdm_core.metrics.registry import chosen_metrics
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample, list_samples, parse_dataset
from pipeline.storage.objects import Storage
from tests.support.plans import HDM, configuration, refused, save_picture


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("pareto")
    for number in range(7):
        save_picture(folder / "photographs" / f"{number}.png", seed=number)
    (folder / "photographs" / "broken.png").write_bytes(b"no picture")
    return configuration(dataset={"kind": "folder", "root": str(folder / "photographs")}, output=str(folder / "runs"), name="birds")


def dealt(count: int) -> list[Photograph]:
    return [Photograph(Sample(str(place), f"/photographs/{place}.png"), place / 10) for place in range(count)]


def test_both_halves_are_ordered_by_confidence_and_omit_unreadable_images(case: RunConfig) -> None:
    halves = split_by_confidence(case)
    assert {split: len(half) for split, half in halves.items()} == {"choose": 4, "report": 3}
    names = [photograph.sample.image_id for half in halves.values() for photograph in half]
    assert sorted(names) == [f"{number}.png" for number in range(7)]
    order = [p.probability for pair in zip(halves["choose"], halves["report"], strict=False) for p in pair]
    assert order == sorted(order)
    assert split_by_confidence(case) == halves


@pytest.mark.parametrize(("count", "places"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, list(range(10)))])
def test_photographs_are_spread_from_end_to_end(count: int, places: list[int]) -> None:
    assert [int(photograph.sample.image_id) for photograph in evenly_spaced(dealt(10), count)] == places


def test_too_many_photographs_are_refused() -> None:
    assert refused(lambda: evenly_spaced(dealt(3), 4)) == "4 photographs are requested, but half of the dataset has only 3 readable ones"


def test_the_manifest_keeps_ids_and_the_photographs_beside_it(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"a photograph")
    chosen = [Photograph(Sample('a "b", c', str(tmp_path / "1.png"), class_name="wren", bbox=(1, 2.5, 30, 40)), 0.5)]
    place = Storage(str(tmp_path / "runs"))
    url = write_manifest(chosen, place, "birds", {})
    rows = list(csv.DictReader(io.StringIO(Path(url).read_text())))
    row = {"path": "birds/0000.png", "image_id": 'a "b", c', "class_name": "wren", "bbox": "1 2.5 30 40", "probability": "0.500000"}
    assert rows == [row]
    assert list_samples(parse_dataset({"kind": "manifest", "root": url}), {})[0].bbox == (1, 2.5, 30, 40)
    assert place.read("birds/0000.png") == b"a photograph"


def test_the_packaged_candidates_are_settings_that_exist() -> None:
    names = [candidate.id for candidate in candidates()]
    assert "fast" in names
    assert "paper-cub-100" not in names, "candidates that take days run only if they are named"
    for candidate in candidates([*names, "paper-cub-100", "paper-cub-stage"]):
        configuration(methods=[candidate.method], **{candidate.method: dict(candidate.settings)})
    assert [candidate.id for candidate in candidates(["fast"])] == ["grad_cam", "fast"]
    assert refused(lambda: candidates(["slow"])).startswith("no candidate 'slow': choose from grad_cam, ")


@pytest.fixture(scope="module")
def one_cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.server
@pytest.mark.usefixtures("one_cluster")
@pytest.mark.nightly
def test_candidates_are_compared_photograph_by_photograph_and_only_once(case: RunConfig) -> None:
    chosen = [
        Candidate("grad_cam", "grad_cam", {}),
        Candidate("hdm", "hdm", HDM),
        Candidate("more", "hdm", {**HDM, "steps": 5}),
    ]
    shown: list[str] = []

    def show(name: str):
        return lambda state: shown.append(name)

    stores = run_case(case, chosen, "choose", 2, show)
    assert set(shown) == {"birds-choose-2-grad_cam", "birds-choose-2-hdm", "birds-choose-2-more"}
    points = {point.candidate: point for point in compare(case.name, stores)}
    assert {name: point.photographs for name, point in points.items()} == {"grad_cam": 2, "hdm": 2, "more": 2}
    assert points["hdm"].passes == stores["hdm"].metadata()["passes_per_image"]["hdm"]
    assert all(points["grad_cam"].gains[metric][0] == 0 for metric in PARETO_METRICS)

    rows = {name: {row["image_id"]: row for row in store.records().to_pylist()} for name, store in stores.items()}
    for metric in PARETO_METRICS:
        pairs = [(row[metric], rows["grad_cam"][image][metric]) for image, row in rows["more"].items()]
        gains = [one - other for one, other in pairs]
        mean, half = points["more"].gains[metric]
        assert mean == pytest.approx(sum(gains) / 2)
        assert half == pytest.approx(1.96 * abs(gains[0] - gains[1]) / 2)  # of two: s = |a - b| / sqrt 2, by sqrt 2
    assert set(chosen_metrics(None)) - set(PARETO_METRICS) == {"proportion"}

    shown.clear()
    assert compare(case.name, run_case(case, chosen, "choose", 2, show)) == list(points.values())
    assert not shown, "finished runs are not run again"

    with Image.open(io.BytesIO(pareto_figure(list(points.values())))) as figure:
        assert figure.width > 4 * figure.height
    with Image.open(io.BytesIO(maps_figure({"Grad-CAM": stores["grad_cam"], "more": stores["more"]}))) as figure:
        assert figure.width > figure.height, "three columns, and two rows"
    assert [path.name for path in Path(case.output).glob("*.csv")] == ["birds-choose-2.csv"]
