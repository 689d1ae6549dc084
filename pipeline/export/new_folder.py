"""A folder that appears at once with all its files, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hdm_core.sources.paths import local_path
from pipeline.errors import InputError, RunError, one_line


@contextmanager
def new_folder(target: str) -> Iterator[Path]:
    """Give a temporary folder beside a target, which is renamed to it at the end.

    After an error nothing of it is left.

    Args:
        target: a local path that does not exist, or an empty folder.

    Raises:
        InputError: if the target exists, is a URL, or its parent cannot be written.
        RunError: if the disk fills up or fails.
    """
    if "://" in target:
        raise InputError(f"{target}: this export writes to a folder of this machine, not to a URL")
    folder = local_path(target).absolute()
    try:
        if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
            raise InputError(f"{target}: exists already; give a new folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:80]}.", dir=folder.parent))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({one_line(error)}); give another folder") from None
    try:
        temporary.chmod(0o755)
        yield temporary
        temporary.rename(folder)
    except OSError as error:
        raise RunError(f"{target}: cannot be written ({one_line(error)}); nothing is left of the export") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
