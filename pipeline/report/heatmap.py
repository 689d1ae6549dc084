"""The colours of heatmaps as a legend; `hdm_core.heatmap` draws them."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex


def legend(stops: int = 9) -> list[str]:
    """Return the colours of equally spaced values from 0 to 1 as CSS colours."""
    return [to_hex(colormaps["jet"](value)) for value in np.linspace(0, 1, stops)]
