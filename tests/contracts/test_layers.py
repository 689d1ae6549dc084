"""The arrows between the packages run one way: the contracts of [tool.importlinter] hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def test_the_import_contracts_hold() -> None:
    command = Path(sys.executable).parent / "lint-imports"
    assert command.exists(), "import-linter is not installed: install the package's dev extra"
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
