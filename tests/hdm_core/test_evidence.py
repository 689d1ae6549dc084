"""`find_evidence`: disjoint sets of pixels that each suffice, on networks whose pieces can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hdm_core import Classifier, Evidence, EvidenceSettings, explain, find_evidence
from hdm_core.evidence import evidence_passes
from hdm_core.evidence.draw import COLOURS, draw_pieces
from hdm_core.evidence.search import cell_numbers, largest_number_of_trials, run_searches, smallest_set
from hdm_core.testing.families import FAMILIES

SIDE, CELLS = 32, 4
ONE, OTHER = (slice(8, 16), slice(8, 16)), (slice(24, 32), slice(0, 8))  # each a cell of 4 x 4, 64 pixels
DM = {"sizes": [4, 8], "ratios": [2], "max_size": 16, "steps": 6}
SETTINGS = EvidenceSettings(dm=DM, cells=CELLS, bisections=7)

Rule = Callable[[Tensor, Tensor], Tensor]
RULES: dict[str, Rule] = {
    "or": torch.maximum,
    "and": torch.minimum,
    "one": lambda one, _: one,
    "constant": lambda one, other: 0 * (one + other) + 0.9,
}


class Corners(nn.Module):
    """Network whose logit is 10 (rule(a, b) - 1/2), for the mean brightness a and b of two squares of 8 x 8 pixels."""

    def __init__(self, rule: str, outputs: int = 2) -> None:
        super().__init__()
        self.rule, self.outputs = rule, outputs
        self.slope = nn.Parameter(torch.tensor(10.0))

    def forward(self, images: Tensor) -> Tensor:
        one, other = (images[:, :, rows, columns].mean((1, 2, 3)) for rows, columns in (ONE, OTHER))
        logit = self.slope * (RULES[self.rule](one, other) - 0.5)
        return torch.stack([torch.zeros_like(logit), logit], 1) if self.outputs == 2 else logit[:, None]


def squares(count: int = 2, other: float = 0.9) -> Tensor:
    """Return images whose squares have the brightness 1 and `other`, on a little noise."""
    images = 0.02 * torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    images[:, :, ONE[0], ONE[1]], images[:, :, OTHER[0], OTHER[1]] = 1.0, other
    return images


def found(rule: str, images: Tensor | None = None, **changes: Any) -> Evidence:
    settings = SETTINGS.model_copy(update=changes)
    return find_evidence(Corners(rule).eval(), squares() if images is None else images, 1, settings)


def pixels(area: float) -> int:
    return round(area * SIDE**2)


def inside(piece: Tensor, square: tuple[slice, slice]) -> bool:
    """Return whether all pixels of a piece lie in a square."""
    rest = piece.clone()
    rest[square] = False
    return not rest.any()


def needed(share: float, brightness: float) -> int:
    """Return the fewest of 64 pixels of a brightness for `share` of the probability of an image whose rule has the value 1."""
    probability = share * torch.tensor(5.0, dtype=torch.float64).sigmoid()
    return int((64 * (0.5 + probability.logit() / 10) / brightness).ceil())


# What can be computed by hand


def test_two_squares_of_which_each_suffices_are_two_pieces_of_the_fewest_pixels() -> None:
    evidence = found("or")
    assert evidence.status == ["complete", "complete"]
    for pieces in evidence.pieces:
        first, second = pieces
        assert inside(first.pixels, ONE)
        assert inside(second.pixels, OTHER)
        assert (pixels(first.area), pixels(second.area)) == (needed(0.9, 1.0), needed(0.9, 0.9)) == (46, 51)
        assert 0.9 <= first.sufficiency < 0.91
        # Without the first the second answers, with a logit of 4 in place of 5; without the second nothing is lost.
        assert first.necessity == pytest.approx(1 - (torch.tensor(4.0).sigmoid() / torch.tensor(5.0).sigmoid()).item(), abs=1e-4)
        assert second.necessity == pytest.approx(0, abs=1e-6)
    assert evidence.comprehensiveness[0] > 0.95, "with their margins the pieces cover the squares almost wholly"
    assert evidence.area(0) == pytest.approx((46 + 51) / SIDE**2)


def test_two_squares_that_only_suffice_together_are_one_piece() -> None:
    evidence = found("and", squares(other=1.0))
    for (piece,) in evidence.pieces:
        one, other = (int(piece.pixels[square].sum()) for square in (ONE, OTHER))
        assert min(one, other) == needed(0.9, 1.0)
        assert one + other == pixels(piece.area) <= 128
        assert piece.necessity > 0.99
    assert evidence.status == ["complete"] * 2
    assert evidence.comprehensiveness[0] == pytest.approx(evidence.pieces[0][0].necessity, abs=0.01), "all that was found is one piece"


def test_one_square_that_decides_alone_is_one_piece() -> None:
    (piece,) = found("one").pieces[0]
    assert inside(piece.pixels, ONE)
    assert pixels(piece.area) == 46


def test_a_class_that_the_baseline_keeps_has_no_pieces_and_says_why() -> None:
    evidence = found("constant")
    assert evidence.status == ["no_contrast"] * 2
    assert evidence.pieces == [(), ()]
    assert evidence.passes == [0, 0]
    facts = evidence.as_dict(0)
    assert facts["count"] == 0
    assert facts["comprehensiveness"] is None
    assert facts["reason"].startswith("the baseline itself keeps the class")


def test_a_class_with_a_lower_probability_than_that_of_the_baseline_has_no_pieces() -> None:
    evidence = find_evidence(Corners("or").eval(), squares(), 0, SETTINGS)
    assert evidence.status == ["no_contrast"] * 2
    assert (
        find_evidence(Corners("or").eval(), squares(), 0, SETTINGS.model_copy(update={"score": "log_odds"})).status == ["no_contrast"] * 2
    )


def test_the_log_odds_count_from_the_baseline_to_the_image() -> None:
    images = squares(other=0.95)
    for piece in (evidence := found("or", images, score="log_odds")).pieces[0]:
        shown = (images[:1] * piece.pixels)[0]
        brightness = max(float(shown[:, rows, columns].mean()) for rows, columns in (ONE, OTHER))
        assert piece.sufficiency == pytest.approx(brightness, abs=1e-5), "10 (a - 1/2) rises from -5 to 5"
        assert piece.sufficiency >= 0.9
    assert [pixels(piece.area) for piece in evidence.pieces[0]] == [58, 61], "0.9 of 64, and 0.9 / 0.95"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_regression_counts_from_the_baseline_to_the_image_whatever_its_sign(sign: int) -> None:
    network = Corners("one", outputs=1).eval()
    with torch.no_grad():
        network.slope.mul_(sign)
    classifier = Classifier.from_module(network, problem_type="regression")
    evidence = find_evidence(classifier, squares(), settings=SETTINGS)
    assert evidence.status == ["complete"] * 2
    assert evidence.pieces[0][0].sufficiency >= 0.9


def test_what_is_left_is_reported_where_the_number_of_pieces_is_limited() -> None:
    evidence = found("or", max_pieces=1, margin=0.0)
    assert evidence.status == ["max_pieces"] * 2
    assert [len(pieces) for pieces in evidence.pieces] == [1, 1]
    assert evidence.comprehensiveness[0] == pytest.approx(evidence.pieces[0][0].necessity)


def test_a_margin_keeps_what_is_left_of_an_object_from_being_another_piece() -> None:
    """Half of the score takes 32 of the brighter square's pixels and 36 of the other's 64: the first has room for two pieces."""
    fragments, pieces = (found("or", kept=0.5, margin=margin) for margin in (0.0, 0.05))
    for number in range(2):
        assert sorted(pixels(piece.area) for piece in fragments.pieces[number]) == [32, 32, 36]
        assert [pixels(piece.area) for piece in pieces.pieces[number]] == [32, 36]
        assert inside(pieces.pieces[number][1].pixels, OTHER)
    assert pieces.comprehensiveness[0] > fragments.comprehensiveness[0]


def test_an_image_whose_output_is_not_finite_has_no_pieces() -> None:
    images = squares(3)
    images[1] = torch.inf
    evidence = found("or", images)
    assert evidence.status == ["complete", "nan", "complete"]
    assert [len(pieces) for pieces in evidence.pieces] == [2, 0, 2]


def test_a_contrast_asks_for_the_class_rather_than_the_other() -> None:
    evidence = find_evidence(Corners("or").eval(), squares(), 1, SETTINGS, contrast="runner_up")
    assert evidence.contrasts is not None
    assert evidence.contrasts.tolist() == [0, 0]
    assert evidence.targets.tolist() == [1, 1]
    assert [pixels(piece.area) for piece in evidence.pieces[0]] == [46, 51], "of two classes the probability is the same"


# A slow, obvious version


def slow(network: nn.Module, image: Tensor, target: int, settings: EvidenceSettings) -> tuple[list[Tensor], list[float]]:
    """Return the pieces of one image and their sufficiency, set by set and one forward at a time."""

    def probability(shown: Tensor) -> float:
        with torch.no_grad():
            return float(network(torch.stack([shown, shown])).softmax(1)[0, target])

    def keeps(chosen: Tensor) -> bool:
        return probability(image * chosen) / whole >= settings.kept

    def top(order: list[int], count: int) -> Tensor:
        chosen = torch.zeros(height * width, dtype=torch.bool)
        chosen[order[:count]] = True
        return chosen.view(height, width)

    def narrowed(order: list[int], below: int, above: int) -> Tensor:
        for _ in range(settings.bisections):
            if above - below > 1:
                middle = (below + above) // 2
                below, above = (below, middle) if keeps(top(order, middle)) else (middle, above)
        return top(order, above)

    height, width = image.shape[-2:]
    cell = torch.tensor(
        [[row * settings.cells // height * settings.cells + c * settings.cells // width for c in range(width)] for row in range(height)]
    )
    reach = round(settings.margin * min(height, width))
    whole, left, pieces = probability(image), torch.ones(height, width, dtype=torch.bool), []
    while keeps(left) and len(pieces) < settings.max_pieces:
        mask = explain(network, (image * left)[None], "dm", settings.preset, target, **{**settings.dm, "calibration": ()}).maps[0].flatten()
        order = sorted((i for i in range(height * width) if left.flatten()[i]), key=lambda i: -float(mask[i]))
        piece, cells = left, list(dict.fromkeys(int(cell.flatten()[i]) for i in order))[::-1]
        size = len(cells) // 2
        while size:
            start = 0
            while start < len(cells):
                gone = cells[start : start + size]
                if len(gone) == len(cells):
                    break
                smaller = piece & ~torch.isin(cell, torch.tensor(gone))
                if keeps(smaller):
                    piece, cells = smaller, cells[:start] + cells[start + size :]
                else:
                    start += size
            size //= 2
        order = [i for i in order if piece.flatten()[i]]
        below, above = 0, len(order)
        for count in (max(1, round(area * height * width)) for area in settings.areas):
            if count < above and keeps(top(order, count)):
                above = count
                break
            below = max(below, count) if count < above else below
        piece = narrowed(order, below, above)
        pieces.append(piece)
        left = left.clone()
        for row, column in piece.nonzero().tolist():
            left[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = False
    return pieces, [probability(image * piece) / whole for piece in pieces]


@pytest.mark.parametrize("rule", ["or", "and"])
def test_the_pieces_are_those_of_the_slow_version(rule: str) -> None:
    images, network = squares(2, other=0.95), Corners(rule).eval()
    evidence = find_evidence(network, images, 1, SETTINGS)
    for image, pieces in zip(images, evidence.pieces, strict=True):
        expected, sufficiency = slow(network, image, 1, SETTINGS)
        assert len(pieces) == len(expected) > 0
        for piece, each, share in zip(pieces, expected, sufficiency, strict=True):
            assert torch.equal(piece.pixels, each)
            assert piece.sufficiency == pytest.approx(share, abs=1e-6)


# Promises


def convolutional() -> tuple[nn.Module, Tensor]:
    """Return a network with batch normalisation, and images whose class grey does not keep."""
    images = torch.randn(5, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    return FAMILIES["mobilenet"](), images


REAL = EvidenceSettings(dm={"sizes": [4], "max_size": 8, "steps": 2}, max_pieces=3, cells=3, score="log_odds", kept=0.7)


def test_an_image_has_the_same_pieces_alone_and_in_a_batch_to_the_bit() -> None:
    network, images = convolutional()
    together = find_evidence(network, images, settings=REAL, batch=4)
    assert len({len(pieces) for pieces in together.pieces}) > 1, "images leave the batch at different stages"
    for number in range(1, 5):
        alone = find_evidence(network, images[number : number + 1], settings=REAL, batch=4)
        assert alone.status[0] == together.status[number]
        assert alone.passes[0] == together.passes[number]
        assert repr(alone.comprehensiveness[0]) == repr(together.comprehensiveness[number])
        for piece, other in zip(alone.pieces[0], together.pieces[number], strict=True):
            assert torch.equal(piece.pixels, other.pixels)
            assert piece.as_dict() == other.as_dict()


def test_pieces_are_disjoint_sufficient_and_measured_as_they_say() -> None:
    network, images = convolutional()
    evidence = find_evidence(network, images, settings=REAL)

    def share(shown: Tensor, number: int) -> float:
        with torch.no_grad():
            logits = network(torch.stack([shown, images[number], 0 * shown]).double().float())
        others = logits.clone()
        others[:, evidence.targets[number]] = -torch.inf
        whole = logits[:, evidence.targets[number]] - others.logsumexp(1)
        return float((whole[0] - whole[2]) / (whole[1] - whole[2]))

    assert any(evidence.pieces)
    for number, pieces in enumerate(evidence.pieces):
        taken = torch.zeros(24, 24, dtype=torch.int64)
        for piece in pieces:
            assert piece.sufficiency >= REAL.kept
            assert piece.sufficiency == pytest.approx(share(images[number] * piece.pixels, number), abs=1e-4)
            assert piece.necessity == pytest.approx(1 - share(images[number] * ~piece.pixels, number), abs=1e-4)
            assert piece.area == piece.pixels.double().mean()
            taken += piece.pixels
        assert taken.max() <= 1
        assert torch.equal(evidence.masks(3)[number].any(0), taken.bool())
        if pieces:
            reach = round(REAL.margin * 24)
            removed = nn.functional.max_pool2d(taken[None, None].float(), 2 * reach + 1, 1, reach)[0, 0]
            rest = share(images[number] * (removed == 0), number)
            assert evidence.comprehensiveness[number] == pytest.approx(1 - rest, abs=1e-4)
            assert (rest < REAL.kept) == (evidence.status[number] == "complete")


def test_passes_are_counted_reported_and_bounded() -> None:
    network, images = convolutional()
    reported: list[int] = []
    evidence = find_evidence(network, images, settings=REAL, progress=reported.append)
    assert sum(reported) == sum(evidence.passes)
    bound = evidence_passes(REAL, Classifier.from_module(network), images[:1])
    assert 0 < max(evidence.passes) <= bound


def test_no_search_tries_more_sets_than_its_bound() -> None:
    settings = EvidenceSettings()
    cells = cell_numbers(28, 28, settings.cells, torch.device("cpu"))
    for lost in range(0, 49, 7):  # a set suffices if it holds the last pixel of some cell
        needed = torch.nonzero(cells == lost)[-1]
        tried: list[int] = []

        def measure(sets: Tensor, _: list[int], needed: Tensor = needed, tried: list[int] = tried) -> list[float]:
            tried.append(len(sets))
            return [float(each[needed]) for each in sets]

        (found,) = run_searches([smallest_set(torch.arange(784), 1.0, cells, settings)], measure)
        assert found.pixels[needed]
        assert sum(tried) <= largest_number_of_trials(settings)
        assert set(cells[found.pixels].tolist()) == {lost}, "all other cells are dropped"


def test_the_classifier_is_left_as_it_was() -> None:
    network, images = convolutional()
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    find_evidence(network, images[:2], settings=REAL)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "quick"}, "unknown preset 'quick' of dm"),
        ({"dm": {"stages": 2}}, "dm has no setting 'stages'"),
        ({"dm": {"steps": 0}}, "dm.steps"),
        ({"kept": 0}, "kept"),
        ({"kept": 1.1}, "kept"),
        ({"max_pieces": 0}, "max_pieces"),
        ({"areas": [0.5, 0.2]}, "areas: the shares must rise"),
        ({"areas": [0.5, 1.0]}, "areas"),
        ({"cells": 0}, "cells"),
        ({"margin": 0.5}, "margin"),
        ({"score": "logit"}, "score"),
        ({"pieces": 3}, "pieces"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        EvidenceSettings(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (torch.rand(3, SIDE, SIDE), 1, "images must be a batch of floats"),
        (squares(), 7, "7"),
        (squares(), [1], "targets"),
        (squares(), "wren", "this classifier has no class names"),
        (torch.rand(2, 3, 6, 6), 1, "mask size 8 is not between 1 and the image's side 6"),
    ],
)
def test_bad_input_is_one_line(images: Tensor, targets: Any, message: str) -> None:
    network: nn.Module = Corners("or").eval()
    if images.shape[-1] == 6:
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=message) as caught:
        find_evidence(network, images, targets, SETTINGS)
    assert "\n" not in str(caught.value)


# The drawing


def test_pieces_are_drawn_as_they_are_with_a_border_and_the_rest_is_dimmed() -> None:
    image = Image.fromarray(np.full((SIDE, SIDE, 3), (200, 100, 60), np.uint8))
    pieces = np.zeros((2, SIDE, SIDE), bool)
    pieces[0, 2:8, 2:8] = pieces[1, 20:24, 20:30] = True
    drawn = np.asarray(draw_pieces(image, pieces))
    assert drawn[4, 4].tolist() == [200, 100, 60]
    assert drawn[2, 5].tolist() == list(COLOURS[0])
    assert drawn[20, 25].tolist() == list(COLOURS[1])
    assert drawn[15, 15].tolist() == [42, 42, 42], "0.35 of the mean 120"
    assert np.asarray(draw_pieces(image, pieces[1:], 1))[20, 25].tolist() == list(COLOURS[1]), "a piece keeps its colour"
    assert (np.asarray(draw_pieces(image, pieces[:0])) == 42).all()
    with pytest.raises(ValueError, match="do not fit an image of 32 x 32 pixels"):
        draw_pieces(image, pieces[:, :8])
