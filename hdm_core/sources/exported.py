"""Networks exported by `torch.export`: a graph of operations with weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from hdm_core.sources.paths import local_path

_EXPORT_HINT = "export it with dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)"


class Exported(nn.Module):
    """Exported program as a module (B, C, H, W) -> (B, classes).

    The mode in which it was exported, train or eval, is part of its graph, and so is the result of every `if`. It has no layers, only
    operations.

    Attributes:
        size: height and width of the images that it takes, in pixels; None if any size is allowed.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self._exported = program
        self.program: nn.Module = program.module()
        self.size = _input_size(program)
        graph = hashlib.sha256(str(self.program.code).encode())
        for name, constant in sorted(program.constants.items()):
            data = constant.detach().cpu().numpy().tobytes() if isinstance(constant, Tensor) else repr(constant).encode()
            graph.update(name.encode() + data)
        self._graph = graph.digest()
        self.eval()

    def forward(self, images: Tensor) -> Any:
        """Run the program; its output is not checked."""
        return self.program(images)

    def to(self, device: torch.device | str) -> Exported:  # type: ignore[override]
        """Move the program to a device.

        Devices are part of its graph and its constants are not parameters, so `nn.Module.to` would not move them.
        """
        self._exported = move_to_device_pass(self._exported, torch.device(device))
        self.program = self._exported.module()
        return self

    def train(self, mode: bool = True) -> Exported:
        """Set `training` only: a program runs in the mode in which it was exported."""
        self.training = mode
        return self

    def get_extra_state(self) -> Tensor:
        """Return the sha256 of the graph, (32,) uint8.

        It is part of the state dict, so programs with the same weights and different graphs have different digests.
        """
        return torch.frombuffer(bytearray(self._graph), dtype=torch.uint8)


def require_layers(network: nn.Module, layer: nn.Module | None = None) -> None:
    """Raise an error for a network without accessible layers.

    Args:
        network: any network.
        layer: the submodule that is needed; None if it may be any.

    Raises:
        ValueError: for an exported program or TorchScript, whole or as a part.
    """
    if any(isinstance(part, Exported) for part in network.modules()):
        raise ValueError("an exported program has no layers, and this method needs them: give the network it was exported from")
    require_operations(network if layer is None else layer)


def require_operations(network: nn.Module) -> None:
    """Raise an error for a network whose operations do not run in Python.

    Raises:
        ValueError: for TorchScript, whole or as a part.
    """
    if any(isinstance(part, torch.jit.ScriptModule) for part in network.modules()):
        raise ValueError("TorchScript gives no access to its layers, and this method needs them: give the network in Python")


def load_exported(path: str | Path) -> Exported:
    """Load a `.pt2` file that `torch.export.save` wrote.

    Loading can run code: the file holds expressions and may hold pickles. Load it only from a source whose code you would run.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no such file, or the program does not take a batch of images of any size as its only input.
    """
    path = local_path(path)
    path.open("rb").close()  # torch's error for an unreadable file is less precise
    try:
        program = torch.export.load(str(path))
    except Exception as error:  # zip, JSON, schema and graph errors of many types
        raise ValueError(f"{path} is no program of torch.export that torch {torch.__version__} reads ({type(error).__name__})") from None
    return Exported(program)


def _input_size(program: ExportedProgram) -> tuple[int, int] | None:
    """Check the program's inputs; return the size of its images if that is fixed."""
    inputs = [node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or inputs[0].ndim != 4:
        raise ValueError(f"the exported program must take images (B, C, H, W) and nothing else; it takes {len(inputs)} inputs")
    batch, _, height, width = inputs[0].shape
    if isinstance(batch, int):
        raise ValueError(f"the exported program takes batches of {batch} only, an explanation needs any size: {_EXPORT_HINT}")  # noqa: TRY004
    if not isinstance(height, int) or not isinstance(width, int):
        return None
    return height, width
