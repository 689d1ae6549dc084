"""DICOM files with every field of a patient filled in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What must never leave the file.
PATIENT = {
    "PatientName": "Quillfeather^Ottoline",
    "PatientID": "MRN-7734091",
    "PatientBirthDate": "19471103",
    "PatientAddress": "12 Larkspur Lane",
    "PatientComments": "allergic to quillwort",
    "OtherPatientIDs": "SSN-000-11-2222",
    "InstitutionName": "Saint Zephyrine",
    "ReferringPhysicianName": "Wobblethorpe^Cyril",
    "AccessionNumber": "ACC-5519",
    "StudyDescription": "query Quillfeather effusion",
}


def dicom(pixels: NDArray[Any] | None, syntax: str | None = None, frame: bytes | None = None, **attributes: Any) -> bytes:
    """Build a DICOM file of grey (H, W) or coloured (H, W, 3) pixels.

    Args:
        pixels: of 8 or 16 bits, signed or not; None for a file without pixel data.
        syntax: UID of the transfer syntax that the file claims; explicit little endian by default.
        frame: the compressed frame, for a syntax that has one; the pixels' own bytes by default.
        attributes: further attributes, or other values.
    """
    from pydicom import Dataset, FileMetaDataset
    from pydicom.dataset import FileDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax or ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    file = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = SecondaryCaptureImageStorage, "1.2.3.4", "DX"
    for name, value in PATIENT.items():
        setattr(file, name, value)
    private = Dataset()
    private.PatientName = PATIENT["PatientName"]
    file.ReferencedPatientSequence = [private]
    if pixels is not None:
        file.Rows, file.Columns = pixels.shape[:2]
        file.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
        file.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
        if pixels.ndim == 3:
            file.PlanarConfiguration = 0
        file.BitsAllocated = file.BitsStored = 8 * pixels.dtype.itemsize
        file.HighBit = file.BitsStored - 1
        file.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in attributes.items():
        setattr(file, name, value)
    if pixels is not None:
        data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        file.PixelData = data + bytes(len(data) % 2)
        file["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
        if meta.TransferSyntaxUID.is_encapsulated:
            from pydicom.encaps import encapsulate

            file.PixelData = encapsulate([frame or data])
            file["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def table(entries: list[int], first: int, bits: int, **keys: Any) -> Any:
    """Return the item of a sequence of lookup tables."""
    from pydicom import Dataset

    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = entries
    for tag, vr in (("LUTDescriptor", "US"), ("LUTData", "US")):
        item[tag].VR = vr
    for name, value in keys.items():
        setattr(item, name, value)
    return item


def write_dicom(path: Path, pixels: NDArray[Any] | None, **attributes: Any) -> Path:
    """Write such a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dicom(pixels, **attributes))
    return path


def ramp(low: int, high: int, dtype: Any = np.int16, height: int = 4) -> NDArray[Any]:
    """Return rows of all values low .. high - 1."""
    return np.tile(np.arange(low, high, dtype=dtype), (height, 1))
