"""The command as a user starts it: exit codes, one-line errors, facts as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor

from hdm_core import METRICS, Classifier, Evidence, EvidenceSettings, find_evidence
from hdm_core.metrics.registry import chosen_metrics
from pipeline.datasets.demo import read_demo
from tests.pipeline.conftest import Ended
from tests.support.small_run import config, hdm, photographs


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("photographs"), 4)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run", "nowhere.yaml"], "neither a preset"),
        (["run", "demo", "--set", "compute.gpus=1"], "unknown key"),
        (["run", "demo", "--set", "compute"], "KEY=VALUE"),
        (["run", "demo", "--set", "methods=[lime]"], "unknown method 'lime'"),
        (["run", "demo", "--set", "hdm.preset=slow"], "unknown preset 'slow'"),
        (["run", "demo", "--set", "target=1000"], "1000 classes"),
        (["run", "demo", "--set", "classifier.arch=resnet51"], "no classification network 'resnet51'"),
        (["run", "demo", "--set", "classifier.weights=V9"], "choose from IMAGENET1K_V1"),
        (["run", "demo", "--output", "nowhere://bucket"], "nowhere"),
        (["run", "cub-full"], "dataset.root is missing"),
        (["run", "cub-full", "--root", "no/such/folder"], "no such folder"),
        (["plan", "pm-full"], "dataset.root is missing"),
        (["status", "no/such/run"], "no run of hdm"),
        (["explain", "no.jpg"], "cannot read no.jpg"),
        (["explain", "no.jpg", "--method", "lime"], "unknown method"),
        (["explain", "no.jpg", "--out", "map.txt"], "no image format"),
        (["check", "nowhere.yaml"], "neither a preset"),
        (["check", "{arch: mobilenet_v2}", "--limit", "3"], "dataset.limit can be changed of a configuration only"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], part: str, here: Callable[..., Ended]) -> None:
    ended = here(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    (line,) = ended.err.strip().splitlines()
    assert line.startswith("hdm: ")
    assert part in line


def test_an_output_that_cannot_be_written_is_found_before_any_worker_starts(
    tmp_path: Path, images: Path, here: Callable[..., Ended]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    ended = here("run", config(tmp_path, images), "--output", tmp_path / "file")
    assert ended.code == 2
    (line,) = ended.err.strip().splitlines()
    assert "cannot be written" in line
    assert "--output" in line


def test_an_empty_dataset_is_a_mistake(tmp_path: Path, here: Callable[..., Ended]) -> None:
    (tmp_path / "empty").mkdir()
    ended = here("run", config(tmp_path, tmp_path / "empty"))
    assert ended.code == 2
    assert "no images" in ended.err


def test_a_current_folder_that_was_removed_is_one_line(here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    def removed() -> Path:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "cwd", removed)
    ended = here("methods")
    assert (ended.code, ended.err) == (2, "hdm: the current folder no longer exists; change to another one\n")


@pytest.mark.server
def test_a_run_with_an_unreadable_image_does_the_rest_and_ends_with_3(tmp_path: Path, here: Callable[..., Ended]) -> None:
    folder = photographs(tmp_path / "photographs", 4)
    (folder / "cats" / "broken.png").write_bytes(b"\x89PNG, but no more")
    ended = hdm("run", config(tmp_path, folder), "--json")
    assert ended.returncode == 3, ended.stderr
    facts = json.loads(ended.stdout)
    assert facts["statuses"] == {"ok": 4, "unreadable": 1}
    assert Path(facts["report"]).exists()
    assert "5 of 5 images" in ended.stderr, "progress must be printed where there is no terminal"
    assert "passes/s" in ended.stderr
    assert "no GPU" in ended.stderr, "a configuration that asks for GPUs must say that it runs on the CPU"

    run = tmp_path / "out" / "small"
    status = json.loads(here("status", run, "--json").out)
    assert status["records"] == {"ok": 12, "unreadable": 3}
    assert status["shards_done"] == status["shards"] == 3
    again = here("run", config(tmp_path, folder), "--json")
    assert again.code == 3, "what is missing is still missing"
    facts = json.loads(again.out)
    assert facts["statuses"] == {"ok": 4, "unreadable": 1}
    assert facts["resumed"] == 3
    assert facts["passes"] == 0
    changed = here("run", config(tmp_path, folder), "--set", "hdm.steps=5")
    assert changed.code == 2
    assert "methods.hdm.steps (4, now 5)" in changed.err
    tables = json.loads(here("tables", run, "--json").out)["tables"]
    assert {row["method"] for row in tables} == {"hdm", "dm", "grad_cam"}
    assert {(row["n"] + row["n_flat"], row["n_failed"]) for row in tables if row["metric"] != "proportion"} == {(4, 1)}


@pytest.mark.server
def test_plan_prints_what_a_run_costs_and_starts_nothing(tmp_path: Path, images: Path) -> None:
    facts = json.loads(hdm("plan", config(tmp_path, images), "--json").stdout)
    assert facts["images"] == 4
    assert facts["shards"] == 2
    assert facts["passes"] == 4 * sum(facts["passes_per_image"].values())
    assert facts["seconds_per_pass"] > facts["seconds_per_forward"] > 0
    assert facts["seconds"] > facts["start_seconds"] > 0
    assert facts["gpu_hours"].keys() == {"A100", "V100"}
    assert not (tmp_path / "out").exists()


@pytest.mark.server
def test_explain_writes_a_heatmap(tmp_path: Path) -> None:
    photograph = read_demo(None, {})[0].path  # type: ignore[arg-type]
    out = tmp_path / "heatmap.png"
    ended = hdm("explain", photograph, "--method", "grad_cam", "--out", out, "--json")
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout)
    assert facts["class"] == "Egyptian cat"
    assert facts["status"] == "ok"
    with Image.open(out) as picture:
        assert picture.size == (224, 224)


def test_explain_prints_and_draws_the_pieces_of_evidence(
    tmp_path: Path, here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Evidence] = []

    def short(classifier: Classifier, images: Tensor, target: int, settings: EvidenceSettings) -> Evidence:
        assert settings == EvidenceSettings(), "the command searches with the defaults"
        quick = EvidenceSettings(dm={"sizes": [4], "max_size": 8, "steps": 2, "ensemble": []}, max_pieces=2, cells=3)
        found.append(find_evidence(classifier, images, target, quick))
        return found[-1]

    monkeypatch.setattr("pipeline.cli.explain.find_evidence", short)
    photograph, out = read_demo(None, {})[0].path, tmp_path / "heatmap.png"  # type: ignore[arg-type]
    section = "{arch: mobilenet_v2, weights: IMAGENET1K_V1, resize: 96, crop: 96}"
    arguments = ["explain", photograph, "--method", "grad_cam", "--out", out, "--classifier", section, "--evidence"]
    ended = here(*arguments, "--json")
    assert ended.code == 0, ended.err
    facts = json.loads(ended.out)["evidence"]
    (pieces,) = found[0].pieces
    assert pieces
    assert facts == {**found[0].as_dict(0), "image": str(tmp_path / "heatmap-evidence.png")}
    assert [piece["area"] for piece in facts["pieces"]] == [piece.area for piece in pieces]
    with Image.open(facts["image"]) as drawn, Image.open(out) as heatmap:
        assert drawn.size == heatmap.size == (96, 96)
    printed = here(*arguments).out
    assert f"{pieces[0].area:.1%} of the pixels keep {pieces[0].sufficiency:.3f} of the class alone" in printed
    assert "heatmap-evidence.png" in printed


def test_methods_lists_the_registry(here: Callable[..., Ended]) -> None:
    entries = json.loads(here("methods", "--json").out)["methods"]
    assert {"hdm", "dm", "grad_cam"} <= {entry["id"] for entry in entries}
    assert "paper-cub" in entries[0]["presets"]


def test_metrics_lists_the_registry_with_what_each_needs_and_costs(here: Callable[..., Ended]) -> None:
    entries = {entry["id"]: entry for entry in json.loads(here("metrics", "--json").out)["metrics"]}
    assert list(entries) == list(METRICS)
    assert [name for name, entry in entries.items() if not entry["on_request"]] == chosen_metrics(None)
    assert entries["sensitivity_cells"]["forwards_per_image"] == 16
    assert entries["average_gain_soft"]["forwards_per_map"] == 1
    assert (entries["iou_best"]["needs_region"], entries["iou_best"]["map_only"]) == (True, True)
    assert (entries["infidelity"]["better"], entries["srg"]["better"], entries["srg"]["protocols"]) == ("lower", "higher", ["paper"])
    printed = here("metrics").out
    assert all(name in printed for name in METRICS)
    assert "16 per image" in " ".join(printed.split())


def test_a_classifier_is_checked_and_what_it_cannot_have_is_listed(tmp_path: Path, images: Path, here: Callable[..., Ended]) -> None:
    ended = here("check", config(tmp_path, images))
    assert ended.code == 0, ended.err
    assert "checked on 4 photographs and noise" in ended.out
    assert "all 3 methods can explain this classifier" in ended.out
    ended = here("check", "{source: torchvision, arch: squeezenet1_1}", "--json")
    assert ended.code == 0, ended.err
    facts = json.loads(ended.out)
    assert {"hdm", "grad_cam"} < set(facts["usable"])
    assert facts["refused"] == ["legrad", "attention_rollout"]
    assert facts["photographs"] == 0


SOFTMAX = """
from torch import nn
def ends_in_softmax():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1))
"""


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_a_classifier_that_would_give_wrong_numbers_starts_nothing(
    command: str, tmp_path: Path, images: Path, here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_softmax.py").write_text(SOFTMAX)
    monkeypatch.syspath_prepend(tmp_path)
    classifier = {"source": "import", "factory": "my_softmax:ends_in_softmax", "resize": 32, "crop": 32}
    ended = here(command, config(tmp_path, images, classifier=classifier))
    assert ended.code == 2
    assert "the network returns probabilities" in ended.out + ended.err
    assert not (tmp_path / "out").exists()
