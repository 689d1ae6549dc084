"""`python -m benchmarks.planted`: the command `planted --hard` with few packages.

It prints the JSON of `python -m benchmarks planted --hard --json`, and a short table to standard error. It needs torch, pydantic and
scikit-image, and not typer, rich or Arrow, which a machine with a GPU may lack.
"""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.planted.command import IMAGES, SEEDS, run_planted
from benchmarks.planted.hierarchy import PieceScore
from benchmarks.planted.piece_networks import STEPS
from pipeline.errors import InputError


def main() -> int:
    """Run the comparison on the harder images and print one JSON object."""
    parser = argparse.ArgumentParser("benchmarks.planted", description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES, help="images of each kind per network")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="networks per architecture")
    parser.add_argument("--architectures", type=lambda text: text.split(","), help="separated by commas; all by default")
    parser.add_argument("--only", type=lambda text: text.split(","), help="candidates, separated by commas; all by default")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    parser.add_argument("--batch", type=int, help="masked images per forward pass; the device's default if left out")
    options = parser.parse_args()
    try:
        result = run_planted(True, **vars(options), show=_show)
    except InputError as error:
        sys.stderr.write(f"benchmarks.planted: {error}\n")
        return 2
    for row in result.rows:
        _show(_line(row))
    sys.stdout.write(f"{json.dumps({'planted': result.as_dict()})}\n")
    return 0


def _line(row: PieceScore) -> str:
    """Format the main scores of a candidate on one kind of images."""
    scores = " ".join(f"{row.means[name][0]:.3f}" for name in ("average_precision", "energy", "found", "all_found", "weakest"))
    gain = "" if row.to_one_stage is None else " {:+.3f} ± {:.3f} to one stage".format(*row.to_one_stage["average_precision"])
    return f"{row.candidate} {row.kind} {row.passes} passes: AP, energy, found, all, weakest {scores}{gain}"


def _show(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
