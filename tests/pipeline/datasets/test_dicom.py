"""DICOM: the pixels that pydicom and the standard give, one line for each file that cannot be read, and nothing of the patient."""

from __future__ import annotations

import importlib.util
import io
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from hdm_core import Preprocess
from pipeline.cli.explain import explain_image
from pipeline.config.schema import ClassifierConfig
from pipeline.datasets import Sample
from pipeline.datasets.dicom import read_dicom, window
from pipeline.datasets.errors import UnreadableError
from pipeline.datasets.formats import has_image_suffix, missing_reader
from pipeline.datasets.images import read_image
from pipeline.plan import make_plan
from tests.support.bright_network import HEIGHT, WIDTH, photograph
from tests.support.dicom_files import PATIENT, dicom, ramp, table
from tests.support.plans import configuration
from tests.support.plans import refused as refused_plan

pytest.importorskip("pydicom", reason="the extra `medical` is not installed")


def refused(data: bytes) -> str:
    with pytest.raises(UnreadableError) as error:
        read_dicom(data)
    message = str(error.value)
    assert "\n" not in message
    assert not any(value in message for value in PATIENT.values())
    return message


def test_without_a_window_the_bits_are_the_range() -> None:
    assert read_dicom(dicom(ramp(0, 256, np.uint8)))[0, :, 0] == pytest.approx(np.arange(256) / 255)
    values = np.array([[0, 1, 2048, 4095]], np.uint16)
    assert read_dicom(dicom(values, BitsStored=12, HighBit=11))[0, :, 0] == pytest.approx(values[0] / 4095)
    signed = np.array([[-32768, 0, 32767]], np.int16)
    assert read_dicom(dicom(signed))[0, :, 0] == pytest.approx((signed[0] + 32768.0) / 65535)
    # A CT's Hounsfield units: -1024 to 3071 for 12 bits.
    rescaled = dicom(values, BitsStored=12, HighBit=11, RescaleSlope=1, RescaleIntercept=-1024)
    assert read_dicom(rescaled)[0, :, 0] == pytest.approx(values[0] / 4095)
    inverted = dicom(values, BitsStored=12, HighBit=11, RescaleSlope=-2, RescaleIntercept=5)
    assert read_dicom(inverted)[0, :, 0] == pytest.approx(1 - values[0] / 4095)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(40.0, 400.0), (-600.0, 1500.0), (0.5, 2.0)])
def test_a_window_is_pydicoms(function: str, centre: float, width: float) -> None:
    from pydicom import dcmread
    from pydicom.pixels import apply_modality_lut, apply_windowing

    data = dicom(
        ramp(-1200, 1200), RescaleSlope=1.5, RescaleIntercept=-100, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function
    )
    file = dcmread(io.BytesIO(data))
    with np.errstate(over="ignore"):  # of pydicom's sigmoid
        expected = apply_windowing(apply_modality_lut(file.pixel_array, file), file)
    low, high = -32768 * 1.5 - 100, 32767 * 1.5 - 100  # pydicom's range of the output
    np.testing.assert_allclose(read_dicom(data)[:, :, 0], (expected - low) / (high - low), atol=1e-6)


def test_a_window_by_hand() -> None:
    """Equations C.11.2.1.2 and C.11.2.1.3 of PS3.3, for centre 2048 and width 4096, the standard's own example, and for a width of 1."""
    values = np.array([-1, 0, 2047.5, 4095, 5000])
    assert window(values, 2048, 4096).tolist() == [0, 0, 0.5, 1, 1]
    assert window(np.array([0.0, 2048.0, 4096.0]), 2048, 4096, "LINEAR_EXACT").tolist() == [0, 0.5, 1]
    assert window(np.array([99.0, 100.0]), 100, 1).tolist() == [0, 1]
    assert window(np.array([100.0]), 100, 50, "SIGMOID").tolist() == [0.5]


def test_of_several_windows_the_first_is_used() -> None:
    one = dicom(ramp(0, 100), WindowCenter=50, WindowWidth=20)
    two = dicom(ramp(0, 100), WindowCenter=[50, 10], WindowWidth=[20, 5])
    np.testing.assert_array_equal(read_dicom(one), read_dicom(two))


def test_monochrome1_is_inverted() -> None:
    pixels = ramp(0, 256, np.uint8)
    np.testing.assert_allclose(read_dicom(dicom(pixels, PhotometricInterpretation="MONOCHROME1")), 1 - read_dicom(dicom(pixels)), atol=1e-6)


