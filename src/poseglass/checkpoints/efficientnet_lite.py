"""Imports EfficientNet-Lite classifiers of the ``efficientnet-lite-pytorch`` package as backbones.

Its names are those of lukemelas/EfficientNet-PyTorch without squeeze-and-excitation: ``_conv_stem`` and ``_bn0``; per
block ``_expand_conv`` and ``_bn0`` (not in the first), ``_depthwise_conv`` and ``_bn1``, ``_project_conv`` and
``_bn2``; then ``_conv_head``, ``_bn1`` and ``_fc``, the classification tail, which is skipped by name.

Images are RGB, normalised as (x - 127) / 128.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from poseglass.backbones.efficientnet_lite import SCALES, stages_at
from poseglass.checkpoints.importer import Importer, Source, normalisation, shape_of
from poseglass.checkpoints.reference_backbones import efficientnet_lite
from poseglass.core.input_spec import InputSpec
from poseglass.estimators.weights_file import CheckpointError

LAYOUT = "an EfficientNet-Lite of ml-illustrated/EfficientNet-Lite-PyTorch"

SOURCE = Source(
    repository="ml-illustrated/EfficientNet-Lite-PyTorch",
    url="https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch",
    commit="1213079",
    license="Apache-2.0",
)

TAIL = ("_conv_head.", "_bn1.", "_fc.")
"""The layers after the last block."""

SIDES_PX = {0: 224, 1: 240, 2: 260, 3: 280, 4: 300}
"""Side of the square images that Lite0 to Lite4 were trained on."""


def recognises(keys: Collection[str]) -> bool:
    """Return whether these are the names of an EfficientNet without squeeze-and-excitation."""
    its_own = ("_conv_stem.weight", "_blocks.1._expand_conv.weight")
    return all(key in keys for key in its_own) and "_blocks.0._se_reduce.weight" not in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read which of Lite0 to Lite4 it is from the number of blocks and the channels of the last one.

    Raises:
        CheckpointError: None of them, or the last block's tensor is missing.
    """
    count = len({name.split(".")[1] for name in state if name.startswith("_blocks.")})
    channels = shape_of(state, f"_blocks.{count - 1}._project_conv.weight", 4, LAYOUT)[0]
    for number, (width, depth) in SCALES.items():
        stages = stages_at(width, depth)
        if (count, channels) == (sum(stage.repeats for stage in stages), stages[-1].out_channels):
            return {"name": f"efficientnet_lite{number}"}
    raise CheckpointError(
        f"The checkpoint looks like {LAYOUT}, but has {count} blocks, the last of {channels} channels: none of Lite0 "
        "to Lite4. Only these five can be imported."
    )


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name to the public one for every tensor of an ``efficientnet_lite*``, in the order that both have."""
    table = {"stem.conv.weight": "_conv_stem.weight"} | normalisation("stem.norm", "_bn0")
    count = sum(stage.repeats for stage in stages_at(*SCALES[_number(network)]))
    for i in range(count):
        parts = (("expand", "_expand_conv", "_bn0"),) if i else ()  # the first block does not expand
        parts += (("depthwise", "_depthwise_conv", "_bn1"), ("project", "_project_conv", "_bn2"))
        for part, conv, norm in parts:
            new, old = f"blocks.{i}.{part}", f"_blocks.{i}"
            table[f"{new}.conv.weight"] = f"{old}.{conv}.weight"
            table |= normalisation(f"{new}.norm", f"{old}.{norm}")
    return table


def input_spec(network: Mapping[str, Any]) -> InputSpec:
    """Return the input that the classifier was trained on."""
    side_px = SIDES_PX[_number(network)]
    mean, std = 127 / 255, 128 / 255
    return InputSpec(size_wh=(side_px, side_px), padding=1.0, mean=(mean, mean, mean), std=(std, std, std))


def _number(network: Mapping[str, Any]) -> int:
    name = str(network["name"])
    for number in SCALES:
        if name == f"efficientnet_lite{number}":
            return number
    raise CheckpointError(f"The network {name!r} is not {LAYOUT}; expected efficientnet_lite0 to efficientnet_lite4.")


IMPORTER = Importer(
    name="efficientnet_lite",
    source=SOURCE,
    layout=LAYOUT,
    recognises=recognises,
    network=network,
    names=names,
    input=input_spec,
    part="backbone",
    excluded=TAIL,
    reference=efficientnet_lite,
    notes="A backbone trained for classification; it predicts no keypoints by itself. Its input is RGB, normalised as "
    "(x - 127) / 128. The classifier's layers _conv_head, _bn1 and _fc are not part of it.",
)
