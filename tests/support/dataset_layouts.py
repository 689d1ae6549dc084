"""Small generated datasets in the official layouts of the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openpyxl
from PIL import Image

from tests.support.plans import save_picture

WIDTH, HEIGHT = 24, 20  # of every image

BIRDS = ("001.Albatross", "002.Auklet", "003.Wren")


def save_mask(path: Path, inside: tuple[int, int, int, int] | None, ink: int = 255, paper: int = 0) -> Path:
    """Write a mask of the images' size: `ink` in the box (left, top, right, bottom), `paper` elsewhere."""
    mask = Image.new("L", (WIDTH, HEIGHT), paper)
    if inside is not None:
        mask.paste(ink, inside)
    path.parent.mkdir(parents=True, exist_ok=True)
    mask.save(path)
    return path


def save_red_mask(path: Path, inside: tuple[int, int, int, int]) -> Path:
    """Write a mask as IDRiD has it: a palette of black and red, whose grey level is far below one half."""
    mask = Image.new("P", (WIDTH, HEIGHT))
    mask.putpalette([0, 0, 0, 255, 0, 0])
    mask.paste(1, inside)
    path.parent.mkdir(parents=True, exist_ok=True)
    mask.save(path)
    return path


def cub(root: Path, segmentations: Path | None = None) -> Path:
    """Write CUB-200-2011: three classes of two training and two test images; each box is 4 3 10 12 (left top width height)."""
    names = [f"{bird}/Bird_{i:04d}_{1000 + i}.jpg" for bird in BIRDS for i in range(4)]
    for i, name in enumerate(names):
        save_picture(root / "images" / name, WIDTH, HEIGHT, seed=i)
        if segmentations is not None:
            save_mask(segmentations / Path(name).with_suffix(".png"), (4, 3, 14, 15), ink=128 + i)
    count = range(1, len(names) + 1)
    tables = {
        "images.txt": [f"{i} {names[i - 1]}" for i in count],
        "classes.txt": [f"{i} {bird}" for i, bird in enumerate(BIRDS, start=1)],
        "image_class_labels.txt": [f"{i} {1 + (i - 1) // 4}" for i in count],
        "train_test_split.txt": [f"{i} {i % 2}" for i in count],
        "bounding_boxes.txt": [f"{i} 4.0 3.0 10.0 12.0" for i in count],
    }
    for table, lines in tables.items():
        (root / table).write_text("\n".join(lines) + "\n")
    return root


def palm(root: Path) -> Path:
    """Write iChallenge-PM as its archives unpack: nine training photographs, two with lesions; four of validation, with a workbook."""
    training = root / "PALM-Training400"
    for i, name in enumerate(f"{letter}{i:04d}" for letter in "HNP" for i in range(1, 4)):
        save_picture(training / "PALM-Training400" / f"{name}.jpg", WIDTH, HEIGHT, seed=i)
    lesions = training / "PALM-Training400-Annotation-Lession" / "Lesion_Masks"
    save_mask(lesions / "Atrophy" / "P0001.bmp", (2, 2, 8, 9), ink=0, paper=255)
    save_mask(lesions / "Detachment" / "P0001.bmp", (12, 10, 20, 18), ink=0, paper=255)
    save_mask(lesions / "Atrophy" / "H0003.bmp", (5, 5, 9, 9), ink=0, paper=255)
    save_picture(lesions.parent / "Lesion_Illustration" / "P0001.jpg")
    save_mask(training / "PALM-Training400-Annotation-D&F" / "Disc_Masks" / "P0002.bmp", (1, 1, 4, 4), ink=0, paper=255)
    for i in range(1, 5):
        save_picture(root / "PALM-Validation400" / f"V{i:04d}.jpg", WIDTH, HEIGHT, seed=20 + i)
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["ID", "imgName", "Label", "Fovea_X", "Fovea_Y"])
    for i in range(1, 5):
        sheet.append([i, f"V{i:04d}.jpg", i % 2, 11.5, 9.25])
    (root / "PALM-Validation-GT").mkdir()
    book.save(root / "PALM-Validation-GT" / "PM_Label_and_Fovea_Location.xlsx")
    save_mask(root / "PALM-Validation-GT" / "Lesion_Masks" / "Atrophy" / "V0003.bmp", (3, 3, 6, 6), ink=0, paper=255)
    return root


GRADES = (0, 1, 2, 3, 4, 2)


def idrid(root: Path) -> Path:
    """Write IDRiD as its archives unpack: six graded photographs for training, two for test, and six and one with masks."""
    grading = root / "B. Disease Grading"
    for letter, split, grades in (("a", "Training", GRADES), ("b", "Testing", (0, 4))):
        lines = ["Image name,Retinopathy grade,Risk of macular edema ,,"]
        for i, grade in enumerate(grades, start=1):
            save_picture(grading / "1. Original Images" / f"{letter}. {split} Set" / f"IDRiD_{i:03d}.jpg", WIDTH, HEIGHT, seed=i)
            lines.append(f"IDRiD_{i:03d},{grade},1,,")
        labels = grading / "2. Groundtruths" / f"{letter}. IDRiD_Disease Grading_{split} Labels.csv"
        labels.parent.mkdir(exist_ok=True)
        labels.write_text("\n".join([*lines, ",,,,"]) + "\n")
    segmentation = root / "A. Segmentation"
    for i in range(1, 8):
        split = "a. Training Set" if i < 7 else "b. Testing Set"
        save_picture(segmentation / "1. Original Images" / split / f"IDRiD_{i:02d}.jpg", WIDTH, HEIGHT, seed=i)
        masks = segmentation / "2. All Segmentation Groundtruths" / split
        save_red_mask(masks / "1. Microaneurysms" / f"IDRiD_{i:02d}_MA.tif", (8, 4, 12, 8))
        save_red_mask(masks / "3. Hard Exudates" / f"IDRiD_{i:02d}_EX.tif", (10, 6, 15, 12))
        save_red_mask(masks / "5. Optic Disc" / f"IDRiD_{i:02d}_OD.tif", (3, 14, 8, 18))
    return root


def plain_idrid(root: Path) -> Path:
    """Write the same training photographs in the plain layout, with white masks."""
    official = idrid(root.with_name("official"))
    lines = ["image,retinopathy_grade,macular_edema_risk"]
    for i, grade in enumerate(GRADES, start=1):
        name = f"IDRiD_{i:03d}.jpg"
        _copy(official / "B. Disease Grading" / "1. Original Images" / "a. Training Set" / name, root / "grading" / "images" / name)
        _copy(
            official / "A. Segmentation" / "1. Original Images" / "a. Training Set" / f"IDRiD_{i:02d}.jpg",
            root / "segmentation" / "images" / f"IDRiD_{i:02d}.jpg",
        )
        lines.append(f"{name},{grade},1")
        for lesion, inside in (("MA", (8, 4, 12, 8)), ("EX", (10, 6, 15, 12)), ("OD", (3, 14, 8, 18))):
            save_mask(root / "segmentation" / "masks" / lesion / f"IDRiD_{i:02d}.png", inside)
    (root / "grading" / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def boxed(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Return (HEIGHT, WIDTH) bool, true in any of the boxes."""
    inside = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for left, top, right, bottom in boxes:
        inside[top:bottom, left:right] = True
    return inside


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
