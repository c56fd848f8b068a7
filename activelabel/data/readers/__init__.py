"""Readers of data sets as their publishers distribute them: ``read_x(root, **options)`` returns a cohort.

Images that lie in files are not opened before they are looked at. :mod:`activelabel.data.catalog` lists the sets.
"""

from activelabel.data.readers.chexpert import read_chexpert
from activelabel.data.readers.folder import read_folder
from activelabel.data.readers.kather import read_kather
from activelabel.data.readers.kermany import read_kermany
from activelabel.data.readers.medmnist import read_medmnist
from activelabel.data.readers.nih import read_nih
from activelabel.data.readers.table import read_table

__all__ = [
    "read_chexpert",
    "read_folder",
    "read_kather",
    "read_kermany",
    "read_medmnist",
    "read_nih",
    "read_table",
]
