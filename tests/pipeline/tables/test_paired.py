"""Paired comparison of methods with a reference: numbers, command, formats and file."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hdm_core import METRICS
from hdm_core.metrics.registry import chosen_metrics
from pipeline.runs import RunStore
from pipeline.tables.aggregate import CONTROLS_LINE, aggregate, best
from pipeline.tables.paired import STATISTICS, compare_with, images_needed, read_statistics, reference_method
from pipeline.tables.paired_formats import PAIRED_FORMATS
from pipeline.tables.wilcoxon import holm, wilcoxon
from tests.support.paper_tables import every, table_of
from tests.support.plans import refused
from tests.support.report_runs import Changes, stored_run

Values = dict[str, list[float | None]]

METHODS = ("hdm", "grad_cam", "gradient", "center")


def records_of(values: Values, metric: str = "deletion_auc") -> pa.Table:
    """Records of methods with the values of one metric, image by image."""
    rows = [{"method": method, "row": row, metric: value} for method, given in values.items() for row, value in enumerate(given)]
    return pa.Table.from_pylist(rows, schema=pa.schema([("method", pa.string()), ("row", pa.int64()), (metric, pa.float64())]))


def measured_run(folder: Path, images: int = 6, changes: Changes | None = None) -> RunStore:
    """A run in which HDM is better than Grad-CAM by 0.1 or more in every image, and Gradient differs by chance."""
    draw = np.random.default_rng(0)
    values = {}
    for row in range(images):
        base = float(draw.uniform(0.3, 0.5))
        for method, value in zip(METHODS, (base, base + 0.1 + row / 100, base + draw.normal(0, 0.1), base + 0.3), strict=True):
            values[row, method] = {name: value if each.lower_is_better else 1 - value for name, each in METRICS.items()}
    return stored_run(folder, images, METHODS, changes={**values, **(changes or {})})


# The numbers


@pytest.mark.parametrize(("metric", "wins", "losses"), [("deletion_auc", 1, 3), ("insertion_auc", 3, 1)])
def test_every_number_of_a_pair_by_hand(metric: str, wins: int, losses: int) -> None:
    ours, theirs = [0.5, 0.75, 0.5, 0.25, 0.5], [0.25, 0.5, 0.375, 0.5, 0.5]
    (found,) = compare_with(records_of({"hdm": list(theirs), "dm": list(ours)}, metric))
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    assert (found.method, found.reference, found.metric, found.n, found.n_unpaired) == ("dm", "hdm", metric, 5, 0)
    assert found.difference == pytest.approx(fmean(differences))
    assert (found.wins, found.ties, found.losses) == (wins, 1, losses)
    assert found.effect_size == pytest.approx(fmean(differences) / stdev(differences))
    assert found.p == found.p_holm == wilcoxon(np.array(differences))
    assert found.n_needed == math.ceil(((1.959964 + 0.841621) * stdev(differences) / fmean(differences)) ** 2)
    assert found.low is not None
    assert found.high is not None
    assert found.low < fmean(differences) < found.high
    assert found.verdict == ""


def test_the_interval_is_that_of_resampled_images() -> None:
    draw = np.random.default_rng(5)
    ours, theirs = draw.normal(0.6, 0.1, 40), draw.normal(0.5, 0.1, 40)
    (found,) = compare_with(records_of({"hdm": theirs.tolist(), "dm": ours.tolist()}))
    means = [(ours - theirs)[draw.integers(40, size=40)].mean() for _ in range(4000)]
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.004)


def test_the_correction_is_for_all_methods_and_metrics_shown() -> None:
    draw = np.random.default_rng(1)
    rows = [
        {"method": method, "row": row, "deletion_auc": draw.normal(shift, 1), "proportion": draw.normal(shift, 1)}
        for method, shift in (("hdm", 0.0), ("grad_cam", 0.4), ("gradient", 0.8), ("center", 3.0))
        for row in range(20)
    ]
    found = compare_with(pa.Table.from_pylist(rows))
    assert [(each.metric, each.method) for each in found] == [
        (metric, method) for metric in ("deletion_auc", "proportion") for method in ("gradient", "grad_cam", "center")
    ]
    assert [each.p_holm for each in found] == pytest.approx(holm([each.p for each in found if each.p is not None]))
    # More deletion is worse, more proportion is better.
    assert [each.verdict for each in found if each.method == "center"] == ["worse", "better"]


def test_flat_and_failed_maps_are_counted_and_not_compared() -> None:
    values: Values = {"hdm": [0.1, None, 0.3, 0.4, None], "dm": [0.2, 0.2, math.nan, 0.6, None]}
    (found,) = compare_with(records_of(values))
    assert (found.n, found.n_unpaired) == (2, 2)
    assert found.difference == pytest.approx(0.15)


def test_one_image_is_no_claim() -> None:
    (found,) = compare_with(records_of({"hdm": [0.1, None], "dm": [0.4, 0.3]}))
    assert (found.n, found.difference) == (1, pytest.approx(0.3))
    assert (found.low, found.high, found.p, found.p_holm, found.effect_size, found.n_needed) == (None,) * 6
    assert found.verdict == ""


def test_a_method_without_any_value_has_a_row_without_numbers() -> None:
    found = compare_with(records_of({"hdm": [0.1, 0.2], "dm": [None, None], "grad_cam": [0.3, 0.5]}))
    dm, cam = found
    assert (dm.method, dm.n, dm.n_unpaired, dm.difference, dm.p) == ("dm", 0, 2, None, None)
    assert cam.n == 2


def test_equal_differences_have_no_effect_size_and_equal_values_no_verdict() -> None:
    (constant,) = compare_with(records_of({"hdm": [0.1, 0.2, 0.3], "dm": [0.2, 0.3, 0.4]}))
    assert (constant.effect_size, constant.n_needed) == (None, None)
    (equal,) = compare_with(records_of({"hdm": [0.1] * 9, "dm": [0.1] * 9}))
    assert (equal.p, equal.difference, equal.ties, equal.verdict) == (1.0, 0.0, 9, "")


def test_what_differs_by_rounding_alone_is_equal() -> None:
    values = np.random.default_rng(0).uniform(0.1, 0.9, 20).astype(np.float32)
    rounded = np.nextafter(values, np.float32(1))
    (found,) = compare_with(records_of({"hdm": values.astype(float).tolist(), "dm": rounded.astype(float).tolist()}))
    assert (found.ties, found.p, found.difference, found.effect_size) == (20, 1.0, 0.0, None)
    (shifted,) = compare_with(records_of({"hdm": values.astype(float).tolist(), "dm": (values + np.float32(0.3)).astype(float).tolist()}))
    assert (shifted.losses, shifted.effect_size, shifted.n_needed) == (20, None, None)


def test_nothing_to_compare_is_an_empty_list() -> None:
    assert compare_with(records_of({})) == []
    assert compare_with(records_of({"hdm": [0.1, 0.2]})) == []
    assert compare_with(records_of({"hdm": [0.1, None], "dm": [None, 0.2]})) == []


def test_the_number_of_images_for_80_per_cent_power() -> None:
    # The standard value of a medium effect, d_z = 0.5, by the normal formula: 31.4.
    assert images_needed(0.5) == images_needed(-0.5) == 32
    assert images_needed(0.0) is None
    assert images_needed(1e-6) is None
    assert images_needed(100.0) == 2


def test_this_number_of_images_finds_the_difference_in_80_per_cent_of_samples() -> None:
    n = images_needed(0.5)
    assert n is not None
    samples = np.random.default_rng(0).normal(0.5, 1, (1500, n))
    found = np.mean([wilcoxon(each) < 0.05 for each in samples])
    assert 0.72 < found < 0.84  # Wilcoxon's test has 95% of the efficiency of the mean's


def test_the_reference_is_hdm_or_the_first_method() -> None:
    assert reference_method(["gradient", "hdm"]) == "hdm"
    assert reference_method(["center", "grad_cam", "gradient"]) == "gradient"
    assert reference_method(["center"]) == "center"
    assert reference_method(["hdm", "center"], "center") == "center"


def test_an_unknown_reference_is_one_line() -> None:
    records = records_of({"hdm": [0.1, 0.2], "grad_cam": [0.2, 0.3]})
    assert "did you mean grad_cam" in refused(lambda: compare_with(records, "gradcam"))


# No star without an interval


def test_a_mean_of_one_image_has_no_star() -> None:
    assert best(table_of({"hdm": every(0.5), "dm": every(0.25)}, n=1)) == set()
    assert best(table_of({"hdm": every(0.5), "dm": every(0.25)}, n=2))


# The file


def test_a_run_has_its_statistics_on_storage(tmp_path: Path) -> None:
    store = measured_run(tmp_path)
    aggregate(store)
    table = pq.read_table(Path(store.url) / "statistics.parquet")
    assert table.schema.names == STATISTICS.names
    assert table.num_rows == len(chosen_metrics(None)) * 3
    assert set(table["reference"].to_pylist()) == {"hdm"}
    assert read_statistics(store) == compare_with(store.records())


# The command


def test_the_command_prints_the_differences(tmp_path: Path, here: Callable[..., Any]) -> None:
    store = measured_run(tmp_path)
    text = here("tables", store.url, "--against", "hdm").out
    assert "deletion ↓, each method against HDM" in text
    lines = [line for line in text.splitlines() if line.startswith(("Grad-CAM", "Gradient", CONTROLS_LINE, "Centre"))][:4]
    assert [line.split("  ")[0] for line in lines] == ["Gradient", "Grad-CAM", CONTROLS_LINE, "Centre"]
    assert lines[1].split()[1:6] == ["6", "+0.1250", "+0.1117", "to", "+0.1383"]
    assert "critical difference 1.35, n 6)" in text  # 2.3437 sqrt(3 * 4 / (6 * 6))
    assert re.search(r"mean over the metrics, with 95% interval: HDM 1\.\d\d \(", text)
    assert here("tables", store.url, "--against", "grad-cam").err.startswith("hdm: --against grad-cam: the run has no such method")


def test_json_has_the_differences_and_the_ranks(tmp_path: Path, here: Callable[..., Any]) -> None:
    facts = json.loads(here("tables", measured_run(tmp_path).url, "--against", "gradient", "--json").out)
    assert {"run", "tables", "no_contrast", "baselines", "differences", "ranks", "mean_ranks"} == set(facts)
    assert {each["reference"] for each in facts["differences"]} == {"gradient"}
    assert set(facts["differences"][0]) == set(STATISTICS.names)
    assert {each["method"] for each in facts["mean_ranks"]} == {"hdm", "grad_cam", "gradient"}


@pytest.mark.parametrize("name", PAIRED_FORMATS)
def test_the_command_writes_the_differences_in_every_format(tmp_path: Path, here: Callable[..., Any], name: str) -> None:
    store = measured_run(tmp_path)
    text = here("tables", store.url, "--against", "hdm", "--format", name).out
    if name == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert list(rows[0]) == STATISTICS.names
        assert [float(row["difference"]) for row in rows] == [each.difference for each in compare_with(store.records())]
    else:
        start = "| Grad-CAM |" if name == "markdown" else "Grad-CAM &"
        assert sum(line.startswith(start) for line in text.splitlines()) == len(chosen_metrics(None))


def test_names_from_outside_are_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tables.paired_formats.method_title", lambda name: "=1|&_<b>")
    found = compare_with(measured_run(tmp_path).records())
    assert r"=1\|\&\_\<b\>" in PAIRED_FORMATS["markdown"](found)
    assert r"=1\textbar{}\&\_\textless{}b\textgreater{}" in PAIRED_FORMATS["latex"](found)
