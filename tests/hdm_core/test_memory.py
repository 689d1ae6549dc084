"""Memory of methods: live tensors counted by hand, and linear in the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hdm_core import Classifier, Preprocess, free_memory, get_method
from hdm_core.memory import LiveBytes, forward_bytes, forward_memory, method_memory

SIDE = 16


def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier.from_module(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    )


def test_live_bytes_are_those_of_tensors_that_are_not_freed() -> None:
    with LiveBytes() as live:
        kept = torch.ones(1000)
        for _ in range(3):
            _ = torch.ones(500)
        view = kept.view(10, 100)
        view += 1
    assert live.peak in (4 * 1500, 4 * 2000), "the next tensor may be made before the last one is freed; a view takes nothing"


def test_memory_grows_with_the_batch_and_a_forward_pass_is_counted_without_being_made() -> None:
    one = classifier()
    activation = 4 * 8 * SIDE**2  # of one image
    forward = forward_memory(one, (SIDE, SIDE))
    assert 2 * activation <= forward.per_image <= 2 * activation + 4 * 3 * SIDE**2 + 1000, "convolution and ReLU, and the image"
    assert forward.at(5) == forward.fixed + 5 * forward.per_image
    counted = forward_bytes(one, (SIDE, SIDE))
    assert counted is not None
    assert 2 * activation <= counted <= 2 * activation + 4 * 3 * SIDE**2 + 1000
    needs = {name: method_memory(one, (SIDE, SIDE), name, get_method(name).configure(None)) for name in ("gradient", "grad_cam")}
    assert all(need.per_image >= activation for need in needs.values())


def test_a_containers_file_cache_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "_CGROUP", tmp_path)
    for name, text in (("max", "1000\n"), ("current", "900\n"), ("stat", "anon 300\ninactive_file 450\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_memory.available_memory() == 550
    (tmp_path / "memory.max").write_text("max\n")
    assert (free_memory.available_memory() or 0) > 1000


def test_a_network_that_keeps_what_it_computed_keeps_no_tensor_without_values() -> None:
    class Keeps(nn.Module):
        kept: torch.Tensor | None = None

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.kept = images.mean((2, 3)) if self.kept is None else self.kept
            return self.kept

    network = Keeps().eval()
    assert forward_bytes(Classifier.from_module(network, Preprocess(resize=8, crop=8)), (8, 8))
    assert network.kept is None
