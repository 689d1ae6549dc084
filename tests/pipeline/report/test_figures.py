"""Figures of the paper on the pages of small runs, and the reasons for missing ones."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import list_samples
from pipeline.plan import Plan, Shard
from pipeline.report import write_report
from pipeline.report.curves import collect_curves, describe_curves, draw_curves
from pipeline.runs import RunStore
from pipeline.runs.evidence_facts import EvidenceFacts
from tests.support.plans import SIDE, configuration, record, results, save_picture

METHODS = ("hdm", "dm", "grad_cam")


def explained(
    folder: Path,
    images: int = 2,
    truth: str | None = "bbox",
    stages: int = 2,
    changes: dict[tuple[int, str], dict[str, Any]] | None = None,
    pieces: int = 0,
) -> RunStore:
    """Write a run over a manifest of small photographs, with random maps and records.

    Args:
        truth: ground truth in the manifest: bbox, mask or None.
        changes: (row, method) -> changed columns of its record.
        pieces: pieces of evidence that are stored per image, of which the first two are an eighth of it each; 0 for no search.
    """
    lines = ["path" if truth is None else f"path,{truth}"]
    for row in range(images):
        save_picture(folder / f"{row}.png", seed=row)
        Image.new("L", (24, 20), 255 * row).save(folder / f"mask{row}.png")
        lines.append(f"{row}.png" + {None: "", "bbox": ",2 0 12 10", "mask": f",mask{row}.png"}[truth])
    (folder / "images.csv").write_text("\n".join(lines))
    config = configuration(
        {"hdm.stages": stages, "compute.shard_size": 1},
        dataset={"kind": "manifest", "root": str(folder / "images.csv")},
        methods=list(METHODS),
        output=str(folder / "runs"),
        evidence={"max_pieces": pieces} if pieces else None,
    )
    samples = list_samples(config.dataset, {})
    plan = Plan(config, samples, [Shard(row, row, row + 1) for row in range(images)], (SIDE, SIDE), "f" * 64, dict.fromkeys(METHODS, 1))
    store = RunStore.from_config(config)
    store.create(plan)
    region = {None: "none", "bbox": "bbox", "mask": "segmentation"}[truth]
    for shard in plan.shards:
        row = shard.index
        arrays, _, (facts,) = results(plan, shard)
        if pieces:
            evidence = np.zeros((1, pieces, SIDE, SIDE), bool)
            evidence[0, 0, 0], evidence[0, 1, 3] = True, True
            arrays = {**arrays, "evidence": evidence}
        same = {"region": region, "stage_weights": [1 / stages] * stages}
        made = [record(plan, shard, row, method, **same | (changes or {}).get((row, method), {})) for method in METHODS]
        facts["sha256"] = hashlib.sha256(Path(samples[row].path).read_bytes()).hexdigest()
        store.write_shard(shard, arrays, made, [facts], config)
    return store


def figures(store: RunStore) -> dict[int, str]:
    """Return the HTML of each figure on the page, by its number."""
    write_report(store)
    page = store.storage.read("report/index.html").decode().partition('id="gallery"')[0]
    parts = re.split(r'<h3 id="figure-(\d)">', page)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def pictures(figure: str) -> list[tuple[str, str]]:
    """Return (source, alternative text) of a figure's images."""
    return re.findall(r'<img [^>]*?src="([^"]*)" alt="([^"]+)"', figure)


def test_the_page_has_the_papers_figures_with_alt_texts(tmp_path: Path) -> None:
    store = explained(tmp_path)
    found = figures(store)
    assert list(found) == [4, 5, 6, 7]
    for figure in found.values():
        assert figure.count("<img ") == len(pictures(figure)) > 0
        assert all(store.storage.exists(f"report/{source}") for source, _ in pictures(figure))


def test_figure_4_is_a_row_a_photograph_and_a_column_a_method(tmp_path: Path) -> None:
    figure = figures(explained(tmp_path))[4]
    assert re.findall(r'<th scope="col">([^<]*)', figure) == ["Photograph", "HDM", "DM", "Grad-CAM"]
    assert [source for source, _ in pictures(figure)] == [
        f"images/00000{row}-{kind}.jpg" for row in (0, 1) for kind in ("photograph", "hdm", "dm", "grad_cam")
    ]
    assert ("images/000001-dm.jpg", "DM heatmap of 1.png for the class b") in pictures(figure)


