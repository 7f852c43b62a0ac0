"""Layer 2: readers of labelled images. They only read files: no crops, no heatmaps, no augmentation."""

from collections.abc import Callable

from poseglass.core.sample import Dataset
from poseglass.readers.coco import coco
from poseglass.readers.coco_write import write_coco
from poseglass.readers.flic import flic
from poseglass.readers.folder import folder
from poseglass.readers.kitti import kitti
from poseglass.readers.kuzushiji import kuzushiji
from poseglass.readers.labelled import LabelledImages, PackedLabels
from poseglass.readers.lsp import lsp
from poseglass.readers.mixed import MixedDatasets, mixed
from poseglass.readers.mpii import mpii

READERS: dict[str, Callable[..., Dataset]] = {
    "coco": coco,
    "flic": flic,
    "folder": folder,
    "kitti": kitti,
    "kuzushiji": kuzushiji,
    "lsp": lsp,
    "mpii": mpii,
}
"""Readers of files by name; ``poseglass.data.DATASETS`` also has the synthetic data sets."""

__all__ = [
    "READERS",
    "LabelledImages",
    "MixedDatasets",
    "PackedLabels",
    "coco",
    "flic",
    "folder",
    "kitti",
    "kuzushiji",
    "lsp",
    "mixed",
    "mpii",
    "write_coco",
]
