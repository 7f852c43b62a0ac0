"""Imports HRNet trained on ImageNet, as stored by HRNet/HRNet-Image-Classification and timm: a backbone.

The classifier ("incre_modules", "downsamp_modules", "final_layer", "classifier") is skipped. The last module outputs
all four resolutions, so it fits ``BACKBONES["hrnet"]``; for pose, the weights of the coarser ones are not used. Images
are RGB, normalised by the mean and standard deviation of ImageNet.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from poseglass.checkpoints.importer import Importer, Source, shape_of
from poseglass.checkpoints.reference_msra import hrnet_levels
from poseglass.checkpoints.resnet_lineage import hrnet_counts, hrnet_names
from poseglass.checkpoints.top_down import CLASSIFIER_INPUT

SOURCE = Source(
    repository="HRNet/HRNet-Image-Classification",
    url="https://github.com/HRNet/HRNet-Image-Classification",
    commit="not stated",
    license="MIT",
)

LAYOUT = f"an HRNet classifier of {SOURCE.repository}"

CLASSIFIER = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names have this layout."""
    return "transition1.0.0.weight" in keys and any(key.startswith(("incre_modules.", "classifier.")) for key in keys)


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read widths, modules and blocks from the names and shapes: ``{"name": "hrnet", "width": 32}`` of ``BACKBONES``.

    Raises:
        CheckpointError: A required tensor is missing.
    """
    table: dict[str, Any] = {"name": "hrnet", "width": shape_of(state, "transition1.0.0.weight", 4, LAYOUT)[0]}
    numbers = hrnet_counts(state) | {"stem_width": shape_of(state, "conv1.weight", 4, LAYOUT)[0]}
    published = {"num_modules": [1, 4, 3], "num_blocks": 4, "num_bottlenecks": 4, "stem_width": 64}
    return table | {key: value for key, value in numbers.items() if value != published[key]}


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name -> the public one for every tensor of a backbone's table."""
    return hrnet_names(
        network.get("num_modules", (1, 4, 3)),
        network.get("num_blocks", 4),
        network.get("num_bottlenecks", 4),
        finest_only=network.get("finest_only", False),
    )


IMPORTER = Importer(
    name="hrnet_imagenet",
    source=SOURCE,
    recognises=recognises,
    layout=LAYOUT,
    names=names,
    network=network,
    input=CLASSIFIER_INPUT,
    part="backbone",
    excluded=CLASSIFIER,
    reference=hrnet_levels,
    notes="A backbone trained for classification; it predicts no keypoints by itself. Its names are as in timm 1.0.31 "
    "and leoxiaobin/deep-high-resolution-net.pytorch (commit 6f69e46); the classifier's code was not read.",
)
