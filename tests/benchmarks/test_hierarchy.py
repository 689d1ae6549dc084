"""`python -m benchmarks planted`: candidates, comparison and both commands."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from statistics import fmean, stdev

import pytest
import torch

from benchmarks.cli import main as cli_main
from benchmarks.planted import command, hierarchy
from benchmarks.planted.__main__ import main as planted_main
from benchmarks.planted.benchmark import CHANGES
from benchmarks.planted.candidates import CANDIDATES, REFERENCE, Candidate
from benchmarks.planted.hierarchy import SCORES, bench_hierarchy, mean_interval, select_candidates
from benchmarks.planted.piece_data import PieceData
from benchmarks.planted.piece_networks import Architecture, build_piece_network
from benchmarks.planted.pieces import (
    KINDS,
    SIDE,
    Kind,
    PieceImages,
    draw_pieces,
)
from benchmarks.tables import hierarchy_tables
from hdm_core import METHODS
from hdm_core.device import pick_device
from tests.support.paths import ROOT
from tests.support.plans import refused

CPU = torch.device("cpu")


def drawn(kind: Kind, count: int, seed: int) -> PieceImages:
    return draw_pieces(kind, count, torch.Generator().manual_seed(seed))


# The candidates


def test_candidates_have_equal_passes_and_stages_are_compared_with_one_of_the_same_loss() -> None:
    def passes(candidate: Candidate) -> int:
        count = METHODS[candidate.method].passes
        assert count is not None
        start = int(candidate.settings().identity().get("start") == "cam")
        return count(candidate.settings(), SIDE, SIDE) + start

    for candidate in CANDIDATES.values():
        settings = candidate.settings()
        stages = getattr(settings, "stages", 1)
        assert (candidate.one_stage is None) == (stages == 1)
        if candidate.one_stage is not None:
            reference = CANDIDATES[candidate.one_stage]
            assert passes(candidate) == passes(reference)
            left_out = {"stages", "stage_unit", "mixing", "mix_steps", "steps", "ensemble"}
            one, other = (each.settings().model_dump(exclude=left_out) for each in (candidate, reference))
            assert one == other
    assert passes(CANDIDATES[REFERENCE]) == 150
    assert passes(CANDIDATES["fast-150"]) == 150
    assert CANDIDATES[REFERENCE].settings() == METHODS["hdm"].configure("faithful")
    assert CANDIDATES["mask"].changes == CHANGES["mask"], "as in truth"
    assert [candidate.id for candidate in select_candidates(["mask", "fast"])] == ["fast", "mask"]
    assert refused(lambda: select_candidates(["faithfull"])).startswith("no candidate 'faithfull'; did you mean faithful?")


# The comparison


def test_the_interval_is_that_of_the_tables() -> None:
    values = [0.1, 0.5, 0.2, 0.9]
    mean, half = mean_interval(torch.tensor(values).double())
    assert (mean, half) == (pytest.approx(fmean(values)), pytest.approx(1.96 * stdev(values) / 2))
    assert math.isnan(mean_interval(torch.ones(1))[1])


def untrained(architecture: Architecture, seed: int) -> PieceData:
    parts = [drawn(kind, 3, seed) for kind in KINDS]
    planted = PieceImages(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(PieceImages)))
    model, shares = build_piece_network(architecture, seed).eval(), dict.fromkeys(KINDS, 1.0)
    kinds = [kind for kind in KINDS for _ in range(3)]
    name = f"{architecture}-{seed}"
    return PieceData(
        name, planted.images, planted.labels, planted.regions, planted.strengths, kinds, model, shares, shares, shares, 0.1, 0.0
    )


def test_the_comparison_pairs_the_same_images_and_prints_one_object() -> None:
    small = {"sizes": (4,), "max_size": 8, "steps": 2, "ensemble": (), "calibration": (), "blur": 0.0}
    one = Candidate(REFERENCE, "hdm", "faithful", small)
    two = Candidate("two", "hdm", "faithful", {**small, "steps": 1, "stages": 2, "stage_unit": "remaining", "mixing": "sum"}, REFERENCE)
    selected, networks = [one, two, Candidate("grad_cam", "grad_cam")], (("plain", 0), ("residual", 1))
    datasets = [lambda name=name, seed=seed: untrained(name, seed) for name, seed in networks]
    result = bench_hierarchy(datasets, selected, "hard", CPU)
    facts = json.loads(json.dumps(result.as_dict()))
    assert [network["network"] for network in facts["networks"]] == ["plain-0", "residual-1"]
    assert facts["images"] == 3
    rows = {(row["candidate"], row["kind"]): row for row in facts["rows"]}
    assert len(rows) == 6
    assert rows["two", "joint"]["passes"] == rows[REFERENCE, "joint"]["passes"] == 5
    measured = [hierarchy._measure(make(), selected, CPU, None) for make in datasets]
    for kind, part in (("redundant", slice(0, 3)), ("joint", slice(3, 6))):
        for score in SCORES:
            gains = [(each["two"].scores[score] - each[REFERENCE].scores[score])[part].tolist() for each in measured]
            assert rows["two", kind]["to_one_stage"][score][0] == pytest.approx(fmean([*gains[0], *gains[1]]))
            assert rows["two", kind]["to_one_stage"] == rows["two", kind]["to_reference"]
            assert rows["two", kind]["ahead"][score] == sum(fmean(gain) > 0 for gain in gains)
            assert rows["grad_cam", kind]["means"][score][0] == pytest.approx(
                fmean(value for each in measured for value in each["grad_cam"].scores[score][part].tolist())
            )
        assert rows[REFERENCE, kind]["to_one_stage"] is rows[REFERENCE, kind]["to_reference"] is None
        assert rows["grad_cam", kind]["ahead"] is None
    tables = hierarchy_tables(result)
    assert [title.split(":")[0] for title, _ in tables] == list(KINDS)
    assert tables[0][1].row_count == 3


@pytest.fixture
def without_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(architecture: Architecture, seed: int, images: int, device: torch.device, steps: int) -> PieceData:
        assert (images, device) == (3, pick_device(1))
        return untrained(architecture, seed)

    monkeypatch.setattr(command, "make_piece_data", make)


@pytest.mark.usefixtures("without_training")
@pytest.mark.parametrize("main", [cli_main, planted_main], ids=["benchmarks", "benchmarks.planted"])
def test_both_commands_print_the_same_object(
    main: Callable[[], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--images", "3", "--seeds", "2", "--architectures", "plain", "--only", "grad_cam,layer_cam"]
    monkeypatch.setattr("sys.argv", ["benchmarks", *(["planted", "--hard", "--json"] if main is cli_main else []), *options])
    if main is cli_main:
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
    else:
        assert main() == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])["planted"]
    assert [network["network"] for network in facts["networks"]] == ["plain-0", "plain-1"]
    assert [(row["candidate"], row["kind"], row["images"]) for row in facts["rows"]] == [
        (candidate, kind, 6) for candidate in ("grad_cam", "layer_cam") for kind in KINDS
    ]
    assert (facts["world"], facts["images"]) == ("hard", 3)


@pytest.mark.usefixtures("without_training")
def test_an_unknown_candidate_is_bad_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks.planted", "--only", "gradcam"])
    assert planted_main() == 2
    assert "did you mean grad_cam?" in capsys.readouterr().err


@pytest.mark.slow
def test_the_comparison_needs_no_cluster_and_no_file_format() -> None:
    code = "import sys, benchmarks.planted.__main__; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    loaded = {name.split(".")[0] for name in ended.stdout.split()}
    assert {"torch", "skimage"} <= loaded
    assert not {"ray", "zarr", "s3fs", "fsspec", "pyarrow", "prefect", "typer", "rich", "matplotlib", "yaml"} & loaded
