"""Reads and writes torchvision's LR-ASPP on MobileNetV3-Large, ``lraspp_mobilenet_v3_large``.

From Python only, since no codec decodes masks yet: ``IMPORTER`` is not among the layouts of ``poseglass import``. Its
names are ``backbone.*``, those of the classifier's features, and ``classifier.*``; batch norm of the backbone has an
epsilon of 1e-3, that of the head 1e-5.

Images are RGB, normalised by the mean and standard deviation of ImageNet.

Example:
    ::

        network = read_lr_aspp("lraspp_mobilenet_v3_large-d234d4ea.pth")
        [stage] = network(images)
        stage["mask"].argmax(1)
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from poseglass.checkpoints import mobilenet_v3, told_of
from poseglass.checkpoints.checkpoint import open_checkpoint
from poseglass.checkpoints.choose import choose
from poseglass.checkpoints.importer import Importer, convolution, normalisation, shape_of
from poseglass.checkpoints.reference_backbones import lr_aspp
from poseglass.checkpoints.top_down import CLASSIFIER_INPUT
from poseglass.estimators.fit import load_strictly
from poseglass.networks.segmentation import SegmentationNetwork, lr_aspp_mobilenet_v3_large

LAYOUT = "an LR-ASPP on MobileNetV3-Large of pytorch/vision"


def recognises(keys: Collection[str]) -> bool:
    """Return whether these are the names of an LR-ASPP on MobileNetV3-Large."""
    return "classifier.low_classifier.weight" in keys and "backbone.15.block.3.0.weight" in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the number of classes.

    Raises:
        CheckpointError: The tensor that shows it is missing.
    """
    classes = shape_of(state, "classifier.low_classifier.weight", 4, LAYOUT)[0]
    return {"name": "lr_aspp_mobilenet_v3_large", "num_classes": classes}


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name to torchvision's for every tensor, in the order that both have."""
    features = mobilenet_v3.names({"name": "mobilenet_v3_large"}, "torchvision")
    table = {f"backbone.{new}": old.replace("features.", "backbone.", 1) for new, old in features.items()}
    table["head.reduce.conv.weight"] = "classifier.cbr.0.weight"
    table |= normalisation("head.reduce.norm", "classifier.cbr.1")
    table["head.weigh.weight"] = "classifier.scale.1.weight"
    table |= convolution("head.fine_classes", "classifier.low_classifier")
    return table | convolution("head.coarse_classes", "classifier.high_classifier")


IMPORTER = Importer(
    name="lr_aspp_torchvision",
    source=mobilenet_v3.SOURCES["torchvision"],
    layout=LAYOUT,
    recognises=recognises,
    network=network,
    names=names,
    input=CLASSIFIER_INPUT,
    reference=lr_aspp,
    compares="outputs",
)


def read_lr_aspp(path: str | Path) -> SegmentationNetwork:
    """Return the network in a checkpoint of torchvision's, in evaluation mode; no code in the file is run.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The file cannot be read safely, or does not match the layout exactly.
    """
    checkpoint = open_checkpoint(path)
    with told_of(path):
        state = choose(checkpoint, {IMPORTER.name: IMPORTER}).state
        table = network(state)
        made = lr_aspp_mobilenet_v3_large(table["num_classes"])
        load_strictly(made, IMPORTER.rename(state, table), source=str(path))
    return made.eval()


def publish_lr_aspp(network: SegmentationNetwork) -> dict[str, Tensor]:
    """Return the state of a network of this layout under torchvision's names: the inverse of ``read_lr_aspp``."""
    return IMPORTER.publish(network.state_dict(), {"name": "lr_aspp_mobilenet_v3_large"})