def test_tables_take_the_place_of_slope_and_window() -> None:
    modality = dicom(np.array([[0, 1, 2, 3]], np.uint8), ModalityLUTSequence=[table([0, 100, 200, 255], 0, 8, ModalityLUTType="US")])
    assert read_dicom(modality)[0, :, 0] == pytest.approx(np.array([0, 100, 200, 255]) / 255)
    # Both a table and a window: the table, as pydicom prefers it.
    shown = dicom(np.array([[0, 1, 2, 3]], np.uint8), VOILUTSequence=[table([4095, 1000, 10, 0], 0, 12)], WindowCenter=1, WindowWidth=2)
    assert read_dicom(shown)[0, :, 0] == pytest.approx(np.array([4095, 1000, 10, 0]) / 4095)


def test_colours() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    assert read_dicom(dicom(pixels)) == pytest.approx(pixels / 255)
    separate = dicom(np.ascontiguousarray(pixels), PlanarConfiguration=1)
    planes = pixels.reshape(3, 4, 6).transpose(1, 2, 0)
    assert read_dicom(separate) == pytest.approx(planes / 255)


def test_colours_of_jpeg_become_red_green_and_blue() -> None:
    from pydicom.pixels import convert_color_space

    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    expected = convert_color_space(pixels, "YBR_FULL", "RGB")
    np.testing.assert_allclose(read_dicom(dicom(pixels, PhotometricInterpretation="YBR_FULL")), expected / 255, atol=1e-6)


