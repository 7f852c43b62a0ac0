"""The clcNet classifiers: backbone, mean, and the classes.

Zhang, "clcNet: Improving the Efficiency of Convolutional Neural Network using Channel Local Convolutions", CVPR 2018,
https://arxiv.org/abs/1712.06145. Reference code: dqzhang17/clcnet.torch (BSD), whose weights are files of Torch7, which
poseglass does not read. Published top-1 on ImageNet at 224 px: 70.4 % (A) and 71.6 % (B).
"""

from poseglass.layers.channel_local import Groups
from poseglass.networks.classifier import classifier
from poseglass.networks.compose import ComposedNetwork


def clcnet_a_classifier(
    num_keypoints: int = 0,
    *,
    num_classes: int = 1000,
    width: float = 1.0,
    groups: Groups = "published",
    dropout: float = 0.0,
) -> ComposedNetwork:
    """clcNet-A, published for 224 px: 3,253,640 parameters at 1000 classes.

    0.343 G multiply-adds at 224 x 224.

    Args:
        num_keypoints: Not used, as in ``classifier``.
        num_classes: Number of classes, C.
        width: Multiplier of the backbone's channels.
        groups: Groups of every block, as in ``backbones.clcnet.ClcNet``.
        dropout: Share of the means that is left out in training.
    """
    backbone = {"name": "clcnet_a", "width": width, "groups": groups}
    return classifier(num_keypoints, backbone=backbone, num_classes=num_classes, dropout=dropout)


def clcnet_b_classifier(
    num_keypoints: int = 0,
    *,
    num_classes: int = 1000,
    width: float = 1.0,
    groups: Groups = "published",
    dropout: float = 0.0,
) -> ComposedNetwork:
    """clcNet-B, published for 224 px: 4,085,128 parameters at 1000 classes.

    0.425 G multiply-adds at 224 x 224. Arguments as in ``clcnet_a_classifier``.
    """
    backbone = {"name": "clcnet_b", "width": width, "groups": groups}
    return classifier(num_keypoints, backbone=backbone, num_classes=num_classes, dropout=dropout)
