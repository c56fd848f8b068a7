"""Small data sets in their publishers' exact formats, for the tests of the readers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from activelabel.data.readers.chexpert import CLASSES as CHEXPERT
from activelabel.data.readers.kather import CLASSES as KATHER

CHEXPERT_HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT)
NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def write_image(path: Path, seed: int = 0, mode: str = "L", size: tuple[int, int] = (10, 8)) -> Path:
    """Write an image of noise, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.frombytes(mode, size, pixels.tobytes()).save(path)
    return path


def truncate(path: Path) -> Path:
    """Cut the second half of a file off."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def chexpert_row(path: str, sex: str, age: int, view: str, position: str, **labels: float) -> str:
    """Return a line of CheXpert's CSV; observations that are not named are left empty."""
    observed = {name.replace("_", " "): value for name, value in labels.items()}
    return ",".join([path, sex, str(age), view, position, *(str(observed.get(c, "")) for c in CHEXPERT)])


def write_chexpert(folder: Path, outer: str = "CheXpert-v1.0-small") -> Path:
    """Write six images: a lateral view, blanks and -1.0, sex Unknown, age 0."""
    rows = {
        "train": [
            ("patient00001/study1/view1_frontal", "Female", 68, "Frontal", "AP", {"No_Finding": 1.0}),
            ("patient00002/study2/view1_frontal", "Male", 87, "Frontal", "PA", {"Edema": -1.0, "Fracture": 1.0}),
            ("patient00002/study2/view2_lateral", "Male", 87, "Lateral", "", {"Edema": -1.0, "Fracture": 1.0}),
            ("patient00002/study1/view1_frontal", "Male", 83, "Frontal", "AP", {"Edema": 1.0, "Pneumonia": 0.0}),
            ("patient00003/study1/view1_frontal", "Unknown", 0, "Frontal", "AP", {"Cardiomegaly": 1.0}),
        ],
        "valid": [("patient64541/study1/view1_frontal", "Male", 73, "Frontal", "AP", dict.fromkeys(CHEXPERT, 0.0))],
    }
    for part, found in rows.items():
        lines = [CHEXPERT_HEADER]
        for number, (name, sex, age, view, position, labels) in enumerate(found):
            write_image(folder / part / f"{name}.jpg", number)
            lines.append(chexpert_row(f"{outer}/{part}/{name}.jpg", sex, age, view, position, **labels))
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_chexpert_batches(folder: Path) -> Path:
    """Write the same as the full release is unpacked: the patients in batches, their rows in the first."""
    write_chexpert(folder, "CheXpert-v1.0")
    first = folder / "CheXpert-v1.0 batch 1 (validate & csv)"
    first.mkdir()
    for name in ("train.csv", "valid.csv", "valid"):
        (folder / name).rename(first / name)
    for number, patients in {2: ["patient00001", "patient00002"], 3: ["patient00003"]}.items():
        for patient in patients:
            batch = folder / f"CheXpert-v1.0 batch {number} (train {number - 1})"
            batch.mkdir(exist_ok=True)
            (folder / "train" / patient).rename(batch / patient)
    (folder / "train").rmdir()
    return folder


def write_kermany(folder: Path) -> Path:
    """Write eight images, and what operating systems leave behind."""
    names = (
        "train/NORMAL/IM-0115-0001.jpeg",
        "train/NORMAL/IM-0131-0001-0002.jpeg",
        "train/NORMAL/NORMAL2-IM-0383-0001.jpeg",
        "train/PNEUMONIA/person1_bacteria_1.jpeg",
        "train/PNEUMONIA/person1_virus_7.jpeg",
        "train/PNEUMONIA/person1372_virus_2365_3.jpeg",
        "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
        "test/NORMAL/IM-0001-0001.jpeg",
    )
    for number, name in enumerate(names):
        write_image(folder / name, number)
    for rest in (".DS_Store", "train/.DS_Store", "train/NORMAL/.DS_Store", "train/NORMAL/._IM-0115-0001.jpeg"):
        (folder / rest).write_bytes(b"\0")
    (folder / "__MACOSX" / "train" / "NORMAL").mkdir(parents=True)
    (folder / "train" / "NORMAL" / "__MACOSX").mkdir()
    (folder / "train" / "NORMAL" / "__MACOSX" / "IM-0115-0001.jpeg").write_bytes(b"\0")
    return folder


def write_kather(folder: Path) -> Path:
    """Write a tile of each tissue; the third is of slide 03, and so on."""
    for number, name in enumerate(KATHER, start=1):
        tile = f"1A{number}_CRC-Prim-HE-{number:02d}_0{number}.tif_Row_1_Col_151.tif"
        write_image(folder / f"{number:02d}_{name}" / tile, number, "RGB")
    return folder


