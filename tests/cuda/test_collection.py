"""Collection of the tests for a GPU where the pipeline's dependencies are not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.gpu.sizes import FULL
from tests.support.paths import ROOT

# An image for a GPU has torch, torchvision, timm, pydantic and pytest, and none of these.
MISSING = ("ray", "zarr", "s3fs", "fsspec", "prefect", "captum", "pyarrow", "xdist", "transformers")
FOR_A_GPU = (*FULL.tests, "tests/cuda")

# Read by the interpreter on its start.
BLOCK = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def pytest_without(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process in which the modules of MISSING cannot be imported."""
    (folder / "sitecustomize.py").write_text(BLOCK)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    plugins = ("-p", "pytest_timeout", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_the_tests_for_a_gpu_are_collected_without_the_pipelines_dependencies(tmp_path: Path) -> None:
    done = pytest_without(tmp_path, "--collect-only", *FOR_A_GPU)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "error" not in done.stdout.splitlines()[-1]
    for name in ("tests/cuda/test_methods.py", "[the_maps_on_cuda_are_those_of_the_cpu-hdm]", "test_maps_agree_with_the_cpu[hdm-tf32]"):
        assert name in done.stdout


@pytest.mark.slow
def test_the_pretended_gpu_runs_without_the_pipelines_dependencies(tmp_path: Path) -> None:
    done = pytest_without(tmp_path, "tests/cuda/test_pretended_gpu.py", "tests/cuda/test_pipeline.py", "tests/cuda/test_metrics.py")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "1 skipped" in done.stdout.splitlines()[-1]
