"""Images of two colours, as a dataset of two classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_colour_dataset(folder: Path, per_class: int = 8) -> Path:
    """Write images of red noise and of blue noise: folder/red, folder/blue."""
    for number, name in enumerate(("red", "blue")):
        noise = np.random.default_rng(number)
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = noise.integers(0, 140, (40, 48, 3))
            pixels[..., 2 * number] += 110
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder
