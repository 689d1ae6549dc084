"""Harder images: three to six unequal pieces of evidence on photographs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from benchmarks.planted.backgrounds import photograph_crops

SIDE, CELLS = 72, 3  # pixels along a side, and cells of which each holds one piece at most
CELL = SIDE // CELLS
SIZES = (9, 16)  # least and largest diameter of a piece, in pixels
STRENGTHS = (0.45, 1.0)  # of the weakest and of the strongest piece of an image: the share of the texture in its pixels
PIECES = 6  # at most, of those that decide
SHAPES = 4  # square, disc, diamond, bar

# Motifs that must all be present for each class; an image with none of these sets is of class 0. Motifs 0 and 1 suffice alone. Of the sets
# of several none contains another, and each of their motifs is in two sets or more: one motif alone decides nothing.
NEEDS = ((), (0,), (1,), (2, 3, 4), (2, 5, 6, 7), (2, 3, 5, 6, 8), (3, 4, 5, 6, 7, 8))
DISTRACTORS = (9, 10, 11)  # in images of all classes

Kind = Literal["redundant", "joint", "few", "part", "bare"]
KINDS: tuple[Kind, ...] = ("redundant", "joint")  # those with evidence
EVERY_KIND: tuple[Kind, ...] = (*KINDS, "few", "part", "bare")

_CPU = torch.device("cpu")
_EMPTY = -1
_MARGIN = 3  # from a piece to the border of its cell, in pixels
_AMPLITUDE = 1.4  # of a texture, in standard deviations of the photographs


@dataclass(frozen=True)
class PieceImages:
    """N images, with and without the pieces that decide their class.

    Attributes:
        images: (N, 3, 72, 72) float32, roughly centred at 0.
        labels: (N,) int64, the `rule` applied to the motifs.
        motifs: (N, 6) int64, the motif of each piece; -1 where there is none.
        strengths: (N, 6) in [0, 1], the share of the texture in the pixels of each piece; 0 where there is none.
        pieces: (N, 72, 72) int64, the number of the piece in each pixel, 0 to 5; -1 where there is none.
        shown: (N, 72, 72) int64, the motif in each pixel, also of distractors; -1 where there is none.
        bare: (N, 3, 72, 72), the same images without the pieces: photograph and distractors.
    """

    images: Tensor
    labels: Tensor
    motifs: Tensor
    strengths: Tensor
    pieces: Tensor
    shown: Tensor
    bare: Tensor

    def __len__(self) -> int:
        """Return N."""
        return len(self.images)

    def __getitem__(self, chosen: Tensor | slice) -> PieceImages:
        """Return a selection of the images."""
        return PieceImages(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def regions(self) -> Tensor:
        """Pixels of each piece, (N, 6, 72, 72) bool."""
        return self.pieces[:, None] == torch.arange(PIECES, device=self.pieces.device)[:, None, None]

    def showing(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images with some of their pieces only, and their labels.

        Args:
            shown: (N, 6) bool, the pieces that stay.
        """
        pixels = (self.regions & shown[:, :, None, None]).any(1)
        return torch.where(pixels[:, None], self.images, self.bare), rule(self.motifs.where(shown, _EMPTY))


def rule(motifs: Tensor) -> Tensor:
    """Return the class of images that show these motifs, (N, any) -> (N,) int64."""
    labels = torch.zeros(len(motifs), dtype=torch.int64, device=motifs.device)
    for label, needs in enumerate(NEEDS[1:], 1):
        labels[torch.stack([(motifs == need).any(1) for need in needs]).all(0)] = label
    return labels


