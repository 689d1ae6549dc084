"""Grammar of small classifiers: a `Spec` names the parts of a network, and its repr is code that builds it again."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hdm_core.testing.networks import sample_images
from tests.fuzz.convolutions import CONVS
from tests.fuzz.extras import EXTRAS, HEADS, ODDS, Odd
from tests.fuzz.norms import NORMS, norm_of
from tests.fuzz.parts import ACTS, POOLS, activation

BATCH = 2


class _Named:
    """A record whose repr leaves out what is as by default."""

    def __repr__(self) -> str:
        given = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default)
        return f"{type(self).__name__}({', '.join(given)})"


@dataclass(frozen=True, repr=False)
class Stage(_Named):
    """A convolution, a norm, an activation, an extra, a join with the stage's input and a pool, by name."""

    conv: str = "plain"
    norm: str = "none"
    act: str = "relu"
    extra: str = "none"
    join: str = "none"
    pool: str = "none"


@dataclass(frozen=True, repr=False)
class Spec(_Named):
    """A classifier and its images.

    Attributes:
        stages: at least one.
        odd: an odd forward around stage `odd_at`.
        ending: what follows the head: "none", "softmax", "log_softmax" or "sigmoid".
        wrapper: what stands around the network.
        scale: factor of the logits.
        double: float64, else float32.
        sides: height and width of the images.
    """

    stages: tuple[Stage, ...] = (Stage(),)
    head: str = "linear"
    odd: str = "none"
    odd_at: int = 0
    ending: str = "none"
    wrapper: str = "none"
    classes: int = 3
    scale: float = 1.0
    double: bool = True
    sides: tuple[int, int] = (16, 16)
    seed: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """Data type of weights and images."""
        return torch.float64 if self.double else torch.float32

    @property
    def names(self) -> set[str]:
        """Names of all parts, such as "norm:batch"."""
        parts = {f"{f.name}:{getattr(stage, f.name)}" for stage in self.stages for f in fields(stage)}
        return parts | {f"{name}:{getattr(self, name)}" for name in ("head", "odd", "ending", "wrapper")} | {f"classes:{self.classes}"}

    def images(self) -> Tensor:
        """Return the images, (BATCH, 3, H, W)."""
        return sample_images(BATCH, *self.sides, seed=self.seed).to(self.dtype)


class Joined(nn.Module):
    """A stage whose input is joined with its output."""

    def __init__(self, body: nn.Module, join: str, pool: nn.Module) -> None:
        super().__init__()
        self.body, self.join, self.pool = body, join, pool

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.join == "residual":
            y = y + x
        elif self.join == "residual_in_place":
            y = y.clone()  # what a derivative may still need is not overwritten
            y += x
        elif self.join == "concat":
            y = torch.cat([x, y], 1)
        return self.pool(y)


JOINS = ("none", "residual", "residual_in_place", "concat")


class Network(nn.Module):
    """Stages, a head, a factor and an ending."""

    def __init__(self, stages: list[nn.Module], head: nn.Module, ending: str) -> None:
        super().__init__()
        self.stages, self.head, self.ending = nn.Sequential(*stages), head, ending
        self.register_buffer("factor", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        logits = self.factor * self.head(self.stages(images))
        if self.ending == "none":
            return logits
        return {"softmax": lambda: logits.softmax(1), "log_softmax": lambda: logits.log_softmax(1), "sigmoid": logits.sigmoid}[
            self.ending
        ]()


class Holder(nn.Module):
    """A network in an attribute, as Lightning's modules hold it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


def core(spec: Spec) -> Network:
    """Build the network without its wrapper, in evaluation mode; the same weights each time."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.manual_seed(spec.seed)
        x, modules, shared = torch.randn(BATCH, 3, *spec.sides), [], activation("relu")
        for number, stage in enumerate(spec.stages):
            body = _body(stage, x.shape[1], shared).eval()
            with torch.no_grad():
                y = body(x.clone())
                fits = {"residual": x.shape == y.shape, "residual_in_place": x.shape == y.shape, "concat": x.shape[2:] == y.shape[2:]}
                pool = POOLS[stage.pool]() if min(y.shape[2:]) >= 4 else nn.Identity()
                module: nn.Module = Joined(body, stage.join if fits.get(stage.join) else "none", pool).eval()
                if spec.odd != "none" and number == spec.odd_at % len(spec.stages):
                    module = Odd(module, spec.odd).eval()
                x = module(x.clone())
            modules.append(module)
        network = Network(modules, HEADS[spec.head](*x.shape[1:], spec.classes), spec.ending).to(spec.dtype).eval()
        with torch.no_grad():
            logits = network.head(network.stages(spec.images()))
            spread = (logits - logits.mean(1, keepdim=True)).std() if spec.classes > 1 else logits.std()
            network.factor.fill_(float(spec.scale / spread) if 1e-6 < spread < 1e6 else spec.scale)
    return network


def _body(stage: Stage, channels: int, shared: nn.Module) -> nn.Module:
    conv = CONVS[stage.conv](channels).eval()
    with torch.no_grad():
        width = conv(torch.randn(1, channels, 12, 12)).shape[1]
    act = shared if stage.act == "shared_relu" else activation(stage.act)
    return nn.Sequential(conv, norm_of(stage.norm)(width), act, EXTRAS[stage.extra](width))


def build(spec: Spec) -> nn.Module:
    """Build the network that hdm gets: `core` in its wrapper."""
    network = core(spec)
    match spec.wrapper:
        case "sequential":
            return nn.Sequential(network)
        case "data_parallel":
            return nn.DataParallel(network).eval()
        case "compiled":
            return torch.compile(network, backend="eager")
        case "averaged":
            return AveragedModel(network).eval()
        case "traced" if "extra:compiled" not in spec.names:  # torch traces nothing that is compiled
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                return torch.jit.trace(network, spec.images(), check_trace=False)
        case "holder":
            return Holder(network).eval()
        case "left_in_training":
            return network.train()
    return network


WRAPPERS = ("none", "sequential", "data_parallel", "compiled", "averaged", "traced", "holder", "left_in_training")
ENDINGS = ("none", "softmax", "log_softmax", "sigmoid")


def _mostly(usual: str, names: Any, times: int) -> st.SearchStrategy[str]:
    return st.sampled_from([usual] * times + [name for name in names if name != usual])


def stages() -> st.SearchStrategy[Stage]:
    """Draw stages of any parts."""
    return st.builds(
        Stage,
        conv=_mostly("plain", CONVS, 8),
        norm=_mostly("none", [*NORMS, "batch", "batch", "batch", "batch"], 4),
        act=_mostly("relu", ACTS, 8),
        extra=_mostly("none", EXTRAS, 24),
        join=_mostly("none", JOINS, 3),
        pool=_mostly("none", POOLS, 8),
    )


def specs() -> st.SearchStrategy[Spec]:
    """Draw classifiers of any parts; most of them have no odd forward, no ending and no wrapper."""
    return st.builds(
        Spec,
        stages=st.lists(stages(), min_size=1, max_size=3).map(tuple),
        head=_mostly("linear", HEADS, 6),
        odd=_mostly("none", ODDS, 80),
        odd_at=st.integers(0, 2),
        ending=_mostly("none", ENDINGS, 40),
        wrapper=_mostly("none", WRAPPERS, 14),
        classes=st.sampled_from([3, 2, 4, 5, 6] * 4 + [1]),
        scale=st.sampled_from([1.0, 1e-4, 1e-2, 10.0, 1e4]),
        double=st.booleans(),
        sides=st.tuples(st.integers(12, 20), st.integers(12, 20)),
        seed=st.integers(0, 1000),
    )
