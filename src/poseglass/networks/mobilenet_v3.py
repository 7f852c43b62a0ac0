"""The MobileNetV3 classifiers: backbone, mean, a linear layer with h-swish, dropout, and the classes.

Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244, tables 1 and 2. Reference code:
d-li14/mobilenetv3.pytorch (MIT), torchvision (BSD), timm (Apache-2.0).

``checkpoints.mobilenet_v3`` imports the weights of the three, each with its order of squeeze-and-excitation and its
epsilon of batch norm.
"""

from poseglass.backbones.mobilenet_v3 import Order
from poseglass.networks.classifier import classifier
from poseglass.networks.compose import ComposedNetwork


def mobilenet_v3_large_classifier(
    num_keypoints: int = 0,
    *,
    num_classes: int = 1000,
    width: float = 1.0,
    hidden_width: int = 1280,
    dropout: float = 0.2,
    order: Order = "activate_excite",
    eps: float = 1e-5,
) -> ComposedNetwork:
    """MobileNetV3-Large, published for 224 px: 5,483,032 parameters at 1000 classes.

    0.217 G multiply-adds at 224 x 224.

    Args:
        num_keypoints: Not used, as in ``classifier``.
        num_classes: Number of classes, C.
        width: Multiplier of the backbone's channels. Public networks below width 1 keep ``hidden_width``.
        hidden_width: Channels of the layer before the last.
        dropout: Share of its outputs that is left out in training.
        order: Order of activation and squeeze-and-excitation, as in ``backbones.mobilenet_v3.MobileNetV3``.
        eps: Epsilon of batch norm: 1e-5 (d-li14, timm) or 1e-3 (torchvision).
    """
    backbone = {"name": "mobilenet_v3_large", "width": width, "order": order, "eps": eps}
    return classifier(
        num_keypoints, backbone=backbone, num_classes=num_classes, hidden_width=hidden_width, dropout=dropout
    )


def mobilenet_v3_small_classifier(
    num_keypoints: int = 0,
    *,
    num_classes: int = 1000,
    width: float = 1.0,
    hidden_width: int = 1024,
    dropout: float = 0.2,
    order: Order = "activate_excite",
    eps: float = 1e-5,
) -> ComposedNetwork:
    """MobileNetV3-Small, published for 224 px: 2,542,856 parameters at 1000 classes.

    56.5 M multiply-adds at 224 x 224. Arguments as in ``mobilenet_v3_large_classifier``.
    """
    backbone = {"name": "mobilenet_v3_small", "width": width, "order": order, "eps": eps}
    return classifier(
        num_keypoints, backbone=backbone, num_classes=num_classes, hidden_width=hidden_width, dropout=dropout
    )
