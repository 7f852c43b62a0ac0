"""Classifiers of what a view shows: any backbone, the mean of its coarsest level, and linear layers.

The codec is ``box_class``: one class for each box, and no keypoints. Published classifiers are built here by their
papers' files, such as ``networks.mobilenet_v3``.
"""

from collections.abc import Mapping
from typing import Any

from poseglass.networks.compose import ComposedNetwork


def classifier(
    num_keypoints: int = 0,
    *,
    backbone: Mapping[str, Any],
    num_classes: int = 1,
    hidden_width: int = 0,
    dropout: float = 0.0,
) -> ComposedNetwork:
    """Any backbone as a classifier, for inputs of 224 px.

    Args:
        num_keypoints: Not used, since a classifier predicts none; data without keypoints have 0.
        backbone: ``{"name": ..., ...}``, built from ``BACKBONES``.
        num_classes: Number of classes, C. In a recipe it is taken from the data.
        hidden_width: Channels of a linear layer with h-swish before the last; 0 for none.
        dropout: Share of the inputs of the last layer that is left out in training.

    Returns:
        A network of one stage, ``"class"`` ``(B, C)``, logits.

    Raises:
        LookupError: An unknown backbone.
        TypeError, ValueError: Arguments that the backbone or ``heads.box_class.BoxClassHead`` does not accept.
    """
    numbers = {"num_classes": num_classes, "hidden_width": hidden_width, "dropout": dropout}
    network = ComposedNetwork(
        num_keypoints,
        backbone=backbone,
        neck={"name": "level", "level": -1},
        head={"name": "box_class", **numbers},
    )
    network.usual_size_wh = (224, 224)
    return network
