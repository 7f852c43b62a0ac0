"""Floor 2: readers of labelled pictures. They read files and nothing more: no crops, no heatmaps, no augmentation."""

from collections.abc import Callable

from poseglass.core.sample import Dataset
from poseglass.datasets.coco import coco
from poseglass.datasets.coco_write import write_coco
from poseglass.datasets.labelled import LabelledImages, PackedLabels

DATASETS: dict[str, Callable[..., Dataset]] = {
    "coco": coco,
}
"""Readers by name, for ``core.table.build`` and the recipes."""

__all__ = ["DATASETS", "LabelledImages", "PackedLabels", "coco", "write_coco"]
