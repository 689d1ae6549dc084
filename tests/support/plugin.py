"""Installation of the test plugin into a separate folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def install_plugin(folder: Path) -> dict[str, str]:
    """Install tests/plugin below a folder; return the environment in which Python finds it."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([*command, "--target", str(folder), str(ROOT / "tests" / "plugin")], check=True, capture_output=True, timeout=120)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])}
