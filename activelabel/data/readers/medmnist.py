"""The twelve 2-D sets of MedMNIST, in the npz files that the ``medmnist`` package downloads.

A file holds ``train_images``, ``val_images``, ``test_images``, uint8 ``(n, H, W)`` or ``(n, H, W, 3)``, and
``train_labels`` ..., ``(n, 1)`` class numbers or, for ChestMNIST, ``(n, 14)`` of 0 and 1.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, Source
from activelabel.data.npz import read_arrays
from activelabel.data.readers.shared import one_hot
from activelabel.errors import DataError, SettingsError, unknown
from activelabel.files import atomic_path

SIZES = (28, 64, 128, 224)
"""Heights and widths that every set comes in."""

SPLITS = ("train", "val", "test")

THREE_D = ("organmnist3d", "nodulemnist3d", "adrenalmnist3d", "fracturemnist3d", "vesselmnist3d", "synapsemnist3d")
"""The sets of volumes, which are not read."""

_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)


@dataclass(frozen=True)
class MedMnistSet:
    """What is known of a set; the same as ``medmnist.INFO`` says.

    Parameters
    ----------
    title: what the images show, and where they come from.
    images: how many there are for train, val and test.
    classes: in the order of the numbers in the file.
    normal: the class of images without abnormality, or None.
    multi_label: whether an image may have several classes or none.
    licence: of the set.
    """

    title: str
    images: tuple[int, int, int]
    classes: tuple[str, ...]
    normal: str | None = None
    multi_label: bool = False
    licence: str = "CC BY 4.0"

    def all_classes(self) -> tuple[str, ...]:
        """Return the classes of the cohort: of a multi-label set also that of the images without any."""
        return (*self.classes, "no finding") if self.multi_label else self.classes


SETS = {
    "pathmnist": MedMnistSet(
        "Colorectal histology (NCT-CRC-HE-100K, Kather et al. 2019)",
        (89996, 10004, 7180),
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        normal="normal colon mucosa",
    ),
    "chestmnist": MedMnistSet(
        "Chest X-rays (NIH ChestX-ray14, Wang et al. 2017)",
        (78468, 11219, 22433),
        (
            "atelectasis",
            "cardiomegaly",
            "effusion",
            "infiltration",
            "mass",
            "nodule",
            "pneumonia",
            "pneumothorax",
            "consolidation",
            "edema",
            "emphysema",
            "fibrosis",
            "pleural",
            "hernia",
        ),
        normal="no finding",
        multi_label=True,
    ),
    "dermamnist": MedMnistSet(
        "Dermatoscopy of pigmented lesions (HAM10000, Tschandl et al. 2018)",
        (7007, 1003, 2005),
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        licence="CC BY-NC 4.0",
    ),
    "octmnist": MedMnistSet(
        "Retinal optical coherence tomography (Kermany et al. 2018)",
        (97477, 10832, 1000),
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        normal="normal",
    ),
    "pneumoniamnist": MedMnistSet(
        "Paediatric chest X-rays (Kermany et al. 2018)", (4708, 524, 624), ("normal", "pneumonia"), normal="normal"
    ),
    "retinamnist": MedMnistSet(
        "Fundus photographs, grades of retinopathy (DeepDRiD, Liu et al. 2022)",
        (1080, 120, 400),
        ("0", "1", "2", "3", "4"),
        normal="0",
    ),
    "breastmnist": MedMnistSet(
        "Breast ultrasound (Al-Dhabyani et al. 2020)", (546, 78, 156), ("malignant", "normal, benign")
    ),
    "bloodmnist": MedMnistSet(
        "Blood cells in the microscope (Acevedo et al. 2020)",
        (11959, 1712, 3421),
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
    ),
    "tissuemnist": MedMnistSet(
        "Kidney cortex cells in the microscope (BBBC051, Ljosa et al. 2012)",
        (165466, 23640, 47280),
        (
            "Collecting Duct, Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
    ),
    "organamnist": MedMnistSet("Abdominal CT, axial (LiTS, Bilic et al. 2019)", (34561, 6491, 17778), _ORGANS),
    "organcmnist": MedMnistSet("Abdominal CT, coronal (LiTS, Bilic et al. 2019)", (12975, 2392, 8216), _ORGANS),
    "organsmnist": MedMnistSet("Abdominal CT, sagittal (LiTS, Bilic et al. 2019)", (13932, 2452, 8827), _ORGANS),
}
"""The 2-D sets by the package's name, as of its version 3."""


def source(name: str) -> Source:
    """Return the provenance of a set."""
    return Source(
        name=name,
        licence=SETS[name].licence,
        citation="Yang et al. 2023, MedMNIST v2, Scientific Data 10:41; images: " + SETS[name].title,
        url="https://medmnist.com",
    )


