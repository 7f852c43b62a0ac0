"""Small states of mmpose's hourglass and pose machine, in their authors' names and shapes."""

import runpy
from pathlib import Path
from typing import Any

from torch import Tensor

Maker = runpy.run_path(str(Path(__file__).with_name("layouts.py")))["Maker"]
State = dict[str, Tensor]


def conv_norm(make: Any, name: str, given: int, made: int, size: int, conv: str = "conv", norm: str = "bn") -> None:
    make.conv(f"{name}.{conv}", given, made, size)
    del make.state[f"{name}.{conv}.bias"]
    make.norm(f"{name}.{norm}", made)


def hourglass(num_stacks: int = 2, widths: tuple[int, ...] = (8, 8, 12), blocks: tuple[int, ...] = (2, 1, 3)) -> State:
    """Names and shapes as mmpose 1.x stores them, the unused residual of a single stack included."""
    make = Maker(0)

    def block(name: str, given: int, made: int, stride: int = 1) -> None:
        conv_norm(make, name, given, made, 3, "conv1", "bn1")
        conv_norm(make, name, made, made, 3, "conv2", "bn2")
        if given != made or stride != 1:
            conv_norm(make, f"{name}.downsample", given, made, 1, "0", "1")

    def module(name: str, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        if len(widths) == 1:
            for j in range(blocks[0]):
                block(f"{name}.{j}", widths[0], widths[0])
            return
        here, below = widths[:2]
        for j in range(blocks[0]):
            block(f"{name}.up1.{j}", here, here)
            block(f"{name}.low1.{j}", below if j else here, below, 1 if j else 2)
            block(f"{name}.low3.{j}", below, here if j == blocks[0] - 1 else below)
        module(f"{name}.low2", widths[1:], blocks[1:])

    width = widths[0]
    conv_norm(make, "backbone.stem.0", 3, width // 2, 7)
    block("backbone.stem.1.0", width // 2, width, 2)
    for i in range(num_stacks):
        module(f"backbone.hourglass_modules.{i}", widths, blocks)
        conv_norm(make, f"backbone.out_convs.{i}", width, width, 3)
        make.conv(f"head.multi_final_layers.{i}", width, 17)
    for i in range(max(num_stacks - 1, 1)):
        block(f"backbone.inters.{i}", width, width)
    for i in range(num_stacks - 1):
        conv_norm(make, f"backbone.conv1x1s.{i}", width, width, 1)
        conv_norm(make, f"backbone.remap_convs.{i}", width, width, 1)
    return make.state


def pose_machine(num_stages: int = 3, width: int = 8, features: int = 4, first: int = 12) -> State:
    """Names and shapes as mmpose stores them."""
    make = Maker(0)
    for trunk in ("stem", "middle"):
        for i, given in ((0, 3), (2, width), (4, width)):
            conv_norm(make, f"backbone.{trunk}.{i}", given, width, 3)
    conv_norm(make, "backbone.stem.6", width, features, 5)
    conv_norm(make, "backbone.stem.7", features, first, 3)
    conv_norm(make, "backbone.stem.8", first, first, 1)
    make.conv("backbone.stem.9.conv", first, 16)
    for i in range(num_stages - 1):
        conv_norm(make, f"backbone.middle_conv.{i}.0", width, features, 5)
        for j in range(3):
            conv_norm(make, f"backbone.cpm_stages.{i}.model.{j}", width if j else 16 + features, width, 7)
        conv_norm(make, f"backbone.out_convs.{i}.0", width, width, 1)
        make.conv(f"backbone.out_convs.{i}.1.conv", width, 16)
    return make.state
