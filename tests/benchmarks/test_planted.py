"""`python -m benchmarks truth`: images, network, scores and command."""

from __future__ import annotations

import io
import json
from dataclasses import fields

import pytest
import torch
from PIL import Image

from benchmarks.planted import benchmark as planted_benchmark
from benchmarks.planted.benchmark import CHANGES, PlantedData, bench_truth, blobs, make_data, score
from benchmarks.planted.figure import truth_figure, truth_lines, truth_table
from benchmarks.planted.images import DISTRACTORS, EVERY_KIND, KINDS, NEEDS, PATCH, SIDE, Kind, PlantedImages, plant, rule
from benchmarks.planted.network import build_network, is_correct, train
from benchmarks.planted.scores import both_found, pointing, similarity
from hdm_core import METHODS
from tests.support.plans import refused
from tests.support.small_run import benchmark


def drawn(kind: Kind, count: int = 40, seed: int = 3) -> PlantedImages:
    return plant(kind, count, torch.Generator().manual_seed(seed))


# The images


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_images_with_and_without_patches_differ_in_the_regions_only(kind: Kind) -> None:
    planted = drawn(kind)
    assert torch.equal((planted.images != planted.bare).any(1), planted.evidence), "every pixel of a patch is the pattern's"
    patches = {"single": (1, 0), "redundant": (1, 1), "joint": (1, 1), "half": (1, 0), "bare": (0, 0)}[kind]
    for region, there in zip(planted.regions.unbind(1), patches, strict=True):
        rows, columns = region.any(2).sum(1), region.any(1).sum(1)
        assert (rows == there * PATCH).all()
        assert (columns == there * PATCH).all()
        assert torch.equal(region.sum((1, 2)), rows * columns), "a square"


@pytest.mark.parametrize("kind", ["redundant", "joint"])
def test_two_patches_are_far_apart(kind: Kind) -> None:
    places = [region.nonzero().double().mean(0) for regions in drawn(kind).regions for region in regions]
    for one, other in zip(places[::2], places[1::2], strict=True):
        assert ((one - other).abs() >= PATCH + 8).all()


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_labels_follow_from_the_patterns(kind: Kind) -> None:
    planted = drawn(kind)
    for patterns, label in zip(planted.patterns.tolist(), planted.labels.tolist(), strict=True):
        shown = set(patterns) - {-1}
        assert [number for number, needs in enumerate(NEEDS) if needs and set(needs) <= shown] == ([label] if label else [])
    assert bool((planted.labels > 0).all()) == (kind in KINDS)


@pytest.mark.parametrize(
    ("kind", "stays"),
    [("single", {(0,): False, (1,): True}), ("redundant", {(0,): True, (1,): True}), ("joint", {(0,): False, (1,): False})],
)
def test_removing_a_patch_changes_the_class_by_the_rule(kind: Kind, stays: dict[tuple[int, ...], bool]) -> None:
    planted = drawn(kind)
    for patches, same in stays.items():
        images, labels = planted.without(patches)
        assert torch.equal(labels, planted.labels if same else torch.zeros_like(labels))
        assert torch.equal((images != planted.images).any(1), planted.regions[:, patches[0]])
    images, labels = planted.without((0, 1))
    assert torch.equal(images, planted.bare)
    assert not labels.any()


def test_no_class_needs_a_distractor_and_halves_serve_two_classes() -> None:
    assert rule(torch.tensor([DISTRACTORS])).item() == 0
    halves = [pattern for needs in NEEDS if len(needs) == 2 for pattern in needs]
    assert all(halves.count(half) == 2 for half in halves)


def test_the_same_seed_gives_the_same_images() -> None:
    one, same, other = drawn("joint"), drawn("joint"), drawn("joint", seed=4)
    assert all(torch.equal(getattr(one, field.name), getattr(same, field.name)) for field in fields(one))
    assert not torch.equal(one.images, other.images)


# The network


def test_training_goes_towards_the_rule_and_repeats() -> None:
    def loss(model: torch.nn.Module) -> float:
        with torch.no_grad():
            return sum(float(torch.nn.functional.cross_entropy(model(part.images), part.labels)) for part in map(drawn, EVERY_KIND))

    model, again = train(0, steps=8), train(0, steps=8)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    assert loss(model) < loss(build_network(0))


