"""Networks with images whose pieces of evidence are known."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.planted.piece_networks import ARCHITECTURES, STEPS, follows_rule, train_piece_network
from benchmarks.planted.pieces import KINDS, PieceImages, draw_pieces
from hdm_core.device import synchronise
from pipeline.errors import InputError

_HELD_OUT = 200  # images per kind


@dataclass(frozen=True)
class PieceData:
    """Images with known pieces, grouped by kind, and the network to explain.

    Attributes:
        network: architecture and seed.
        images, labels: (N, 3, H, W) and (N,).
        regions, strengths: (N, P, H, W) bool and (N, P), the pixels and the strength of each piece.
        kinds: kind of each image.
        accuracy: kind -> share of held-out images that the network classifies correctly.
        obeyed: kind -> share of those on which it follows the rule also without pieces.
        pieces: kind -> pieces per image, a mean over the images that are explained.
        area: share of the pixels that is evidence: the energy and the average precision of a flat map.
    """

    network: str
    images: Tensor
    labels: Tensor
    regions: Tensor
    strengths: Tensor
    kinds: list[str]
    model: nn.Module
    accuracy: dict[str, float]
    obeyed: dict[str, float]
    pieces: dict[str, float]
    area: float
    training_seconds: float

    def facts(self) -> dict[str, Any]:
        """Return what the JSON says of the network and its images."""
        names = ("network", "accuracy", "obeyed", "pieces", "area", "training_seconds")
        return {name: getattr(self, name) for name in names}


def make_piece_data(architecture: str, seed: int, images: int, device: torch.device, steps: int = STEPS) -> PieceData:
    """Train a network; draw images of the harder world that it classifies by the rule.

    Args:
        images: images per kind.

    Raises:
        InputError: for an unknown architecture, or if the network follows the rule on too few images.
    """
    known = {name: name for name in ARCHITECTURES}
    if architecture not in known:
        raise InputError(f"no architecture {architecture!r}: choose from {', '.join(ARCHITECTURES)}")
    start = time.perf_counter()
    model = train_piece_network(known[architecture], seed, device, steps)
    synchronise(device)
    training_seconds = time.perf_counter() - start
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    chosen: list[PieceImages] = []
    accuracy: dict[str, float] = {}
    obeyed: dict[str, float] = {}
    pieces: dict[str, float] = {}
    for kind in KINDS:
        drawn = draw_pieces(kind, max(_HELD_OUT, 4 * images), generator, device)
        with torch.no_grad():
            accuracy[kind] = float((model(drawn.images).argmax(1) == drawn.labels).double().mean())
        follows = follows_rule(model, drawn)
        obeyed[kind] = float(follows.double().mean())
        if follows.sum() < images:
            raise InputError(
                f"{architecture}, seed {seed}: the network follows the rule on {int(follows.sum())} of {len(drawn)} images ({kind}): "
                "use another --seed"
            )
        chosen.append(drawn[follows.nonzero()[:images, 0]])
        pieces[kind] = float((chosen[-1].motifs >= 0).sum(1).double().mean())
    planted = PieceImages(*(torch.cat(parts) for parts in zip(*(vars(part).values() for part in chosen), strict=True)))
    return PieceData(
        f"{architecture}-{seed}",
        planted.images,
        planted.labels,
        planted.regions,
        planted.strengths,
        [kind for kind in KINDS for _ in range(images)],
        model,
        accuracy,
        obeyed,
        pieces,
        float(planted.regions.any(1).double().mean()),
        training_seconds,
    )


def make_patch_data(seed: int, images: int) -> PieceData:
    """Return the network of `truth` with its images that have two patches.

    Both patches have the same strength. The network is trained on the CPU, so that it is the one of `truth`.

    Args:
        images: images per kind.
    """
    from benchmarks.planted.benchmark import make_data  # needs Arrow, which a machine with a GPU alone need not have

    start = time.perf_counter()
    data = make_data(images, seed)
    seconds = time.perf_counter() - start
    two = torch.tensor([kind in KINDS for kind in data.kinds])
    planted = data.planted[two]
    return PieceData(
        f"truth-{seed}",
        planted.images,
        planted.labels,
        planted.regions,
        torch.ones(len(planted), 2),
        [kind for kind in data.kinds if kind in KINDS],
        data.model,
        {"all": data.accuracy},
        {"all": data.obeyed},
        dict.fromkeys(KINDS, 2.0),
        float(planted.evidence.double().mean()),
        seconds,
    )
