"""Paths of local files as users write them."""

from __future__ import annotations

from pathlib import Path


def local_path(path: str | Path) -> Path:
    """Return a path with `~` replaced by the home folder.

    The `~name` of a user that does not exist stays, so that the error of the missing file names it.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
