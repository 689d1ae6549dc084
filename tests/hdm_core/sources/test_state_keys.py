"""Keys of state dicts: prefixes that wrappers leave are removed, the network's own stay, and what cannot be known is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hdm_core import Classifier
from hdm_core.sources.state_dict import fit_state, read_state
from hdm_core.sources.state_keys import match_keys

ARCH = "squeezenet1_1"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return torchvision.models.get_model(ARCH, weights=None, num_classes=3).eval()


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + key: value for key, value in state.items()}


def inside(part: str) -> Callable[[State], State]:
    return lambda state: {key.replace("features.", f"features.{part}."): value for key, value in state.items()}


COUNTER = {"n_averaged": torch.tensor(5)}
SAVED: dict[str, Callable[[State], Any]] = {
    **{
        prefix: prefixed(prefix)
        for prefix in (
            "module.",
            "_orig_mod.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "model.",
            "net.",
            "network.",
            "backbone.",
            "model.module.",
            "model._orig_mod.module.",
            "my_classifier.",
            "_fsdp_wrapped_module.",
        )
    },
    "compiled part": inside("_orig_mod"),
    "compiled part of Lightning": lambda state: {"state_dict": prefixed("model.")(inside("_orig_mod")(state))},
    "checkpointed part": inside("_checkpoint_wrapped_module"),
    "Lightning": lambda state: {"state_dict": prefixed("model.")(state), "epoch": 3},
    "Lightning with a loss": lambda state: {"state_dict": {**prefixed("model.")(state), "criterion.weight": torch.ones(3)}},
    "AveragedModel": lambda state: {**COUNTER, **prefixed("module.")(state)},
    "DDP of AveragedModel": lambda state: prefixed("module.")({**COUNTER, **prefixed("module.")(state)}),
    "AveragedModel of DDP": lambda state: {**COUNTER, **prefixed("module.module.")(state)},
    "AveragedModel of Lightning": lambda state: {"state_dict": {**COUNTER, **prefixed("module.model.")(state)}},
    "counter alone": lambda state: {**COUNTER, **state},
    "state_dict_ema": lambda state: {"state_dict_ema": state},
    "model_ema": lambda state: {"model_ema": {**COUNTER, **prefixed("module.")(state)}, "epoch": 1},
    "DeepSpeed": lambda state: {"module": state},
    "nested": lambda state: {"state_dict": {"model": state}},
}


@pytest.mark.parametrize("name", SAVED)
def test_prefixes_and_keys_of_wrappers_are_removed(network: nn.Module, tmp_path: Path, name: str) -> None:
    torch.save(SAVED[name](network.state_dict()), tmp_path / "mine.pth")
    found = Classifier.from_checkpoint(tmp_path / "mine.pth", ARCH, 3)
    assert found.weights_digest() == Classifier.from_module(network).weights_digest()


def test_what_torchs_own_wrappers_save_is_read(network: nn.Module, tmp_path: Path) -> None:
    wrapped = (nn.DataParallel(network), torch.compile(network), AveragedModel(network), AveragedModel(torch.compile(network)))
    for number, module in enumerate(wrapped):
        torch.save(module.state_dict(), tmp_path / f"{number}.pth")
        found = Classifier.from_checkpoint(tmp_path / f"{number}.pth", ARCH, 3)
        assert found.weights_digest() == Classifier.from_module(network).weights_digest()


class Wrapped(nn.Module):
    """Network whose own names begin with `model.`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.model = inner


def test_a_prefix_of_the_networks_own_stays() -> None:
    own = Wrapped(nn.Linear(2, 3)).state_dict()
    assert match_keys(own, own).keys() == own.keys()
    assert match_keys(prefixed("module.")(own), own).keys() == own.keys()
    assert match_keys(prefixed("model.")(own), own).keys() == own.keys()
    module = Wrapped(Wrapped(nn.Linear(2, 3)))
    with pytest.raises(ValueError, match=r"missing model\.model\.weight, model\.model\.bias; unexpected"):
        fit_state(module, own, "mine.pth", "toy")
    assert match_keys({"module.weight": torch.ones(1)}, {"module.weight"}).keys() == {"module.weight"}
    assert match_keys({"n_averaged": torch.ones(1)}, {"n_averaged"}).keys() == {"n_averaged"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: {**prefixed("student.")(state), **prefixed("teacher.")(state)}, ["prefix 'student.' or 'teacher.'"]),
        (lambda state: {**prefixed("model.")(state), **prefixed("ema_model.module.")(state)}, ["'model.'", "'ema_model.module.'"]),
        (lambda state: {**prefixed("model.")(state), "temperature.weight": torch.ones(1)}, ["unexpected", "prefix 'model.'"]),
        (prefixed("1."), ["prefix '1.'"]),
        (prefixed("net.1."), ["prefix 'net.1.'"]),
        (lambda state: {**prefixed("backbone.")(state), "head.weight": torch.ones(1)}, ["prefix 'backbone.'"]),
        (lambda state: {"model.classifier.1.bias": state["classifier.1.bias"]}, ["missing features.0.weight"]),
    ],
)
def test_prefixes_that_leave_a_choice_are_named(network: nn.Module, change: Callable[[State], State], words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        fit_state(torchvision.models.get_model(ARCH, num_classes=3), change(network.state_dict()), "mine.pth", ARCH)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_weights_and_their_average_are_two_networks(network: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    for plain, average in (("model", "model_ema"), ("state_dict", "state_dict_ema")):
        torch.save({plain: state, average: {**COUNTER, **prefixed("module.")(state)}}, tmp_path / "mine.pth")
        with pytest.raises(ValueError, match=f"holds two networks, '{plain}' and '{average}': save"):
            read_state(tmp_path / "mine.pth")


def test_counters_that_old_files_lack_do_not_matter(tmp_path: Path) -> None:
    network = torchvision.models.mnasnet0_5(num_classes=2).eval()
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "mine.pth")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = Classifier.from_checkpoint(tmp_path / "mine.pth", "mnasnet0_5", 2).module(images)
        assert torch.equal(found, network(images))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(2, 2, device="meta"), r"is without values"),
        (torch.eye(2).to_sparse(), "is sparse"),
        (torch.zeros(2, 2, dtype=torch.complex64), r"is torch\.complex64 and should be torch\.float32"),
        (torch.zeros(2, 2, dtype=torch.int8), r"is torch\.int8 and should be torch\.float32"),
    ],
    ids=["meta", "sparse", "complex", "int8"],
)
def test_tensors_that_hold_no_plain_numbers_are_refused(value: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=rf"mine\.pth does not hold the weights of toy: weight {words}"):
        fit_state(nn.Linear(2, 2, bias=False), {"weight": value}, "mine.pth", "toy")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_converted(dtype: torch.dtype) -> None:
    network = nn.Linear(2, 2, bias=False)
    fit_state(network, {"weight": torch.eye(2, dtype=dtype)}, "mine.pth", "toy")
    assert torch.equal(network.weight.detach(), torch.eye(2))
