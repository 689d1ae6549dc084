"""Process that explains images on a share of the device.

`python -m infra.gpu.share_worker` prints `ready`, waits for a line on standard input, and then prints the images that it has explained
and their seconds.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch

from benchmarks.reference import now
from hdm_core import explain
from hdm_core.device import pick_device
from infra.gpu.networks import build, images_for
from infra.gpu.session import say
from infra.gpu.sizes import FULL, TINY


def main() -> None:
    """Explain the same images by HDM until the time is over."""
    parser = argparse.ArgumentParser("infra.gpu.share_worker", description=__doc__)
    parser.add_argument("--share", type=float, required=True, help="share of the device")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    sizes = TINY if options.tiny else FULL
    torch.set_num_threads(1)
    classifier = build(sizes.networks[0], sizes.side, pick_device(options.share))
    images, settings = images_for(classifier, sizes.shared), sizes.timed.get("hdm", {})

    def work() -> None:
        explain(classifier, images, "hdm", batch=sizes.batch, **settings)

    work()
    now(classifier.device)
    say("ready")
    sys.stdin.readline()
    done, begin = 0, now(classifier.device)
    while (seconds := now(classifier.device) - begin) < sizes.share_seconds or not done:
        work()
        done += len(images)
    say(json.dumps({"images": done, "seconds": seconds}))


if __name__ == "__main__":
    main()
