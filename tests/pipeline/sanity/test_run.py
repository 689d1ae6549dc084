"""Sanity checks of classifiers with known evidence, and their files, page and command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch import Tensor, nn

from hdm_core import METHODS
from pipeline.cli.main import main
from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.sanity import Row, SanityLimits, SanityResult, run_sanity, write_sanity
from pipeline.sanity.against import load_against
from pipeline.sanity.schema import SANITY
from pipeline.storage.objects import Storage
from tests.support.browser import HOSTILE
from tests.support.plans import refused
from tests.support.planted_shortcut import SIDE, write_squares
from tests.support.tiny_networks import smooth

PLANTED = "tests.support.planted_shortcut"
TRAINED = {"factory": f"{PLANTED}:classifier", "arguments": {"shortcut": False}}
SHORTCUT = {"factory": f"{PLANTED}:classifier", "arguments": {"shortcut": True}}
UNTRAINED = {"factory": f"{PLANTED}:untrained"}


class NoGradient(nn.Module):
    """A network through which no gradient reaches the images."""

    def __init__(self) -> None:
        super().__init__()
        self.network = smooth()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.detach())


def no_gradient() -> nn.Module:
    return NoGradient()


def no_layers() -> nn.Module:
    return Bands()


class Bands(nn.Module):
    """A network without weights: the brightness of three bands of rows."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([band.mean((1, 2, 3)) for band in images.chunk(3, 2)], 1)


def with_class_names() -> Any:
    from hdm_core import Classifier

    return Classifier(smooth(), name=HOSTILE)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("images"), 6)


@pytest.fixture(scope="module", autouse=True)
def edges_as_method() -> Iterator[None]:
    """Register the edge detector as a method that claims to explain a class."""
    METHODS["claimed"] = replace(METHODS["edges"], id="claimed", title="Claimed", family="gradient")
    yield
    del METHODS["claimed"]


def config_of(squares: Path, section: dict[str, Any], methods: tuple[str, ...], **changes: Any) -> RunConfig:
    return load_config(data_of(squares, section, methods, **changes))


def data_of(squares: Path, section: dict[str, Any], methods: tuple[str, ...], **changes: Any) -> dict[str, Any]:
    return {
        "name": "checked",
        "dataset": {"kind": "manifest", "root": str(squares)},
        "classifier": {"source": "import", "resize": SIDE, "crop": SIDE, **section},
        "methods": list(methods),
        "rise": {"masks": 30},
        "output": str(squares.parent / "out"),
        **changes,
    }


def section_of(section: dict[str, Any]) -> str:
    return json.dumps({"source": "import", "resize": SIDE, "crop": SIDE, **section})


def rows(result: SanityResult, method: str, test: str) -> list[Row]:
    return [row for row in result.rows if row.method == method and row.test == test]


def last(result: SanityResult, method: str, test: str) -> Row:
    return rows(result, method, test)[-1]


@pytest.fixture(scope="module")
def trained(squares: Path) -> SanityResult:
    return run_sanity(config_of(squares, TRAINED, ("grad_cam", "rise", "claimed", "edges")), blocks=3)


# Classifiers with known evidence


def test_a_trained_classifier_passes_with_grad_cam(trained: SanityResult) -> None:
    tests = ("cascading", "classes", "determinism", "repeatability", "noise", "jpeg", "localisation")
    assert {row.verdict for test in tests for row in rows(trained, "grad_cam", test) if row.verdict != "measured"} == {"pass"}
    assert all(row.value.n == 6 for test in tests for row in rows(trained, "grad_cam", test))


def test_an_edge_detector_that_claims_to_explain_fails_randomisation_and_classes(trained: SanityResult) -> None:
    for test in ("cascading", "independent", "classes"):
        row = last(trained, "claimed", test)
        assert (row.verdict, row.value.mean) == ("fail", 1.0)
    assert last(trained, "claimed", "determinism").verdict == "pass"


def test_no_limit_applies_to_a_control_and_its_numbers_are_shown(trained: SanityResult) -> None:
    assert {row.verdict for row in trained.rows if row.method == "edges"} == {"control", "measured", "left out"}
    assert last(trained, "edges", "cascading").value.mean == 1.0
    assert "edges" not in {row.method for row in trained.failed}


def test_few_random_masks_are_not_repeatable(trained: SanityResult) -> None:
    row = last(trained, "rise", "repeatability")
    assert row.verdict == "fail"
    assert row.value.mean is not None
    assert row.value.mean < 0.5
    assert last(trained, "rise", "determinism").verdict == "pass"


