"""Imports CenterNet on ResNet with plain transposed convolutions, as stored by xingyizhou/CenterNet (``res_18``, ...).

The published ``resdcn`` files have deformable convolutions before the transposed ones: they are another network, and
are refused.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from poseglass.checkpoints import reference_centernet
from poseglass.checkpoints.centernet_hourglass import INPUT, NOTES, SKELETONS, SOURCE, codec_of, output_names
from poseglass.checkpoints.importer import Importer, convolution, shape_of
from poseglass.checkpoints.resnet_lineage import conv_then_norm, resnet_depth, resnet_names
from poseglass.estimators.weights_file import CheckpointError

LAYOUT = f"a CenterNet ResNet of {SOURCE.repository}"

PUBLISHED = {f"centernet_resnet{depth}": depth for depth in (18, 34, 50, 101)}
"""Depth of the named networks."""

USUAL = {"width": 64, "num_deconvs": 3, "deconv_width": 256, "head_width": 64}
"""Numbers of the named networks."""


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names have this layout."""
    return "layer4.0.conv1.weight" in keys and "deconv_layers.0.weight" in keys and "hm.2.weight" in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read classes, keypoints, depth and widths from the names and shapes.

    Raises:
        CheckpointError: A required tensor is missing, the convolutions are deformable, or the blocks match no known
            ResNet.
    """
    if any(".conv_offset_mask." in key for key in state):
        raise CheckpointError(
            f"The checkpoint is of {SOURCE.repository}, but has deformable convolutions (resdcn), which are not built "
            "here. Import a file of a res_18, res_101 or hourglass there."
        )
    depth = resnet_depth(state)
    if depth is None:
        raise CheckpointError(f"The checkpoint looks like {LAYOUT}, but its blocks match no ResNet 18 to 152.")
    num_classes, head_width = shape_of(state, "hm.2.weight", 4, LAYOUT)[:2]
    num_keypoints = shape_of(state, "hm_hp.2.weight", 4, LAYOUT)[0] if "hps.2.weight" in state else 0
    numbers = {
        "width": shape_of(state, "conv1.weight", 4, LAYOUT)[0],
        "num_deconvs": sum(k.startswith("deconv_layers.") and k.endswith(".running_mean") for k in state),
        "deconv_width": shape_of(state, "deconv_layers.0.weight", 4, LAYOUT)[1],
        "head_width": head_width,
    }
    counts = {"num_keypoints": num_keypoints, "num_classes": num_classes}
    if numbers == USUAL and f"centernet_resnet{depth}" in PUBLISHED:
        return {"name": f"centernet_resnet{depth}"} | counts
    return {"name": "centernet_resnet"} | counts | {"depth": depth} | numbers


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name to the public one for every tensor of a network described by a card's table.

    Raises:
        CheckpointError: Another network, for which the layout has no names.
    """
    if network["name"] not in (*PUBLISHED, "centernet_resnet"):
        raise CheckpointError(
            f"Network {network['name']!r} is not {LAYOUT}; expected {', '.join(PUBLISHED)} or centernet_resnet."
        )
    depth = PUBLISHED.get(network["name"]) or network.get("depth", 18)
    sources = resnet_names(depth, new="backbone.")
    for i in range(network.get("num_deconvs", USUAL["num_deconvs"])):  # theirs counts convolution, norm and ReLU
        sources |= conv_then_norm(f"neck.layers.{i}", f"deconv_layers.{3 * i}", f"deconv_layers.{3 * i + 1}")
    for ours, theirs in output_names(network).items():
        sources |= convolution(f"head.outputs.{ours}.conv", f"{theirs}.0")
        sources |= convolution(f"head.outputs.{ours}.last", f"{theirs}.2")
    return sources


IMPORTER = Importer(
    name="centernet_resnet",
    source=SOURCE,
    recognises=recognises,
    layout=LAYOUT,
    names=names,
    network=network,
    skeletons=SKELETONS,
    input=INPUT,
    codec=codec_of,
    reference=reference_centernet.resnet,
    compares="outputs",
    notes=NOTES,
)
