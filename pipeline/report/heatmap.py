"""Legend of the heatmaps that `hdm_core.heatmap` draws."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex


def legend(stops: int = 9) -> list[str]:
    """Return the CSS colours of `stops` equally spaced values from 0 to 1."""
    return [to_hex(colormaps["jet"](value)) for value in np.linspace(0, 1, stops)]
