"""Planted pieces, their networks and the comparison on the pretended GPU."""

from __future__ import annotations

import pytest
import torch

from benchmarks.planted import piece_data
from benchmarks.planted.candidates import REFERENCE, Candidate
from benchmarks.planted.hierarchy import SCORES, bench_hierarchy
from benchmarks.planted.piece_data import make_piece_data
from benchmarks.planted.piece_networks import ARCHITECTURES, Architecture, train_piece_network
from benchmarks.planted.pieces import EVERY_KIND, PieceImages, draw_pieces
from hdm_core.device import pick_device
from tests.support.pretended_gpu import pretended_gpu


def test_pieces_are_the_same_on_the_gpu() -> None:
    with pretended_gpu():
        for kind in EVERY_KIND:
            one, other = (draw_pieces(kind, 3, torch.Generator().manual_seed(0), torch.device(device)) for device in ("cpu", "cuda"))
            for name in vars(one):
                assert getattr(other, name).device.type == "cuda"
                assert torch.equal(getattr(one, name), getattr(other, name).cpu())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_network_is_trained_and_explained_on_the_gpu(architecture: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_follow(model: torch.nn.Module, planted: PieceImages) -> torch.Tensor:
        return follows_rule(model, planted) | True

    follows_rule = piece_data.follows_rule
    monkeypatch.setattr(piece_data, "follows_rule", all_follow)
    monkeypatch.setattr(piece_data, "_HELD_OUT", 4)
    small = {"sizes": (4,), "max_size": 4, "steps": 1, "ensemble": (), "calibration": ()}
    selected = [Candidate(REFERENCE, "hdm", "faithful", small), Candidate("grad_cam", "grad_cam")]
    with pretended_gpu():
        device = pick_device(1)
        assert device.type == "cuda"
        data = make_piece_data(architecture, 0, 2, device, steps=1)
        assert {data.images.device.type, next(data.model.parameters()).device.type} == {"cuda"}
        result = bench_hierarchy([lambda: data], selected, "hard", device)
        again = train_piece_network(architecture, 0, device, steps=1)
        assert all(torch.equal(one, other) for one, other in zip(data.model.parameters(), again.parameters(), strict=True))
    assert len(result.rows) == 4
    assert all(set(row.means) == set(SCORES) for row in result.rows)
