"""Imports CenterNet on Hourglass-104 (and shallower ones), as stored by xingyizhou/CenterNet.

A file of the layout detects boxes (``hm``, ``wh``, ``reg``) or poses (also ``hps``, ``hm_hp``, ``hp_offset``); each
output is stored once per stack.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from poseglass.checkpoints import reference_centernet
from poseglass.checkpoints.corner_hourglass_lineage import hourglass_names, hourglass_sizes
from poseglass.checkpoints.importer import Importer, Source, convolution, shape_of
from poseglass.checkpoints.resnet_lineage import conv_then_norm, residual_block
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17
from poseglass.estimators.weights_file import CheckpointError
from poseglass.networks.corner_hourglass import BLOCKS, WIDTHS

SOURCE = Source(
    repository="xingyizhou/CenterNet",
    url="https://github.com/xingyizhou/CenterNet",
    commit="4c50fd3",
    license="MIT",
)

LAYOUT = f"a CenterNet hourglass of {SOURCE.repository}"

PUBLISHED = {"centernet_hourglass_52": 1, "centernet_hourglass_104": 2}
"""Number of stacks of the named networks."""

HEAD_WIDTH = 256
"""Channels between the two convolutions of an output, in the named networks."""

BOXES = {"center": "hm", "size": "wh", "center_offset": "reg"}
POSES = {"keypoints": "hps", "heatmap": "hm_hp", "heatmap_offset": "hp_offset"}
"""Our names of outputs to the public ones. ``hps`` stores x and y of keypoint 0, then of keypoint 1, as ours do."""

SKELETONS = {0: Skeleton("objects", ()), 17: COCO17}

INPUT = InputSpec(
    size_wh=(512, 512),
    padding=1.0,
    mean=(0.40789654, 0.44719302, 0.47026115),
    std=(0.28863828, 0.27408164, 0.27809835),
    color="bgr",
    crop="msra",
)
"""As in the original code, which trains on 512 x 512 and fits the longer side of an image into it."""


def codec_of(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return the codec of a network: with keypoints if it predicts any."""
    return {"name": "centernet", "stride": 4, "alignment": "corner", "poses": network["num_keypoints"] > 0}


NOTES = (
    "The original tests at the image's own size, padded to the next multiple of the network's divisor, or at 512 x 512."
)


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names have this layout."""
    return "kps.0.up1.0.conv1.weight" in keys and "hm.0.1.weight" in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read stacks, classes, keypoints, widths and blocks from the names and shapes.

    Raises:
        CheckpointError: A required tensor is missing.
    """
    num_classes, head_width = shape_of(state, "hm.0.1.weight", 4, LAYOUT)[:2]
    num_keypoints = shape_of(state, "hm_hp.0.1.weight", 4, LAYOUT)[0] if "hps.0.1.weight" in state else 0
    num_stacks = len({key.split(".")[1] for key in state if key.startswith("kps.")})
    widths, blocks = hourglass_sizes(state, "kps.0", LAYOUT)
    for name, count in PUBLISHED.items():
        if (num_stacks, tuple(widths), tuple(blocks), head_width) == (count, WIDTHS, BLOCKS, HEAD_WIDTH):
            return {"name": name, "num_keypoints": num_keypoints, "num_classes": num_classes}
    table = {"name": "centernet_hourglass", "num_keypoints": num_keypoints, "num_classes": num_classes}
    return table | {"num_stacks": num_stacks, "widths": widths, "blocks": blocks, "head_width": head_width}


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name to the public one for every tensor of a network described by a card's table.

    Raises:
        CheckpointError: Another network, for which the layout has no names.
    """
    if network["name"] not in (*PUBLISHED, "centernet_hourglass"):
        raise CheckpointError(
            f"Network {network['name']!r} is not {LAYOUT}; expected {', '.join(PUBLISHED)} or centernet_hourglass."
        )
    num_stacks = PUBLISHED.get(network["name"]) or network.get("num_stacks", 2)
    widths, blocks = network.get("widths", WIDTHS), network.get("blocks", BLOCKS)
    outputs = output_names(network)
    sources = conv_then_norm("trunk.stem", "pre.0.conv", "pre.0.bn")
    sources |= _residual("trunk.stem_residual", "pre.1", True)
    for i in range(num_stacks):
        sources |= hourglass_names(f"trunk.hourglasses.{i}", f"kps.{i}", widths, blocks, _residual)
        sources |= conv_then_norm(f"trunk.outputs.{i}", f"cnvs.{i}.conv", f"cnvs.{i}.bn")
        for ours, theirs in outputs.items():
            sources |= convolution(f"heads.{i}.outputs.{ours}.conv", f"{theirs}.{i}.0.conv")
            sources |= convolution(f"heads.{i}.outputs.{ours}.last", f"{theirs}.{i}.1")
    for i in range(num_stacks - 1):
        sources |= conv_then_norm(f"trunk.keep.{i}", f"inters_.{i}.0", f"inters_.{i}.1")
        sources |= conv_then_norm(f"trunk.feedback.{i}", f"cnvs_.{i}.0", f"cnvs_.{i}.1")
        sources |= _residual(f"trunk.between.{i}", f"inters.{i}", False)
    return sources


def output_names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our names of a network's outputs to the public ones: three, or six with keypoints."""
    return BOXES | (POSES if network["num_keypoints"] else {})


def _residual(new: str, old: str, shortcut: bool) -> dict[str, str]:
    names = residual_block(new, old, 2, shortcut=False)
    return names | (conv_then_norm(f"{new}.shortcut", f"{old}.skip.0", f"{old}.skip.1") if shortcut else {})


IMPORTER = Importer(
    name="centernet_hourglass",
    source=SOURCE,
    recognises=recognises,
    layout=LAYOUT,
    names=names,
    network=network,
    skeletons=SKELETONS,
    input=INPUT,
    codec=codec_of,
    reference=reference_centernet.hourglass,
    compares="outputs",
    notes=NOTES,
)
