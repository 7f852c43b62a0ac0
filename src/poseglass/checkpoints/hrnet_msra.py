"""Imports HRNet for pose as published by leoxiaobin/deep-high-resolution-net.pytorch, the paper's own code.

Images are RGB, normalised by the mean and standard deviation of ImageNet. Heatmap coordinates are input coordinates
divided by 4, without a half-pixel offset, and the original's flip test shifts the flipped maps by one column.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from poseglass.checkpoints import reference_msra
from poseglass.checkpoints.importer import Importer, Source, shape_of
from poseglass.checkpoints.resnet_lineage import pose_hrnet, pose_hrnet_names
from poseglass.checkpoints.top_down import CODEC, SIZE_DOUBT, SKELETONS, coco_or_mpii

SOURCE = Source(
    repository="leoxiaobin/deep-high-resolution-net.pytorch",
    url="https://github.com/leoxiaobin/deep-high-resolution-net.pytorch",
    commit="6f69e46",
    license="MIT",
)

LAYOUT = f"an HRNet for pose of {SOURCE.repository}"


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names have this layout."""
    return "final_layer.weight" in keys and "transition1.0.0.weight" in keys and "classifier.weight" not in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read keypoints, widths, modules and blocks from the names and shapes.

    Raises:
        CheckpointError: A required tensor is missing.
    """
    num_keypoints, width, _, _ = shape_of(state, "final_layer.weight", 4, LAYOUT)
    return pose_hrnet(state, num_keypoints, width, shape_of(state, "conv1.weight", 4, LAYOUT)[0], old="")


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name -> the public one for every tensor of a card's network."""
    return pose_hrnet_names(network, old="", head="")


IMPORTER = Importer(
    name="hrnet_msra",
    source=SOURCE,
    recognises=recognises,
    layout=LAYOUT,
    names=names,
    network=network,
    skeletons=SKELETONS,
    input=coco_or_mpii,
    codec=CODEC,
    reference=reference_msra.hrnet,
    notes="The original uses the flip test, with the flipped maps shifted right by one column.",
    doubt=SIZE_DOUBT,
)
