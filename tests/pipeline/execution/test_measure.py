"""`hdm measure`: the numbers of a finished run, made later, have the bytes of a run that measured at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pipeline
from hdm_core import METRICS, MetricSettings
from hdm_core.metrics.evaluate import metric_forwards
from hdm_core.metrics.registry import chosen_metrics
from pipeline.config.load import load_config
from pipeline.errors import RunError
from pipeline.execution.measure import measure_run, plan_measure
from pipeline.runs import RunStore
from pipeline.runs.verify import verify
from pipeline.storage.objects import Storage
from pipeline.tables.aggregate import read_tables
from tests.pipeline.conftest import Ended
from tests.support.plans import mapping, refused, save_picture

PAPER = chosen_metrics(["paper"])
CIRCUMSTANCES = ("run", "seconds")  # columns that differ between two runs of one configuration
Command = Callable[..., Ended]


def keys(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a configuration of four photographs with boxes and a broken file, two classes each."""
    return mapping(
        hdm=None,
        dataset={"kind": "manifest", "root": str(folder / "images.csv")},
        classifier={"source": "import", "factory": "tests.support.bright_network:make", "resize": 64, "crop": 64},
        methods=["grad_cam", "gradient", "random_map"],
        compute={"executor": "local", "shard_size": 2, "batch_size": 4},
        target={"top": 2},
        **{"name": "later", "metrics": "none", "output": str(folder / "runs"), **changes},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of photographs and of runs: `later` without metrics, `direct` with those of the paper."""
    folder = tmp_path_factory.mktemp("measure")
    lines = ["path,label,bbox"]
    for number in range(4):
        save_picture(folder / f"{number}.png", seed=number)
        lines.append(f"{number}.png,{number % 2},2 2 14 {12 + number}")
    (folder / "4.png").write_bytes(b"no image")
    (folder / "images.csv").write_text("\n".join([*lines, "4.png,1,"]) + "\n")
    pipeline.run(keys(folder))
    pipeline.run(keys(folder, name="direct", metrics={}))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run `later`, whose images stay where they were."""
    shutil.copytree(finished / "runs", tmp_path / "runs")
    return tmp_path


def columns(table: pa.Table, *left_out: str) -> dict[str, list[Any]]:
    return {name: table[name].to_pylist() for name in table.column_names if name not in (*CIRCUMSTANCES, *left_out)}


def assert_same_numbers(one: RunStore, other: RunStore) -> None:
    assert columns(one.records()) == columns(other.records())
    for parts in (RunStore.curves, RunStore.measures):
        assert list(map(columns, parts(one))) == list(map(columns, parts(other)))
    assert columns(read_tables(one)) == columns(read_tables(other))


def objects(store: RunStore) -> dict[str, bytes]:
    """Return the bytes of all objects that a measurement writes."""
    names = [f"{each}/{name}" for each in ("records", "curves", "measures", "commits") for name in store.storage.names(each)]
    return {name: store.storage.read(name) for name in [*names, "measure.json"]}


def measured(url: str, changes: dict[str, Any] | None = None, replace: bool = False) -> RunStore:
    """Measure a run without a report, which takes longer than these runs."""
    return measure_run(plan_measure(url, changes, replace_numbers=replace)).store


def test_maps_alone_have_no_numbers_and_no_curves(finished: Path) -> None:
    store = RunStore.open(str(finished / "runs" / "later"))
    records = store.records()
    for name in (*METRICS, "metrics_baseline", "metrics_baseline_probability", "metrics_no_contrast"):
        assert records[name].null_count == len(records), name
    assert sum(map(len, store.curves())) == 0
    assert {row["baseline"] for row in read_tables(store).to_pylist()} == {None}
    assert "Nothing was measured" in (finished / "runs" / "later" / "report" / "index.html").read_text()
    direct = RunStore.open(str(finished / "runs" / "direct")).records()
    kept = ("status", "target", "probability", "stage_weights", "passes", "region")
    assert [records[name].to_pylist() for name in kept] == [direct[name].to_pylist() for name in kept]


def test_measured_later_has_the_bytes_of_measured_at_once(folder: Path) -> None:
    later, direct = (RunStore.open(str(folder / "runs" / name)) for name in ("later", "direct"))
    maps = {
        name: (folder / "runs" / "later" / name).read_bytes() for name in sorted(later.storage.read_json("commits/000000.json")["sha256"])
    }
    summary = pipeline.measure(later.url)
    assert_same_numbers(later, direct)
    assert (summary.images, summary.shards, summary.already_done) == (5, 3, 0)
    # Four images, two classes each: shared views once per class, the others once per map of three methods (no map is flat).
    ok = sum(status == "ok" for status in later.records()["status"].to_pylist())
    assert summary.passes == 8 * metric_forwards(64, 64, maps=0) + ok * (metric_forwards(64, 64) - metric_forwards(64, 64, maps=0))
    unchanged = [name for name, data in maps.items() if later.storage.read(name) == data]
    assert {name.partition("/")[0] for name in unchanged} == {"maps.zarr", "images"}
    assert verify(later).damaged == {}
    state = later.storage.read_json("measure.json")
    assert (state["finished"], state["settings"]["names"], state["settings"]["baselines"]) == (True, PAPER, ["mean"])


def test_a_run_that_is_measured_with_these_settings_says_so(folder: Path, here: Command) -> None:
    run = folder / "runs" / "direct"
    before = RunStore.open(str(run)).storage.read("records/part-000000.parquet")
    ended = here("measure", run)
    assert (ended.code, "measured with these settings already" in ended.err) == (0, True)
    assert RunStore.open(str(run)).storage.read("records/part-000000.parquet") == before
    assert not (run / "measure.json").exists()


def test_further_metrics_are_added_and_the_others_kept(folder: Path) -> None:
    url = str(folder / "runs" / "later")
    store = measured(url, {"metrics.names": ["proportion"]})
    assert sum(map(len, store.curves())) == 0, "a metric of the map alone makes no pass"
    assert store.records()["deletion_auc"].null_count == len(store.records())
    summary = pipeline.measure(url, {"metrics.names": [name for name in PAPER if name != "proportion"]})
    assert summary.already_done == 0
    assert_same_numbers(store, RunStore.open(str(folder / "runs" / "direct")))


def test_other_numbers_are_refused_unless_they_are_to_be_replaced(folder: Path) -> None:
    url = str(folder / "runs" / "direct")
    message = refused(lambda: plan_measure(url, {"metrics.baseline": "blur"}))
    assert "baseline mean and protocol paper, not with baseline blur" in message
    assert "--replace" in message
    blurred = keys(folder, name="blurred", metrics={"baseline": "blur"})
    fresh = pipeline.run({**blurred, "dataset": RunStore.open(url).metadata()["config"]["dataset"]}).store
    replaced = measured(url, {"metrics.baseline": "blur"}, replace=True)
    assert columns(replaced.records()) == columns(fresh.records())
    assert set(replaced.records()["metrics_baseline"].to_pylist()) == {"blur", None}


def test_several_baselines_have_their_own_numbers_and_the_first_is_in_the_records(folder: Path, here: Command) -> None:
    url = str(folder / "runs" / "later")
    several = {"metrics.baselines": ["mean", "blur"]}
    pipeline.measure(url, several)
    store, direct = RunStore.open(url), RunStore.open(str(folder / "runs" / "direct"))
    assert columns(store.records()) == columns(direct.records()), "the first baseline has the numbers that it has alone"
    measures = pa.concat_tables(store.measures()).to_pylist()
    ok = [row for row in store.records().to_pylist() if row["status"] == "ok"]
    assert [(row["row"], row["method"], row["rank"], row["baseline"]) for row in measures] == [
        (row["row"], row["method"], row["rank"], baseline) for row in ok for baseline in ("mean", "blur")
    ]
    assert [[row[name] for name in PAPER] for row in measures[::2]] == [[row[name] for name in PAPER] for row in ok]
    assert [row["proportion"] for row in measures[::2]] == [row["proportion"] for row in measures[1::2]]
    assert [row["deletion_auc"] for row in measures[::2]] != [row["deletion_auc"] for row in measures[1::2]]
    table = read_tables(store).to_pylist()
    assert table[: len(table) // 2] == read_tables(direct).to_pylist()
    assert {row["baseline"] for row in table[len(table) // 2 :]} == {"blur"}
    printed = here("tables", url)
    assert "Spearman" in printed.out
    assert "too few methods (2)" in printed.out
    as_json = json.loads(here("tables", url, "--json").out)["baselines"]
    assert [each["metric"] for each in as_json] == [name for name in PAPER if not METRICS[name].map_only]
    assert "Baselines side by side" in (folder / "runs" / "later" / "report" / "index.html").read_text()
    at_once = keys(folder, name="at_once", metrics={"baselines": ["mean", "blur"]})
    assert_same_numbers(store, pipeline.run({**at_once, "dataset": store.metadata()["config"]["dataset"]}).store)


def test_from_several_baselines_to_one_removes_the_measures(folder: Path) -> None:
    url = str(folder / "runs" / "later")
    measured(url, {"metrics.baselines": ["mean", "blur"], "metrics.names": ["deletion_auc"]})
    pipeline.measure(url, {"metrics.baselines": ["mean"], "metrics.names": PAPER}, replace=True)
    store = RunStore.open(url)
    assert store.storage.names("measures") == []
    assert verify(store).damaged == {}
    assert_same_numbers(store, RunStore.open(str(folder / "runs" / "direct")))


SOME = {"metrics.names": ["deletion_auc", "proportion"]}


class Killed(BaseException):
    """The end of the process."""


@pytest.fixture(scope="module")
def undisturbed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Objects of the run `later` after a measurement that nothing interrupts."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(finished / "runs" / "later", folder / "later")
    return objects(measured(str(folder / "later"), SOME))


@pytest.mark.parametrize("write", [0, 1, 2, 3, 4, 5, 8, 12, 13])
def test_killed_after_any_write_and_measured_again_gives_the_same_bytes(
    write: int, folder: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, writes = str(folder / "runs" / "later"), 0

    def die(self: Storage, name: str, data: bytes, *arguments: Any, original: Any) -> Any:
        nonlocal writes
        if name.startswith(("records", "curves", "commits", "measure")):
            writes += 1
            if writes > write:
                raise Killed
        return original(self, name, data, *arguments)

    with monkeypatch.context() as patch:
        for function in ("write", "replace"):
            original = getattr(Storage, function)
            patch.setattr(Storage, function, lambda *a, original=original, **k: die(*a, original=original, **k))
        with pytest.raises(Killed):
            measured(url, SOME)
    assert verify(RunStore.open(url)).damaged == {}, "what is pending is no damage"
    assert objects(measured(url, SOME if write == 0 else None)) == undisturbed


def test_a_pending_measurement_is_replaced_by_one_with_other_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, original = str(folder / "runs" / "direct"), Storage.write

    def die(self: Storage, name: str, data: bytes) -> None:
        original(self, name, data)
        if name.startswith("records"):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", die)
        with pytest.raises(Killed):
            measured(url, {"metrics.baseline": "blur"}, replace=True)
    store = RunStore.open(url)
    assert "pending" in store.storage.read_json("commits/000000.json")
    expected = RunStore.open(str(folder / "runs" / "later"))
    pipeline.measure(expected.url)
    pipeline.measure(url, {"metrics.baseline": "mean"}, replace=True)
    assert_same_numbers(store, expected)
    assert verify(store).damaged == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metrics.names": ["deletion_au"]}, ["metrics.names", "unknown metric 'deletion_au'", "did you mean deletion_auc?"]),
        ({"metrics.baseline": "blurr"}, ["metrics.baseline", "'blur'", "'blurr'"]),
        ({"metrics.baselines": ["mean", "mean"]}, ["named twice"]),
        ({"metrics.protocl": "rise"}, ["metrics.protocl", "did you mean protocol?"]),
        ({"compute.batch_size": 2}, ["compute.batch_size", "executor"]),
        ({"seed": 1}, ["seed", "metrics and compute"]),
    ],
)
def test_a_wrong_setting_is_refused_with_one_line(finished: Path, changes: dict[str, Any], words: list[str]) -> None:
    message = refused(lambda: plan_measure(str(finished / "runs" / "later"), changes))
    assert [word for word in words if word not in message] == []


def test_a_run_that_is_not_finished_is_refused(folder: Path) -> None:
    store = RunStore.open(str(folder / "runs" / "later"))
    store.storage.remove("commits/000001.json")
    assert "1 of 3 shards are open" in refused(lambda: plan_measure(store.url))


def test_other_images_and_another_classifier_are_refused_with_what_differs(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("runs"))
    url = pipeline.run(keys(folder)).url
    picture = (folder / "1.png").read_bytes()
    shutil.copy(folder / "0.png", folder / "1.png")
    with pytest.raises(RunError, match=r"1\.png: it has other contents than when it was explained"):
        measured(url)
    (folder / "1.png").unlink()
    with pytest.raises(RunError, match=r"1\.png was explained and cannot be read any more"):
        measured(url)
    (folder / "1.png").write_bytes(picture)
    manifest = (folder / "images.csv").read_text()
    (folder / "images.csv").write_text(manifest.replace("3.png,1", "3.png,0"))
    assert "another dataset" in refused(lambda: measured(url))
    (folder / "images.csv").write_text(manifest)
    info = json.loads((Path(url) / "run.json").read_text())
    (Path(url) / "run.json").write_text(json.dumps({**info, "model_fingerprint": "0" * 64}))
    assert "another classifier" in refused(lambda: measured(url))
    (Path(url) / "run.json").write_text(json.dumps(info))
    assert measure_run(plan_measure(url)).statuses == {"flat": 4, "unreadable": 1}


def test_a_damaged_map_is_not_measured(folder: Path) -> None:
    store = RunStore.open(str(folder / "runs" / "later"))
    name = next(name for name in store.storage.read_json("commits/000000.json")["sha256"] if name.startswith("maps.zarr/grad_cam"))
    store.storage.write(name, store.storage.read(name)[:-1] + b"?")
    with pytest.raises(RunError, match="does not match its checksum; hdm repair"):
        measured(store.url)


def test_a_repaired_shard_is_measured_again(folder: Path, here: Command) -> None:
    store = measured(str(folder / "runs" / "later"))
    store.storage.write("records/part-000001.parquet", b"")
    assert here("repair", store.url).code == 3, "one image is unreadable"
    assert plan_measure(store.url).todo == [1], "it was explained with the metrics of run.json: none"
    pipeline.measure(store.url)
    assert_same_numbers(store, RunStore.open(str(folder / "runs" / "direct")))


def test_the_command_prints_what_was_measured(folder: Path, here: Command) -> None:
    run = folder / "runs" / "later"
    ended = here("measure", run, "--set", "metrics.names=[deletion_auc,proportion]", "--json")
    facts = json.loads(ended.out)
    assert (ended.code, facts["images"], facts["shards"], facts["statuses"]) == (3, 5, 3, {"flat": 4, "unreadable": 1})
    assert facts["passes"] > 0
    assert {row["metric"] for row in facts["tables"] if row["n"]} == {"deletion_auc", "proportion"}


def test_a_run_without_metrics_prices_none(tmp_path: Path, finished: Path, here: Command) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(keys(finished, name="priced")))
    none = json.loads(here("plan", file, "--json").out)
    priced = json.loads(here("plan", file, "--set", "metrics={baselines: [mean, blur]}", "--json").out)
    assert none["metric_forwards"] == 0
    settings = MetricSettings(baselines=("mean", "blur"))
    assert priced["metric_forwards"] == 5 * 2 * metric_forwards(64, 64, settings, 3) == 5 * 2 * 2 * metric_forwards(64, 64, maps=3)


def test_none_is_a_word_of_yaml(finished: Path) -> None:
    for word in ("none", None):
        config = load_config(keys(finished, metrics=word))
        assert (config.metrics, config.identity()["metrics"]) == (None, None)
