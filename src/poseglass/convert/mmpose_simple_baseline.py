"""SimpleBaseline as open-mmlab/mmpose stores it, versions 0.x and 1.x.

The ResNet has torchvision's names behind "backbone."; deconvolutions and output are the "head" of 1.x and the
"keypoint_head" of 0.x. Images are RGB, normalised by the mean and deviation of ImageNet.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from poseglass.convert.importer import Importer, Source, shape_of, take
from poseglass.convert.resnet_lineage import simple_baseline, simple_baseline_names
from poseglass.convert.top_down import CODEC, INPUT, INPUT_BY_KEYPOINTS, SKELETONS, head_of_1x
from poseglass.estimators.weights import CheckpointError

SOURCE = Source(
    repository="open-mmlab/mmpose", url="https://github.com/open-mmlab/mmpose", commit="759b39c", license="Apache-2.0"
)

LAYOUT = f"a SimpleBaseline of {SOURCE.repository}"


def recognises(keys: Collection[str]) -> bool:
    """Return whether these are this layout's names."""
    heads = ("head.deconv_layers.0.weight", "keypoint_head.deconv_layers.0.weight")
    return "backbone.layer4.0.conv1.weight" in keys and any(head in keys for head in heads)


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read keypoints, depth and widths from the names and shapes.

    Raises:
        CheckpointError: A tensor that tells them is missing, or the ResNet has other blocks than the known ones.
    """
    state = head_of_1x(state)
    num_keypoints, deconv_width, _, _ = shape_of(state, "head.final_layer.weight", 4, LAYOUT)
    width = shape_of(state, "backbone.conv1.weight", 4, LAYOUT)[0]
    table = simple_baseline(state, num_keypoints, width, deconv_width, old="backbone.", head="head.")
    if table is None:
        raise CheckpointError(f"The checkpoint looks like {LAYOUT}, but its blocks make no ResNet 18 to 152.")
    return table


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name -> the public one of every tensor of a card's network, as version 1.x has it."""
    return simple_baseline_names(network, old="backbone.", head="head.")


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state in the names of ``simple_baseline``.

    Raises:
        CheckpointError: A tensor is missing or left over.
    """
    return take(head_of_1x(state), names(network(state)), layout=LAYOUT)


IMPORTER = Importer(
    name="mmpose_simple_baseline",
    source=SOURCE,
    recognises=recognises,
    rename=rename,
    network=network,
    skeletons=SKELETONS,
    input=INPUT,
    input_by_keypoints=INPUT_BY_KEYPOINTS,
    codec=CODEC,
    notes="The original averages with the flipped image, its maps shifted right by one column. Weights trained at "
    "288 x 384 want that size, and a sigma of 3, in their card; those of DARK and UDP another codec.",
)
