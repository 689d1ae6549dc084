"""Installation of the test plugin into a separate folder, and a run made with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.runs import RunStore
from tests.support.paths import ROOT
from tests.support.plans import configuration, plan_of, write_all


def install_plugin(folder: Path) -> dict[str, str]:
    """Install tests/plugin below a folder; return the environment in which Python finds it."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    source = folder / "source"  # a copy: the build writes into the folder that it builds
    shutil.copytree(ROOT / "tests" / "plugin", source)
    subprocess.run([*command, "--target", str(folder), str(source)], check=True, capture_output=True, timeout=120)
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def make_run(output: str, name: str) -> RunStore:
    """Commit a run of HDM and the plugin's method with made-up results; the plugin must be installed."""
    plan = plan_of(configuration(name=name, output=output, methods=["hdm", "centre"]))
    store = RunStore.from_config(plan.config)
    store.create(plan)
    write_all(store, plan)
    return store
