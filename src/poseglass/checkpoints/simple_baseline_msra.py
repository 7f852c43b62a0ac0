"""SimpleBaseline as Microsoft and leoxiaobin publish it: the same names, two orders of colour.

Both normalise by the mean and deviation of ImageNet, in the order RGB. leoxiaobin/deep-high-resolution-net.pytorch
feeds RGB; microsoft/human-pose-estimation.pytorch feeds images as OpenCV reads them, BGR, and nothing in its files says
so. Whoever knows a file to be Microsoft's asks for the layout ``simple_baseline_microsoft``.
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
    """Return whether these are this layout's names."""
    return "final_layer.weight" in keys and "deconv_layers.0.weight" in keys and "layer4.0.conv1.weight" in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read keypoints, depth and widths from the names and shapes.

    Raises:
        CheckpointError: A tensor that tells them is missing, or the ResNet has other blocks than the known ones.
    """
    return simple_baseline(state, old="", head="", layout=LAYOUT)


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name -> the public one of every tensor of a card's network."""
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
    doubt="Read as leoxiaobin's, which want RGB. Microsoft's files have the same names and want BGR: import those with "
    f"--layout simple_baseline_microsoft. {SIZE_DOUBT}",
)

IMPORTER_MICROSOFT = Importer(
    name="simple_baseline_microsoft",
    source=SOURCE_MICROSOFT,
    recognises=lambda keys: False,  # its names are those of simple_baseline_msra, so it has to be asked for
    layout=LAYOUT,
    names=names,
    network=network,
    skeletons=SKELETONS,
    input=lambda network: replace(coco_or_mpii(network), color="bgr"),
    codec=CODEC,
    reference=reference_msra.simple_baseline,
    notes="These weights want BGR, normalised by the mean and deviation of ImageNet in the order RGB.",
    doubt=SIZE_DOUBT,
)