def test_cascading_has_a_limit_once_all_weights_are_random_and_a_stage_per_block(trained: SanityResult) -> None:
    stages = rows(trained, "grad_cam", "cascading")
    assert [row.limit for row in stages] == [None, None, 0.5]
    assert [row.stage.split(":")[0] for row in stages] == ["1 of 3", "2 of 3", "3 of 3"]
    assert [row.stage for row in rows(trained, "grad_cam", "chance")] == ["another image", "center", "edges", "random_map"]
    first, alone = stages[0], rows(trained, "grad_cam", "independent")[0]
    assert first.value == alone.value  # the logits alone are random in both


def test_a_shortcut_shows_in_localisation(squares: Path, trained: SanityResult) -> None:
    shortcut = run_sanity(config_of(squares, SHORTCUT, ("grad_cam",)), blocks=1)
    assert last(trained, "grad_cam", "localisation").verdict == "pass"
    assert last(shortcut, "grad_cam", "localisation").verdict == "fail"
    assert last(shortcut, "grad_cam", "cascading").verdict == "pass"  # its maps depend on the weights all the same


def test_an_untrained_network_does_not_reproduce_the_maps_of_a_trained_one(squares: Path) -> None:
    config = config_of(squares, TRAINED, ("gradient",))
    result = run_sanity(config, against=load_against(section_of(UNTRAINED), config), blocks=1)
    (row,) = rows(result, "gradient", "reproducibility")
    assert row.value.n + row.changed == 6
    assert row.verdict != "pass"
    same = run_sanity(config, against=load_against(section_of(TRAINED), config), blocks=1)
    (row,) = rows(same, "gradient", "reproducibility")
    assert (row.verdict, row.value.mean, row.changed) == ("pass", 1.0, 0)


# What is left out


def test_a_method_without_gradient_is_left_out_with_the_reason_and_others_are_checked(squares: Path) -> None:
    result = run_sanity(config_of(squares, {"factory": f"{__name__}:no_gradient"}, ("gradient", "rise")), images=3, blocks=2)
    assert {row.verdict for row in result.rows if row.method == "gradient"} == {"left out"}
    assert all("gradient" in row.reason for row in result.rows if row.method == "gradient")
    assert last(result, "rise", "cascading").value.n == 3


def test_a_network_without_layers_is_not_randomised(squares: Path) -> None:
    result = run_sanity(config_of(squares, {"factory": f"{__name__}:no_layers"}, ("gradient", "rise")), images=3)
    for test in ("cascading", "independent"):
        (row,) = rows(result, "rise", test)
        assert (row.verdict, row.reason) == ("left out", "the network has no weights that can be changed")
    assert last(result, "rise", "noise").value.n == 3


def test_too_few_images_make_no_claim(squares: Path) -> None:
    result = run_sanity(config_of(squares, TRAINED, ("claimed",)), images=2, blocks=1)
    assert last(result, "claimed", "cascading").verdict == "unclear"
    assert last(result, "claimed", "cascading").reason == "2 images have a value: an interval needs 3"
    assert result.failed == []


def test_images_without_a_target_are_left_out_and_named(squares: Path) -> None:
    (squares.parent / "broken.png").write_bytes(b"no image")
    manifest = squares.parent / "broken.csv"
    manifest.write_text(squares.read_text() + "broken.png,broken,2,square,1 1 9 9\n")
    result = run_sanity(config_of(manifest, TRAINED, ("edges",)), blocks=1)
    assert len(result.data.samples) == 6
    assert [line.split(":")[0] for line in result.data.skipped] == ["broken"]


def test_a_target_of_two_classes_has_no_class_randomisation(squares: Path) -> None:
    result = run_sanity(config_of(squares, TRAINED, ("gradient",), target="runner_up"), images=3, blocks=1)
    assert "rather than another" in last(result, "gradient", "classes").reason
    assert last(result, "gradient", "cascading").value.n == 3


def test_a_network_that_no_method_can_explain_is_refused(squares: Path) -> None:
    config = config_of(squares, {"factory": f"{__name__}:no_gradient"}, ("gradient",))
    assert "gradient" in refused(lambda: run_sanity(config, images=3))