def test_a_palette() -> None:
    colours: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, entries in (("Red", [0, 65535, 0, 0]), ("Green", [0, 0, 65535, 0]), ("Blue", [0, 0, 0, 65535])):
        colours[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        colours[f"{name}PaletteColorLookupTableData"] = np.array(entries, "<u2").tobytes()
    found = read_dicom(dicom(np.array([[0, 1, 2, 3]], np.uint8), **colours))
    assert found[0].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(("form", "syntax"), [("JPEG", "1.2.840.10008.1.2.4.50"), ("JPEG2000", "1.2.840.10008.1.2.4.90")])
def test_a_codec_that_pillow_brings(form: str, syntax: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(ramp(0, 256, np.uint8, 64)).save(buffer, form)
    frame = buffer.getvalue()
    if form == "JPEG2000":  # DICOM holds the code stream without the box around it
        frame = frame[frame.index(b"\xff\x4f\xff\x51") :]
    expected = np.asarray(Image.open(io.BytesIO(buffer.getvalue()))) / 255
    np.testing.assert_allclose(read_dicom(dicom(ramp(0, 256, np.uint8, 64), syntax, frame))[:, :, 0], expected, atol=1e-6)


# Files that cannot be read


def test_without_pixels() -> None:
    assert refused(dicom(None)) == "the DICOM file holds no pixel data"


def test_several_frames() -> None:
    pixels = np.zeros((8, 4), np.uint8)
    assert refused(dicom(pixels, Rows=4, NumberOfFrames=2)) == (
        "the DICOM file has 2 frames, and one image is explained: save each frame in a file of its own"
    )


def test_a_codec_that_is_not_installed() -> None:
    jpeg_ls = dicom(np.zeros((4, 4), np.uint8), "1.2.840.10008.1.2.4.80")
    if importlib.util.find_spec("jpeg_ls") or importlib.util.find_spec("pylibjpeg"):
        pytest.skip("a codec for JPEG-LS is installed")
    message = refused(jpeg_ls)
    assert message.startswith("the DICOM file is compressed by JPEG-LS Lossless Image Compression, and no codec for it is installed: ")
    assert "no codec" in refused(dicom(np.zeros((4, 4), np.uint8), "1.2.840.10008.1.2.4.102"))  # MPEG-4


def test_without_pydicom(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom(np.zeros((4, 4), np.uint8))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert refused(data) == "DICOM is read by pydicom, which is not installed: pip install 'hdm-pipeline[medical]'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing_reader(["a.png", "b.DCM"]) == "DICOM is read by pydicom, which is not installed: pip install 'hdm-pipeline[medical]'"
    assert missing_reader(["a.png", "b.jpg"]) is None


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
def test_a_window_without_width(function: str) -> None:
    assert "a window of width 0" in refused(dicom(ramp(0, 9), WindowCenter=1, WindowWidth=0, VOILUTFunction=function))


def test_broken_files_say_nothing_of_their_contents() -> None:
    data = dicom(ramp(0, 90, height=9))
    for cut in (140, 200, 400, 700, len(data) - 200):
        refused(data[:cut])
    assert refused(dicom(np.zeros((4, 4), np.uint8), Rows=400)).startswith("the DICOM file cannot be decoded (")
    assert "decompression bomb" in refused(dicom(np.zeros((4, 4), np.uint8), Rows=65535, Columns=65535))


# As an image of a dataset


def write(folder: Path, pixels: NDArray[Any], name: str = "scan.dcm", **attributes: Any) -> Sample:
    (folder / name).write_bytes(dicom(pixels, **attributes))
    return Sample(name, str(folder / name), root=str(folder))


def test_a_grey_network_gets_hounsfield_units(tmp_path: Path) -> None:
    """A window of [-1024, 1024] and value_range of the same: the network sees the rescaled values themselves."""
    pixels = np.random.default_rng(0).integers(0, 2048, (40, 30), np.int16)
    sample = write(
        tmp_path, pixels, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=0, WindowWidth=2048, VOILUTFunction="LINEAR_EXACT"
    )
    preprocess = Preprocess((40, 30), None, (0.0,), (1.0,), value_range=(-1024, 1024))
    decoded = read_image(sample, {}, preprocess)
    assert decoded.size == (30, 40)
    torch.testing.assert_close(preprocess(decoded.image)[0], torch.from_numpy(pixels - 1024.0).float(), rtol=0, atol=1e-3)


def test_a_network_of_colours_gets_grey_three_times_and_a_page_shows_it(tmp_path: Path) -> None:
    sample = write(tmp_path, ramp(0, 256, np.uint8, 64))
    seen = Preprocess(32, 32)(read_image(sample, {}, Preprocess(32, 32)).image)
    grey = Image.fromarray(ramp(0, 256, np.uint8, 64)).convert("RGB")
    torch.testing.assert_close(seen, Preprocess(32, 32)(grey), rtol=0, atol=0.02)  # of 8 bits rounded once
    assert np.array_equal(np.asarray(read_image(sample, {}).image), np.asarray(grey))


def test_the_name_of_the_file_does_not_matter(tmp_path: Path) -> None:
    sample = write(tmp_path, ramp(0, 256, np.uint8), "scan")
    assert read_image(sample, {}).size == (256, 4)
    assert has_image_suffix("a/B.DCM")
    assert has_image_suffix("a/b.dicom")
    assert not has_image_suffix("a/DICOMDIR")


def test_nothing_of_the_patient_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    import pydicom

    read = []
    original = pydicom.dcmread

    def spy(*args: Any, **keys: Any) -> Any:
        read.append(original(*args, **keys))
        return read[-1]

    monkeypatch.setattr(pydicom, "dcmread", spy)
    with caplog.at_level(logging.DEBUG):
        decoded = read_image(write(tmp_path, ramp(0, 256, np.uint8)), {})
    (header,) = read
    assert not any(name in header for name in PATIENT)
    assert "ReferencedPatientSequence" not in header
    everything = f"{header}{caplog.text}{decoded}"
    assert not any(value in everything for value in PATIENT.values())


def test_a_dataset_of_dicom_is_refused_before_the_run_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, ramp(0, 256, np.uint8))
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "pydicom" else original(name, *rest))
    config = configuration(dataset={"kind": "folder", "root": str(tmp_path)}, output=str(tmp_path / "runs"))
    assert refused_plan(lambda: make_plan(config)) == (
        "dataset: DICOM is read by pydicom, which is not installed: pip install 'hdm-pipeline[medical]'"
    )


def test_the_explain_command_reads_dicom_in_grey(tmp_path: Path) -> None:
    sample = write(tmp_path, photograph(300, 400)[:, :, 0])
    section = {"source": "import", "factory": "tests.support.bright_network:make", "arguments": {"channels": 1}, "channels": 1}
    classifier = ClassifierConfig(**section, resize=(HEIGHT, WIDTH), value_range=(-1024, 1024), mean=(-600,), std=(400,))
    out = tmp_path / "map.png"
    facts = explain_image(sample.path, str(out), classifier, method="grad_cam", preset=None, target=None)
    assert facts["status"] == "ok"
    with Image.open(out) as heatmap:
        assert heatmap.size == (WIDTH, HEIGHT)
