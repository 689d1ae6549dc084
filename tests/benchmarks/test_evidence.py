"""`python -m benchmarks evidence`: beam search over patches, and the comparison with `find_evidence`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.evidence import benchmark as evidence_benchmark
from benchmarks.evidence.benchmark import GRAPHS, OURS, ROUNDS, Beam, compare, compare_photographs, compare_planted, score_pieces
from benchmarks.evidence.command import evidence_table
from benchmarks.evidence.patches import Patches, PatchScores, beam_search, disjoint_sets, largest_collection, reduce_set
from benchmarks.planted.benchmark import PlantedData
from benchmarks.planted.images import KINDS, PlantedImages, plant
from benchmarks.planted.network import build_network
from hdm_core import Classifier, EvidenceSettings
from tests.hdm_core.test_evidence import ONE, OTHER, SETTINGS, Corners, squares
from tests.support.plans import configuration, refused, save_picture
from tests.support.small_run import benchmark


def rule_scores(sufficient: Callable[[Patches], float], side: int = 3) -> PatchScores:
    """Return scores of sets by a rule: patch p is the pixel p, of the brightness 1 + p."""

    def probability(images: Tensor) -> Tensor:
        return torch.tensor([sufficient(frozenset(torch.nonzero(image.flatten())[:, 0].tolist())) for image in images])

    return PatchScores(probability, 1 + torch.arange(side * side).view(1, side, side).float(), torch.zeros(1, 1, 1), side, batch=4)


def needs(*sets: Collection[int]) -> Callable[[Patches], float]:
    """Return the rule that one of some sets must be shown; a part of one scores its share of 0.8."""
    return lambda shown: max(1.0 if set(each) <= shown else 0.8 * len(shown & set(each)) / len(each) for each in sets)


def minimal_sets(scores: PatchScores, kept: float) -> set[Patches]:
    """Return all minimal sufficient sets by trying every set of patches."""
    every = [frozenset(each) for size in range(1, 10) for each in itertools.combinations(range(9), size)]
    sufficient = [each for each, score in zip(every, scores(every), strict=True) if score >= kept]
    return {each for each in sufficient if not any(other < each for other in sufficient)}


@pytest.mark.parametrize("sets", [[{0, 4}], [{0, 4}, {8}], [{1, 2, 3}, {3, 4}, {6, 7}], [{0}, {1}, {2}]])
def test_a_wide_beam_finds_all_minimal_sufficient_sets(sets: list[set[int]]) -> None:
    scores = rule_scores(needs(*sets))
    found = beam_search(scores, scores.all, 0.9, width=200, enough=100)
    assert set(found) == minimal_sets(rule_scores(needs(*sets)), 0.9) == {frozenset(each) for each in sets}


def test_a_narrow_beam_finds_sets_that_are_sufficient_and_minimal() -> None:
    scores = rule_scores(needs({1, 2, 3}, {3, 4}, {6, 7}))
    found = beam_search(scores, scores.all, 0.9, width=1, enough=1)
    assert scores.forwards < 50
    assert set(found) <= minimal_sets(scores, 0.9)


def test_each_set_is_tried_once() -> None:
    scores = rule_scores(needs({0}))
    scores([frozenset({1}), frozenset({2}), frozenset({1})])
    assert scores.forwards == 3, "the whole image and two sets"
    scores([frozenset({2})])
    assert scores.forwards == 3


def test_patches_that_are_not_needed_are_left_out() -> None:
    scores = rule_scores(needs({3, 4}, {6}))
    assert reduce_set(scores, frozenset({1, 3, 4, 5}), 0.9) == {3, 4}
    assert reduce_set(scores, frozenset({0, 3, 4, 6}), 0.9) in ({3, 4}, {6})


def test_a_collection_is_as_large_as_that_of_all_subsets() -> None:
    draw = torch.Generator().manual_seed(0)
    sets = [frozenset(torch.randperm(9, generator=draw)[:3].tolist()) for _ in range(9)]
    for overlap in range(4):
        collection = largest_collection(sets, overlap)
        fits = [
            some
            for size in range(1, 10)
            for some in itertools.combinations(sets, size)
            if all(len(one & other) <= overlap for one, other in itertools.combinations(some, 2))
        ]
        assert tuple(collection) in fits
        assert len(collection) == max(map(len, fits))


def test_rounds_of_the_search_give_disjoint_sets_until_the_rest_does_not_suffice() -> None:
    scores = rule_scores(needs({1, 2}, {2, 3}, {5}, {7, 8}))
    found = disjoint_sets(scores, 0.9, 5, 6)
    assert found[0] == {5}
    assert len(found) == 3
    assert sum(map(len, found)) == len(frozenset().union(*found))
    assert len(disjoint_sets(scores, 0.9, 5, 2)) == 2


def test_pieces_are_scored_against_the_true_ones() -> None:
    one, other = torch.zeros(2, 8, 8, dtype=torch.bool)
    one[:2, :2], other[6:, 6:] = True, True
    apart = torch.zeros(8, 8, dtype=torch.bool)
    apart[3:5, 3:5] = True
    assert score_pieces([one, other], [one, other]) == {"count_right": 1, "all_found": 1, "precision": 1}
    assert score_pieces([one | other], [one, other]) == {"count_right": 0, "all_found": 0, "precision": 1}, "half in each is found nowhere"
    assert score_pieces([one | other], [one | other]) == {"count_right": 1, "all_found": 1, "precision": 1}
    assert score_pieces([one, apart], [one, other]) == {"count_right": 1, "all_found": 0, "precision": 0.5}
    assert score_pieces([], [one]) == {"count_right": 0, "all_found": 0, "precision": 0}


def test_the_comparison_is_right_where_the_answer_is_known() -> None:
    images = squares(3, other=0.95)
    images[2] = 0.0
    regions = [torch.zeros(32, 32, dtype=torch.bool) for _ in range(2)]
    regions[0][ONE], regions[1][OTHER] = True, True
    lines: list[str] = []

    def truth(_: int, pieces: list[Tensor]) -> dict[str, float]:
        return score_pieces(pieces, regions)

    settings = SETTINGS.model_copy(update={"max_pieces": 4})
    classifier = Classifier.from_module(Corners("or").eval())
    result = compare("squares", classifier, images, torch.tensor([1, 1, 1]), settings, Beam(side=4), lines.append, truth)
    assert (result.images, result.no_contrast) == (2, 1), "an empty image is its own baseline"
    assert len(lines) == 3
    for way in (OURS, ROUNDS):
        means = {name: mean for name, (mean, _) in result.means[way].items()}
        assert (means["count"], means["count_right"], means["all_found"], means["precision"]) == (2, 1, 1, 1)
    assert result.means[OURS]["area"][0] == pytest.approx((46 + 49) / 1024)
    assert result.means[ROUNDS]["area"][0] == 2 / 16, "two whole patches"
    assert result.means[GRAPHS]["count"][0] == 2
    assert result.differences[ROUNDS]["area"][0] == pytest.approx((46 + 49) / 1024 - 2 / 16)
    rows = evidence_table(result).columns[0].cells
    assert list(rows) == [OURS, GRAPHS, ROUNDS, f"find_evidence minus {GRAPHS}", f"find_evidence minus {ROUNDS}"]


def test_planted_images_have_a_result_per_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def untrained(images: int, seed: int) -> PlantedData:
        parts = [plant(kind, images, torch.Generator().manual_seed(seed)) for kind in KINDS]
        planted = PlantedImages(*(torch.cat(each) for each in zip(*(vars(part).values() for part in parts), strict=True)))
        return PlantedData(planted, [kind for kind in KINDS for _ in range(images)], build_network(seed).eval(), 1.0, 1.0)

    monkeypatch.setattr(evidence_benchmark, "make_data", untrained)
    settings = EvidenceSettings(dm={"sizes": [4], "max_size": 8, "steps": 2, "ensemble": []}, max_pieces=2, cells=3)
    results = compare_planted(1, 0, settings, Beam(width=1, sets=1, side=3), lambda line: None)
    assert [result.name for result in results] == [f"planted-{kind}" for kind in KINDS]
    assert all(result.images + result.no_contrast == 1 for result in results)


def test_photographs_are_those_of_a_half(tmp_path: Path) -> None:
    for number in range(6):
        save_picture(tmp_path / "photographs" / f"{number}.png", seed=number)
    config = configuration(dataset={"kind": "folder", "root": str(tmp_path / "photographs")}, output=str(tmp_path / "runs"), name="birds")
    settings = EvidenceSettings(dm={"sizes": [4], "max_size": 8, "steps": 2, "ensemble": []}, max_pieces=2, cells=3, score="log_odds")
    result = compare_photographs(config, "choose", 2, settings, Beam(width=1, sets=1, side=3), lambda line: None)
    assert result.name == "birds-choose"
    assert result.images + result.no_contrast == 2
    assert "only 3 readable" in refused(lambda: compare_photographs(config, "report", 4, settings, Beam(), lambda line: None))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--split", "all"], "--split all: choose from choose, report"),
        (["--preset", "quick"], "--preset quick: DM has no such preset"),
        (["nowhere.yaml"], "neither a preset"),
    ],
)
@pytest.mark.slow
def test_bad_input_is_one_line(arguments: list[str], part: str) -> None:
    done = benchmark("evidence", "--planted", 0, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert part in done.stderr


@pytest.mark.nightly
def test_the_command_prints_json() -> None:
    done = benchmark("evidence", "--planted", 1, "--width", 1, "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])["evidence"]
    assert [result["name"] for result in results] == [f"planted-{kind}" for kind in KINDS]
