"""Every code block of README, CONTRIBUTING and docs/ is run, validated or marked as not run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.load import load, load_config, load_section
from pipeline.datasets import DATASETS
from pipeline.training.config import TrainConfig
from tests.docs import shell
from tests.docs.blocks import BLOCKS, Block, blocks_of, checked
from tests.docs.material import CLASSES, check_classifier, enter, missing
from tests.support.paths import ROOT
from tests.support.plans import configuration

CHECKED = {"python", "yaml", "bash", "toml", "csv"}  # csv: the manifest, which test_data_page.py reads
OUTPUT = {"text"}  # what a command prints, a folder's tree, a formula

# Commands that only read a finished run.
CHEAP = {"status", "tables", "verify", "methods", "metrics"}


def unaccounted(blocks: list[Block]) -> list[str]:
    """Return the blocks that are neither checked nor marked nor output."""
    return [
        f"{block}: {block.language or 'no language'}" for block in blocks if block.reason is None and block.language not in CHECKED | OUTPUT
    ]


def test_every_block_is_checked_or_marked() -> None:
    assert unaccounted(BLOCKS) == []
    assert all(block.page == "docs/data.md" for block in checked("csv"))


def test_the_guard_sees_a_block_that_is_neither(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```\n1\n```\n<!-- not run: needs a cluster -->\n```ruby\n2\n```\n- list\n  ```rust\n  3\n  ```\n```python\n4\n```\n")
    blocks = list(blocks_of(page))
    assert [block.text for block in blocks] == ["1\n", "2\n", "3\n", "4\n"]
    assert blocks[1].reason == "needs a cluster"
    assert [line.rpartition("/")[2] for line in unaccounted(blocks)] == ["page.md:2: no language", "page.md:10: rust"]
    page.write_text("```python\n1\n")
    with pytest.raises(AssertionError, match="not closed"):
        list(blocks_of(page))


SLOW = {"README.md", "docs/models.md"}  # they run real networks on real sizes
PAGES = [pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW)) for page in sorted({block.page for block in checked("python")})]


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = enter(page, tmp_path, monkeypatch)
    monkeypatch.setitem(DATASETS, "pets", DATASETS["folder"])  # CONTRIBUTING.md registers a kind: it is forgotten afterwards
    for block in checked("python", page):
        if missing(block.text):
            continue
        exec(compile(block.code, page, "exec", dont_inherit=True), names)
        if page == "docs/models.md":
            check_classifier(names["classifier"], None if "torchvision(" in block.text else CLASSES)
    if page == "docs/analysis.md":
        assert "('image', 'y', 'x') ('image', 'method_id')" in capsys.readouterr().out


def validate(data: dict[str, Any]) -> None:
    """Validate a block as a run's or a training's configuration, whole or in part."""
    if "recipe" in data:
        load(data, {}, TrainConfig, {})
    elif "name" in data and "output" in data:
        load_config(data)
    else:
        if "classifier" in data:
            load_section(data["classifier"])
        configuration(**data)


@pytest.mark.parametrize("block", checked("yaml"), ids=str)
def test_a_block_of_yaml_is_a_configuration(block: Block) -> None:
    validate(yaml.safe_load(block.text))


@pytest.mark.parametrize("block", checked("toml"), ids=str)
def test_entry_points_are_of_groups_that_are_read(block: Block) -> None:
    groups = tomllib.loads(block.text)["project"]["entry-points"]
    source = "".join(path.read_text() for folder in ("hdm_core", "pipeline") for path in (ROOT / folder).rglob("*.py"))
    assert [group for group in groups if f'Registry(\n    "{group}"' not in source and f'Registry("{group}"' not in source] == []


@pytest.mark.parametrize("block", checked("bash"), ids=str)
def test_the_commands_of_a_block_exist(block: Block) -> None:
    for command in shell.commands(block):
        shell.check(command)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("hdm runn demo", "runn"),
        ("hdm run demo --sett a=b", "sett"),
        ("hdm run demo --set compute.colour=red", "colour"),
        ("cat x && hdm run demo --set hdm.keep=1", "keep"),
        ("python -m benchmarks nothing", "nothing"),
        ("python -m nothing", "nothing"),
        ("make nothing", "nothing"),
        ("prefect deployment run hdm/nothing", "hdm/nothing"),
        ("prefect serverr start", "serverr"),
        ("ray start --nothing", "nothing"),
        ("docker build .", "docker"),
    ],
)
def test_a_command_that_is_wrong_is_seen(text: str, error: str) -> None:
    (*_, command) = shell.commands(Block("page.md", 1, "bash", text))
    with pytest.raises((Exception, SystemExit), match=error):
        shell.check(command)


def test_commands_are_split_as_a_shell_does() -> None:
    text = "A=1 hdm run my.yaml \\\n  --set 'methods=[hdm, dm]'  # twice\ncurl -s URL | grep x; make demo\n"
    assert shell.commands(Block("page.md", 1, "bash", text)) == [
        ["hdm", "run", "my.yaml", "--set", "methods=[hdm, dm]"],
        ["curl", "-s", "URL"],
        ["grep", "x"],
        ["make", "demo"],
    ]


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_cheap_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.cli.main import app

    enter(page, tmp_path, monkeypatch)
    run = 0
    for block in checked("bash", page):
        for command in shell.commands(block):
            if command[0] == "hdm" and command[1] in CHEAP:
                assert app(command[1:], standalone_mode=False) in {None, 0}, command
                run += 1
    assert run
