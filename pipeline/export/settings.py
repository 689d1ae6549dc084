"""Settings of an export."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.errors import InputError

Format = Literal["png", "tiff", "geojson"]


@dataclass(frozen=True)
class ExportSettings:
    """Selection of maps and the form in which they are written.

    Attributes:
        kind: maps drawn over their photographs, or the maps alone.
        format: of maps: "png" has 16 bits, "tiff" 32-bit floats, "geojson" contours. Overlays are PNG with 8 bits.
        methods: ids; None for all of the run.
        where: condition on the records, see `pipeline.runs.where.Where`; None for all.
        size: long side of the pictures in pixels; None for that of the photograph. Pictures are never larger than the photograph.
        levels: thresholds of contours, above 0 and at most 1.
        photograph: False for overlays without the photograph: the colours alone, transparent outside the crop.
    """

    kind: Literal["overlays", "maps"] = "overlays"
    format: Format = "png"
    methods: tuple[str, ...] | None = None
    where: str | None = None
    size: int | None = None
    levels: tuple[float, ...] = (0.5,)
    photograph: bool = True

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: if the size is not positive, or a level is not in 0 to 1.
        """
        if self.size is not None and self.size < 1:
            raise InputError(f"--size {self.size}: give a positive number of pixels, or original")
        if not self.levels or not all(0 < level <= 1 for level in self.levels):
            raise InputError(f"--levels {','.join(map(str, self.levels))}: give thresholds above 0 and at most 1, such as 0.5,0.8")

    @property
    def suffix(self) -> str:
        """Suffix of the files."""
        return ".png" if self.kind == "overlays" else f".{self.format}"

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
