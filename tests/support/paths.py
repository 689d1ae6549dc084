"""Paths of the checkout and of the real photographs that may lie beside it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"

# First on PYTHONPATH, it lets workers use the CPU where Ray counts a GPU that does not exist.
COUNTED_GPUS = ROOT / "tests" / "support" / "counted_gpus"