def test_another_checkpoint_is_a_configuration_a_section_or_weights(squares: Path, tmp_path: Path) -> None:
    config = config_of(squares, {"source": "torchvision", "arch": "squeezenet1_1"}, ("gradient",))
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(data_of(squares, UNTRAINED, ("gradient",))))
    assert load_against(str(other), config).class_names is not None
    weights = tmp_path / "other.pt"
    torch.save(load_against("{source: torchvision, arch: squeezenet1_1}", config).network.state_dict(), weights)
    assert (
        load_against(str(weights), config).weights_digest()
        == load_against("{source: torchvision, arch: squeezenet1_1}", config).weights_digest()
    )
    assert "no configuration" in refused(lambda: load_against("absent.pt", config))
    assert "needs classifier.arch" in refused(lambda: load_against(str(weights), config_of(squares, TRAINED, ("gradient",))))


# Files, page and command


def test_the_file_has_one_row_per_method_test_and_stage(trained: SanityResult, tmp_path: Path) -> None:
    page = write_sanity(trained, Storage(str(tmp_path)))
    table = pq.read_table(tmp_path / "sanity.parquet")
    assert table.schema.equals(SANITY)
    assert table.to_pylist() == [row.as_dict() for row in trained.rows]
    assert json.loads(table.schema.metadata[b"hdm.sanity"])["limits"]["cascading"] == 0.5
    text = Path(page).read_text()
    assert (tmp_path / "cascading.png").read_bytes()[:4] == b"\x89PNG"
    for path in ("cascading.png", "maps/0.jpg", "maps/0-0-3.jpg"):
        assert f'src="{path}"' in text
        assert (tmp_path / path).is_file()


def test_the_page_escapes_names(squares: Path, tmp_path: Path) -> None:
    manifest = squares.parent / "hostile.csv"
    head, *lines = squares.read_text().splitlines()
    quoted = HOSTILE.replace('"', '""')
    manifest.write_text("\n".join([head, *(f'{line.split(",")[0]},"{quoted}{n}",0,a,1 1 9 9' for n, line in enumerate(lines))]))
    result = run_sanity(config_of(manifest, {"factory": f"{__name__}:with_class_names"}, ("edges",)), images=3, blocks=2)
    text = Path(write_sanity(result, Storage(str(tmp_path)))).read_text()
    assert "<script>" not in text
    assert text.count("&lt;script&gt;") > 3


def run(*arguments: object) -> int:
    """Run `hdm ARGUMENTS` in this process and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["hdm", *map(str, arguments)])
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def test_the_command_ends_with_1_where_a_limit_is_broken_and_prints_one_json_object_last(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "checked.yaml"
    path.write_text(yaml.safe_dump(data_of(squares, TRAINED, ("claimed",), output=str(tmp_path / "runs"))))
    options = (path, "--limit-images", 3, "--blocks", 1)
    assert run("sanity", *options, "--json") == 1
    captured = capsys.readouterr()
    facts = json.loads(captured.out.splitlines()[-1])
    assert facts["images"] == 3
    broken = {"claimed: cascading, 1 of 1: 14 to 0", "claimed: classes, likeliest other class", "claimed: classes, random other class"}
    assert broken <= set(facts["failed"])
    assert facts["rows"][0]["method"] == "claimed"
    assert Path(facts["page"]).is_file()
    assert Path(facts["sanity"]) == tmp_path / "runs" / "checked-sanity" / "sanity.parquet"
    assert "limit broken: claimed: cascading" in captured.err
    kept = tmp_path / "kept"
    limits = [part for test in ("cascading", "classes", "noise", "localisation") for part in ("--limit", f"{test}=null")]
    assert run("sanity", *options, *limits, "--out", kept) == 0
    printed = capsys.readouterr().out
    assert "left out: independent" in printed
    assert (kept / "index.html").is_file()


def test_mistakes_of_the_user_end_with_2(squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "checked.yaml"
    path.write_text(yaml.safe_dump(data_of(squares, TRAINED, ("edges",))))
    for arguments, expected in (
        (("--limit", "nois=1"), "did you mean noise"),
        (("--against", "absent.yaml"), "absent.yaml"),
        (("--out", "nowhere://x"), "--out nowhere://x"),
    ):
        assert run("sanity", path, *arguments) == 2
        assert expected in capsys.readouterr().err


def test_a_limit_of_null_is_only_measured(squares: Path) -> None:
    result = run_sanity(config_of(squares, TRAINED, ("claimed",)), SanityLimits(cascading=None, classes=None), images=3, blocks=1)
    assert {row.verdict for test in ("cascading", "classes") for row in rows(result, "claimed", test)} == {"measured"}
