"""Imports ResNet 18 to 152 of torchvision (timm's plain ones share the names) as a backbone, without "fc".

Images are RGB, normalised by the mean and standard deviation of ImageNet.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from poseglass.checkpoints import reference_backbones
from poseglass.checkpoints.importer import Importer, Source, shape_of
from poseglass.checkpoints.resnet_lineage import resnet_depth, resnet_names
from poseglass.checkpoints.top_down import CLASSIFIER_INPUT
from poseglass.estimators.weights_file import CheckpointError

SOURCE = Source(
    repository="pytorch/vision",
    url="https://github.com/pytorch/vision",
    commit="package 0.29.1",
    license="BSD-3-Clause",
)

LAYOUT = f"a ResNet of {SOURCE.repository}"


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names have this layout; a pose network around a ResNet has others as well."""
    tops = {key.partition(".")[0] for key in keys}
    return resnet_depth(keys) is not None and tops <= {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read depth and width from the names and shapes: ``{"name": "resnet50"}``, of ``BACKBONES``.

    Raises:
        CheckpointError: The blocks do not match a known depth, or the stem is missing.
    """
    depth = resnet_depth(state)
    if depth is None:
        raise CheckpointError(f"The checkpoint looks like {LAYOUT}, but its blocks match no ResNet 18 to 152.")
    width = shape_of(state, "conv1.weight", 4, LAYOUT)[0]
    return {"name": f"resnet{depth}"} | ({} if width == 64 else {"width": width})


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name -> the public one for every tensor of a backbone's table."""
    return resnet_names(int(str(network["name"]).removeprefix("resnet")))


IMPORTER = Importer(
    name="resnet_torchvision",
    source=SOURCE,
    recognises=recognises,
    layout=LAYOUT,
    names=names,
    network=network,
    input=CLASSIFIER_INPUT,
    part="backbone",
    excluded=("fc.",),
    reference=reference_backbones.resnet,
    notes="A backbone trained for classification; it predicts no keypoints by itself.",
)
