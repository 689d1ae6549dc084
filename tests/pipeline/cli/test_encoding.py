"""Output in encodings that lack characters: it is printed with replacements, and the exit code stays."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.console import accept_any_encoding, print_json
from pipeline.cli.main import main
from tests.support.paths import ROOT
from tests.support.plans import mapping, save_picture

RUN = ROOT / "tests" / "data" / "run-0.1.0"
ENCODINGS = ("ascii", "latin-1", "cp1252", "koi8-r", "utf-8")
EMOJI = "cat 🐈"


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run the command with output in an encoding: its exit code, and what it printed."""

    def call(encoding: str, *arguments: object) -> tuple[int, str, str]:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        monkeypatch.setattr(sys, "argv", ["hdm", *map(str, arguments)])
        monkeypatch.setattr(logging.getLogger(), "handlers", [])  # of pytest, beside which the command adds none
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)  # type: ignore[attr-defined]
        return int(ended.value.code or 0), out, err

    return call


def folder(tmp_path: Path) -> Path:
    for name in (f"{EMOJI}/1.png", "dog ü/2.png"):
        save_picture(tmp_path / "images" / name)
    (tmp_path / "images" / "notes ü.ünknown").touch()
    dataset = {"kind": "folder", "root": str(tmp_path / "images")}
    compute = {"executor": "local", "shard_size": 2, "batch_size": 1}
    text = json.dumps(mapping(methods=["grad_cam"], dataset=dataset, compute=compute, output=str(tmp_path / "runs ü")), ensure_ascii=False)
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8-sig")
    return tmp_path / "config.yaml"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", ["text", "markdown", "latex", "csv"])
def test_tables_are_printed_in_any_encoding(encoding: str, form: str, ended: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = ended(encoding, "tables", RUN, "--format", form)
    assert (code, err) == (0, "")
    sign = "±" if encoding in {"latin-1", "cp1252", "utf-8"} else "+-"
    assert form not in {"text", "markdown"} or sign in out
    assert "HDM" in out


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_whole_run_is_printed_in_any_encoding(encoding: str, tmp_path: Path, ended: Callable[..., tuple[int, str, str]]) -> None:
    config = folder(tmp_path)
    code, out, err = ended(encoding, "run", config)
    assert code == 0, err
    assert "left out: 1 with a suffix of no image" in err
    assert "2 of 2 images" in err
    assert "Grad-CAM" in out
    code, out, err = ended(encoding, "status", tmp_path / "runs ü" / "tiny")
    assert (code, err) == (0, "")
    assert "2 ok" in out
    code, _, err = ended(encoding, "status", tmp_path / "no run ☃")
    assert code == 2
    assert err.startswith("hdm: ")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_means_the_same_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts: dict[str, Any] = {"class": EMOJI, "path": "/data/\udcff.png", "run": "Läufe", "sign": "±"}
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    accept_any_encoding()
    print_json(facts)
    assert json.loads(stream.buffer.getvalue().decode(encoding)) == facts  # type: ignore[attr-defined]


def test_what_an_encoding_lacks_is_replaced_by_plain_signs_and_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, expected in (("ascii", "+- v ^ ... \\xfc \\U0001f408 \\udcff"), ("utf-8", "± ↓ ↑ … ü 🐈 \\udcff")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
        monkeypatch.setattr(sys, "stdout", stream)
        accept_any_encoding()
        sys.stdout.write("± ↓ ↑ … ü 🐈 \udcff")
        assert stream.buffer.getvalue().decode(encoding) == expected  # type: ignore[attr-defined]


@pytest.mark.server
@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}])
def test_the_encoding_of_the_environment_ends_no_command(environment: dict[str, str]) -> None:
    code = "from pipeline.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "tables", str(RUN)], capture_output=True, check=False, env=os.environ | environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"HDM" in done.stdout
