"""Section: photographs that a folded copy explains, and seconds of a fold."""

from __future__ import annotations

import torch

from benchmarks.reference import now
from hdm_core.network.folding import fold_network
from infra.gpu.facts import pick_test_device
from infra.gpu.networks import build, photographs, stored_weights
from infra.gpu.session import Facts, Session


def check_folding(session: Session, facts: Facts) -> None:
    """Store the number of photographs and the seconds for each network."""
    device = pick_test_device()

    def fold(name: str) -> Facts:
        classifier = build(name, session.sizes.side, device)
        images, used, seconds, reasons = photographs(classifier), 0, [], set()
        with classifier.frozen() as network:
            for image in torch.split(images, 1):
                begin = now(device)
                folded = fold_network(network, image)
                seconds.append(now(device) - begin)
                used += folded.reason is None
                reasons |= {folded.reason} - {None}
        weights = None if name.startswith("small_") else stored_weights(name)
        found: Facts = {"weights": weights, "used": used, "of": len(images), "first_s": seconds[0], "later_s": min(seconds[1:])}
        return found | ({"reasons": sorted(map(str, reasons))} if reasons else {})

    session.each(facts, session.sizes.networks, fold)
