"""`make gpu` without a GPU: every section gives its facts, and an error or a hang costs one section."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from hdm_core import METHODS
from infra.gpu.profiles import idle_share, kernels
from infra.gpu.run_tests import failed_tests
from infra.gpu.sections import SECTIONS, run_sections
from infra.gpu.session import NO_TIME, Facts, Section, Session, rounded
from infra.gpu.sizes import TINY
from tests.cuda.test_collection import BLOCK
from tests.support.paths import ROOT

# A session that prints the JSON of three sections; the second one is the code that a test gives.
SESSION = """
import sys, time
from pathlib import Path
from infra.gpu import session
from infra.gpu.sizes import TINY

def second(active, facts):
    facts["begun"] = True
    {code}

session._GRACE = 0.1
sections = [session.Section(name, check, 60) for name, check in (
    ("first", lambda active, facts: facts.update(value=1)), ("second", second), ("third", lambda active, facts: facts.update(value=3)))]
active = session.Session(Path(sys.argv[1]), {seconds}, TINY)
active.run(sections)
session.say(active.line())
"""


def run_session(folder: Path, code: str, seconds: float = 60) -> tuple[int, dict[str, Any]]:
    """Run a session in a process; return its exit status and its JSON."""
    command = [sys.executable, "-c", SESSION.format(code=code, seconds=seconds), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    printed = json.loads(done.stdout.splitlines()[-1])
    assert json.loads((folder / "result.json").read_text()) == printed
    return done.returncode, printed


def test_an_error_of_a_section_is_recorded_and_the_next_one_runs(tmp_path: Path) -> None:
    code, result = run_session(tmp_path, "raise ValueError('two\\nlines')")
    assert code == 0
    assert result["errors"] == ["second: ValueError: two lines"]
    assert result["second"]["error"] == "ValueError: two lines"
    assert result["second"]["begun"]
    assert result["third"]["value"] == 3
    assert "Traceback" in (tmp_path / "errors.log").read_text()


def test_a_section_that_hangs_leaves_a_whole_json(tmp_path: Path) -> None:
    begin = time.monotonic()
    code, result = run_session(tmp_path, "time.sleep(50)", seconds=0.5)
    assert time.monotonic() - begin < 30
    assert code == 1
    assert result["cut_off"] == "second"
    assert result["first"]["value"] == 1
    assert result["second"] == {"begun": True}
    assert "third" not in result


def test_an_interrupt_ends_the_session_with_a_whole_json(tmp_path: Path) -> None:
    code, result = run_session(tmp_path, "raise KeyboardInterrupt")
    assert code == 0
    assert result["cut_off"] == "second"
    assert "third" not in result


def test_what_there_is_no_time_for_says_so(tmp_path: Path) -> None:
    session = Session(tmp_path, 60, TINY)

    def slow(active: Session, facts: Facts) -> None:
        active.each(facts, ["a", "b"], lambda _: time.sleep(0.05))

    session.run([Section("slow", slow, 0.01)])
    assert session.result["slow"]["a"] is None
    assert session.result["slow"]["b"] == NO_TIME
    late = Session(tmp_path, 0, TINY)
    late.run([Section("slow", slow, 1)])
    assert late.result["slow"] == NO_TIME


def test_an_item_that_fails_costs_no_other_item(tmp_path: Path) -> None:
    session = Session(tmp_path, 60, TINY)
    session.run([Section("shares", lambda active, facts: active.each(facts, [0, 2], lambda item: 1 / item), 5)])
    assert session.result["shares"]["0"] == "ZeroDivisionError: division by zero"
    assert session.result["shares"]["2"] == 0.5
    assert session.result["errors"] == ["shares 0: ZeroDivisionError: division by zero"]


def test_numbers_of_the_json_are_short_and_finite() -> None:
    assert rounded({"a": [1.23456789, float("nan"), (float("inf"), 3)], "b": True}) == {"a": [1.235, None, [None, 3]], "b": True}


@pytest.mark.slow
def test_all_sections_run_on_a_cpu_without_the_pipelines_dependencies(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "infra.gpu", "--tiny", "--seconds", "250", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    result = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert result == json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["errors"] == []
    assert NO_TIME not in done.stdout
    assert len(done.stdout.splitlines()[-1]) < 12_000, "it is to be pasted"
    assert set(result) == {"errors", "seconds", "goals"} | {section.name for section in SECTIONS}

    facts = result["facts"]
    assert facts["gpu"] == "cpu"
    assert facts["torch"] == torch.__version__
    assert min(facts["copy_tb_per_s"], facts["bfloat16_tflop_per_s"], facts["launch_us"]) > 0
    assert result["tests"]["rc"] == 0
    assert "skipped" in result["tests"]["summary"]
    for name in TINY.networks:
        assert result["folding"][name]["used"] == 4
        for batch in TINY.batches:
            speed = result["speed"][f"{name} {batch}"]
            assert min(speed["autocast_ms"], speed["bfloat16_ms"], speed["engine_ms"], speed["engine_graphed_ms"]) > 0
            assert min(speed["engine_kernels"], speed["bfloat16_kernels"]) > 50
            assert speed["graphed_ms"] is None
        for count in TINY.explained:
            assert result["throughput"][f"hdm {name} {count}"] > 0
    methods = {name: found for name, found in result["agreement"].items() if name != "took_s"}
    applicable = [method for method, entry in METHODS.items() if not entry.needs_attention]
    assert list(methods) == applicable
    for found in methods.values():
        assert found["float32"] == [0, 1]
        assert found["twice"] == ["float32", "bfloat16"]
    assert set(methods["hdm"]["graphs"]) == {"float32", "bfloat16"}
    assert len(result["throughput"]) == 2 * (2 + 1) + len(applicable) - 1 + 1
    assert result["memory"]["graphs"] == {"batch": 4, "fits": 2, "statuses": {"ok": 4}}
    assert len(result["shares"]["2"]["each"]) == 2
    assert result["goals"]["engine of the graphed bare pass, resnet50, batch 64"] == [None, None]
    assert "not measured engine of the graphed bare pass" in done.stdout


def test_a_section_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"infra\.gpu: no section 'sped': choose from facts, tests, folding"):
        run_sections(tmp_path, 10, tiny=True, only=["sped"])


def test_the_sections_take_less_than_nine_minutes() -> None:
    assert sum(section.seconds for section in SECTIONS) <= 530


# Measurements


@pytest.mark.parametrize(
    ("intervals", "share"),
    [([], 0.0), ([(1, 3)], 0.0), ([(0, 1), (3, 4)], 0.5), ([(3, 4), (0, 2), (1, 2)], 0.25), ([(0, 4), (1, 2)], 0.0)],
)
def test_idle_share_by_hand(intervals: list[tuple[float, float]], share: float) -> None:
    assert idle_share(intervals) == share


def test_kernels_are_counted() -> None:
    number = torch.zeros(1)
    few, many = (kernels(lambda count=count: [number.add_(1) for _ in range(count)], torch.device("cpu"))[0] for count in (1, 5))
    assert many == 5 * few > 0  # an addition is several calls of torch


def test_the_failed_tests_are_named() -> None:
    lines = ["FAILED tests/gpu/test_a.py::test_b[x-y] - AssertionError: z", "ERROR tests/gpu/test_c.py", "1 failed, 2 passed"]
    assert failed_tests(lines) == ["tests/gpu/test_a.py::test_b[x-y]", "tests/gpu/test_c.py"]


# The commands


def make(*arguments: str) -> list[str]:
    """Return the words of the commands that make would run, without variables of this environment."""
    outer = {"PYTHON", "OUT", "SECONDS_LEFT", "GPU_WHEELS", "ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    environment = {key: value for key, value in os.environ.items() if key not in outer}
    return subprocess.run(["make", "-n", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout.split()


def test_make_gpu_needs_no_environment_of_the_project() -> None:
    assert " ".join(make("gpu")) == "python3 -m infra.gpu --seconds 530 --out runs/gpu"
    given = make("gpu", "PYTHON=python3.12", "SECONDS_LEFT=300", "OUT=/tmp/x", "GPU_WHEELS=wheels", "ARGS=--only facts")
    assert " ".join(given) == "python3.12 -m infra.gpu --seconds 300 --out /tmp/x --wheels wheels --only facts"
    assert " ".join(make("gpu-pipeline")).endswith("-m infra.gpu.demo_run --seconds 290 --out runs/gpu-pipeline")


@pytest.mark.slow
def test_wheels_are_installed_beside_the_result_for_all_processes(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "hdm_brought-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("hdm_brought.py", "VALUE = 7\n")
        wheel.writestr("hdm_brought-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: hdm-brought\nVersion: 1.0\n")
        wheel.writestr("hdm_brought-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("hdm_brought-1.0.dist-info/RECORD", "")
    code = """
import subprocess, sys
from pathlib import Path
from infra.gpu.__main__ import use_checkout
use_checkout(Path(sys.argv[1]), Path(sys.argv[2]))
import hdm_brought
print(hdm_brought.VALUE)
sys.stdout.flush()
subprocess.run([sys.executable, "-c", "import hdm_brought; print(hdm_brought.__file__)"], check=True)
"""
    site = tmp_path / "site"
    done = subprocess.run([sys.executable, "-c", code, str(wheels), str(site)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["7", str(site / "hdm_brought.py")], done.stderr


def test_a_python_without_a_package_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK.replace("('ray',", "('torch', 'ray',"))
    command = [sys.executable, "-m", "infra.gpu", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(r"infra\.gpu: \S+ has no module torch: name another Python by PYTHON=, or .* by GPU_WHEELS=\n", done.stderr)


def test_a_folder_without_wheels_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.gpu", "--wheels", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f"infra.gpu: {tmp_path} has no wheels: name the folder that `pip download` filled\n"