def file_name(name: str, size: int) -> str:
    """Return the name of a set's file, such as ``pathmnist.npz`` (28 x 28) or ``pathmnist_64.npz``."""
    return f"{name}.npz" if size == 28 else f"{name}_{size}.npz"


def read_medmnist(name: str, root: Path, *, size: int = 28, download: bool = False) -> Cohort:
    """Read a 2-D set of MedMNIST.

    The images are arrays: at size 224 the largest sets take 12 to 16 GB of memory, twice that while they are read.
    ChestMNIST's images without a finding get a class of their own, "no finding", the normal one; RetinaMNIST's grades
    are classes. There are no patients.

    Parameters
    ----------
    name: such as ``"pathmnist"``.
    root: the folder of the npz files, the package's own is ``~/.medmnist``.
    size: 28, 64, 128 or 224.
    download: whether to fetch the file, checked by its MD5, where it is not there; needs the package.

    Raises
    ------
    DataError: if there is no such set, the file is not there or not of the format, or the package is missing.
    SettingsError: if there is no such size.
    """
    if name in THREE_D:
        raise DataError(f"{name} holds volumes; only the 2-D sets of MedMNIST are read: {', '.join(SETS)}.")
    if name not in SETS:
        raise DataError(unknown("MedMNIST set", name, SETS))
    if size not in SIZES:
        raise SettingsError(f"size={size}: MedMNIST comes in {', '.join(map(str, SIZES))}.")
    path = root / file_name(name, size)
    if not path.is_file():
        if not download:
            raise DataError(
                f"{path}: no such file. Get it from https://doi.org/10.5281/zenodo.10519652 and put it there, or have "
                'it fetched with download=True (needs pip install "activelabel[medmnist]").'
            )
        _download(name, path, size)
    arrays = read_arrays(path)
    for array in (f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")):
        if array not in arrays:
            raise DataError(f"{path}: {unknown('array', array, arrays)}")
    _check_images(path, arrays, size)
    known = SETS[name]
    return Cohort(
        labels=_labels(path, np.concatenate([arrays[f"{split}_labels"] for split in SPLITS]), known),
        classes=known.all_classes(),
        images=np.concatenate([arrays[f"{split}_images"] for split in SPLITS]),
        normal=None if known.normal is None else known.all_classes().index(known.normal),
        split=np.repeat(SPLITS, [len(arrays[f"{split}_labels"]) for split in SPLITS]),
        names=np.array([f"{split}/{row}" for split in SPLITS for row in range(len(arrays[f"{split}_labels"]))]),
        source=source(name),
    )


def _check_images(path: Path, arrays: Mapping[str, NDArray[Any]], size: int) -> None:
    for split in SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype != np.uint8 or images.shape[1:] not in ((size, size), (size, size, 3)):
            raise DataError(
                f"{path}: {split}_images is {images.dtype} {images.shape}; expected uint8 (n, {size}, {size}) or "
                f"(n, {size}, {size}, 3)."
            )
        if labels.ndim != 2 or labels.dtype.kind not in "iu" or len(labels) != len(images):
            raise DataError(f"{path}: {split}_labels is {labels.dtype} {labels.shape} for {len(images)} images.")


def _labels(path: Path, array: NDArray[Any], known: MedMnistSet) -> NDArray[np.int8]:
    width = len(known.classes)
    if known.multi_label:
        if array.shape[1] != width or not np.isin(array, (0, 1)).all():
            raise DataError(f"{path}: labels {array.shape}; expected (n, {width}) of 0 and 1.")
        return np.column_stack([array, ~array.any(axis=1)]).astype(np.int8)
    if array.shape[1] != 1 or not ((array >= 0) & (array < width)).all():
        raise DataError(f"{path}: labels {array.shape}; expected (n, 1) of 0 to {width - 1}.")
    return one_hot(array[:, 0].tolist(), width)


def _download(name: str, path: Path, size: int) -> None:
    try:
        package = importlib.import_module("medmnist")
    except ImportError:
        raise DataError(f'{path}: fetching it needs pip install "activelabel[medmnist]".') from None
    utils = importlib.import_module("torchvision.datasets.utils")
    suffix = "" if size == 28 else f"_{size}"
    url, md5 = (package.INFO[name][f"{key}{suffix}"] for key in ("url", "MD5"))
    try:
        with atomic_path(path) as temporary:
            utils.download_url(url, str(path.parent), filename=temporary.name, md5=md5)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: could not be fetched from {url} ({error}).") from None
