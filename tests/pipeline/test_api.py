"""The public names of `pipeline`: all are there, and nothing is loaded before it is used."""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline.errors import InputError
from tests.support.paths import ROOT


def test_every_public_name_can_be_loaded() -> None:
    assert pipeline.__all__ == sorted(pipeline.__all__)
    assert set(pipeline.__all__) <= set(dir(pipeline))
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'explain_everything'"):
        pipeline.explain_everything  # noqa: B018


def test_the_exported_names_are_the_declared_ones() -> None:
    """What type checkers see, what is loaded at run time and `__all__` are the same names."""
    tree = ast.parse(Path(pipeline.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == set(pipeline._MODULES) == set(pipeline.__all__) - {"__version__"}


def test_importing_the_package_loads_no_library() -> None:
    code = "import sys, pipeline; pipeline.__version__; print({'torch', 'ray', 'xarray', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["make_plan", "run"])
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = [found for found in doctest.DocTestFinder(recurse=False).find(getattr(pipeline, name), name) if found.examples]
    report: list[str] = []
    assert doctest.DocTestRunner().run(example, out=report.append).failed == 0, "".join(report)


def test_a_configuration_may_be_a_presets_name_or_a_mapping() -> None:
    with pytest.raises(InputError, match="neither a preset"):
        pipeline.make_plan("nowhere")
    with pytest.raises(InputError, match=r"dataset\.root is missing"):
        pipeline.run("cub-full")
    with pytest.raises(InputError, match="name"):
        pipeline.run({"output": "runs"})


@pytest.mark.server
def test_another_package_named_pipeline_is_one_line_of_error(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-m", "flows"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"hdm: {tmp_path / 'pipeline'} is another package named pipeline")


@pytest.mark.server
def test_a_pipeline_that_borrows_our_modules_is_refused_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("__path__ = __import__('pkgutil').extend_path(__path__, __name__)")
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "methods"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "is another package named pipeline" in line
