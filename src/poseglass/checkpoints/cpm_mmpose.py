"""Imports Convolutional Pose Machines of open-mmlab/mmpose. The whole network is its backbone; there is no head."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from poseglass.checkpoints import reference_mmpose
from poseglass.checkpoints.hourglass_mmpose import conv_norm
from poseglass.checkpoints.importer import Importer, convolution, shape_of
from poseglass.checkpoints.top_down import IMAGENET_MEAN, IMAGENET_STD, MMPOSE
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import MPII16
from poseglass.estimators.weights_file import CheckpointError

LAYOUT = f"a pose machine of {MMPOSE.repository}"

PUBLISHED = {
    "num_stages": 6,
    "width": 128,
    "first_width": 512,
    "feature_width": 32,
    "kernel_size": 9,
    "stage_kernel_size": 11,
}
"""What a file contains for ``cpm``, the network as published."""


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names have this layout."""
    return "backbone.cpm_stages.0.model.0.conv.weight" in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read keypoints, stages, widths and kernels from the names and shapes.

    Raises:
        CheckpointError: A required tensor is missing.
    """
    width, _, kernel_size, _ = shape_of(state, "backbone.stem.0.conv.weight", 4, LAYOUT)
    num_keypoints, first_width, _, _ = shape_of(state, "backbone.stem.9.conv.weight", 4, LAYOUT)
    numbers = {
        "num_stages": 1 + sum(k.startswith("backbone.cpm_stages.") and k.endswith(".0.conv.weight") for k in state),
        "width": width,
        "first_width": first_width,
        "feature_width": shape_of(state, "backbone.stem.6.conv.weight", 4, LAYOUT)[0],
        "kernel_size": kernel_size,
        "stage_kernel_size": shape_of(state, "backbone.cpm_stages.0.model.0.conv.weight", 4, LAYOUT)[2],
    }
    table = {"name": "cpm" if numbers == PUBLISHED else "pose_machine", "num_keypoints": num_keypoints}
    return table if numbers == PUBLISHED else table | numbers


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name to mmpose's for every tensor of a network described by a card's table.

    Raises:
        CheckpointError: Another network, for which the layout has no names.
    """
    if network["name"] not in ("cpm", "pose_machine") or network.get("stride", 8) != 8:
        raise CheckpointError(
            f"Network {network['name']!r} is not {LAYOUT}; expected cpm, or pose_machine of stride 8."
        )
    sources = conv_norm("first.0", "backbone.stem.6") | conv_norm("first.1", "backbone.stem.7")
    sources |= conv_norm("first.2", "backbone.stem.8") | convolution("first.3", "backbone.stem.9.conv")
    for i in (0, 2, 4):  # pooling layers are in between
        sources |= conv_norm(f"first_trunk.{i}", f"backbone.stem.{i}") | conv_norm(f"trunk.{i}", f"backbone.middle.{i}")
    for i in range(network.get("num_stages", PUBLISHED["num_stages"]) - 1):
        new = f"refinements.{i}"
        sources |= conv_norm(f"{new}.features", f"backbone.middle_conv.{i}.0")
        for j in range(3):
            sources |= conv_norm(f"{new}.convs.{j}", f"backbone.cpm_stages.{i}.model.{j}")
        sources |= conv_norm(f"{new}.mix", f"backbone.out_convs.{i}.0")
        sources |= convolution(f"{new}.belief", f"backbone.out_convs.{i}.1.conv")
    return sources


IMPORTER = Importer(
    name="cpm_mmpose",
    source=MMPOSE,
    recognises=recognises,
    layout=LAYOUT,
    names=names,
    network=network,
    skeletons={16: MPII16},
    input=InputSpec(size_wh=(368, 368), padding=1.25, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop="msra"),
    reference=reference_mmpose.pose_machine,
    codec={"name": "heatmap", "alignment": "corner", "stride": 8, "sigma": 2.0},
    notes="The original decodes with a quarter offset and flip test.",
)
