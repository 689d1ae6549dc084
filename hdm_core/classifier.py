"""A torch model made ready to be explained: preprocessing, targets, and contexts that hand the model back as it was."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision.models import WeightsEnum

from hdm_core.preprocess import Preprocess
from hdm_core.weights import load_state

Targets = int | Sequence[int] | Tensor | None


def default_batch(device: torch.device) -> int:
    """How many images go through a network at once unless the caller says so: what measured fastest on a CPU, what fills a GPU."""
    return 64 if device.type == "cuda" else 8


class Classifier:
    """Any `torch.nn.Module` that maps images (B, C, H, W) to logits (B, classes), with what an explanation needs beside it.

    Attributes:
        module: the network, never changed for longer than a context lasts.
        preprocess: photograph -> (C, H, W); None if the caller prepares tensors.
        class_names: a name for every class, or None.
        name: for records and reports.
    """

    def __init__(
        self,
        module: nn.Module,
        preprocess: Preprocess | None = None,
        class_names: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        self.module = module
        self.preprocess = preprocess
        self.class_names = None if class_names is None else tuple(class_names)
        self.name = name or type(module).__name__

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        preprocess: Preprocess | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Classifier:
        """Takes a network as it is, on the device where it is."""
        return cls(module, preprocess, class_names)

    @classmethod
    def from_torchvision(cls, arch: str, weights: str | None = None, preprocess: Preprocess | None = None, seed: int = 0) -> Classifier:
        """A torchvision classification network by name, on the CPU.

        Args:
            arch: such as "resnet50".
            weights: an entry of its weights such as "IMAGENET1K_V2" or "DEFAULT"; None gives random weights from `seed`.
            preprocess: instead of the one that the weights were evaluated with.

        Raises:
            ValueError: if there is no such network, or no such weights for it.
        """
        networks = torchvision.models.list_models(module=torchvision.models)
        if arch not in networks:
            close = difflib.get_close_matches(arch, networks, n=5, cutoff=0)
            raise ValueError(f"torchvision has no classification network {arch!r}: choose from {', '.join(close)} or another of its names")
        if weights is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                module = torchvision.models.get_model(arch, weights=None)
            return cls(module, preprocess or Preprocess(), name=arch)
        available = torchvision.models.get_model_weights(arch)
        if weights != "DEFAULT" and weights not in available.__members__:
            raise ValueError(f"{arch} has no weights {weights!r}: choose from {', '.join(available.__members__)}")
        entry = available[weights]
        module = torchvision.models.get_model(arch, weights=None, **_with_weights(arch, entry))
        module.load_state_dict(load_state(entry))
        return cls(module, preprocess or Preprocess.from_weights(entry.transforms()), entry.meta["categories"], f"{arch} {weights}")

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are; the CPU if it has none."""
        return next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))

    def to(self, device: torch.device | str) -> Classifier:
        """Moves the network and returns self."""
        self.module.to(device)
        return self

    def prepare(self, images: Sequence[Image.Image]) -> Tensor:
        """Photographs -> (B, C, H, W) on the network's device.

        Raises:
            ValueError: if the classifier was made without a preprocess.
        """
        if self.preprocess is None:
            raise ValueError("this classifier has no preprocess: give one to from_module, or pass tensors")
        return torch.stack([self.preprocess(image.convert("RGB")) for image in images]).to(self.device)

    def class_name(self, target: int) -> str:
        """The class's name, or its number where names are unknown."""
        return str(target) if self.class_names is None else self.class_names[target]

    def fingerprint(self) -> str:
        """sha256 over the name, shape, type and bytes of every parameter and buffer: the same weights give the same text."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """The network in evaluation mode with no gradient to its weights; modes and flags are restored, also after an exception."""
        modes = [(module, module.training) for module in self.module.modules()]
        flags = [(parameter, parameter.requires_grad) for parameter in self.module.parameters()]
        try:
            self.module.eval()
            for parameter, _ in flags:
                parameter.requires_grad_(False)
            yield self.module
        finally:
            for module, training in modes:
                module.training = training
            for parameter, required in flags:
                parameter.requires_grad_(required)

    @contextmanager
    def folded(self, images: Tensor) -> Iterator[nn.Module]:
        """As `frozen`, but a copy with batch normalisation folded into the convolutions and channels last, which is faster.

        A network that torch.fx cannot trace, or whose copy answers differently on `images` (B, C, H, W), is used unfolded.
        """
        with self.frozen() as network:
            yield _fold(network, images)


def _with_weights(arch: str, weights: WeightsEnum) -> dict[str, object]:
    """What torchvision's builders change about a network, beside its classes, when they load weights into it."""
    if arch in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False}
    if arch.startswith("vit_"):
        return {"image_size": weights.meta["min_size"][0]}
    return {}


def _fold(network: nn.Module, images: Tensor) -> nn.Module:
    try:
        copy = fuse(network)
    except Exception:  # tracing runs the user's forward on symbols: whatever it raises means "not traceable"
        return network
    copy = copy.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    probe = images.nan_to_num(0, 0, 0)  # on NaN every copy would seem the same
    with torch.no_grad():
        same = torch.allclose(class_logits(copy, probe), class_logits(network, probe), rtol=1e-3, atol=1e-3, equal_nan=True)
    return copy if same else network


def class_logits(network: Callable[[Tensor], object], images: Tensor) -> Tensor:
    """The network's answer for a batch, checked to be (B, classes).

    Raises:
        TypeError: if the network does not return one tensor of that shape.
    """
    logits = network(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != images.shape[0]:
        found = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise TypeError(f"the network must return logits (B, classes) for images {tuple(images.shape)}; it returned {found}")
    return logits


def resolve_targets(logits: Tensor, targets: Targets) -> Tensor:
    """The class to explain for every image, (B,) int64: the argmax of the logits (B, classes) unless given.

    Raises:
        ValueError: if the number of targets is not the number of images, or one is no class of the network.
        TypeError: if targets are not integers.
    """
    if targets is None:
        return logits.argmax(1)
    batch, classes = logits.shape
    given = torch.as_tensor([targets] * batch if isinstance(targets, int) else targets)
    if given.is_floating_point() or given.dtype == torch.bool:
        raise TypeError(f"targets must be integers, not {given.dtype}")
    if given.shape != (batch,):
        raise ValueError(f"{batch} images need {batch} targets; the targets given have shape {tuple(given.shape)}")
    wrong = given[(given < 0) | (given >= classes)]
    if wrong.numel():
        raise ValueError(f"target {int(wrong[0])} is no class of this network: it has {classes}, numbered from 0")
    return given.to(logits.device, torch.int64)
