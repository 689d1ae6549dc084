"""DICOM images, read by pydicom, an optional dependency.

Only the attributes that the pixels need are read: those of the patient never enter the process's objects, errors or logs.
"""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.errors import UnreadableError, refuse_bomb
from pipeline.datasets.formats import DICOM_HINT

_MAGIC = slice(128, 132)
# Attributes that are read; all others are skipped. Sequences hold lookup tables.
_PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_READ = (
    "Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation", "NumberOfFrames", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "VOILUTSequence", "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", *_PIXEL_DATA,
)  # fmt: skip


def is_dicom(data: bytes) -> bool:
    """Return True for the bytes of a DICOM file: a preamble, and the letters DICM."""
    return data[_MAGIC] == b"DICM"


def read_dicom(data: bytes) -> NDArray[np.float32]:
    """Read the one frame of a DICOM file as (H, W, C) in [0, 1]: 1 channel, or RGB.

    Grey values are rescaled, by slope and intercept or a table (modality), then windowed (values of interest): the file's first table or
    window is 0 to 1, or else the range that its bits can hold. MONOCHROME1 is inverted, so that 1 is white.

    Raises:
        UnreadableError: if pydicom or a codec is not installed, the file holds no pixels, several frames, or values without a range.
    """
    try:
        pydicom: Any = importlib.import_module("pydicom")
        pixels: Any = importlib.import_module("pydicom.pixels")
    except ModuleNotFoundError:
        raise UnreadableError(DICOM_HINT) from None
    try:
        header = pydicom.dcmread(io.BytesIO(data), specific_tags=list(_READ))
        _check(header, pixels)
        return _colours(header) if header.SamplesPerPixel == 3 else _grey(header, pixels)
    except UnreadableError:
        raise
    except Exception as error:  # its text may quote the file, and so the patient
        raise UnreadableError(f"the DICOM file cannot be decoded ({type(error).__name__})") from None


def _check(header: Any, pixels: Any) -> None:
    """Refuse a file whose pixels cannot be read."""
    if not any(name in header for name in _PIXEL_DATA):
        raise UnreadableError("the DICOM file holds no pixel data")
    if (frames := int(header.get("NumberOfFrames") or 1)) != 1:
        raise UnreadableError(f"the DICOM file has {frames} frames, and one image is explained: save each frame in a file of its own")
    if header.SamplesPerPixel not in (1, 3):
        raise UnreadableError(f"the DICOM file has {header.SamplesPerPixel} samples per pixel; 1 and 3 are read")
    refuse_bomb(int(header.Columns), int(header.Rows), int(header.SamplesPerPixel))
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_compressed and syntax.is_encapsulated:
        try:
            available = pixels.get_decoder(syntax).is_available
        except NotImplementedError:
            available = False
        if not available:
            raise UnreadableError(
                f"the DICOM file is compressed by {syntax.name}, and no codec for it is installed: "
                "pip install 'pylibjpeg[all]', or save it uncompressed"
            )


def _grey(header: Any, pixels: Any) -> NDArray[np.float32]:
    """Return rescaled and windowed grey values, (H, W, 1) in [0, 1]."""
    if header.PhotometricInterpretation == "PALETTE COLOR":
        table = pixels.apply_color_lut(header.pixel_array, header)
        return np.asarray(table[:, :, :3], np.float32) / np.float32(np.iinfo(table.dtype).max)
    values = pixels.apply_modality_lut(header.pixel_array, header)
    if header.get("VOILUTSequence"):
        shown = _by_table(values, header, pixels)
    elif header.get("WindowWidth") is not None and header.get("WindowCenter") is not None:
        shown = window(values, _first(header.WindowCenter), _first(header.WindowWidth), header.get("VOILUTFunction") or "LINEAR")
    else:
        low, high = _stored_range(header)
        shown = (values.astype(np.float64) - low) / (high - low)
    if header.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    return np.asarray(shown, np.float32).clip(0, 1)[:, :, None]


def window(values: NDArray[Any], centre: float, width: float, function: str = "LINEAR") -> NDArray[np.float64]:
    """Map a window of values to [0, 1]: DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3.

    Raises:
        UnreadableError: if the width is not positive, or the function is unknown.
    """
    if width < 1 if function == "LINEAR" else width <= 0:
        raise UnreadableError(f"the DICOM file has a window of width {width:g}")
    values = values.astype(np.float64)
    match function:
        case "LINEAR" if width == 1:
            return (values > centre - 0.5).astype(np.float64)
        case "LINEAR":
            return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
        case "LINEAR_EXACT":
            return np.clip((values - centre) / width + 0.5, 0, 1)
        case "SIGMOID":
            # 1 / (1 + exp(-4 x)), in a form that does not overflow.
            return np.asarray((1 + np.tanh(2 * (values - centre) / width)) / 2, np.float64)
    raise UnreadableError("the DICOM file's window is neither LINEAR, LINEAR_EXACT nor SIGMOID")


def _by_table(values: NDArray[Any], header: Any, pixels: Any) -> NDArray[np.float64]:
    """Apply the file's first table of values of interest, to [0, 1]."""
    bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
    return np.asarray(pixels.apply_voi(values.astype(np.int64), header), np.float64) / ((1 << bits) - 1)


def _stored_range(header: Any) -> tuple[float, float]:
    """Return the lowest and highest value that the bits can hold, rescaled."""
    if header.get("ModalityLUTSequence"):
        return 0.0, float((1 << int(header.ModalityLUTSequence[0].LUTDescriptor[2])) - 1)
    if "PixelData" not in header:
        raise UnreadableError("the DICOM file has floats without a window, and so no known range")
    bits, signed = int(header.BitsStored), int(header.PixelRepresentation)
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    rescaled = "RescaleSlope" in header and "RescaleIntercept" in header  # pydicom rescales with both only
    slope, intercept = (float(header.RescaleSlope), float(header.RescaleIntercept)) if rescaled else (1.0, 0.0)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    if ends[0] == ends[1]:
        raise UnreadableError("the DICOM file has a rescale slope of 0")
    return ends[0], ends[1]


def _colours(header: Any) -> NDArray[np.float32]:
    """Return RGB, (H, W, 3) in [0, 1]."""
    return np.asarray(header.pixel_array, np.float32) / np.float32((1 << int(header.BitsStored)) - 1)


def _first(value: Any) -> float:
    """Return a value, or the first of several."""
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)
