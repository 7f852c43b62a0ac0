"""A small state of MobileNetV3 in each of its public layouts, in their authors' names and shapes."""

import runpy
from pathlib import Path
from types import SimpleNamespace

from torch import Tensor

layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts.py"))))
State = dict[str, Tensor]

SMALL_ROWS = (
    "3 16 16 se re 2, 3 72 24 - re 2, 3 88 24 - re 1, 5 96 40 se hs 2, 5 240 40 se hs 1, 5 240 40 se hs 1, "
    "5 120 48 se hs 1, 5 144 48 se hs 1, 5 288 96 se hs 2, 5 576 96 se hs 1, 5 576 96 se hs 1"
)
"""Of the public network: kernel, channels inside, channels made, squeeze-and-excitation, activation, stride."""

BLOCKS = {
    "dli14": [f"features.{i}.conv" for i in range(1, 12)],
    "torchvision": [f"features.{i}.block" for i in range(1, 12)],
    "timm": [f"blocks.{stage}.{i}" for stage, count in enumerate((1, 2, 3, 2, 3)) for i in range(count)],
}


def block_names(publisher: str, i: int, squeeze: bool) -> dict[str, str]:
    """Return where block ``i`` keeps its parts: "pw", "pw_bn", "dw", "dw_bn", "fc1", "fc2", "out", "out_bn"."""
    base = BLOCKS[publisher][i]
    if publisher == "dli14":
        text = "dw=0 dw_bn=1 fc1=3.fc.0 fc2=3.fc.2 out=4 out_bn=5"
        if i:
            text = "pw=0 pw_bn=1 dw=3 dw_bn=4 fc1=5.fc.0 fc2=5.fc.2 out=7 out_bn=8"
    elif publisher == "torchvision":
        text = "dw=0.0 dw_bn=0.1 fc1=1.fc1 fc2=1.fc2 out=2.0 out_bn=2.1"
        if i:
            text = "pw=0.0 pw_bn=0.1 dw=1.0 dw_bn=1.1 fc1=2.fc1 fc2=2.fc2 out=3.0 out_bn=3.1"
            text = text if squeeze else "pw=0.0 pw_bn=0.1 dw=1.0 dw_bn=1.1 out=2.0 out_bn=2.1"
    else:
        text = "dw=conv_dw dw_bn=bn1 fc1=se.conv_reduce fc2=se.conv_expand out=conv_pw out_bn=bn2"
        if i:
            text = "pw=conv_pw pw_bn=bn1 dw=conv_dw dw_bn=bn2 fc1=se.conv_reduce fc2=se.conv_expand "
            text += "out=conv_pwl out_bn=bn3"
    return {part: f"{base}.{key}" for part, _, key in (pair.partition("=") for pair in text.split())}


ENDS = {
    "dli14": ("features.0.0", "features.0.1", "conv.0", "conv.1", "classifier.0", "classifier.3"),
    "torchvision": ("features.0.0", "features.0.1", "features.12.0", "features.12.1", "classifier.0", "classifier.3"),
    "timm": ("conv_stem", "bn1", "blocks.5.0.conv", "blocks.5.0.bn1", "conv_head", "classifier"),
}


def rows() -> list[tuple[int, int, int, bool, bool, int]]:
    read = (row.split() for row in SMALL_ROWS.split(", "))
    return [(int(k), int(e), int(o), s == "se", a == "hs", int(d)) for k, e, o, s, a, d in read]


def small(publisher: str) -> State:
    """Return a MobileNetV3-Small with random values in a publisher's names and shapes."""
    make = layouts.Maker(0)

    def conv(name: str, given: int, made: int, size: int = 1) -> None:
        make.conv(name, given, made, size)
        del make.state[f"{name}.bias"]

    stem, stem_norm, last, last_norm, hidden, classes = ENDS[publisher]
    conv(stem, 3, 16, 3)
    make.norm(stem_norm, 16)
    given = 16
    for i, (kernel, inside, made, squeeze, _, _) in enumerate(rows()):
        at = block_names(publisher, i, squeeze)
        if i:
            conv(at["pw"], given, inside)
            make.norm(at["pw_bn"], inside)
        conv(at["dw"], 1, inside, kernel)
        make.norm(at["dw_bn"], inside)
        if squeeze:
            squeezed = {16: 8, 96: 24, 120: 32, 144: 40, 240: 64, 288: 72, 576: 144}[inside]
            make.conv(at["fc1"], inside, squeezed)
            make.conv(at["fc2"], squeezed, inside)
        conv(at["out"], inside, made)
        make.norm(at["out_bn"], made)
        given = made
    conv(last, 96, 576)
    make.norm(last_norm, 576)
    make.conv(hidden, 576, 1024)
    make.conv(classes, 1024, 1000)
    for name, tensor in make.state.items():
        if (publisher == "dli14" and ".fc." in name) or (name.startswith("classifier") and name.endswith("weight")):
            make.state[name] = tensor.reshape(tensor.shape[:2])
    return make.state
