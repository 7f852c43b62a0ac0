"""Imports HRNet for pose as stored by open-mmlab/mmpose, versions 0.x and 1.x.

The backbone has the paper's own names after "backbone."; the output is "head" in 1.x and "keypoint_head" in 0.x. Images
are RGB, normalised by the mean and standard deviation of ImageNet.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from poseglass.checkpoints import reference_msra
from poseglass.checkpoints.importer import Importer, shape_of
from poseglass.checkpoints.resnet_lineage import pose_hrnet, pose_hrnet_names
from poseglass.checkpoints.top_down import CODEC, CODEC_DOUBT, MMPOSE, OLDER_MMPOSE, SIZE_DOUBT, SKELETONS, coco_or_mpii

LAYOUT = f"an HRNet for pose of {MMPOSE.repository}"


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names have this layout."""
    heads = ("head.final_layer.weight", "keypoint_head.final_layer.weight")
    return "backbone.transition1.0.0.weight" in keys and any(head in keys for head in heads)


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read keypoints, widths, modules and blocks from the names and shapes.

    Raises:
        CheckpointError: A required tensor is missing.
    """
    num_keypoints, width, _, _ = shape_of(state, "head.final_layer.weight", 4, LAYOUT)
    stem_width = shape_of(state, "backbone.conv1.weight", 4, LAYOUT)[0]
    return pose_hrnet(state, num_keypoints, width, stem_width, old="backbone.")


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name -> the public one for every tensor of a card's network, as in version 1.x."""
    return pose_hrnet_names(network, old="backbone.", head="head.")


IMPORTER = Importer(
    name="hrnet_mmpose",
    source=MMPOSE,
    recognises=recognises,
    layout=LAYOUT,
    names=names,
    network=network,
    skeletons=SKELETONS,
    input=coco_or_mpii,
    codec=CODEC,
    older=OLDER_MMPOSE,
    reference=partial(reference_msra.hrnet, body="backbone.", head="head."),
    notes="The original uses the flip test, with the flipped maps shifted right by one column.",
    doubt=f"{SIZE_DOUBT} {CODEC_DOUBT}",
)
