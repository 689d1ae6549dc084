"""Cases of the race: the keys of a run, and the loop that does the same work."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import sequential
from benchmarks.race import loops
from hdm_core.settings import DMSettings

_RISE_MASKS = 1000
# DM as published, without what the sequential version does not have; fewer steps, which cost the same each.
_DM = {"preset": "paper-pm", "steps": 20, "relative": True}


@dataclass(frozen=True)
class Case:
    """One job, done by the pipeline and by a loop.

    Attributes:
        images: photographs, unless --images scales them.
        keys: of the run's configuration.
        loop: arch, paths, crop, folder -> files below the folder.
        parts: the functions and classes of the loop, whose lines are counted.
        goal: smallest ratio of images per second, pipeline over loop.
    """

    images: int
    keys: dict[str, Any]
    loop: Callable[[str, Sequence[str], int, Path], None]
    parts: tuple[Any, ...]
    goal: float

    def lines(self) -> int:
        """Count the loop's lines of code, without docstrings and empty lines."""
        return sum(map(_lines, self.parts))


def _dm_settings() -> DMSettings:
    from hdm_core import get_method

    changes = {name: value for name, value in _DM.items() if name != "preset"}
    settings = get_method("dm").configure(str(_DM["preset"]), **changes)
    assert isinstance(settings, DMSettings)  # noqa: S101 - for the type checker
    return settings


def _dm_loop(arch: str, paths: Sequence[str], crop: int, folder: Path) -> None:
    loops.dynamic_masks(arch, paths, crop, folder, _dm_settings())


_COMMON = (loops.Photographs, loops.load)
_DM_PARTS = (*_COMMON, loops.dynamic_masks, sequential.sequential_dm)
CASES = {
    "grad_cam": Case(2000, {"methods": ["grad_cam"], "metrics": "none"}, loops.grad_cam, (*_COMMON, loops.grad_cam), 0.8),
    "grad_cam_measured": Case(
        32,
        {"methods": ["grad_cam"], "metrics": {"names": ["deletion_auc", "insertion_auc"]}},
        loops.grad_cam_measured,
        (*_COMMON, loops.grad_cam_measured, loops.deletion_insertion),
        3.0,
    ),
    "rise": Case(
        50,
        {"methods": ["rise"], "rise": {"masks": _RISE_MASKS}, "metrics": "none"},
        partial(loops.rise, masks=_RISE_MASKS),
        (*_COMMON, loops.rise),
        1.3,
    ),
    "dm": Case(20, {"methods": ["dm"], "dm": _DM, "metrics": "none"}, _dm_loop, _DM_PARTS, 1.9),
}


def _lines(part: Any) -> int:
    tree = ast.parse(inspect.getsource(part))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return len(ast.unparse(tree).splitlines())