def write_nih(folder: Path) -> Path:
    """Write five images in two of the archives' folders: several findings, ages of all kinds, the publisher's lists."""
    rows = (
        ("00000001_000.png", "Cardiomegaly", 0, "00000001", "058Y", "M", "PA"),
        ("00000001_001.png", "Cardiomegaly|Emphysema", 1, "00000001", "58", "M", "PA"),
        ("00000002_000.png", "No Finding", 0, "00000002", "018M", "F", "AP"),
        ("00000003_000.png", "Pleural_Thickening|Mass", 0, "00000003", "412", "F", ""),
        ("00000004_000.png", "No Finding", 0, "00000004", "414Y", "M", "AP"),
    )
    lines = [NIH_HEADER, *(",".join(map(str, row)) + ",2682,2749,0.143,0.143," for row in rows)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Data_Entry_2017.csv").write_text("\r\n".join(lines) + "\r\n")
    for number, row in enumerate(rows):
        write_image(folder / f"images_{1 + number // 3:03d}" / "images" / row[0], number)
    (folder / "train_val_list.txt").write_text("\n".join(row[0] for row in rows[:3]))
    (folder / "test_list.txt").write_text("\n".join(row[0] for row in rows[3:]) + "\n")
    return folder


def write_medmnist(folder: Path, name: str = "pneumoniamnist", size: int = 28, classes: int = 2) -> Path:
    """Write a set of 4 + 2 + 3 images as the package stores it; ChestMNIST's labels are a matrix."""
    rng = np.random.default_rng(0)
    colours = name in ("pathmnist", "dermamnist", "retinamnist", "bloodmnist")
    arrays = {}
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        shape = (count, size, size, 3) if colours else (count, size, size)
        arrays[f"{part}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        numbers = (np.arange(count) % classes).astype(np.uint8)[:, None]
        arrays[f"{part}_labels"] = rng.integers(0, 2, (count, 14)) if name == "chestmnist" else numbers
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / (f"{name}.npz" if size == 28 else f"{name}_{size}.npz"), **arrays)
    return folder


def write_classes(folder: Path) -> Path:
    """Write a folder of class folders: colours, depths and formats, a folder further below, hidden and other files."""
    write_image(folder / "normal" / "a.png", 1, "RGBA")
    deep = np.arange(80, dtype=np.uint16).reshape(8, 10) * 800
    Image.fromarray(deep).save(folder / "normal" / "b.png")
    write_image(folder / "normal" / "2019" / "c.bmp", 3, "RGB")
    write_image(folder / "tumour" / "d.JPG", 4, "RGB")
    write_image(folder / "tumour" / "e.jpg", 5)
    shutil.copy(folder / "tumour" / "d.JPG", folder / "tumour" / "f.jpg")
    for rest in (".hidden.png", "normal/.DS_Store", "tumour/notes.txt", "tumour/.cache/g.png"):
        (folder / rest).parent.mkdir(exist_ok=True)
        (folder / rest).write_bytes(b"\0")
    return folder


def write_table(folder: Path) -> Path:
    """Write a CSV with every column that can be read, and its images; return the CSV."""
    lines = [
        "file,finding,Edema,Effusion,who,years,gender,projection,part",
        "scans/a.png,normal,0,0,p1,61,F,PA,train",
        "scans/b.png,edema,1,-1,p1,61,female,lateral,train",
        '"scans/c,1.png",edema,1,0,p2,,M,AP,valid',
        "scans/d.png,effusion,0,1.0,p3,0.5,,,Test",
    ]
    for number, name in enumerate(("a", "b", "c,1", "d")):
        write_image(folder / "scans" / f"{name}.png", number)
    (folder / "list.csv").write_text("\ufeff" + "\n".join(lines) + "\n\n", encoding="utf-8")
    return folder / "list.csv"


@dataclass(frozen=True)
class Tree:
    """A data set that a test writes, and what a reader must find in it."""

    write: Callable[[Path], Path]
    name: str
    rows: int
    normal: str | None
    catalogued: bool = True
    options: tuple[tuple[str, str], ...] = ()


TREES = {
    "chexpert": Tree(write_chexpert, "chexpert", 6, "No Finding"),
    "chexpert batches": Tree(write_chexpert_batches, "chexpert", 6, "No Finding"),
    "kermany": Tree(write_kermany, "kermany", 8, "NORMAL"),
    "kermany subtype": Tree(write_kermany, "kermany", 8, "normal", options=(("labels", "subtype"),)),
    "kather2016": Tree(write_kather, "kather2016", 8, "MUCOSA"),
    "nih-cxr14": Tree(write_nih, "nih-cxr14", 5, "No Finding"),
    "pneumoniamnist": Tree(write_medmnist, "pneumoniamnist", 9, "normal"),
    "folder": Tree(write_classes, "data", 6, "normal", catalogued=False),
    "table": Tree(write_table, "list", 4, "normal", catalogued=False, options=(("path", "file"), ("label", "finding"))),
}
"""One for each reader and lay-out."""
