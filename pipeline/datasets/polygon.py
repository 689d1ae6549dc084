"""Filling of a polygon's pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FARTHEST = 1e7  # pixels: beyond any image, and far from where differences of floats overflow


def fill_polygon(polygon: Sequence[float], height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels (height, width) whose centres are inside a polygon.

    The rule is even-odd: along a row, a pixel is inside if an odd number of edges is crossed before its centre. The centre of the pixel
    in row i and column j is (j + 0.5, i + 0.5), as for boxes.

    Args:
        polygon: [x, y, x, y, ...], three points or more; the last is joined to the first.

    Raises:
        ValueError: if there are fewer points, or a coordinate is no finite number or beyond 10 million pixels.
    """
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"a polygon has {len(polygon)} numbers; it needs x and y of three points or more")
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    if not (np.abs(points) < _FARTHEST).all():
        raise ValueError("a polygon has a coordinate that is no finite number or far outside every image")
    rows = np.arange(height) + 0.5
    crossings = np.zeros((height, width + 1), dtype=np.uint8)  # modulo 2, at the first column behind them
    for (x, y), (next_x, next_y) in zip(points, np.roll(points, -1, axis=0), strict=True):
        crossed = np.flatnonzero((rows >= min(y, next_y)) & (rows < max(y, next_y)))
        if crossed.size:
            at = x + (rows[crossed] - y) * (next_x - x) / (next_y - y)
            crossings[crossed, np.clip(np.ceil(at - 0.5), 0, width).astype(np.int64)] ^= 1
    return np.bitwise_xor.accumulate(crossings[:, :width], axis=1).astype(bool)