def test_figure_4_has_a_dash_where_a_method_has_no_map(tmp_path: Path) -> None:
    figure = figures(explained(tmp_path, changes={(0, "dm"): {"status": "flat"}}))[4]
    assert len(pictures(figure)) == 7
    assert "The map is constant: it carries no information." in figure


def test_no_figure_shows_more_than_six_photographs(tmp_path: Path) -> None:
    found = figures(explained(tmp_path, images=8))
    assert len(pictures(found[4])) == 6 * 4
    assert len(pictures(found[7])) == 6 * 3


def test_figure_5_is_the_photograph_the_stages_and_their_mix(tmp_path: Path) -> None:
    figure = figures(explained(tmp_path, images=1, stages=3))[5]
    assert re.findall(r'<th scope="col">([^<]*)', figure) == ["Photograph", "Stage 1", "Stage 2", "Stage 3", "Weighted mean"]
    kinds = ("photograph", "stage-1", "stage-2", "stage-3", "hdm")
    assert [source for source, _ in pictures(figure)] == [f"images/000000-{kind}.jpg" for kind in kinds]


def test_one_stage_is_no_figure_5(tmp_path: Path) -> None:
    figure = figures(explained(tmp_path, stages=1))[5]
    assert "<img" not in figure
    assert "several stages" in figure


def with_pieces(folder: Path, stages: int) -> RunStore:
    """Write a run whose first image has two pieces of evidence, and whose second has none."""
    numbers = {"evidence_status": "complete", "evidence_comprehensiveness": 0.9, "evidence_passes": 7}
    two = EvidenceFacts(**numbers, evidence_count=2, evidence_area=0.25, evidence_sufficiency=[0.95, 0.91], evidence_necessity=[0.5, 0.125])
    none = EvidenceFacts(**numbers, evidence_count=0, evidence_area=0.0, evidence_sufficiency=[], evidence_necessity=[])
    return explained(folder, stages=stages, changes={(0, "hdm"): {"evidence": two}, (1, "hdm"): {"evidence": none}}, pieces=3)


def test_figure_5_shows_the_pieces_of_evidence(tmp_path: Path) -> None:
    store = with_pieces(tmp_path, stages=2)
    figure = figures(store)[5]
    assert re.findall(r'<th scope="col">([^<]*)', figure) == ["Photograph", "Stage 1", "Stage 2", "Weighted mean", "Piece 1", "Piece 2"]
    kinds = {0: ("photograph", "stage-1", "stage-2", "hdm", "piece-1", "piece-2"), 1: ("photograph", "stage-1", "stage-2", "hdm")}
    assert [source for source, _ in pictures(figure)] == [f"images/00000{row}-{kind}.jpg" for row in kinds for kind in kinds[row]]
    alt = "Piece of evidence 2 of 0.png: 12.5% of the pixels keep 0.910 alone; 0.125 is lost without them"
    assert ("images/000000-piece-2.jpg", alt) in pictures(figure)
    assert "disjoint sets of pixels" in figure
    page = store.storage.read("report/index.html").decode()
    assert page.count("Pieces of evidence</p>") == 1, "the gallery shows them with their numbers"


def test_one_stage_with_pieces_is_a_figure_5_without_columns_of_stages(tmp_path: Path) -> None:
    figure = figures(with_pieces(tmp_path, stages=1))[5]
    assert re.findall(r'<th scope="col">([^<]*)', figure) == ["Photograph", "HDM", "Piece 1", "Piece 2"]
    assert [source for source, _ in pictures(figure)] == [
        f"images/000000-{kind}.jpg" for kind in ("photograph", "hdm", "piece-1", "piece-2")
    ]


# Figure 6


