"""Imports SimpleBaseline as stored by open-mmlab/mmpose, versions 0.x and 1.x.

The ResNet has torchvision's names after "backbone."; deconvolutions and output are "head" in 1.x and "keypoint_head" in
0.x. Images are RGB, normalised by the mean and standard deviation of ImageNet.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from poseglass.checkpoints import reference_msra
from poseglass.checkpoints.importer import Importer
from poseglass.checkpoints.resnet_lineage import simple_baseline, simple_baseline_names
from poseglass.checkpoints.top_down import CODEC, CODEC_DOUBT, MMPOSE, OLDER_MMPOSE, SIZE_DOUBT, SKELETONS, coco_or_mpii

LAYOUT = f"a SimpleBaseline of {MMPOSE.repository}"


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names have this layout."""
    heads = ("head.deconv_layers.0.weight", "keypoint_head.deconv_layers.0.weight")
    return "backbone.layer4.0.conv1.weight" in keys and any(head in keys for head in heads)


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read keypoints, depth and widths from the names and shapes.

    Raises:
        CheckpointError: A required tensor is missing, or the blocks match no known ResNet.
    """
    return simple_baseline(state, old="backbone.", head="head.", layout=LAYOUT)


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name -> the public one for every tensor of a card's network, as in version 1.x."""
    return simple_baseline_names(network, old="backbone.", head="head.")


IMPORTER = Importer(
    name="simple_baseline_mmpose",
    source=MMPOSE,
    recognises=recognises,
    layout=LAYOUT,
    names=names,
    network=network,
    skeletons=SKELETONS,
    input=coco_or_mpii,
    codec=CODEC,
    older=OLDER_MMPOSE,
    reference=partial(reference_msra.simple_baseline, body="backbone.", head="head."),
    notes="The original uses the flip test, with the flipped maps shifted right by one column.",
    doubt=f"{SIZE_DOUBT} {CODEC_DOUBT}",
)
