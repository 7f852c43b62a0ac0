"""Small states of CenterNet's hourglass and ResNet, in their authors' names and shapes."""

import runpy
from pathlib import Path
from typing import Any

from torch import Tensor

Maker = runpy.run_path(str(Path(__file__).with_name("layouts.py")))["Maker"]
State = dict[str, Tensor]


def conv_norm(make: Any, conv: str, norm: str, given: int, made: int, size: int) -> None:
    make.conv(conv, given, made, size)
    del make.state[f"{conv}.bias"]
    make.norm(norm, made)


def outputs(num_classes: int, num_keypoints: int) -> dict[str, int]:
    channels = {"hm": num_classes, "wh": 2, "reg": 2}
    return channels | ({"hps": 2 * num_keypoints, "hm_hp": num_keypoints, "hp_offset": 2} if num_keypoints else {})


def hourglass(
    num_keypoints: int = 17,
    num_classes: int = 1,
    num_stacks: int = 2,
    widths: tuple[int, ...] = (8, 8, 12),
    blocks: tuple[int, ...] = (2, 1, 3),
    head_width: int = 6,
) -> State:
    """Names and shapes as ``large_hourglass.py`` stores them."""
    make = Maker(0)

    def block(name: str, given: int, made: int, stride: int = 1) -> None:
        conv_norm(make, f"{name}.conv1", f"{name}.bn1", given, made, 3)
        conv_norm(make, f"{name}.conv2", f"{name}.bn2", made, made, 3)
        if given != made or stride != 1:
            conv_norm(make, f"{name}.skip.0", f"{name}.skip.1", given, made, 1)

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
    conv_norm(make, "pre.0.conv", "pre.0.bn", 3, width // 2, 7)
    block("pre.1", width // 2, width, 2)
    for i in range(num_stacks):
        module(f"kps.{i}", widths, blocks)
        conv_norm(make, f"cnvs.{i}.conv", f"cnvs.{i}.bn", width, width, 3)
        for name, count in outputs(num_classes, num_keypoints).items():
            make.conv(f"{name}.{i}.0.conv", width, head_width, 3)
            make.conv(f"{name}.{i}.1", head_width, count)
    for i in range(num_stacks - 1):
        block(f"inters.{i}", width, width)
        conv_norm(make, f"inters_.{i}.0", f"inters_.{i}.1", width, width, 1)
        conv_norm(make, f"cnvs_.{i}.0", f"cnvs_.{i}.1", width, width, 1)
    return make.state


def resnet(
    num_keypoints: int = 0, num_classes: int = 5, width: int = 4, deconv_width: int = 8, head_width: int = 6
) -> State:
    """Names and shapes as ``msra_resnet.py`` stores ResNet-18."""
    make = Maker(0)
    conv_norm(make, "conv1", "bn1", 3, width, 7)
    given = width
    for i in range(4):
        for j in range(2):
            name, made = f"layer{i + 1}.{j}", width * 2**i
            conv_norm(make, f"{name}.conv1", f"{name}.bn1", given, made, 3)
            conv_norm(make, f"{name}.conv2", f"{name}.bn2", made, made, 3)
            if given != made:
                conv_norm(make, f"{name}.downsample.0", f"{name}.downsample.1", given, made, 1)
            given = made
    for i in range(3):
        make.conv(f"deconv_layers.{3 * i}", deconv_width, given, 4)  # a transposed kernel has its inputs first
        del make.state[f"deconv_layers.{3 * i}.bias"]
        make.norm(f"deconv_layers.{3 * i + 1}", deconv_width)
        given = deconv_width
    for name, count in outputs(num_classes, num_keypoints).items():
        make.conv(f"{name}.0", deconv_width, head_width, 3)
        make.conv(f"{name}.2", head_width, count)
    return make.state
