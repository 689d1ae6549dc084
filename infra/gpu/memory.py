"""Section: a batch that does not fit into the memory is halved and gives maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hdm_core import Classifier, explain_with
from hdm_core.batch_limit import BatchLimit
from hdm_core.methods.presets import HDM_PRESETS
from infra.gpu.facts import pick_test_device
from infra.gpu.networks import build, images_for
from infra.gpu.session import Facts, Session
from infra.gpu.speed import release


class RoomFor(nn.Module):
    """Network that runs out of memory with more images than `room`.

    It takes the place of a limit, which a CPU does not have.
    """

    def __init__(self, network: nn.Module, room: int) -> None:
        super().__init__()
        self.network, self.room = network, room

    def forward(self, images: Tensor) -> Tensor:
        """Apply the network to (B, C, H, W)."""
        if len(images) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        logits: Tensor = self.network(images)
        return logits


def check_memory(session: Session, facts: Facts) -> None:
    """Explain by HDM, with and without graphs, in less memory than a batch needs."""
    sizes, device = session.sizes, pick_test_device()
    # Masks of one size and no auxiliary ones, so that a step is one batch of all images.
    settings = HDM_PRESETS["fast"].model_copy(update={"steps": 1, "sizes": (6,), "ratios": (1000,)})

    def explain_in_little_memory(cuda_graphs: bool) -> Facts:
        release(device)
        with limited_memory(device, sizes.crowded_mib):
            classifier = build(sizes.networks[-1], sizes.side, device)
            if device.type == "cpu":
                classifier = Classifier(RoomFor(classifier.module, sizes.crowded // 2).eval(), classifier.preprocess)
            images = images_for(classifier, sizes.crowded)
            limit = BatchLimit(sizes.crowded, "hdm")
            result = explain_with(classifier, images, "hdm", settings, batch=limit, cuda_graphs=cuda_graphs)
        return {"batch": sizes.crowded, "fits": limit.size, "statuses": dict(Counter(result.status))}

    session.each(facts, (True, False), explain_in_little_memory, lambda graphs: "graphs" if graphs else "no_graphs")
    release(device)


@contextmanager
def limited_memory(device: torch.device, mib: int) -> Iterator[None]:
    """Allow torch this much more memory on a GPU than it holds."""
    if device.type != "cuda":
        yield
        return
    total = torch.cuda.mem_get_info(device)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved(device) + mib * 2**20) / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