def test_a_constant_network_does_not_follow_the_rule() -> None:
    class Always(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.eye(len(NEEDS))[1].expand(len(images), -1)

    assert not is_correct(Always(), drawn("redundant")).any()


def test_a_network_that_did_not_learn_is_refused() -> None:
    assert refused(lambda: make_data(2, 0, steps=1)).startswith("the network follows the rule on 0 of 200 images (single)")


# The scores


def hand_made(kind: Kind = "joint") -> tuple[PlantedImages, torch.Tensor, torch.Tensor]:
    planted = drawn(kind, 6)
    return planted, planted.evidence.float(), torch.full((6, SIDE, SIDE), 0.5)


def test_pointing() -> None:
    planted, perfect, flat = hand_made()
    area = planted.evidence.double().mean((1, 2))
    assert (pointing(perfect, planted.evidence) == 1).all()
    assert (pointing(1 - perfect, planted.evidence) == 0).all()
    torch.testing.assert_close(pointing(flat, planted.evidence).double(), area, rtol=1e-6, atol=0)


def test_both_patches_are_found_only_if_each_stands_out() -> None:
    planted, perfect, flat = hand_made()
    one, other = planted.regions.float().unbind(1)
    elsewhere = one.flip(2)  # patches lie across the centre, so that this is in a quadrant without one
    for maps, found in {
        "the evidence": (perfect, 1),
        "one stronger": (one + 0.2 * other, 1),
        "with a glow": (torch.nn.functional.avg_pool2d(perfect[:, None], 9, 1, 4)[:, 0], 1),
        "one patch": (one, 0),
        "constant": (flat, 0),
        "nothing": (0 * flat, 0),
        "all but the evidence": (1 - perfect, 0),
        "something else between the two": (one + 0.3 * other + 0.5 * elsewhere, 0),
    }.values():
        assert (both_found(maps, planted.regions, PATCH) == found).all()


def test_noise_finds_nothing() -> None:
    planted = drawn("joint", 100)
    noise = torch.rand(100, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert both_found(noise, planted.regions, PATCH).mean() <= 0.02
    assert both_found(blobs(100, 0), planted.regions, PATCH).mean() <= 0.02


def test_similarity_is_of_ranks_with_ties_shared() -> None:
    noise = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(similarity(noise, noise**3), torch.ones(3).double())
    torch.testing.assert_close(similarity(noise, -noise), -torch.ones(3).double())
    assert (similarity(noise, torch.ones(3, 8, 8)) == 0).all()
    one, other = torch.zeros(2, 1, 2, 2)
    one[0, 0, 0], other[0, 1, 1] = 1, 1
    assert similarity(one, other).item() == pytest.approx(-1 / 3), "Pearson's of (1, 0, 0, 0) and (0, 0, 0, 1)"


# The benchmark


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> PlantedData:
    """Build data with two images per kind and an untrained network."""
    parts = [drawn(kind, 2) for kind in KINDS]
    planted = PlantedImages(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(PlantedImages)))
    made = PlantedData(planted, [kind for kind in KINDS for _ in range(2)], build_network(0).eval(), 1.0, 0.9)
    monkeypatch.setattr(planted_benchmark, "make_data", lambda images, seed: made)
    monkeypatch.setitem(CHANGES, "hdm", {"sizes": (4,), "steps": 2})
    return made


def test_maps_that_are_the_evidence_score_one_and_flat_ones_their_area(untrained: PlantedData) -> None:
    evidence = untrained.planted.evidence
    best, flat = score(evidence.float(), untrained), score(torch.ones(evidence.shape), untrained)
    for name in ("energy", "pointing", "redundant", "joint"):
        assert best[name] == (1, 0)
    area = float(evidence.double().mean())
    assert (flat["energy"][0], flat["pointing"][0]) == (pytest.approx(area), pytest.approx(area))
    assert flat["redundant"][0] == flat["joint"][0] == 0
    assert flat["energy_by_kind"]["single"][0] == pytest.approx(PATCH**2 / SIDE**2)


def test_bench_truth_has_one_row_per_method_and_chance(untrained: PlantedData) -> None:
    result, made, maps = bench_truth(2, 0, ["hdm", "eigen_cam", "gradient"])
    facts = json.loads(json.dumps(result.as_dict()))
    assert [row["method"] for row in facts["rows"]] == ["hdm", "eigen_cam", "gradient", "chance"]
    assert facts["area"] == pytest.approx((2 * PATCH**2 + 4 * 2 * PATCH**2) / (6 * SIDE**2))
    assert facts["rows"][0]["changed"] == {"sizes": [4], "steps": 2}
    assert facts["rows"][-1]["randomised"] is None
    for row in facts["rows"]:
        assert set(row["energy_by_kind"]) == set(KINDS)
        for name in ("energy", "pointing", "redundant", "joint"):
            assert 0 <= row[name][0] <= 1
    table = truth_table(result)
    assert table.row_count == 4
    assert list(table.columns[0].cells) == ["HDM", "Eigen-CAM", "Gradient", "chance"]
    assert any("hdm sizes=(4,)" in line for line in truth_lines(result))
    with Image.open(io.BytesIO(truth_figure(made, maps, ".png"))) as figure:
        assert figure.width < figure.height, "four images and three columns"


def test_changed_settings_are_settings_that_exist() -> None:
    for name, changed in CHANGES.items():
        METHODS[name].configure(**changed)


@pytest.mark.nightly
@pytest.mark.timeout(900)  # a minute's training, which other work on the machine may stretch
def test_the_network_learns_the_rule_and_the_command_prints_one_object() -> None:
    ended = benchmark("truth", "--images", 5, "--only", "grad_cam", "--json", seconds=880)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])["truth"]
    assert found["images"] == 5
    assert found["accuracy"] > 0.99
    assert found["obeyed"] > 0.9
    cam, chance = found["rows"]
    assert (cam["method"], cam["passes"], cam["flat"]) == ("grad_cam", 1, 0)
    assert cam["energy"][0] > chance["energy"][0]
