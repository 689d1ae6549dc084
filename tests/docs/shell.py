"""Shell blocks, checked without running them: commands exist, their options parse, configuration keys are valid."""

from __future__ import annotations

import importlib.util
import re
import shlex
from typing import Any

import typer
import yaml

from benchmarks.cli import bench
from pipeline.cli.main import app
from pipeline.config.load import load, load_config, parse_changes, presets
from pipeline.training.config import TrainConfig
from pipeline.training.run import train_presets
from tests.docs.blocks import Block
from tests.support.paths import ROOT
from tests.support.plans import mapping

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
TOOLS = {"cat", "cp", "curl", "df", "export", "grep", "nvidia-cuda-mps-control", "nvidia-smi", "pip", "source"}  # commands of any machine

_HDM: Any = typer.main.get_command(app)
_BENCH: Any = typer.main.get_command(bench)


def commands(block: Block) -> list[list[str]]:
    """Split a block into commands: comments and assignments before a command dropped, continued lines joined."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&")
        lexer.whitespace_split, lexer.commenters = True, "#"
        command: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|;&"):
                found.append(command)
                command = []
            elif command or not re.fullmatch(r"\w+=.*", word):
                command.append(word)
    return [command for command in found if command]


def check(command: list[str]) -> None:
    """Check one command.

    Raises:
        Exception: of the command's own parser, or AssertionError for a command that nothing here knows.
    """
    match command:
        case ["hdm", *rest]:
            _check_hdm(rest)
        case ["python", "-m", "benchmarks", *rest]:
            parse(_BENCH, "benchmarks", rest)
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module), f"no module {module}"
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), f"no file {script}"
        case ["make", *targets]:
            unknown = {target for target in targets if "=" not in target} - TARGETS
            assert not unknown, f"the Makefile has no target {unknown}"
        case ["prefect", *rest]:
            _check_prefect(rest)
        case ["ray", *rest]:
            _check_ray(rest)
        case [tool, *_]:
            assert tool in TOOLS, f"{tool}: neither checked nor a known tool; mark the block as not run, with the reason"


def parse(group: Any, program: str, words: list[str]) -> tuple[str, dict[str, Any]]:
    """Parse a command of a typer application: its name and its parameters."""
    context = group.make_context(program, list(words))
    name, command, rest = group.resolve_command(context, list(words))
    return name, command.make_context(name, rest, parent=context).params


def _check_hdm(words: list[str]) -> None:
    name, params = parse(_HDM, "hdm", words)
    if name not in {"run", "plan", "reexplain", "train"}:
        return
    changes = parse_changes(params.get("set_") or [])
    changes |= {key: params[name] for key, name in {"output": "output", "dataset.root": "root"}.items() if params.get(name)}
    source = params["config"]
    if name == "train":
        load(source if source in train_presets() else {"name": "mine"}, changes, TrainConfig, train_presets())
    else:
        load_config(source if source in presets() else mapping(), changes)


def _check_prefect(words: list[str]) -> None:
    from prefect.cli._app import _app

    _app.parse_args(words, print_error=False, exit_on_error=False)
    if words[:2] == ["deployment", "run"]:
        described = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
        flow, name = words[2].split("/")
        assert any(entry["name"] == name and entry["entrypoint"].endswith(f":{flow.replace('-', '_')}") for entry in described), (
            f"prefect.yaml has no deployment {words[2]}"
        )
    for word in words:
        if word.startswith("infra/"):
            assert (ROOT / word).is_file(), f"no file {word}"


def _check_ray(words: list[str]) -> None:
    from ray.scripts.scripts import cli

    group: Any = cli
    while hasattr(group, "commands"):
        name, *words = words
        assert name in group.commands, f"ray has no command {name}"
        group = group.commands[name]
    group.make_context("ray", words)
