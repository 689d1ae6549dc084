"""`Classifier`: a torch network with what its explanations need."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hdm_core.class_names import as_names
from hdm_core.device import Precision, float32_arithmetic
from hdm_core.network.contrasts import Contrasts
from hdm_core.network.digest import state_digest
from hdm_core.network.folding import fold_network
from hdm_core.network.outputs import OutputKey, SelectedOutput
from hdm_core.network.wrappers import inner_network, run_eagerly, unwrap
from hdm_core.network.yes_no import YesNo
from hdm_core.photograph import Photograph
from hdm_core.preprocess import Preprocess
from hdm_core.problem_type import ProblemType, answer_names, check_problem_type, load_with_logits, probabilities
from hdm_core.sources.checkpoint import check_arch, load_checkpoint, load_state_dict
from hdm_core.sources.exported import load_exported
from hdm_core.sources.paths import local_path
from hdm_core.sources.state_dict import Classes, read_classes
from hdm_core.sources.timm import build_timm, load_timm
from hdm_core.sources.torchvision import build_pretrained
from hdm_core.sources.transformers import load_transformers


class Classifier:
    """Any `torch.nn.Module` from images (B, C, H, W) to logits (B, classes).

    Attributes:
        module: the network, never changed for longer than a context lasts. The wrappers of DataParallel, DistributedDataParallel,
            torch.compile and AveragedModel are removed: it is the network inside, with the same parameters. With `output` it returns that
            output alone, and of a yes/no network it has two logits, see `problem_type`.
        preprocess: photograph -> (C, H, W); None if the caller prepares tensors.
        class_names: a name for every class, or None.
        name: for records and reports.
        output: key, attribute, index or dotted path of the logits in the network's output; None where it returns the logits, or a tuple,
            list, dict or `ModelOutput` in which one tensor alone can be them.
        problem_type: the meaning of the logits. "single_label_classification": classes that exclude each other (softmax);
            "multi_label_classification": labels of their own (a sigmoid each), and a single logit z is a yes/no answer, which is explained
            as two classes: 0 is no, with the logit -z, and 1 is yes, with z; "regression": numbers, no probabilities.

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
        output: OutputKey | None = None,
        problem_type: ProblemType = "single_label_classification",
    ) -> None:
        check_problem_type(problem_type)
        network = unwrap(module)
        self.module: nn.Module = _wrapped(network, output, problem_type)
        self.preprocess = preprocess
        self.output = output
        self.problem_type: ProblemType = problem_type
        self.class_names = answer_names(None if class_names is None else as_names(class_names), problem_type)
        self.name = name or type(network).__name__

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        preprocess: Preprocess | None = None,
        class_names: Sequence[str] | None = None,
        output: OutputKey | None = None,
        problem_type: ProblemType = "single_label_classification",
    ) -> Classifier:
        """Make a classifier of a network as it is, in its mode and on its device."""
        return cls(module, preprocess, class_names, output=output, problem_type=problem_type)

    @classmethod
    def from_torchvision(
        cls,
        arch: str,
        weights: str | None = None,
        preprocess: Preprocess | None = None,
        seed: int = 0,
        output: OutputKey | None = None,
        problem_type: ProblemType = "single_label_classification",
    ) -> Classifier:
        """Build a torchvision classification network, in evaluation mode on the CPU.

        Args:
            arch: such as "resnet50".
            weights: an entry of its weights such as "IMAGENET1K_V2" or "DEFAULT"; None gives random weights from `seed`.
            preprocess: replaces the one that the weights were evaluated with.

        Raises:
            ValueError: if there is no such network, or no such weights for it.
        """
        check_arch(arch)
        module, entry = build_pretrained(arch, weights, seed)
        if entry is None:
            return cls(module, preprocess or Preprocess(), name=arch, output=output, problem_type=problem_type)
        preprocess = preprocess or Preprocess.from_weights(entry.transforms())
        return cls(module, preprocess, entry.meta["categories"], f"{arch} {weights}", output, problem_type)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        arch: str | None = None,
        classes: Classes | None = None,
        preprocess: Preprocess | None = None,
        arguments: Mapping[str, Any] | None = None,
        output: OutputKey | None = None,
        problem_type: ProblemType = "single_label_classification",
    ) -> Classifier:
        """Load a trained classifier, in evaluation mode on the CPU; only tensors are read.

        Args:
            path: a folder with `model.safetensors` and `card.json`; or, with `arch` and `classes`, a state dict as .safetensors or
                as `torch.save` wrote it, also in {"state_dict": ...} or {"model": ...} and with the prefixes that wrappers add.
            arch: a torchvision classification network.
            classes: their names or their number, or a text file with one name per line.
            preprocess: replaces the card's; of a state dict the default is that of most ImageNet weights.
            arguments: of the network's builder, where they are not those of torchvision's pretrained network, such as
                {"transform_input": False} of an Inception that was trained from random weights.

        Raises:
            OSError: if a file is missing or cannot be read.
            ValueError: if a file is damaged, or the weights are not those of the network with these classes.
        """
        if (arch is None) != (classes is None):
            raise ValueError("arch and classes belong together: a state dict needs both, a trained folder has both in its card")
        path = local_path(path)
        if arch is None or classes is None:
            if path.is_file():
                raise ValueError(f"{path} is a file of weights: give its arch and classes as well; or give the folder that holds card.json")
            if arguments:
                raise ValueError("arguments are for the builder of a state dict's arch: a trained folder has its own in its card")
            module, card = load_checkpoint(path)
            return cls(module, preprocess or card.preprocess, card.classes, f"{card.arch} {path.name}", output, problem_type)
        if path.is_dir():
            raise ValueError(f"{path} is a folder, whose card has arch and classes: leave them out, or give the file of weights")
        known = read_classes(classes)
        module = load_with_logits(lambda count: load_state_dict(path, arch, count, arguments), known, problem_type)
        preprocess = preprocess or Preprocess.of_side(getattr(module, "image_size", 224))  # a transformer takes one size
        return cls(module, preprocess, None if isinstance(known, int) else known, f"{arch} {path.name}", output, problem_type)

    @classmethod
    def from_exported(
        cls,
        path: str | Path,
        preprocess: Preprocess | None = None,
        class_names: Sequence[str] | None = None,
        output: OutputKey | None = None,
        problem_type: ProblemType = "single_label_classification",
    ) -> Classifier:
        """Load a program that `torch.export.save` wrote, on the CPU.

        Loading a program can run code: load only files of people whose code you would run. A program has operations and no layers:
        the CAM family and FullGrad refuse it, all other methods explain it.

        Args:
            path: a .pt2 file, exported in evaluation mode and for any number of images.
            preprocess: by default that of most ImageNet weights, cropped to the program's size; resized to it exactly if it is no square.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is no such file, or the program's input is not any number of images and nothing else.
        """
        module = load_exported(path)
        preprocess = preprocess or Preprocess.of_size(module.size or (224, 224))
        return cls(module, preprocess, class_names, Path(path).name, output, problem_type)

    @classmethod
    def from_timm(
        cls,
        arch: str,
        weights: str | None = None,
        path: str | Path | None = None,
        classes: Classes | None = None,
        preprocess: Preprocess | None = None,
        seed: int = 0,
        arguments: Mapping[str, Any] | None = None,
        output: OutputKey | None = None,
        problem_type: ProblemType = "single_label_classification",
    ) -> Classifier:
        """Build a timm network, in evaluation mode on the CPU; needs the extra `timm`.

        Args:
            arch: such as "vit_tiny_patch16_224".
            weights: a tag of its pretrained weights such as "augreg_in21k_ft_in1k", or "DEFAULT", which timm downloads.
            path: a state dict of your own instead, as in `from_checkpoint`; without both the weights are random, from `seed`.
            classes: their names or their number, or a text file with one name per line; by default as in the state dict.
            preprocess: replaces the one of the network's configuration in timm.
            arguments: more arguments of `timm.create_model`, such as {"img_size": 256}.

        Raises:
            ImportError: if timm is not installed.
            OSError: if the weights cannot be downloaded or read.
            ValueError: if there is no such network or tag, or the weights are not those of the network with these classes.
        """
        known = None if classes is None else read_classes(classes)
        count = len(known) if isinstance(known, tuple) else known
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if path is None:
                module, configured = build_timm(arch, weights, count, arguments)
            else:
                module, configured = load_with_logits(lambda count: load_timm(path, arch, count, arguments), known, problem_type)
        name = " ".join([arch, *([Path(path).name] if path else [weights] if weights else [])])
        return cls(module.eval(), preprocess or configured, known if isinstance(known, tuple) else None, name, output, problem_type)

    @classmethod
    def from_transformers(
        cls,
        source: str | Path,
        preprocess: Preprocess | None = None,
        output: OutputKey | None = None,
        problem_type: ProblemType | None = None,
    ) -> Classifier:
        """Load an image classifier of Hugging Face's transformers.

        It needs the extra `transformers`. Only safetensors are read, and no code of the checkpoint runs. The network is in evaluation mode,
        on the CPU, in float32.

        Args:
            source: a folder of `save_pretrained`, or the name of a repository of the hub, such as "google/vit-base-patch16-224".
            preprocess: replaces the checkpoint's image processor, which is followed exactly: as it resizes by Pillow, with the tensors
                equal to 1e-5.
            problem_type: replaces the checkpoint's; without both the classes exclude each other.

        Raises:
            ImportError: if transformers is not installed.
            OSError: if files are missing, or the hub cannot be reached.
            ValueError: if the checkpoint is no image classifier, needs code of its own, lacks weights, or its processor cannot be followed.
        """
        loaded = load_transformers(source, preprocess)
        problem_type = problem_type or loaded.problem_type or "single_label_classification"
        return cls(loaded.module, loaded.preprocess, loaded.class_names, Path(source).name, output, problem_type)

    @property
    def network(self) -> nn.Module:
        """The network inside `module`, which returns all its outputs."""
        return inner_network(self.module)

    @property
    def device(self) -> torch.device:
        """Device of the network's parameters; the CPU if it has none."""
        return next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype | None:
        """Floating-point type of the network's parameters; None if none or several."""
        found = {tensor.dtype for tensor in self.module.parameters() if tensor.is_floating_point()}
        return found.pop() if len(found) == 1 else None

    def to(self, device: torch.device | str) -> Classifier:
        """Move the network and return self."""
        self.network.to(device)
        return self

    def prepare(self, images: Sequence[Photograph]) -> Tensor:
        """Preprocess photographs to (B, C, H, W) on the network's device, in its type.

        They are of any mode of Pillow, or arrays (H, W) or (H, W, C) of bytes, of 16 bits, or of floats in [0, 1].

        Raises:
            ValueError: if there is no preprocess, a photograph has other channels, or the range of its pixels is unknown.
        """
        if self.preprocess is None:
            raise ValueError("this classifier has no preprocess: give one to from_module, or pass tensors")
        return torch.stack([self.preprocess(image) for image in images]).to(self.device, self.dtype or torch.float32)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of every class, (B, classes) for logits (B, classes).

        It is what `problem_type` says: a softmax, a sigmoid, or the outputs themselves.
        """
        return probabilities(logits, self.problem_type)

    def differences(self, logits: Tensor) -> Tensor:
        """Return the differences that `contrasting` makes of logits.

        Args:
            logits: (B, classes); those of another classifier are returned unchanged.
        """
        return self.module.differences(logits) if isinstance(self.module, Contrasts) else logits

    def class_name(self, target: int) -> str:
        """Return the class's name, or its number where names are unknown."""
        return str(target) if self.class_names is None else self.class_names[target]

    def weights_digest(self) -> str:
        """Return a sha256 over the network's state: parameters, buffers, extra state.

        Raises:
            ValueError: if a part of the state has no values, or is of a type without a digest.
        """
        return state_digest(self.network)

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """Yield the network in evaluation mode with no gradient to its weights.

        Parts compiled by `torch.compile` run in Python meanwhile, as compiled code calls no hooks. On CUDA float32 is IEEE arithmetic, see
        `hdm_core.device.float32_arithmetic`. Modes and flags are restored, also after an exception.
        """
        # A part that torch.jit.freeze made has no mode: it stays in the one in which it was frozen.
        modes = [(module, module.training) for module in self.module.modules() if hasattr(module, "training")]
        flags = [(parameter, parameter.requires_grad) for parameter in self.module.parameters()]
        try:
            # A worker's network is frozen already, and comes here twice per batch: with MobileNetV2 the calls that change nothing took
            # 2.8 of 3.4 ms. A part without a mode is given one.
            if any(getattr(module, "training", True) for module in self.module.modules()):
                self.module.eval()
            for parameter, required in flags:
                if required:
                    parameter.requires_grad_(False)
            with run_eagerly(), float32_arithmetic(self.device):
                yield self.module
        finally:
            for module, training in modes:
                if module.training != training:
                    module.training = training
            for parameter, required in flags:
                if parameter.requires_grad != required:
                    parameter.requires_grad_(required)

    def interpreted(
        self, class_names: Sequence[str] | None, output: OutputKey | None, problem_type: ProblemType | None = None
    ) -> Classifier:
        """Return a classifier of the same network that reads its outputs otherwise.

        It is of the same Python class.

        Args:
            class_names: as of a new classifier; None for the names as they are.
            output: as of a new classifier; None for the output as it is.
            problem_type: None for the problem type as it is.
        """
        other = copy.copy(self)  # of a subclass, too
        other.output = self.output if output is None else output
        other.problem_type = problem_type or self.problem_type
        check_problem_type(other.problem_type)
        other.module = _wrapped(self.network, other.output, other.problem_type)
        other.class_names = answer_names(self.class_names if class_names is None else as_names(class_names), other.problem_type)
        return other

    def contrasting(self, pairs: Sequence[tuple[int, int]]) -> Classifier:
        """Return a classifier with one logit z_a - z_b for each pair (a, b) of classes.

        It shares the network. Its probabilities are those of a rather than b, the sigmoid of the difference; those of a regression are the
        differences.
        """
        other = copy.copy(self)
        other.module = Contrasts(self.module, pairs)
        other.class_names = tuple(f"{self.class_name(a)} rather than {self.class_name(b)}" for a, b in pairs)
        other.problem_type = "regression" if self.problem_type == "regression" else "multi_label_classification"
        return other

    @contextmanager
    def folded(self, images: Tensor, precision: Precision = "float32") -> Iterator[nn.Module]:
        """Yield a faster copy of the network, frozen as by `frozen`.

        Batch normalisation is folded into the convolutions, and the layout is channels last. The copy is made once for a network and
        again after a change. A network that cannot be copied, or whose copy gives other logits for `images` (B, C, H, W) or another
        gradient, is used unfolded; `hdm_core.network.folding.fold_network` returns the reason.

        Args:
            precision: of the copy's weights: with "bfloat16" they are cast once.
        """
        with self.frozen() as network:
            if isinstance(network, Contrasts):  # of a few images each: the network inside has one copy for all
                yield Contrasts(fold_network(network.network, images, precision).network, network.pairs)
            else:
                yield fold_network(network, images, precision).network


def _wrapped(network: nn.Module, output: OutputKey | None, problem_type: ProblemType) -> nn.Module:
    """Return the network with one output, (B, classes), as it is explained."""
    selected = network if output is None else SelectedOutput(network, output)
    return YesNo(selected) if problem_type == "multi_label_classification" else selected


def as_classifier(model: Classifier | nn.Module) -> Classifier:
    """Return a classifier as it is, and a plain network wrapped."""
    if isinstance(model, nn.Module):
        return Classifier.from_module(model)
    if not isinstance(model, Classifier):
        raise TypeError(f"the classifier must be a hdm_core.Classifier or a torch.nn.Module, not a {type(model).__name__}")
    return model
