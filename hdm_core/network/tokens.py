"""Grid of patches in a layer that returns tokens (B, N, K)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Tokens that are no patch of the image: class, distillation and register tokens. DeiT has 2, DINOv3 has 5, EVA-X has 1.
_OTHERS = 16
# Share of the patches that must follow their row and column, for each bit of the two; chance gives 0.5, a grid that is shifted by one
# patch 0 for the last bit of the column. In 20 transformers of torchvision and timm with random weights it is 1 in most, 0.88 to 0.95 in
# XCiT and VOLO; Twins (0.68 to 0.8) and LeViT (0.5) are decided by their first tokens, in which it is 1.
_CLEAR = 0.8
_PATCHES = 32  # of a small grid as many are looked at, in several draws of noise: four tokens of no place follow a 2 x 2 grid by chance
_MARGIN = 0.15  # between the best and the second best place of the grid
# Where a layer's own patches follow the place that the network's first tokens of that number have less than 0.5 by this / sqrt(patches),
# three standard deviations of chance, they contradict it.
_CONTRADICTION = 1.5


@dataclass(frozen=True)
class TokenGrid:
    """Place of the image's patches among tokens (B, N, K).

    Attributes:
        rows, columns: of the patches, which are in row-major order.
        before, after: numbers of tokens before and after the patches, such as class, distillation and register tokens.
    """

    rows: int
    columns: int
    before: int = 0
    after: int = 0

    @property
    def tokens(self) -> int:
        """Number of all tokens, N."""
        return self.before + self.rows * self.columns + self.after

    def of_patches(self, tokens: Tensor, axis: int = 1) -> Tensor:
        """Return the part of a tensor that belongs to patches: N -> h w along an axis."""
        return tokens.narrow(axis, self.before, self.rows * self.columns)

    def to_maps(self, tokens: Tensor) -> Tensor:
        """Return the patches of tokens (B, N, K) as (B, K, h, w)."""
        patches = self.of_patches(tokens).mT
        return patches.reshape(*patches.shape[:2], self.rows, self.columns)

    def from_maps(self, maps: Tensor, tokens: Tensor) -> Tensor:
        """Return tokens (B, N, K) with maps (B, K, h, w) in place of their patches.

        Args:
            tokens: unused if all of them are patches.
        """
        if self.tokens == self.rows * self.columns:
            return maps.flatten(2).mT
        last = tokens[:, self.before + self.rows * self.columns :]
        return torch.cat([tokens[:, : self.before], maps.flatten(2).mT, last], 1)


def find_grid(network: nn.Module, layer: nn.Module, tokens: int, images: Tensor) -> TokenGrid | None:
    """Find the patches among the tokens of a layer.

    Their number allows few grids: those of square patches that cover the image, and at most 16 further tokens. Which of them it is, is
    measured. A row's and a column's number are written in binary; one image per binary digit is put together from two noise images,
    patch by patch, according to that digit. A token that follows its patch is nearer to the token of the one noise image or of the other,
    digit by digit. Where the layer mixes the patches too much for that, the network's first tokens of the same number decide, unless the
    layer's own tokens contradict. Convolutions of stride 2 with padding look half a patch further up and left: that is tried second.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        layer: a submodule that returns tokens (B, N, K), the images along the first axis.
        tokens: N.
        images: (B, C, H, W); their size, type and device are used, not their content.

    Returns:
        None if no grid is clear.
    """
    for half in (False, True):
        for rows, columns, patch in _plausible_grids(tokens, *images.shape[-2:]):
            own: dict[TokenGrid, float] = {}
            first: dict[TokenGrid, float] = {}
            for draw in range(math.ceil(_PATCHES / (rows * columns))):
                outputs = _observe(network, layer, tokens, _coded_images(images, rows, columns, patch, patch // 2 if half else 0, draw))
                if outputs is None:
                    return None
                for agreements, each in zip((own, first), outputs, strict=True):
                    found = _agreements(each, rows, columns)
                    agreements.update({grid: min(found[grid], agreements.get(grid, 1.0)) for grid in found})
            clear = _clear(own)
            if clear is None and (clear := _clear(first)) is not None and own[clear] < 0.5 - _CONTRADICTION / (rows * columns) ** 0.5:
                return None
            if clear is not None:
                return clear
    return None


def _plausible_grids(tokens: int, height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Yield rows, columns and pixels per side of a patch, for all possible grids.

    Pixels that fill no patch are dropped by convolutions, and padded by some networks. A patch that divides the image is preferred.
    """
    patches: dict[tuple[int, int], list[int]] = {}
    for patch in range(1, max(height, width) + 1):
        for rows, columns in {(height // patch, width // patch), (math.ceil(height / patch), math.ceil(width / patch))}:
            others = tokens - rows * columns
            if rows * columns > 1 and 0 <= others <= min(_OTHERS, rows * columns):
                patches.setdefault((rows, columns), []).append(patch)
    for (rows, columns), sides in sorted(patches.items(), reverse=True):  # first those with few other tokens
        whole = [patch for patch in sides if (rows * patch, columns * patch) == (height, width)]
        for patch in whole or sides:
            yield rows, columns, patch


def _binary(numbers: Tensor, count: int) -> list[Tensor]:
    """Return the binary digits of numbers below `count`, from the lowest.

    Each is a tensor of False and True.
    """
    return [(numbers >> digit) % 2 == 1 for digit in range((count - 1).bit_length())]


def _coded_images(images: Tensor, rows: int, columns: int, patch: int, shift: int, seed: int) -> Tensor:
    """Return two noise images, and one image per binary digit of row and column.

    They are (2 + digits, C, H, W).

    A patch of the last ones is that of the first noise image where the digit is 1, else that of the second. The patches start `shift`
    pixels above and left of the image.
    """
    channels, height, width = images.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    one, zero = torch.randn(2, channels, height, width, generator=generator, dtype=torch.float32)
    row = ((torch.arange(height) + shift) // patch).clamp(max=rows - 1)[:, None].expand(height, width)
    column = ((torch.arange(width) + shift) // patch).clamp(max=columns - 1).expand(height, width)
    codes = [*_binary(row, rows), *_binary(column, columns)]
    return torch.stack([one, zero, *(torch.where(code, one, zero) for code in codes)]).to(images)


@torch.no_grad()
def _observe(network: nn.Module, layer: nn.Module, tokens: int, images: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return a layer's last tokens, and the network's first ones of that number.

    Each is (B, N, K). None if the layer returns others.
    """
    own: list[Tensor] = []
    first: list[Tensor] = []

    def record(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 3 and len(output) == 1 and output.shape[1] == tokens:
            if not first:
                first.append(output.detach().clone())  # a later operation may overwrite it
            if module is layer:
                own[:] = [output.detach().clone()]

    handles = [module.register_forward_hook(record) for module in network.modules() if module is not network]
    pairs: list[tuple[Tensor, Tensor]] = []
    try:
        for image in torch.split(images, 1):  # a larger batch might not fit into memory
            network(image)
            if not own:
                return None
            pairs.append((own.pop(), first.pop()))
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat([own for own, _ in pairs]).float(), torch.cat([first for _, first in pairs]).float()


def _agreements(outputs: Tensor, rows: int, columns: int) -> dict[TokenGrid, float]:
    """Return the `_agreement` of each place that a grid may have among tokens."""
    others = outputs.shape[1] - rows * columns
    grids = [TokenGrid(rows, columns, before, others - before) for before in range(others + 1)]
    return {grid: _agreement(outputs, grid) for grid in grids}


def _agreement(outputs: Tensor, grid: TokenGrid) -> float:
    """Return the share of patches that follow their row and column.

    It is that of the binary digit that they follow least.

    Args:
        outputs: tokens for `_coded_images`, (2 + digits, N, K).
    """
    one, zero, *coded = grid.of_patches(outputs)
    row = torch.arange(grid.rows)[:, None].expand(grid.rows, grid.columns).flatten()
    column = torch.arange(grid.columns).repeat(grid.rows)
    codes = [*_binary(row, grid.rows), *_binary(column, grid.columns)]
    shares = []
    for tokens, code in zip(coded, codes, strict=True):
        to_one, to_zero = ((tokens - noise).norm(dim=1).cpu() for noise in (one, zero))
        # A token that does not change, such as a class token before the first attention, follows neither: also if NaN.
        follows = torch.where(code, to_one < to_zero, to_zero < to_one)
        shares.append(float(follows.double().mean()))
    return min(shares)


def _clear(agreements: dict[TokenGrid, float]) -> TokenGrid | None:
    """Return the grid that agrees best, if it agrees and no other does nearly as well."""
    best, *others = sorted(agreements, key=agreements.__getitem__, reverse=True)
    nearest = agreements[others[0]] if others else 0.0
    return best if agreements[best] >= _CLEAR and agreements[best] - nearest >= _MARGIN else None
