"""Imports SimpleBaseline as published by Microsoft and by leoxiaobin: the same names, but RGB or BGR input.

Both normalise by the mean and standard deviation of ImageNet, in the order RGB.
leoxiaobin/deep-high-resolution-net.pytorch uses RGB; microsoft/human-pose-estimation.pytorch uses images as OpenCV
reads them, BGR, and nothing in its files says so. For a file that is known to be Microsoft's, use the layout
``simple_baseline_microsoft``.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from poseglass.checkpoints import reference_msra
from poseglass.checkpoints.importer import Importer, Source
from poseglass.checkpoints.resnet_lineage import simple_baseline, simple_baseline_names
from poseglass.checkpoints.top_down import CODEC, SIZE_DOUBT, SKELETONS, coco_or_mpii

SOURCE = Source(
    repository="leoxiaobin/deep-high-resolution-net.pytorch",
    url="https://github.com/leoxiaobin/deep-high-resolution-net.pytorch",
    commit="6f69e46",
    license="MIT",
)

SOURCE_MICROSOFT = Source(
    repository="microsoft/human-pose-estimation.pytorch",
    url="https://github.com/microsoft/human-pose-estimation.pytorch",
    commit="49f3f44",
    license="MIT",
)

LAYOUT = f"a SimpleBaseline of {SOURCE.repository} or {SOURCE_MICROSOFT.repository}"


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names have this layout."""
    return "final_layer.weight" in keys and "deconv_layers.0.weight" in keys and "layer4.0.conv1.weight" in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read keypoints, depth and widths from the names and shapes.

    Raises:
        CheckpointError: A required tensor is missing, or the blocks match no known ResNet.
    """
    return simple_baseline(state, old="", head="", layout=LAYOUT)


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name -> the public one for every tensor of a card's network."""
    return simple_baseline_names(network, old="", head="")


IMPORTER = Importer(
    name="simple_baseline_msra",
    source=SOURCE,
    recognises=recognises,
    layout=LAYOUT,
    names=names,
    network=network,
    skeletons=SKELETONS,
    input=coco_or_mpii,
    codec=CODEC,
    reference=reference_msra.simple_baseline,
    doubt="Assumed to be leoxiaobin's, which need RGB. Microsoft's files have the same names and need BGR: import "
    f"those with --layout simple_baseline_microsoft. {SIZE_DOUBT}",
)

IMPORTER_MICROSOFT = Importer(
    name="simple_baseline_microsoft",
    source=SOURCE_MICROSOFT,
    recognises=lambda keys: False,  # same names as simple_baseline_msra, so it must be requested explicitly
    layout=LAYOUT,
    names=names,
    network=network,
    skeletons=SKELETONS,
    input=lambda network: replace(coco_or_mpii(network), color="bgr"),
    codec=CODEC,
    reference=reference_msra.simple_baseline,
    notes="These weights need BGR, normalised by the mean and standard deviation of ImageNet in the order RGB.",
    doubt=SIZE_DOUBT,
)