def draw_pieces(kind: Kind, count: int, generator: torch.Generator, device: torch.device = _CPU) -> PieceImages:
    """Draw images of one kind.

    Random numbers are drawn on the CPU, so that every device gets the same images up to rounding.

    Args:
        kind: "redundant": three to six pieces of one motif, each of which is enough; "joint": three to six of different motifs that decide
            only together; "few": one or two of the first, which training needs; "part": a joint image from which one piece or more are
            missing, class 0; "bare": distractors alone, class 0.
        count: N.
        generator: on the CPU; the same state gives the same images.
        device: of the images.
    """
    motifs = _motifs(kind, count, generator)
    distractors = torch.tensor(DISTRACTORS)[torch.randint(len(DISTRACTORS), (count, CELLS**2), generator=generator)]
    distractors[torch.rand(count, CELLS**2, generator=generator) < 0.5] = _EMPTY
    distractors[:, :PIECES] = distractors[:, :PIECES].where(motifs == _EMPTY, _EMPTY)
    everything = torch.cat([motifs.where(motifs != _EMPTY, distractors[:, :PIECES]), distractors[:, PIECES:]], 1)
    planted = torch.zeros_like(everything, dtype=torch.bool)
    planted[:, :PIECES] = motifs != _EMPTY

    # Strengths are evenly spread over an image's pieces, in any order, so that each image has a strong and a weak one.
    number = planted.sum(1, keepdim=True)
    rank = torch.rand(count, PIECES, generator=generator).masked_fill(motifs == _EMPTY, torch.inf).argsort(1).argsort(1)
    spread = STRENGTHS[0] + (STRENGTHS[1] - STRENGTHS[0]) * rank / (number - 1).clamp(min=1)
    strengths = STRENGTHS[0] + (STRENGTHS[1] - STRENGTHS[0]) * torch.rand(count, CELLS**2, generator=generator)
    strengths[:, :PIECES] = torch.where((motifs != _EMPTY) & (number > 1), spread, strengths[:, :PIECES])

    sizes = torch.randint(SIZES[0], SIZES[1] + 1, (count, CELLS**2), generator=generator)
    shapes = torch.randint(SHAPES, (count, CELLS**2), generator=generator)
    corners = _MARGIN + torch.rand(count, CELLS**2, 2, generator=generator) * (CELL - 2 * _MARGIN - sizes)[..., None]
    place = torch.rand(count, CELLS**2, generator=generator).argsort(1)  # of each cell: the piece in it
    photographs = photograph_crops(count, SIDE, generator, device)
    motifs, strengths, everything, planted, place = (part.to(device) for part in (motifs, strengths, everything, planted, place))
    silhouettes = _silhouettes(shapes.to(device), sizes.to(device), corners.round().to(device)) & (everything != _EMPTY)[:, :, None, None]

    def to_pixels(values: Tensor, empty: float) -> Tensor:
        """Return the image of one value per piece, (N, 9) -> (N, 72, 72)."""
        in_cells = torch.where(silhouettes, values[:, :, None, None], empty).gather(1, place[:, :, None, None].expand(-1, -1, CELL, CELL))
        return in_cells.view(count, CELLS, CELLS, CELL, CELL).transpose(2, 3).reshape(count, SIDE, SIDE)

    share, shown = to_pixels(strengths, 0.0)[:, None], to_pixels(everything, _EMPTY)
    pieces = to_pixels(torch.arange(CELLS**2, device=device).where(planted, _EMPTY), _EMPTY)
    row, column = torch.arange(SIDE, device=device)[:, None], torch.arange(SIDE, device=device)
    textures = _TEXTURES.to(device)[shown.clamp(min=0), row, column].permute(0, 3, 1, 2)
    images = photographs * (1 - share) + share * _AMPLITUDE * textures
    bare = torch.where((pieces != _EMPTY)[:, None], photographs, images)
    return PieceImages(images, rule(motifs), motifs, strengths[:, :PIECES] * (motifs != _EMPTY), pieces, shown, bare)


def _motifs(kind: Kind, count: int, generator: torch.Generator) -> Tensor:
    """Draw the motifs of the pieces that decide, (N, 6), -1 for none."""
    order = torch.rand(count, PIECES, generator=generator)
    if kind == "bare":
        return torch.full((count, PIECES), _EMPTY)
    if kind in ("redundant", "few"):
        motif = torch.randint(2, (count, 1), generator=generator)
        number = torch.randint(*((3, PIECES + 1) if kind == "redundant" else (1, 3)), (count, 1), generator=generator)
        return torch.where(torch.arange(PIECES) < number, motif, _EMPTY)
    sets = torch.tensor([[*needs, *[_EMPTY] * (PIECES - len(needs))] for needs in NEEDS if len(needs) > 1])
    motifs = sets[torch.randint(len(sets), (count,), generator=generator)]
    if kind == "joint":
        return motifs
    # One piece is missing from half of these images, since those are the hardest to tell from complete ones, and up to all but one else.
    number = (motifs != _EMPTY).sum(1, keepdim=True)
    several = 1 + (torch.rand(count, 1, generator=generator) * (number - 1)).long()
    missing = torch.where(torch.rand(count, 1, generator=generator) < 0.5, 1, several)
    rank = order.masked_fill(motifs == _EMPTY, torch.inf).argsort(1).argsort(1)
    return motifs.where(rank >= missing, _EMPTY)


def _silhouettes(shapes: Tensor, sizes: Tensor, corners: Tensor) -> Tensor:
    """Return the pixels of pieces in their cells, (N, P, 24, 24) bool.

    Args:
        shapes, sizes: (N, P), the number of the shape and its diameter in pixels.
        corners: (N, P, 2), the first row and column in the cell.
    """
    middle = corners + (sizes[..., None] - 1) / 2
    pixels = torch.arange(CELL, device=sizes.device)
    down = ((pixels - middle[..., :1]).abs() * 2 / sizes[..., None])[..., :, None]  # 0 in the middle, 1 at the edge
    across = ((pixels - middle[..., 1:]).abs() * 2 / sizes[..., None])[..., None, :]
    inside = torch.stack(
        [
            torch.maximum(down, across) < 1,
            down.square() + across.square() < 1,
            (down + across < 1.15) & (torch.maximum(down, across) < 1),  # more than a diamond, of which small ones would be too few pixels
            torch.maximum(down * 1.6, across) < 1,
        ]
    )
    return inside.gather(0, shapes[None, :, :, None, None].expand(1, -1, -1, CELL, CELL))[0]


def _make_textures() -> Tensor:
    """Build twelve textures of -1 and 1 over the whole image, (12, 72, 72, 3).

    Six patterns in two pairs of colours: light and dark, and red and green.
    """
    row, column = torch.arange(SIDE)[:, None].expand(SIDE, SIDE), torch.arange(SIDE).expand(SIDE, SIDE)
    light = (
        row // 2 % 2,
        column // 2 % 2,
        (row // 2 + column // 2) % 2,
        (row + column) // 3 % 2,
        (row - column) // 3 % 2,
        (row % 4 < 2) & (column % 4 < 2),
    )
    patterns = 2.0 * torch.stack([pattern.float() for pattern in light]) - 1
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0]])
    return (patterns[None, ..., None] * colours[:, None, None, None]).flatten(0, 1)


_TEXTURES = _make_textures()
