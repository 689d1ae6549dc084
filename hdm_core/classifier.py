"""A torch model made ready to be explained: preprocessing, targets, and contexts that hand the model back as it was."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from hdm_core.checkpoint import load_checkpoint
from hdm_core.folding import fold
from hdm_core.preprocess import Preprocess
from hdm_core.weights import load_state


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

    @classmethod
    def from_checkpoint(cls, folder: str | Path) -> Classifier:
        """A trained classifier from its folder, on the CPU: `model.safetensors` and `card.json`.

        Raises:
            OSError: if a file is missing or cannot be read.
            ValueError: if a file is damaged, or the weights are not those of the card's network and classes.
        """
        module, card = load_checkpoint(folder)
        return cls(module, card.preprocess, card.classes, f"{card.arch} {Path(folder).name}")

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are; the CPU if it has none."""
        return next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype | None:
        """What the network's parameters are made of; None if it has none."""
        return next((tensor.dtype for tensor in self.module.parameters()), None)

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
            yield fold(network, images)


def _with_weights(arch: str, weights: WeightsEnum) -> dict[str, object]:
    """What torchvision's builders change about a network, beside its classes, when they load weights into it."""
    if arch in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False}
    if arch.startswith("vit_"):
        return {"image_size": weights.meta["min_size"][0]}
    return {}
