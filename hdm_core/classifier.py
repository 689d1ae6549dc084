"""`Classifier`: a torch network with what its explanations need."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from hdm_core.network.folding import fold
from hdm_core.preprocess import Preprocess
from hdm_core.sources.checkpoint import build, check_arch, load_checkpoint
from hdm_core.sources.exported import load_exported
from hdm_core.sources.state_dict import Classes, fit_state, read_classes, read_state
from hdm_core.sources.timm import build_timm
from hdm_core.sources.torchvision import builder_options, find_weights, load_state


class Classifier:
    """Any `torch.nn.Module` from images (B, C, H, W) to logits (B, classes).

    Attributes:
        module: the network, never changed for longer than a context lasts.
        preprocess: photograph -> (C, H, W); None if the caller prepares tensors.
        class_names: a name for every class, or None.
        name: for records and reports.

    Example:
        >>> from PIL import Image
        >>> from hdm_core import Classifier, explain
        >>> classifier = Classifier.from_torchvision("squeezenet1_1")  # random weights; for trained ones weights="IMAGENET1K_V1"
        >>> images = classifier.prepare([Image.new("RGB", (320, 240), "orange")])
        >>> explain(classifier, images, "gradient", target=207).maps.shape
        torch.Size([1, 224, 224])
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
        """Wrap a network as it is, on the device where it is."""
        return cls(module, preprocess, class_names)

    @classmethod
    def from_torchvision(cls, arch: str, weights: str | None = None, preprocess: Preprocess | None = None, seed: int = 0) -> Classifier:
        """Build a torchvision classification network by name, on the CPU.

        Args:
            arch: such as "resnet50".
            weights: an entry of its weights such as "IMAGENET1K_V2" or "DEFAULT"; None gives random weights from `seed`.
            preprocess: replaces the one that the weights were evaluated with.

        Raises:
            ValueError: if there is no such network, or no such weights for it.
        """
        check_arch(arch)
        if weights is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                module = torchvision.models.get_model(arch, weights=None)
            return cls(module, preprocess or Preprocess(), name=arch)
        entry = find_weights(arch, weights)
        module = torchvision.models.get_model(arch, weights=None, **builder_options(arch, entry))
        module.load_state_dict(load_state(entry))
        return cls(module, preprocess or Preprocess.from_weights(entry.transforms()), entry.meta["categories"], f"{arch} {weights}")

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, arch: str | None = None, classes: Classes | None = None, preprocess: Preprocess | None = None
    ) -> Classifier:
        """Load a trained classifier on the CPU.

        No code of its file runs: nothing is unpickled but tensors.

        Args:
            path: a folder with `model.safetensors` and `card.json`; or, with `arch` and `classes`, a state dict as .safetensors or
                as `torch.save` wrote it, also in {"state_dict": ...} or {"model": ...} and with names that begin with `module.`.
            arch: a torchvision classification network.
            classes: their names or their number, or a text file with one name per line.
            preprocess: replaces the card's; of a state dict the default is that of most ImageNet weights.

        Raises:
            OSError: if a file is missing or cannot be read.
            ValueError: if a file is damaged, or the weights are not those of the network with these classes.
        """
        if (arch is None) != (classes is None):
            raise ValueError("arch and classes belong together: a state dict needs both, a trained folder has both in its card")
        if arch is None or classes is None:
            if Path(path).is_file():
                raise ValueError(f"{path} is a file of weights: give its arch and classes as well; or give the folder that holds card.json")
            module, card = load_checkpoint(path)
            return cls(module, preprocess or card.preprocess, card.classes, f"{card.arch} {Path(path).name}")
        if Path(path).is_dir():
            raise ValueError(f"{path} is a folder, whose card has arch and classes: leave them out, or give the file of weights")
        known = read_classes(classes)
        count = known if isinstance(known, int) else len(known)
        module = build(arch, count)
        fit_state(module, read_state(path), path, f"{arch} with {count} classes")
        return cls(module, preprocess or Preprocess(), None if isinstance(known, int) else known, f"{arch} {Path(path).name}")

    @classmethod
    def from_exported(cls, path: str | Path, preprocess: Preprocess | None = None, class_names: Sequence[str] | None = None) -> Classifier:
        """Load a program that `torch.export.save` wrote, on the CPU.

        Loading a program can run code: load only files of people whose code you would run. A program has operations and no layers:
        the CAM family and FullGrad refuse it, all other methods explain it.

        Args:
            path: a .pt2 file, exported in evaluation mode and for any number of images.
            preprocess: by default that of most ImageNet weights, cropped to the size that the program takes.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is no such file, or the program's input is not any number of square images and nothing else.
        """
        module = load_exported(path)
        if preprocess is None:
            preprocess = Preprocess() if module.side is None else Preprocess.of_side(module.side)
        return cls(module, preprocess, class_names, Path(path).name)

    @classmethod
    def from_timm(
        cls,
        arch: str,
        weights: str | None = None,
        path: str | Path | None = None,
        classes: Classes | None = None,
        preprocess: Preprocess | None = None,
        seed: int = 0,
    ) -> Classifier:
        """Build a network of timm by name, on the CPU; timm comes with the extra `timm`.

        Args:
            arch: such as "vit_tiny_patch16_224".
            weights: a tag of its pretrained weights such as "augreg_in21k_ft_in1k", or "DEFAULT", which timm downloads.
            path: a state dict of your own instead, as in `from_checkpoint`; without both the weights are random, from `seed`.
            classes: their names or their number, or a text file with one name per line; by default the network's own number.
            preprocess: replaces the one of the network's configuration in timm.

        Raises:
            ImportError: if timm is not installed.
            OSError: if the weights cannot be downloaded or read.
            ValueError: if there is no such network or tag, or the weights are not those of the network with these classes.
        """
        known = None if classes is None else read_classes(classes)
        count = len(known) if isinstance(known, tuple) else known
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module, configured = build_timm(arch, weights, count)
        if path is not None:
            fit_state(module, read_state(path), path, arch if count is None else f"{arch} with {count} classes")
        name = " ".join([arch, *([Path(path).name] if path else [weights] if weights else [])])
        return cls(module, preprocess or configured, known if isinstance(known, tuple) else None, name)

    @property
    def device(self) -> torch.device:
        """Device of the network's parameters; the CPU if it has none."""
        return next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype | None:
        """Data type of the network's parameters; None if it has none."""
        return next((tensor.dtype for tensor in self.module.parameters()), None)

    def to(self, device: torch.device | str) -> Classifier:
        """Move the network and return self."""
        self.module.to(device)
        return self

    def prepare(self, images: Sequence[Image.Image]) -> Tensor:
        """Preprocess photographs to (B, C, H, W) on the network's device.

        Raises:
            ValueError: if the classifier was made without a preprocess.
        """
        if self.preprocess is None:
            raise ValueError("this classifier has no preprocess: give one to from_module, or pass tensors")
        return torch.stack([self.preprocess(image.convert("RGB")) for image in images]).to(self.device)

    def class_name(self, target: int) -> str:
        """Return the class's name, or its number where names are unknown."""
        return str(target) if self.class_names is None else self.class_names[target]

    def weights_digest(self) -> str:
        """Return a sha256 over name, shape, type and bytes of all parameters and buffers."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """Yield the network in evaluation mode with no gradient to its weights.

        Parts compiled by `torch.compile` run in Python meanwhile, as compiled code calls no hooks. Modes and flags are restored, also
        after an exception.
        """
        # A part that torch.jit.freeze made has no mode: it stays in the one in which it was frozen.
        modes = [(module, module.training) for module in self.module.modules() if hasattr(module, "training")]
        flags = [(parameter, parameter.requires_grad) for parameter in self.module.parameters()]
        try:
            self.module.eval()
            for parameter, _ in flags:
                parameter.requires_grad_(False)
            with _run_eagerly():
                yield self.module
        finally:
            for module, training in modes:
                module.training = training
            for parameter, required in flags:
                parameter.requires_grad_(required)

    @contextmanager
    def folded(self, images: Tensor) -> Iterator[nn.Module]:
        """Yield a faster copy of the network, frozen as by `frozen`.

        Batch normalisation is folded into the convolutions, and the layout is channels last. A network that torch.fx cannot trace,
        or whose copy gives other logits for `images` (B, C, H, W), is used unfolded.
        """
        with self.frozen() as network:
            yield fold(network, images)


def _run_eagerly() -> AbstractContextManager[None]:
    """Return a context in which nothing compiled by `torch.compile` runs.

    It imports the compiler, which takes a second, unless nothing can be compiled because no one else has.
    """
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def as_classifier(model: Classifier | nn.Module) -> Classifier:
    """Return a classifier as it is, and a plain network wrapped."""
    if isinstance(model, nn.Module):
        return Classifier.from_module(model)
    if not isinstance(model, Classifier):
        raise TypeError(f"the classifier must be a hdm_core.Classifier or a torch.nn.Module, not a {type(model).__name__}")
    return model
