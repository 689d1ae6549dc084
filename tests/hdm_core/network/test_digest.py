"""Digest of any state dict: the same in every process, different for different values, one line where there is none."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hdm_core.network.digest import state_digest
from tests.support.paths import ROOT


class Extra(nn.Module):
    """Network with an extra state."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def get_extra_state(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def set_extra_state(self, state: Any) -> None:
        self.value = state


def digest(value: Any) -> str:
    return state_digest(Extra(value))


def test_the_digest_of_tensors_does_not_change() -> None:
    network = nn.Module()
    network.register_buffer("a", torch.arange(6, dtype=torch.float32).reshape(2, 3))
    network.register_buffer("b", torch.zeros(0, 3, dtype=torch.int64))
    network.register_buffer("c", torch.tensor([True, False]))
    network.register_buffer("d", torch.tensor(1.5, dtype=torch.bfloat16))
    # As version 0.1.0 computed it: runs are resumed and compared by it.
    assert state_digest(network) == "92ce9ea1def0f34f85c9ca845aa53615e14a99956031108883738135b91dc2f3"


DIFFERENT: tuple[Any, ...] = (
    None,
    True,
    1,
    1.0,
    2.0,
    1j,
    "1",
    b"1",
    [],
    [1],
    [1, 2],
    [2, 1],
    [[1], 2],
    {},
    {"a": 1},
    {"a": 2},
    {"a": {"b": 1}},
    {1: "a"},
    set(),
    {"a", "b"},
    {1, 2},
    torch.float32,
    torch.device("cpu"),
    np.arange(2),
    np.arange(2, dtype=np.int32),
    np.float32(1),
    torch.zeros(2),
    torch.zeros(1, 2),
    torch.zeros(2, dtype=torch.float64),
    torch.zeros(2, dtype=torch.complex64),
    torch.zeros(2, dtype=torch.float8_e4m3fn),
    torch.zeros(4)[::2] + 1,
    torch.eye(2).to_sparse(),
    torch.eye(2).to_sparse() * 2,
    [torch.zeros(2), {"a": {"b", "c"}}],
)


def test_different_states_have_different_digests_and_equal_ones_the_same() -> None:
    found = [digest(value) for value in DIFFERENT]
    assert len(set(found)) == len(DIFFERENT)
    assert found == [digest(value) for value in DIFFERENT]


def test_the_order_in_which_it_was_filled_does_not_matter() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({3, 1, 2}) == digest({2, 3, 1})
    assert digest((1, 2)) == digest([1, 2])


def test_the_layout_in_memory_does_not_matter() -> None:
    values = torch.randn(3, 4)
    assert digest(values) == digest(values.t().contiguous().t()) == digest(torch.stack([values, values], 2)[..., 0])
    turned = torch.randn(3, dtype=torch.complex64)
    assert digest(turned.conj()) == digest(turned.conj().resolve_conj()) != digest(turned)


def test_a_set_of_texts_has_one_digest_in_every_process() -> None:
    texts = {*"abcdefgh", ("d", None)}
    code = f"from tests.hdm_core.network.test_digest import digest; print(digest({texts!r}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": "5"}, capture_output=True, text=True, check=True)
    assert run.stdout == digest(texts) + "\n"


@pytest.mark.filterwarnings("ignore")  # torch deprecates its quantised tensors
def test_quantised_networks() -> None:
    def quantised(kind: type[nn.Module], seed: int) -> nn.Module:
        torch.manual_seed(seed)
        made: nn.Module = torch.ao.quantization.quantize_dynamic(nn.Sequential(kind(4, 2)).eval(), {kind})
        return made

    for kind in (nn.Linear, nn.LSTM):
        one, again, other = (state_digest(quantised(kind, seed)) for seed in (0, 0, 1))
        assert one == again != other
    channels = torch.quantize_per_channel(torch.eye(2), torch.tensor([0.1, 0.2]), torch.tensor([0, 0]), 0, torch.qint8)
    assert digest(channels) == digest(channels.clone()) != digest(torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8))


def test_tied_and_parametrised_weights() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    assert state_digest(network) == state_digest(network)
    normalised = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    before = state_digest(normalised)
    with torch.no_grad():
        normalised.parametrizations.weight.original0.add_(1)
    assert state_digest(normalised) != before


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "an object of type object has no fixed bytes; let get_extra_state return numbers"),
        ({"a": [len]}, "builtin_function_or_method"),
        (np.array([object()], dtype=object), "an object of type object"),
        (torch.zeros(2, device="meta"), "on the device meta and has no values"),
        (CYCLE, "it contains itself"),
        (RuntimeError("no\nstate"), r"state_dict\(\) raises RuntimeError: no state"),
    ],
    ids=["object", "function", "array of objects", "meta", "cycle", "raises"],
)
def test_a_state_without_a_digest_is_one_line(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        digest(value)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


def test_a_lazy_network_is_one_line() -> None:
    with pytest.raises(ValueError, match="a lazy parameter without a shape; run the network once before"):
        state_digest(nn.LazyLinear(2))
