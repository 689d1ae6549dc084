"""Scores of classes that the audit is compared with; larger is more suspicious."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import kneighbors_graph

from pipeline.audit.energy import GRID

Floats = NDArray[np.float64]

_GAPS = 8  # of the smallest eigenvalues of the Laplacian


def eigengap(cells: Floats) -> float:
    """Return the largest gap among the smallest eigenvalues of the graph Laplacian.

    Of the spectral clustering of SpRAy (Lapuschkin et al. 2019): the maps of a class, 8 x 8, in a symmetric graph of the log2(n) nearest
    neighbours, and the normalised Laplacian. A large gap after the k-th eigenvalue says that there are k clusters. Fewer than nine maps
    have the score 0.

    Args:
        cells: (n, 64) maps of one class.
    """
    if len(cells) < _GAPS + 1:
        return 0.0
    neighbours = max(2, round(np.log2(len(cells))))
    graph = kneighbors_graph(cells / cells.max(1, keepdims=True), neighbours).toarray()
    graph = np.maximum(graph, graph.T)
    root = 1 / np.sqrt(graph.sum(1))
    values = np.linalg.eigvalsh(np.eye(len(cells)) - root[:, None] * graph * root)
    return float(np.diff(values[: _GAPS + 1]).max())


def border_energy(own: Floats, others: Floats) -> float:
    """Return the mean share of energy in the outer cells, of a class minus others.

    Args:
        own: (n, 64) cells of the maps of the class.
        others: (m, 64) of the other classes.
    """
    if not len(own) or not len(others):
        return 0.0
    ring = np.ones((GRID, GRID), bool)
    ring[1:-1, 1:-1] = False
    return float(own[:, ring.ravel()].sum(1).mean() - others[:, ring.ravel()].sum(1).mean())


def drift(own: Floats, clean: Floats) -> float:
    """Return 1 minus the mean correlation with the maps of a clean classifier.

    Args:
        own: (n, 64) cells of the maps of a class.
        clean: (n, 64) the same images and class, explained with a classifier that was trained on photographs without the shortcut.
    """
    first, second = (cells - cells.mean(1, keepdims=True) for cells in (own, clean))
    spread = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return float(1 - np.mean((first * second).sum(1) / np.maximum(spread, 1e-12)))
