"""`python -m benchmarks planted`: harder images, networks, scores and comparison."""

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
from benchmarks.planted.backgrounds import photograph_crops
from benchmarks.planted.benchmark import CHANGES
from benchmarks.planted.candidates import CANDIDATES, REFERENCE, Candidate
from benchmarks.planted.hierarchy import SCORES, bench_hierarchy, mean_interval, select_candidates
from benchmarks.planted.piece_data import PieceData, make_patch_data, make_piece_data
from benchmarks.planted.piece_networks import ARCHITECTURES, Architecture, build_piece_network, follows_rule, train_piece_network
from benchmarks.planted.piece_scores import average_precision, piece_recalls, piece_scores
from benchmarks.planted.pieces import (
    CELL,
    DISTRACTORS,
    EVERY_KIND,
    KINDS,
    NEEDS,
    PIECES,
    SIDE,
    SIZES,
    STRENGTHS,
    Kind,
    PieceImages,
    draw_pieces,
    rule,
)
from benchmarks.tables import hierarchy_tables
from hdm_core import METHODS
from hdm_core.device import pick_device
from tests.support.paths import ROOT
from tests.support.plans import refused

CPU = torch.device("cpu")


def drawn(kind: Kind, count: int = 40, seed: int = 3) -> PieceImages:
    return draw_pieces(kind, count, torch.Generator().manual_seed(seed))


# The images


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_images_with_and_without_pieces_differ_in_the_pieces_only(kind: Kind) -> None:
    planted = drawn(kind)
    assert not ((planted.images != planted.bare).any(1) & ~planted.regions.any(1)).any()
    present = planted.motifs >= 0
    assert torch.equal(planted.regions.flatten(2).any(2), present)
    assert torch.equal(planted.strengths > 0, present)
    numbers = {"redundant": (3, 6), "joint": (3, 6), "few": (1, 2), "part": (1, 5), "bare": (0, 0)}[kind]
    assert (present.sum(1).min().item(), present.sum(1).max().item()) == numbers