def test_curves_are_means_over_the_images_that_were_measured(tmp_path: Path) -> None:
    changes: dict[tuple[int, str], dict[str, Any]] = {
        (0, "hdm"): {"deletion": [1.0, 0.5, 0.0], "insertion": [0.0, 0.25, 1.0]},
        (1, "hdm"): {"deletion": [0.5, 0.0, 0.0], "insertion": [0.0, 0.75, 0.5]},
        (0, "dm"): {"deletion": [1.0, float("nan"), 0.0]},
        (1, "grad_cam"): {"deletion": None},
    }
    curves = collect_curves(explained(tmp_path, changes=changes))
    assert list(curves) == list(METHODS)
    assert [sums.images for sums in curves.values()] == [2, 1, 1]
    deletion, insertion = curves["hdm"].means
    assert deletion.tolist() == [0.75, 0.25, 0.0]
    assert insertion.tolist() == [0.0, 0.5, 0.75]
    assert describe_curves({"hdm": curves["hdm"]}).endswith("Areas under them: HDM 0.312 and 0.438")


def test_the_picture_of_the_curves_is_the_same_every_time(tmp_path: Path) -> None:
    curves = collect_curves(explained(tmp_path, images=1))
    assert draw_curves(curves) == draw_curves(curves)
    with Image.open(io.BytesIO(draw_curves(curves))) as picture:
        assert picture.width == 1600


def test_a_run_that_was_made_before_curves_were_kept_says_so(tmp_path: Path) -> None:
    store = explained(tmp_path)
    shutil.rmtree(Path(store.url) / "curves")
    found = figures(store)
    assert "<img" not in found[6]
    assert "made before curves were stored" in found[6]
    assert all("<img" in found[number] for number in (4, 5, 7))


def test_a_run_whose_first_shards_are_old_shows_the_curves_it_has(tmp_path: Path) -> None:
    store = explained(tmp_path)
    (Path(store.url) / "curves/part-000000.parquet").unlink()
    assert "over 1 images" in figures(store)[6]


# Figure 7


def truth(store: RunStore, row: int) -> np.ndarray:
    with Image.open(store.storage.path(f"report/images/{row:06d}-truth.png")) as picture:
        return np.asarray(picture.convert("L"))


def test_figure_7_is_photographs_maps_and_boxes(tmp_path: Path) -> None:
    store = explained(tmp_path)
    figure = figures(store)[7]
    assert [re.findall(r"-(\w+)\.", source)[0] for source, _ in pictures(figure)] == ["photograph"] * 2 + ["hdm"] * 2 + ["truth"] * 2
    assert pictures(figure)[-1] == ("images/000001-truth.png", "the annotated box of 1.png")
    shown = truth(store, 0)  # the crop is 2..22 x 0..20, the box 2..12 x 0..10: its upper left quarter
    assert shown.shape == (SIDE, SIDE)
    assert (shown[: SIDE // 2 - 1, : SIDE // 2 - 1] == 255).all()
    assert (shown[SIDE // 2 + 1 :] == 0).all()
    assert (shown[:, SIDE // 2 + 1 :] == 0).all()


def test_figure_7_shows_segmentations(tmp_path: Path) -> None:
    store = explained(tmp_path, truth="mask")
    assert pictures(figures(store)[7])[-1][1] == "the annotated segmentation of 1.png"
    assert truth(store, 0).max() == 0
    assert truth(store, 1).min() == 255


def test_without_ground_truth_there_is_no_figure_7(tmp_path: Path) -> None:
    assert "None of the images shown" in figures(explained(tmp_path, truth=None))[7]


@pytest.mark.parametrize(
    ("removed", "message"),
    [("images.csv", "images.csv"), ("mask1.png", "cannot read"), ("rows", "the dataset has changed since the run")],
)
def test_a_ground_truth_that_is_gone_is_told(tmp_path: Path, removed: str, message: str) -> None:
    store = explained(tmp_path, truth="mask")
    if removed == "rows":
        (tmp_path / "images.csv").write_text("path,mask\n1.png,mask1.png")
    else:
        (tmp_path / removed).unlink()
    figure = figures(store)[7]
    assert "<img" not in figure
    assert "The ground truth is not available any more" in figure
    assert message in figure


def test_names_in_the_figures_are_escaped(tmp_path: Path) -> None:
    store = explained(tmp_path, images=1, changes={(0, "dm"): {"target_name": '"><script>'}})
    assert "<script" not in figures(store)[4]
    assert "&#34;&gt;&lt;script&gt;" in figures(store)[4]
