"""A state of EfficientNet-Lite in its public layout, in its authors' names and shapes."""

import runpy
from pathlib import Path
from types import SimpleNamespace

from torch import Tensor

layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts.py"))))

LITE0 = (
    "3 1 16 1, 3 6 24 2, 3 6 24 1, 5 6 40 2, 5 6 40 1, 3 6 80 2, 3 6 80 1, 3 6 80 1, 5 6 112 1, 5 6 112 1, "
    "5 6 112 1, 5 6 192 2, 5 6 192 1, 5 6 192 1, 5 6 192 1, 3 6 320 1"
)
"""Of the public network: kernel, expansion, channels made, stride."""


def rows() -> list[tuple[int, int, int, int]]:
    return [tuple(int(number) for number in row.split()) for row in LITE0.split(", ")]  # type: ignore[misc]


def lite0() -> dict[str, Tensor]:
    """Return an EfficientNet-Lite0 with random values."""
    make = layouts.Maker(0)

    def conv(name: str, given: int, made: int, size: int = 1) -> None:
        make.conv(name, given, made, size)
        del make.state[f"{name}.bias"]

    conv("_conv_stem", 3, 32, 3)
    make.norm("_bn0", 32)
    given = 32
    for i, (kernel, expansion, made, _) in enumerate(rows()):
        base, inside = f"_blocks.{i}", given * expansion
        if i:
            conv(f"{base}._expand_conv", given, inside)
            make.norm(f"{base}._bn0", inside)
        conv(f"{base}._depthwise_conv", 1, inside, kernel)
        make.norm(f"{base}._bn1", inside)
        conv(f"{base}._project_conv", inside, made)
        make.norm(f"{base}._bn2", made)
        given = made
    conv("_conv_head", 320, 1280)
    make.norm("_bn1", 1280)
    make.conv("_fc", 1280, 1000)
    make.state["_fc.weight"] = make.state["_fc.weight"].flatten(1)
    return make.state