def test_each_piece_has_its_motif_and_strength_in_a_cell_of_its_own() -> None:
    planted = drawn("joint", 10)
    photographs = drawn("joint", 10).images
    for image, regions in enumerate(planted.regions):
        cells = set()
        for piece, region in enumerate(regions):
            if not region.any():
                continue
            rows, columns = region.nonzero().unbind(1)
            cells.add((rows.min().item() // CELL, columns.min().item() // CELL))
            assert (rows.min() // CELL, columns.min() // CELL) == (rows.max() // CELL, columns.max() // CELL)
            assert max(rows.max() - rows.min(), columns.max() - columns.min()) < SIZES[1]
            assert (planted.shown[image][region] == planted.motifs[image, piece]).all()
            # The texture has two values in its first colour, of which the photograph beneath keeps 1 - strength.
            strength = planted.strengths[image, piece]
            texture = (planted.images - (1 - strength) * planted.bare)[image, 0][region] / strength
            torch.testing.assert_close(texture.abs(), torch.full_like(texture, 1.4), rtol=1e-4, atol=1e-4)
        assert len(cells) == (planted.motifs[image] >= 0).sum()
    assert torch.equal(planted.images, photographs), "the same seed gives the same images"


def test_the_strengths_of_an_image_are_spread_evenly_from_weak_to_strong() -> None:
    for strengths in drawn("redundant").strengths:
        present = strengths[strengths > 0].sort().values
        torch.testing.assert_close(present, torch.linspace(*STRENGTHS, len(present)))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_labels_follow_from_the_motifs(kind: Kind) -> None:
    planted = drawn(kind)
    for motifs, label in zip(planted.motifs.tolist(), planted.labels.tolist(), strict=True):
        shown = set(motifs) - {-1}
        assert [number for number, needs in enumerate(NEEDS) if needs and set(needs) <= shown] == ([label] if label else [])
    assert bool((planted.labels > 0).all()) == (kind in (*KINDS, "few"))


def test_each_piece_of_a_redundant_image_is_enough_and_each_of_a_joint_one_necessary() -> None:
    for kind in KINDS:
        planted = drawn(kind)
        present = planted.motifs >= 0
        for piece in range(PIECES):
            there = present[:, piece]
            alone = torch.zeros_like(present)
            alone[:, piece] = there
            shown = alone if kind == "redundant" else present & ~alone
            images, labels = planted.showing(shown)
            assert torch.equal(labels[there], planted.labels[there] if kind == "redundant" else torch.zeros_like(labels[there]))
            changed, removed = (images != planted.images).any(1), (planted.regions & ~shown[:, :, None, None]).any(1)
            assert not (changed & ~removed).any()
        images, labels = planted.showing(torch.zeros_like(present))
        assert torch.equal(images, planted.bare)
        assert not labels.any()


def test_no_set_contains_another_and_no_motif_decides_alone() -> None:
    sets = [set(needs) for needs in NEEDS if len(needs) > 1]
    assert not any(one < other for one in map(set, NEEDS[1:]) for other in map(set, NEEDS[1:]))
    assert sorted(map(len, sets)) == [3, 4, 5, 6]
    assert all(sum(motif in needs for needs in sets) >= 2 for motif in set.union(*sets))
    assert rule(torch.tensor([DISTRACTORS])).item() == 0


def test_crops_are_of_the_photographs_and_repeat() -> None:
    one, same, other = (photograph_crops(50, SIDE, torch.Generator().manual_seed(seed), CPU) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert abs(one.mean()) < 0.5
    assert 0.5 < one.std() < 1.5
    assert one.flatten(1).std(1).min() > 0.05, "none is empty"


# The networks


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_repeats_and_lowers_the_loss(architecture: Architecture) -> None:
    def loss(model: torch.nn.Module) -> float:
        with torch.no_grad():
            return sum(float(torch.nn.functional.cross_entropy(model(part.images), part.labels)) for part in map(drawn, EVERY_KIND))

    model, again = (train_piece_network(architecture, 0, CPU, steps=30) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    assert loss(model) < loss(build_piece_network(architecture, 0).eval())


class Oracle(torch.nn.Module):
    """Network that knows the motif of each pixel and applies the rule."""

    def __init__(self, planted: PieceImages, wrong: int | None = None) -> None:
        super().__init__()
        self.planted, self.wrong = planted, wrong

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        drawn = self.planted.regions & (images == self.planted.images).all(1)[:, None] & (images != self.planted.bare).any(1)[:, None]
        labels = rule(self.planted.motifs.where(drawn.flatten(2).any(2), -1))
        if self.wrong is not None:
            labels[self.wrong] = 0
        return torch.nn.functional.one_hot(labels, len(NEEDS)).float()


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_knows_the_rule_follows_it_and_a_constant_one_does_not(kind: Kind) -> None:
    planted = drawn(kind, 6)
    assert follows_rule(Oracle(planted), planted).tolist() == [True] * 6
    assert follows_rule(Oracle(planted, wrong=2), planted).tolist() == [True, True, False, True, True, True]


@pytest.mark.slow
def test_a_network_that_did_not_learn_is_refused() -> None:
    assert refused(lambda: make_piece_data("plain", 0, 2, CPU, steps=1)).startswith(
        "plain, seed 0: the network follows the rule on 0 of 200 images"
    )
    assert refused(lambda: make_piece_data("vgg", 0, 2, CPU)) == "no architecture 'vgg': choose from plain, residual"


# The scores


def test_average_precision_is_that_of_an_obvious_version_with_ties() -> None:
    draw = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 5, (4, 6, 7), generator=draw).float()
    maps[3] = 1
    evidence = torch.rand(4, 6, 7, generator=draw) < 0.3
    for value, pixels, truth in zip(average_precision(maps, evidence), maps, evidence, strict=True):
        expected, before = 0.0, 0.0
        for threshold in sorted(set(pixels.flatten().tolist()), reverse=True):
            top = pixels >= threshold
            recall, precision = ((top & truth).sum() / truth.sum()).item(), ((top & truth).sum() / top.sum()).item()
            expected, before = expected + (recall - before) * precision, recall
        assert value.item() == pytest.approx(expected, rel=1e-6)
    assert average_precision(maps, evidence)[3].item() == pytest.approx(evidence[3].double().mean().item())


def test_average_precision_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    draw = torch.Generator().manual_seed(1)
    maps, evidence = torch.randint(0, 50, (3, 9, 9), generator=draw) / 50, torch.rand(3, 9, 9, generator=draw) < 0.2
    expected = [sklearn.average_precision_score(truth.flatten(), pixels.flatten()) for pixels, truth in zip(maps, evidence, strict=True)]
    torch.testing.assert_close(average_precision(maps, evidence), torch.tensor(expected, dtype=torch.float64))


def test_recall_is_of_the_top_pixels_and_ties_share_what_is_left() -> None:
    regions = torch.zeros(1, 3, 2, 4, dtype=torch.bool)
    regions[0, 0, 0, :2] = regions[0, 1, 1, 0] = True  # three pixels of evidence
    maps = torch.tensor([[[0.9, 0.1, 0.5, 0.1], [0.5, 0.0, 0.5, 0.0]]])  # 0.9, then two places for three pixels of 0.5
    torch.testing.assert_close(piece_recalls(maps, regions), torch.tensor([[0.5, 2 / 3, 0]]).double())
    flat = piece_recalls(torch.ones(1, 2, 4), regions)
    torch.testing.assert_close(flat, torch.tensor([[3 / 8, 3 / 8, 0]]).double())


def test_scores_of_hand_made_maps() -> None:
    planted = drawn("joint", 6)
    regions, strengths = planted.regions, planted.strengths
    count = (planted.motifs >= 0).sum(1).double()
    perfect = piece_scores(regions.any(1).float(), regions, strengths)
    assert set(perfect) == set(SCORES)
    assert all((values == 1).all() for values in perfect.values())
    weakest = strengths.masked_fill(strengths == 0, torch.inf).argmin(1)
    missing = torch.stack([regions[image].float().sum(0) - regions[image, piece].float() for image, piece in enumerate(weakest)])
    without = piece_scores(missing, regions, strengths)
    torch.testing.assert_close(without["found"], (count - 1) / count)
    assert (without["strongest"] == 1).all()
    assert (without["weakest"] < 0.1).all(), "its share of the ties among the zeros"
    assert not without["all_found"].any()
    assert (without["energy"] == 1).all()
    area = regions.any(1).double().mean((1, 2))
    flat = piece_scores(torch.ones(6, SIDE, SIDE), regions, strengths)
    for name in ("average_precision", "energy", "pointing", "recall", "strongest", "weakest"):
        torch.testing.assert_close(flat[name], area, rtol=1e-6, atol=0)
    assert not flat["found"].any()


def test_pieces_of_equal_strength_are_strongest_and_weakest_alike() -> None:
    regions = torch.zeros(1, 2, 2, 4, dtype=torch.bool)
    regions[0, 0, 0], regions[0, 1, 1] = True, True
    maps = torch.tensor([[[1.0] * 4, [1.0, 1.0, 0.0, 0.0]]])
    scores = piece_scores(maps, regions, torch.ones(1, 2))
    assert scores["strongest"].item() == scores["weakest"].item() == scores["recall"].item()


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


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_networks_learn_the_rule(architecture: Architecture) -> None:
    data = make_piece_data(architecture, 0, 10, CPU)
    assert min(data.accuracy.values()) > 0.95
    assert min(data.obeyed.values()) > 0.8
    assert all(3 <= number <= 6 for number in data.pieces.values())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_images_of_truth_are_compared_too() -> None:
    data = make_patch_data(0, 2)
    assert data.kinds == ["redundant"] * 2 + ["joint"] * 2
    assert data.regions.flatten(2).any(2).all()
