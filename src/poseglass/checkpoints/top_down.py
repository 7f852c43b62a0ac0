"""Shared by all top-down weights: input, codec, skeletons, and the names of mmpose's heads."""

from collections.abc import Mapping
from typing import Any

from poseglass.checkpoints.importer import Source
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import COCO17, MPII16

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CLASSIFIER_INPUT = InputSpec(size_wh=(224, 224), padding=1.0, mean=IMAGENET_MEAN, std=IMAGENET_STD)
"""Input of backbones trained for classification."""

SKELETONS = {17: COCO17, 16: MPII16}

CODEC: dict[str, Any] = {"name": "heatmap", "alignment": "corner", "stride": 4, "sigma": 2.0}

MMPOSE = Source(
    repository="open-mmlab/mmpose", url="https://github.com/open-mmlab/mmpose", commit="759b39c", license="Apache-2.0"
)

SIZE_DOUBT = (
    "Assumed to be trained at 256 x 192 (COCO) or 256 x 256 (MPII); weights trained at 384 x 288 have the same names: "
    "for those, add --set 'input.size_wh=[288, 384]' --set codec.sigma=3."
)
CODEC_DOUBT = (
    "Assumed to be trained on plain Gaussians: weights for DARK and UDP have the same names but need another codec."
)
"""What the names of top-down weights do not show."""

OLDER_MMPOSE = {"keypoint_head.": "head."}
"""Name of the head in mmpose 0.x, to its name in 1.x."""


def coco_or_mpii(network: Mapping[str, Any]) -> InputSpec:
    """Return the input of weights trained on MPII (16 keypoints), otherwise of those trained on COCO."""
    size_wh = (256, 256) if network["num_keypoints"] == 16 else (192, 256)
    return InputSpec(size_wh=size_wh, padding=1.25, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop="msra")
