"""Pieces of evidence on the pretended GPU: tensors are on one device, and the pieces are those of the CPU."""

from __future__ import annotations

import pytest
import torch

from hdm_core import EvidenceSettings, find_evidence
from hdm_core.testing.families import FAMILIES
from tests.support.pretended_gpu import pretended_gpu

SETTINGS = EvidenceSettings(dm={"sizes": [4], "max_size": 8, "steps": 2}, max_pieces=2, cells=3, score="log_odds", kept=0.6)


@pytest.mark.parametrize("baseline", ["mean", "blur"])
def test_the_pieces_are_found_on_the_gpu_with_the_bits_of_the_cpu(baseline: str) -> None:
    images = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    settings = SETTINGS.model_copy(update={"dm": {**SETTINGS.dm, "baseline": baseline}})
    expected = find_evidence(FAMILIES["mobilenet"](), images, settings=settings, batch=4)
    assert any(expected.pieces)
    with pretended_gpu():
        on_gpu = FAMILIES["mobilenet"]().to("cuda")
        for given in (images, images.to("cuda")):
            found = find_evidence(on_gpu, given, settings=settings, batch=4, precision="float32")
            assert found.masks(2).device.type == found.targets.device.type == "cuda"
            assert torch.equal(found.masks(2).cpu(), expected.masks(2))
            assert found.status == expected.status
            assert found.passes == expected.passes
            assert [[piece.as_dict() for piece in pieces] for pieces in found.pieces] == [
                [piece.as_dict() for piece in pieces] for pieces in expected.pieces
            ]


def test_bfloat16_the_default_on_a_gpu_trains_the_masks_alone() -> None:
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    with pretended_gpu():
        found = find_evidence(FAMILIES["mobilenet"]().to("cuda"), images, settings=SETTINGS)
        with_float32 = find_evidence(FAMILIES["mobilenet"]().to("cuda"), images, settings=SETTINGS, precision="float32")
    assert found.scores == with_float32.scores, "sets are tried in float32 whatever the masks are trained in"
    assert all(piece.sufficiency >= SETTINGS.kept for pieces in found.pieces for piece in pieces)
