"""The outputs of CenterNet: every object as a point, its box, and its keypoints.

Zhou, Wang, Krähenbühl, "Objects as Points", 2019, https://arxiv.org/abs/1904.07850, sections 3 and 4.2. Layer details
from xingyizhou/CenterNet (MIT). It does not differ from the paper, unless ``visibility`` or ``features`` add
outputs.
"""

from collections import OrderedDict

from torch import Tensor, cat, nn

from poseglass.core.prediction import Prediction
from poseglass.heads.heatmap import start_empty

EMPTY = -2.19
"""First bias of the heatmaps' logits, about -ln(8.94): every pixel starts with a probability of 0.1."""


class CenterNetHead(nn.Module):
    """Per output, a 3x3 convolution, a ReLU and a 1x1 convolution, both with bias; no activation at the end.

    The heatmaps' last bias starts at -2.19, so that the many empty pixels do not dominate the first steps of a focal
    loss. The last convolution of all other outputs starts from N(0, 0.001) with zero bias.

    Args:
        in_channels: Channels of the features.
        num_keypoints: Number of keypoints per object, K. 0 for boxes only: then there are three outputs.
        num_classes: Number of classes, C.
        width: Channels between the two convolutions.
        visibility: Also output whether each keypoint is visible, occluded or absent; for
            ``CenterNetCodec(visibility=True)``.
        features: For thousands of classes: one map of centres for all of them, this many channels of features, and a
            linear classifier of the features at a centre; for ``CenterNetCodec(features=...)``. 0 has a map for each
            class.
        boxes_3d: Also output depth, dimensions and rotation of a box in space; for ``CenterNetCodec(boxes_3d=True)``.
        middles_3d: Also output where its middle is; for ``CenterNetCodec(middles_3d=True)``.
        heading_bins: In how many bins its heading is; for ``CenterNetCodec(heading_bins=...)``.

    Raises:
        ValueError: A negative number of keypoints or features, or fewer than one class or channel; or ``visibility``
            without keypoints, or ``middles_3d`` or ``heading_bins`` without ``boxes_3d``, or an odd number of bins.

    Source:
        Zhou et al. 2019, sections 3, 4.2 and 5; the bias is from RetinaNet (Lin et al. 2017, section 4.1).
    """

    def __init__(
        self,
        in_channels: int,
        num_keypoints: int,
        *,
        num_classes: int = 1,
        width: int = 64,
        visibility: bool = False,
        features: int = 0,
        boxes_3d: bool = False,
        middles_3d: bool = False,
        heading_bins: int = 2,
    ) -> None:
        super().__init__()
        if num_keypoints < 0 or num_classes < 1 or width < 1 or features < 0:
            raise ValueError(
                "CenterNetHead takes at least 0 keypoints and features, 1 class and a width of 1, got "
                f"num_keypoints={num_keypoints}, num_classes={num_classes}, width={width}, features={features}. For "
                "boxes without keypoints, give num_keypoints=0."
            )
        if visibility and not num_keypoints:
            raise ValueError(
                "CenterNetHead has visibility=True, which is of keypoints, but num_keypoints=0. Give the number of "
                "keypoints, or leave visibility out."
            )
        if middles_3d and not boxes_3d:
            raise ValueError(
                "CenterNetHead has middles_3d=True, which is of boxes in space, but boxes_3d=False. Set boxes_3d=True, "
                "or leave middles_3d out."
            )
        if heading_bins < 2 or heading_bins % 2:
            raise ValueError(f"CenterNetHead.heading_bins must be an even number from 2 on, got {heading_bins}.")
        if heading_bins != 2 and not boxes_3d:
            raise ValueError(
                f"CenterNetHead has heading_bins={heading_bins}, which is of boxes in space, but boxes_3d=False. Set "
                "boxes_3d=True, or leave heading_bins out."
            )
        self.num_keypoints = num_keypoints
        channels = {"center": 1 if features else num_classes, "size": 2, "center_offset": 2}
        if num_keypoints:
            channels |= {"keypoints": 2 * num_keypoints, "heatmap": num_keypoints, "heatmap_offset": 2}
        if visibility:
            channels["visibility"] = 3 * num_keypoints
        if features:
            channels["features"] = features
        if boxes_3d:
            channels |= {"depth": 1, "dimensions": 3, "rotation": 4 * heading_bins}
        if middles_3d:
            channels["middle_3d"] = 2
        self.outputs = nn.ModuleDict(
            {
                name: _output(in_channels, width, count, name in ("center", "heatmap"))
                for name, count in channels.items()
            }
        )
        self.classifier = nn.Linear(features, num_classes) if features else None
        if features:  # features that are nearly 0 would give the classifier, and through it themselves, no gradient
            self.outputs["features"][-1].reset_parameters()  # type: ignore[index, union-attr]

    def forward(self, features: Tensor) -> Prediction:
        """Map ``(B, in_channels, h, w)`` to the named outputs, in pixels of the maps.

        Returns:
            ``"center"`` ``(B, C, h, w)``, logits of a heatmap per class; ``"size"`` ``(B, 2, h, w)``, width and height
            of the box; ``"center_offset"`` ``(B, 2, h, w)``, x and y from the whole pixel to the centre. With
            keypoints also ``"keypoints"`` ``(B, K, 2, h, w)``, x and y from the centre's whole pixel to each keypoint;
            ``"heatmap"`` ``(B, K, h, w)``, logits of a heatmap per keypoint; ``"heatmap_offset"`` ``(B, 2, h, w)``,
            x and y from a keypoint's whole pixel to the keypoint. With ``visibility`` also ``"visibility"``
            ``(B, K, 3, h, w)``, at a centre the logits of visible, occluded and absent of each keypoint. With
            ``features``, ``"center"`` has one map, ``"features"`` ``(B, D, h, w)`` are read at a centre, and
            ``"classifier"`` ``(B, C, D + 1)``, the same for every image, gives logits of classes from them: weights,
            then the bias. With ``boxes_3d`` also ``"depth"`` ``(B, 1, h, w)``, ``"dimensions"`` ``(B, 3, h, w)`` and
            ``"rotation"`` ``(B, 4 * heading_bins, h, w)``, see ``codecs.centernet_3d``; with ``middles_3d`` also
            ``"middle_3d"`` ``(B, 2, h, w)``, x and y from the centre's whole pixel to the projected middle of the box
            in space.
        """
        maps = {name: output(features) for name, output in self.outputs.items()}
        if self.num_keypoints:
            maps["keypoints"] = maps["keypoints"].unflatten(1, (self.num_keypoints, 2))
        if "visibility" in maps:
            maps["visibility"] = maps["visibility"].unflatten(1, (self.num_keypoints, 3))
        if self.classifier is not None:
            both = cat([self.classifier.weight, self.classifier.bias[:, None]], 1)
            maps["classifier"] = both[None].expand(len(features), -1, -1)
        return maps


def _output(in_channels: int, width: int, count: int, is_heatmap: bool) -> nn.Sequential:
    last = nn.Conv2d(width, count, 1)
    if is_heatmap:
        assert last.bias is not None
        nn.init.constant_(last.bias, EMPTY)
    else:
        start_empty(last)
    conv = nn.Conv2d(in_channels, width, 3, padding=1)
    return nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU(inplace=True), last=last))
