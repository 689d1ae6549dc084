"""A network that came as a program of `torch.export`: a graph of operations with weights, without the Python that made it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

_HOW = "export it with dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)"


class Exported(nn.Module):
    """The program as a module (B, C, H, W) -> (B, classes).

    The mode it was exported in is part of its graph, and so is the answer of every `if`. It has no layers to look at, only operations.

    Attributes:
        side: of the images that it takes; None if their size is free.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self._exported = program
        self.program: nn.Module = program.module()
        self.side = _side(program)
        graph = hashlib.sha256(str(self.program.code).encode())
        for name, constant in sorted(program.constants.items()):
            data = constant.detach().cpu().numpy().tobytes() if isinstance(constant, Tensor) else repr(constant).encode()
            graph.update(name.encode() + data)
        self._graph = graph.digest()
        self.eval()

    def forward(self, images: Tensor) -> Any:
        """Whatever the program answers."""
        return self.program(images)

    def to(self, device: torch.device | str) -> Exported:  # type: ignore[override]
        """Moves the program: devices are written in its graph, and constants are no parameters."""
        self._exported = move_to_device_pass(self._exported, torch.device(device))
        self.program = self._exported.module()
        return self

    def train(self, mode: bool = True) -> Exported:
        """Notes the mode: a program has only the one it was exported in."""
        self.training = mode
        return self

    def get_extra_state(self) -> Tensor:
        """The graph's sha256, so that the state dict, and with it the fingerprint, tells programs with the same weights apart."""
        return torch.frombuffer(bytearray(self._graph), dtype=torch.uint8)


def require_layers(network: nn.Module) -> None:
    """Raises a ValueError for a network whose layers cannot be looked at."""
    if isinstance(network, Exported):
        raise ValueError("an exported program has no layers, which this method looks at: give the network it was exported from")  # noqa: TRY004


def load_exported(path: str | Path) -> Exported:
    """A `.pt2` file that `torch.export.save` wrote.

    Loading one can run code: it holds expressions and may hold pickles. Take it only from those whose code you would run.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no such file, or the program does not take any number of images and nothing else.
    """
    Path(path).open("rb").close()  # torch would say less of a file that cannot be read
    try:
        program = torch.export.load(str(path))
    except Exception as error:  # zip, JSON, schema and graph errors of many types
        raise ValueError(f"{path} is no program of torch.export that torch {torch.__version__} reads ({type(error).__name__})") from None
    return Exported(program)


def _side(program: ExportedProgram) -> int | None:
    """Checks what the program takes; the side of its images if that is fixed."""
    inputs = [node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or inputs[0].ndim != 4:
        raise ValueError(f"the exported program must take images (B, C, H, W) and nothing else; it takes {len(inputs)} inputs")
    batch, _, height, width = inputs[0].shape
    if isinstance(batch, int):
        raise ValueError(f"the exported program takes batches of {batch} only, an explanation needs any size: {_HOW}")  # noqa: TRY004
    if not isinstance(height, int) or not isinstance(width, int):
        return None
    if height != width:
        raise ValueError(f"the exported program takes images of {height} x {width}; they must be square")
    return height
