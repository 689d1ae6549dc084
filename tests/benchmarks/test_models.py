"""The table of architectures: its rows, cells and reasons, and the page that has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torchvision

from benchmarks.cli import main
from benchmarks.models import ModelResult, all_names, bench_models
from benchmarks.models_page import BEGIN, END, models_table, write_page
from hdm_core import METHODS
from pipeline.errors import InputError
from tests.support.paths import ROOT

METHOD_IDS = [method for method, entry in METHODS.items() if entry.run.__module__.startswith("hdm_core.")]


def result(arch: str, layer: str = "layer4, 6 x 6", **others: str) -> ModelResult:
    """Return a result with all methods ok but those that are given, as "refused: reason" or "checked"."""
    verdicts = dict.fromkeys(METHOD_IDS, "ok") | {method: text.partition(": ")[0] for method, text in others.items()}
    reasons = {method: text.partition(": ")[2] for method, text in others.items() if ": " in text}
    return ModelResult("timm", arch, 224, 3.4, layer, verdicts, reasons)


def test_a_row_has_a_cell_per_family_and_a_letter_per_reason() -> None:
    table = models_table(
        [
            result("one", legrad="refused: no attention", attention_rollout="refused: no attention", score_cam="checked"),
            result("two", full_grad="refused: 0.25 is missing", rise="error: RuntimeError: too large"),
            result("three", "", full_grad="refused: 1e-3 is missing", **dict.fromkeys(["legrad", "attention_rollout"], "skipped")),
        ]
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| `")]
    assert rows == [
        ["`one` (timm)", "224", "ok", "ok", "ok", "ok", "a", "ok", "ok", "layer4, 6 x 6"],
        ["`two` (timm)", "224", "ok", "ok; FullGrad b", "error c", "ok", "ok", "ok", "ok", "layer4, 6 x 6"],
        ["`three` (timm)", "224", "ok", "ok; FullGrad b", "ok", "ok", "skipped", "ok", "ok", ""],
    ]
    assert re.findall(r"- \*\*(\w)\*\*: (.*)", table) == [("a", "no attention"), ("b", "N is missing"), ("c", "RuntimeError: too large")]
    assert table.startswith(
        f"3 architectures, {len(METHOD_IDS)} methods: {3 * len(METHOD_IDS) - 8} ran, 1 were checked, 4 are refused, 1 failed."
    )


def test_the_page_is_replaced_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_page(page, [result("one")])
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n1 architectures")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    page.write_text("no marks")
    with pytest.raises(InputError, match="it must have the lines"):
        write_page(page, [result("one")])


def test_every_family_of_torchvision_and_sixty_architectures_of_timm_are_listed() -> None:
    listed = [name.partition(":")[2] for name in all_names() if name.startswith("torchvision:")]
    builders = {arch: torchvision.models.get_model_builder(arch).__module__ for arch in torchvision.models.list_models(torchvision.models)}
    assert {builders[arch] for arch in listed} == set(builders.values())
    assert len([name for name in all_names() if name.startswith("timm:")]) >= 60
    assert len(set(all_names())) == len(all_names())


def test_the_page_has_a_row_per_architecture_and_no_method_failed() -> None:
    table = (ROOT / "docs/models.md").read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    shown = [f"{source}:{arch}" for arch, source in re.findall(r"^\| `(\S+)` \((\w+)\)", table, re.MULTILINE)]
    assert shown == all_names()
    assert " 0 failed." in table


@pytest.mark.slow
@pytest.mark.nightly
def test_an_architecture_is_run_by_every_method() -> None:
    lines: list[str] = []
    (found,) = bench_models(["torchvision:squeezenet1_1"], 300, lines.append)
    others = {method: verdict for method, verdict in found.verdicts.items() if verdict != "ok"}
    assert others == {"score_cam": "checked", "legrad": "refused", "attention_rollout": "refused"}
    assert found.layer == "classifier.2, 13 x 13"
    assert lines[0].startswith("torchvision:squeezenet1_1: ")
    (late,) = bench_models(["torchvision:squeezenet1_1"], 0, lines.append)
    assert set(late.verdicts.values()) == {"skipped"}


def test_the_command_refuses_what_is_no_architecture(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "models", "--only", "resnet18", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "benchmarks: --only resnet18: write torchvision:ARCH or timm:ARCH\n"
