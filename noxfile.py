"""The wheel on every supported Python: installed into a fresh environment, it passes the fast tests. `make test-python`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).parent
# What the wheel is built from.
SOURCES = ("hdm_core", "pipeline", "flows", "pyproject.toml", "README.md", "LICENSE")
FAST = "not server and not slow and not faults and not nightly"

nox.options.default_venv_backend = "venv"

# pyenv's shims refuse a version that is not selected: its interpreters come before them.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
os.environ["PATH"] = os.pathsep.join([*map(str, sorted(PYENV.glob("versions/3.1[123].*/bin"))), os.environ["PATH"]])


@nox.session(python=["3.11", "3.12", "3.13"])
def fast(session: nox.Session) -> None:
    """Build the wheel, install it with pip, and run the fast tests against what was installed."""
    folder = Path(session.create_tmp())
    session.install("--no-deps", "--require-hashes", "-r", str(ROOT / "requirements.lock"))
    # Then with its dependencies: the lock is resolved for 3.11, and other versions need a package more (3.13: whenever, for Prefect).
    session.install(f"{wheel(session, folder)}[demo,timm,transformers,medical,tiff,analysis,dev]")
    # Appended, the checkout gives `tests` and `benchmarks`, and the environment the packages that are tested; conftest.py asserts it.
    session.chdir(folder)
    session.run(
        *("pytest", "-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", "--import-mode", "append", "-m", FAST),
        *("--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), str(ROOT / "tests"), *session.posargs),
        env={"HDM_TEST_INSTALLED": "1"},
    )


def wheel(session: nox.Session, folder: Path) -> Path:
    """Build the wheel from a copy: setuptools would leave its build folder in the checkout, and take old files from there."""
    source, built = folder / "source", folder / "dist"
    for path in (source, built):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    session.run("python", "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(built), str(source))
    (found,) = built.glob("*.whl")
    return found
