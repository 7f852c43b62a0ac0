"""What HRNet and SimpleBaseline weights share, whoever published them: input, codec and skeletons."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from poseglass.core.card import InputSpec
from poseglass.core.skeletons import COCO17, MPII16

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SKELETONS = {17: COCO17, 16: MPII16}

INPUT = InputSpec(size_wh=(192, 256), padding=1.25, mean=IMAGENET_MEAN, std=IMAGENET_STD)
"""Of weights trained on COCO."""

INPUT_BY_KEYPOINTS = {16: InputSpec(size_wh=(256, 256), padding=1.25, mean=IMAGENET_MEAN, std=IMAGENET_STD)}
"""Of weights trained on MPII."""

CODEC: dict[str, Any] = {"name": "heatmap", "alignment": "corner", "stride": 4, "sigma": 2.0}


def head_of_1x(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of mmpose 0.x with its "keypoint_head" called "head", as 1.x does; one of 1.x as it is."""
    old = "keypoint_head."
    return {f"head.{k.removeprefix(old)}" if k.startswith(old) else k: value for k, value in state.items()}
