"""Floor 2: readers of labelled pictures. They read files and nothing more: no crops, no heatmaps, no augmentation."""

from collections.abc import Callable

from poseglass.core.sample import Dataset
from poseglass.datasets.coco import coco
from poseglass.datasets.coco_write import write_coco
from poseglass.datasets.flic import flic
from poseglass.datasets.folder import folder
from poseglass.datasets.labelled import LabelledImages, PackedLabels
from poseglass.datasets.lsp import lsp
from poseglass.datasets.mixed import MixedDatasets, mixed
from poseglass.datasets.mpii import mpii
from poseglass.datasets.synthetic import SyntheticPeople, synthetic_people

DATASETS: dict[str, Callable[..., Dataset]] = {
    "coco": coco,
    "flic": flic,
    "folder": folder,
    "lsp": lsp,
    "mpii": mpii,
    "synthetic": synthetic_people,
}
"""Readers by name, for ``core.table.build`` and the recipes."""

__all__ = [
    "DATASETS",
    "LabelledImages",
    "MixedDatasets",
    "PackedLabels",
    "SyntheticPeople",
    "coco",
    "flic",
    "folder",
    "lsp",
    "mixed",
    "mpii",
    "synthetic_people",
    "write_coco",
]
