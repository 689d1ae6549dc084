"""The documentation site: it builds strictly and offline, and its generated pages list everything that the code has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from hdm_core import METHODS, METRICS
from pipeline.cli.main import app
from pipeline.config.schema import RunConfig
from tests.docs.blocks import checked
from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT / "docs" / "generate"))
import api_pages
import command_reference
import config_reference
import hooks
import layer_picture
import method_table
import metric_table

# An element that makes a browser fetch something.
FETCHED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"(https?:[^\"]*)|<link\b[^>]*\bhref=\"(https?:[^\"]*)")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {"index.html", "concepts.html", "contributing.html"} <= {page.name for page in pages}
    assert [(page.name, FETCHED.findall(page.read_text())) for page in pages if FETCHED.search(page.read_text())] == []


def test_the_table_of_methods_has_a_row_per_method_and_its_facts() -> None:
    text, papers = method_table.method_table().split("\nPapers:\n")
    lines = text.splitlines()
    assert len(lines) == 2 + len(METHODS)
    rows = {name: line for name, line in zip(METHODS, lines[2:], strict=True) if f"<code>{name}</code>" in line}
    assert set(rows) == set(METHODS)
    assert "134,800" in rows["hdm"]
    assert "[arXiv 2301.04970](https://arxiv.org/abs/2301.04970)" in papers
    assert all(f"- <code>{name}</code>: " in papers for name in METHODS)
    assert "2,049" in rows["score_cam"]
    assert "| no |" in rows["rise"]


def test_the_table_of_metrics_has_a_row_per_metric() -> None:
    lines = metric_table.metric_table().splitlines()
    assert len(lines) == 2 + len(METRICS)
    assert all(f"<code>{name}</code>" in line for name, line in zip(METRICS, lines[2:], strict=True))


def test_every_built_in_method_has_a_family_and_a_sign() -> None:
    rows = [line.split(" | ") for line in method_table.method_table().split("\nPapers:\n")[0].splitlines()[2:]]
    built_in = [row for row in rows if METHODS[re.sub(r"[|\s]|</?code>", "", row[0])].run.__module__.startswith("hdm_core.")]
    assert len(built_in) >= 17
    assert [row[0] for row in built_in if "-" in (row[2], row[6].rstrip(" |"))] == []


def test_the_configuration_reference_has_every_key() -> None:
    text = config_reference.run_reference()
    missing = [name for name in RunConfig.model_fields if f"<code>{name}</code>" not in text]
    for section in config_reference.sections(RunConfig):
        missing += [name for name in section.model_fields if not re.search(rf"<code>\w+\.{name}</code>", text)]
    for method in METHODS.values():
        missing += [f"{method.id}.{name}" for name in method.settings.model_fields if f"<code>{name}</code>" not in text]
    assert missing == []


def test_the_training_reference_has_every_key() -> None:
    text = config_reference.training_reference()
    assert all(f"<code>{name}</code>" in text for name in ("recipe", "stages", "learning_rate", "mixup", "weights"))


def test_the_command_reference_has_every_command_and_option() -> None:
    text = command_reference.command_reference()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        section = text.split(f"### hdm {name}\n")[1].split("\n### ")[0]
        assert [
            option
            for param in command.params
            if param.name != "help"
            for option in param.opts
            if option.startswith("-") and option not in section
        ] == []


@pytest.mark.parametrize("package", api_pages.PACKAGES)
def test_an_api_page_has_every_public_name(package: str) -> None:
    module = __import__(package, fromlist=["__all__"])
    page = api_pages.api_page(package)
    assert [name for name in module.__all__ if not name.startswith("__") and not re.search(rf"(::: [\w.]+\.|`){name}\b", page)] == []


def test_the_picture_of_the_layers_is_that_of_the_contracts() -> None:
    assert (ROOT / "docs" / "layers.svg").read_text() == layer_picture.draw(), "run: python docs/generate/layer_picture.py"
    for package, layers in layer_picture.layer_contracts().items():
        for module in (module for layer in layers for module in layer):
            assert (ROOT / package / module).is_dir() or (ROOT / package / f"{module}.py").is_file()
            assert not package or f"{package}.{module}" in layer_picture.PURPOSES or module in layer_picture.PURPOSES


def test_the_tree_of_contributing_is_that_of_the_repository() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (tree,) = re.findall(r"## The tree\n```text\n(.*?)```", text, re.DOTALL)
    listed, parent = set(), ""
    for line in tree.splitlines():
        name = line.split()[0]
        parent = parent if line.startswith(" ") else name
        listed.add(name if name == parent else parent + name)
    assert [name for name in listed if not (ROOT / name).exists()] == []
    packages = {f"{path.parent.relative_to(ROOT)}/" for top in ("hdm_core", "pipeline") for path in (ROOT / top).glob("*/__init__.py")}
    assert packages - listed == set()


def test_links_lead_into_the_site() -> None:
    links = "[a](docs/data.md#x) [b](LICENSE) [c](infra/) ![d](docs/demo.jpg) [e](https://x.org) [f](nowhere.md)"
    code = "\n```text\n[g](docs/data.md)\n```\n"
    expected = "[a](data.md#x) b [c](infra.md) ![d](demo.jpg) [e](https://x.org) [f](nowhere.md)"
    assert hooks.relink(links + code, "README.md", "index.md") == expected + code
    assert hooks.relink("[a](../README.md#y) [b](../tests/faults/test_faults.py)", "docs/faults.md", "faults.md") == "[a](index.md#y) b"


def test_readme_and_contributing_name_the_targets_of_the_makefile() -> None:
    text = "".join(block.text for block in checked("bash"))
    assert {"make demo", "make test"} <= set(re.findall(r"make [a-z-]+", text))
