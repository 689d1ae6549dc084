"""Command line of the checks: `python3 -m infra.gpu`, which `make gpu` calls."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run the checks and return 1 if one failed or a goal was missed."""
    parser = argparse.ArgumentParser("infra.gpu", description=__doc__)
    parser.add_argument("--seconds", type=float, default=530.0, help="time for all sections; afterwards the JSON is printed as it is")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of result.json and the logs")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that the machine lacks, such as pydantic's; installed below --out")
    parser.add_argument("--only", default="", help="sections, separated by commas; all by default")
    parser.add_argument("--tiny", action="store_true", help="small networks and images, to try the checks; the default without a GPU")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    use_checkout(options.wheels, options.out.resolve() / "site")
    try:  # torch and pydantic may be among the wheels
        from infra.gpu.sections import run_sections
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"infra.gpu: {sys.executable} has no module {error.name}: name another Python by PYTHON=, or a folder of wheels by GPU_WHEELS="
        ) from None

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # of `timeout`, say: the JSON is printed, too
    return run_sections(options.out.resolve(), options.seconds, options.tiny, [name for name in options.only.split(",") if name])


def use_checkout(wheels: Path | None, site: Path) -> None:
    """Let this process and those that it starts import the checkout and the wheels."""
    paths = [str(ROOT)]
    if wheels is not None:
        files = sorted(map(str, wheels.glob("*.whl")))
        if not files:
            raise SystemExit(f"infra.gpu: {wheels} has no wheels: name the folder that `pip download` filled")
        options = ("--quiet", "--no-index", "--no-deps", "--no-compile", "--upgrade", "--target", str(site))
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *files], check=True)
        paths.insert(0, str(site))
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])


if __name__ == "__main__":
    sys.exit(main())
