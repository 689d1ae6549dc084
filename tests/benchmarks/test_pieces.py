"""Harder images of `python -m benchmarks planted`, their networks and scores."""

from __future__ import annotations

import pytest
import torch

from benchmarks.planted.backgrounds import photograph_crops
from benchmarks.planted.hierarchy import SCORES
from benchmarks.planted.piece_data import make_patch_data, make_piece_data
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
@pytest.mark.nightly
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


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_networks_learn_the_rule(architecture: Architecture) -> None:
    data = make_piece_data(architecture, 0, 10, CPU)
    assert min(data.accuracy.values()) > 0.95
    assert min(data.obeyed.values()) > 0.8
    assert all(3 <= number <= 6 for number in data.pieces.values())


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_images_of_truth_are_compared_too() -> None:
    data = make_patch_data(0, 2)
    assert data.kinds == ["redundant"] * 2 + ["joint"] * 2
    assert data.regions.flatten(2).any(2).all()
