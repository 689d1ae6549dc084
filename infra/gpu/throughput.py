"""Section: images per second, end to end."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from benchmarks.reference import now
from hdm_core import METHODS, Classifier, explain
from infra.gpu.facts import pick_test_device
from infra.gpu.networks import build, images_for
from infra.gpu.session import Facts, Session
from infra.gpu.sizes import Sizes
from infra.gpu.speed import release


def check_throughput(session: Session, facts: Facts) -> None:
    """Measure HDM on each network, then all other methods on the last.

    HDM has its default preset, and for the largest number of images `fast`.
    """
    sizes, device = session.sizes, pick_test_device()
    for name in reversed(sizes.networks):  # the largest first: it has the goal
        classifier = build(name, sizes.side, device)
        images = images_for(classifier, max(sizes.explained))
        images_per_second(classifier, images[: sizes.batch], "hdm", sizes)  # folds the network and captures its passes

        def of_hdm(count: int, preset: str | None = None, classifier: Classifier = classifier, images: Tensor = images) -> float:
            return images_per_second(classifier, images[:count], "hdm", sizes, preset)

        session.each(facts, sizes.explained, of_hdm, f"hdm {name} {{}}".format)
        session.each(facts, sizes.explained[-1:], partial(of_hdm, preset="fast"), f"hdm fast {name} {{}}".format)
        del classifier, images
        release(device)
    classifier = build(sizes.networks[-1], sizes.side, device)
    images = images_for(classifier, sizes.others)
    others = [method for method, entry in METHODS.items() if method != "hdm" and not entry.needs_attention]
    session.each(
        facts, others, partial(images_per_second, classifier, images, sizes=sizes), f"{{}} {sizes.networks[-1]} {sizes.others}".format
    )


def images_per_second(classifier: Classifier, images: Tensor, method: str, sizes: Sizes, preset: str | None = None) -> float:
    """Return the images per second of a method, by default with its default preset."""
    begin = now(classifier.device)
    explain(classifier, images, method, preset, batch=sizes.batch, **sizes.timed.get(method, {}))
    return len(images) / (now(classifier.device) - begin)
