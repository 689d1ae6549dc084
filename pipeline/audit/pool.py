"""Images of all classes that a class is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdm_core import Classifier
from pipeline.audit.causal import insert_background, pasted
from pipeline.audit.energy import Energies
from pipeline.audit.settings import AuditSettings
from pipeline.audit.subject import Subject

_IMAGES = 4  # times as many images as a causal test takes of other classes
_CLASSES = 6  # that the same place is tested in
_CHANGES = 8  # images that each of them is tested on


@dataclass(frozen=True)
class Pool:
    """Some images of every class, in memory at once.

    Attributes:
        names: (N,) classes.
        images: (N, C, H, W).
        regions: (N, H, W) bool.
    """

    names: NDArray[np.object_]
    images: Tensor
    regions: Tensor

    def others(self, name: str, most: int | None = None) -> tuple[Tensor, Tensor]:
        """Return images of the other classes, in turn, and their regions."""
        chosen = torch.from_numpy(np.flatnonzero(self.names != name)[:most]).to(self.images.device)
        return self.images[chosen], self.regions[chosen]

    def same_place(
        self, classifier: Classifier, name: str, targets: Mapping[str, int | None], place: Tensor, batch: int
    ) -> NDArray[np.float64]:
        """Insert the same place of other classes, each into images of others.

        Returns:
            Changes of the probabilities of those classes: what any image's pixels at that place do for its class.
        """
        changes = []
        for other in self._references(name, targets):
            own = self.images[torch.from_numpy(np.flatnonzero(self.names == other)).to(self.images.device)]
            changes.append(pasted(classifier, self.others(other, _CHANGES)[0], own, targets[other] or 0, place, batch))
        return np.concatenate([*changes, np.empty(0)])

    def backgrounds(self, classifier: Classifier, name: str, targets: Mapping[str, int | None], batch: int) -> NDArray[np.float64]:
        """Insert the backgrounds of other classes, as `same_place` does a place."""
        changes = []
        for other in self._references(name, targets):
            chosen = torch.from_numpy(np.flatnonzero(self.names == other)).to(self.images.device)
            own = self.images[chosen], self.regions[chosen]
            changes.append(insert_background(classifier, own, self.others(other, _CHANGES), targets[other] or 0, batch)[0])
        return np.concatenate([*changes, np.empty(0)])

    def _references(self, name: str, targets: Mapping[str, int | None]) -> list[str]:
        return [other for other in dict.fromkeys(self.names.tolist()) if other != name and targets.get(other) is not None][:_CLASSES]


def read_pool(subject: Subject, energies: Energies, settings: AuditSettings) -> Pool:
    """Read a sample of images, equally many of each class as far as they suffice."""
    rng = np.random.default_rng(settings.seed)
    shuffled = [rng.permutation(energies.rows[energies.of(name)]) for name in energies.sizes]
    turns = [rows[turn] for turn in range(max(map(len, shuffled))) for rows in shuffled if turn < len(rows)]
    chosen = turns[: _IMAGES * settings.tested]
    read, images, regions = subject.read(np.sort(chosen).tolist())
    position = {row: number for number, row in enumerate(read)}
    order = [position[row] for row in chosen if row in position]  # in turn again, after a read in rising order
    names = dict(zip(energies.rows.tolist(), energies.classes.tolist(), strict=True))
    return Pool(np.array([names[read[number]] for number in order], object), images[order], regions[order])
