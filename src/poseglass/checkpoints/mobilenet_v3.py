"""Imports MobileNetV3 classifiers of d-li14/mobilenetv3.pytorch, torchvision and timm, as backbones or whole.

The three store the same tensors in the same order under different names, and differ in ways that their keys do not
show: d-li14 runs squeeze-and-excitation before the activation, and torchvision has 1e-3 as the epsilon of batch norm
where the others have 1e-5. Only d-li14 has linear layers in squeeze-and-excitation; ``(out, in)`` becomes ``(out, in,
1, 1)`` here, and ``publish`` removes the two axes again. As a backbone, which is what is taken unless a layout is asked
for by name, the classification tail (after global average pooling) is skipped; the layouts
``mobilenet_v3_*_classifier`` include it. Only timm stores its first layer as a 1x1 convolution.

Images are RGB, normalised by the mean and standard deviation of ImageNet.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Literal

from torch import Tensor

from poseglass.backbones.mobilenet_v3 import LARGE, SMALL, Row
from poseglass.checkpoints import reference_backbones
from poseglass.checkpoints.importer import Importer, Source, convolution, normalisation, shape_of
from poseglass.checkpoints.top_down import CLASSIFIER_INPUT
from poseglass.core.skeletons import BOXES
from poseglass.estimators.weights_file import CheckpointError

Publisher = Literal["dli14", "torchvision", "timm"]

SOURCES: dict[Publisher, Source] = {
    "dli14": Source(
        repository="d-li14/mobilenetv3.pytorch",
        url="https://github.com/d-li14/mobilenetv3.pytorch",
        commit="3e6938c",
        license="MIT",
    ),
    "torchvision": Source(
        repository="pytorch/vision", url="https://github.com/pytorch/vision", commit="0.29.1", license="BSD-3-Clause"
    ),
    "timm": Source(
        repository="huggingface/pytorch-image-models",
        url="https://github.com/huggingface/pytorch-image-models",
        commit="1.0.31",
        license="Apache-2.0",
    ),
}

SETTINGS: dict[Publisher, dict[str, Any]] = {
    "dli14": {"order": "excite_activate", "eps": 1e-5},
    "torchvision": {"order": "activate_excite", "eps": 1e-3},
    "timm": {"order": "activate_excite", "eps": 1e-5},
}
"""What the keys do not show, by publisher."""

KEYS: dict[Publisher, tuple[str, str]] = {
    "dli14": ("features.4.conv.5.fc.0.weight", "conv.0.weight"),
    "torchvision": ("features.4.block.2.fc1.weight", "features.0.0.weight"),
    "timm": ("blocks.2.0.se.conv_reduce.weight", "conv_head.bias"),
}
"""What is specific to each layout, at either size."""

TAIL: dict[Publisher, tuple[str, str]] = {
    "dli14": ("classifier.0", "classifier.3"),
    "torchvision": ("classifier.0", "classifier.3"),
    "timm": ("conv_head", "classifier"),
}
"""The two layers after global average pooling."""


def recognises(keys: Collection[str], publisher: Publisher) -> bool:
    """Return whether these are this publisher's names of a MobileNetV3."""
    return all(key in keys for key in KEYS[publisher])


def network(state: Mapping[str, Tensor], publisher: Publisher) -> dict[str, Any]:
    """Read the size and the width from the names and shapes; order and epsilon depend on the publisher.

    Raises:
        CheckpointError: The tensor that shows the width is missing.
    """
    large: dict[str, Any] = {"name": "mobilenet_v3_large"} | SETTINGS[publisher]
    small: dict[str, Any] = {"name": "mobilenet_v3_small"} | SETTINGS[publisher]
    deepest = names(large, publisher)["blocks.14.project.conv.weight"]
    table, rows = (large, LARGE) if deepest in state else (small, SMALL)
    wide = shape_of(state, names(table, publisher)["last.conv.weight"], 4, _layout(publisher))[0]
    return table | {"width": wide / rows[-1].expanded}


def names(network: Mapping[str, Any], publisher: Publisher) -> dict[str, str]:
    """Return our name to the publisher's for every tensor of a ``mobilenet_v3_*``, in the order that both have."""
    rows = LARGE if network["name"] == "mobilenet_v3_large" else SMALL
    blocks = {"dli14": _dli14, "torchvision": _torchvision, "timm": _timm}[publisher](rows)
    table: dict[str, str] = {}
    for new, old in blocks.items():
        if new.endswith("norm"):
            table |= normalisation(new, old)
        elif new.endswith("conv"):  # followed by a norm, and therefore without a bias
            table[f"{new}.weight"] = f"{old}.weight"
        else:
            table |= convolution(new, old)
    return table


def flat(network: Mapping[str, Any]) -> list[str]:
    """Return our names of the kernels that d-li14 stores as linear layers, those of squeeze-and-excitation."""
    return [new for new in names(network, "dli14") if _squeezes(new)]


def _squeezes(name: str) -> bool:
    return "squeeze_excite" in name and name.endswith("weight")


def _layout(publisher: Publisher) -> str:
    return f"a MobileNetV3 of {SOURCES[publisher].repository}"


def _dli14(rows: tuple[Row, ...]) -> dict[str, str]:
    """Return our module names to theirs."""
    table = {"stem.conv": "features.0.0", "stem.norm": "features.0.1"}
    for i, row in enumerate(rows):
        new, old = f"blocks.{i}", f"features.{i + 1}.conv"
        if i:  # the first block does not expand, and has three entries fewer
            table |= {f"{new}.expand.conv": f"{old}.0", f"{new}.expand.norm": f"{old}.1"}
        at = 3 if i else 0
        table |= {f"{new}.depthwise.conv": f"{old}.{at}", f"{new}.depthwise.norm": f"{old}.{at + 1}"}
        if row.squeeze:
            squeeze = f"{old}.{5 if i else 3}.fc"
            table |= {f"{new}.squeeze_excite.reduce": f"{squeeze}.0", f"{new}.squeeze_excite.expand": f"{squeeze}.2"}
        at += 4
        table |= {f"{new}.project.conv": f"{old}.{at}", f"{new}.project.norm": f"{old}.{at + 1}"}
    return table | {"last.conv": "conv.0", "last.norm": "conv.1"}


def _torchvision(rows: tuple[Row, ...]) -> dict[str, str]:
    """Return our module names to theirs."""
    table = {"stem.conv": "features.0.0", "stem.norm": "features.0.1"}
    for i, row in enumerate(rows):
        parts = [*(["expand"] if i else []), "depthwise", *(["squeeze_excite"] if row.squeeze else []), "project"]
        for at, part in enumerate(parts):
            new, old = f"blocks.{i}.{part}", f"features.{i + 1}.block.{at}"
            if part == "squeeze_excite":
                table |= {f"{new}.reduce": f"{old}.fc1", f"{new}.expand": f"{old}.fc2"}
            else:
                table |= {f"{new}.conv": f"{old}.0", f"{new}.norm": f"{old}.1"}
    last = f"features.{len(rows) + 1}"
    return table | {"last.conv": f"{last}.0", "last.norm": f"{last}.1"}


def _timm(rows: tuple[Row, ...]) -> dict[str, str]:
    """Return our module names to theirs; blocks with the same number of output channels form a stage."""
    table = {"stem.conv": "conv_stem", "stem.norm": "bn1"}
    stage, place = 0, 0
    for i, row in enumerate(rows):
        if i:
            again = row.out_channels == rows[i - 1].out_channels
            stage, place = (stage, place + 1) if again else (stage + 1, 0)
        new, old = f"blocks.{i}", f"blocks.{stage}.{place}"
        if i:
            table |= {f"{new}.expand.conv": f"{old}.conv_pw", f"{new}.expand.norm": f"{old}.bn1"}
        table |= {f"{new}.depthwise.conv": f"{old}.conv_dw", f"{new}.depthwise.norm": f"{old}.bn{2 if i else 1}"}
        if row.squeeze:
            squeeze = f"{new}.squeeze_excite"
            table |= {f"{squeeze}.reduce": f"{old}.se.conv_reduce", f"{squeeze}.expand": f"{old}.se.conv_expand"}
        project = f"{old}.{'conv_pwl' if i else 'conv_pw'}"
        table |= {f"{new}.project.conv": project, f"{new}.project.norm": f"{old}.bn{3 if i else 2}"}
    return table | {"last.conv": f"blocks.{stage + 1}.0.conv", "last.norm": f"blocks.{stage + 1}.0.bn1"}


CLASSIFIERS = {
    "mobilenet_v3_large": "mobilenet_v3_large_classifier",
    "mobilenet_v3_small": "mobilenet_v3_small_classifier",
}
"""Name of a backbone to name of its classifier in ``NETWORKS``."""


def classifier_network(state: Mapping[str, Tensor], publisher: Publisher) -> dict[str, Any]:
    """Read what ``network`` reads, and the widths of the last two layers from their shapes.

    Raises:
        CheckpointError: A tensor that shows a width is missing.
    """
    hidden, classes = TAIL[publisher]
    table = network(state, publisher)
    counts = {
        "num_keypoints": 0,
        "num_classes": shape_of(state, f"{classes}.weight", 2, _layout(publisher))[0],
        "hidden_width": shape_of(state, f"{hidden}.weight", 4 if publisher == "timm" else 2, _layout(publisher))[0],
    }
    return table | {"name": CLASSIFIERS[table["name"]]} | counts


def classifier_names(network: Mapping[str, Any], publisher: Publisher) -> dict[str, str]:
    """Return our name to the publisher's for every tensor of a ``mobilenet_v3_*_classifier``.

    Raises:
        CheckpointError: Another network.
    """
    hidden, classes = TAIL[publisher]
    inside = {f"backbone.{new}": old for new, old in names({"name": _backbone_of(network)}, publisher).items()}
    return inside | convolution("head.hidden", hidden) | convolution("head.classes", classes)


def _backbone_of(network: Mapping[str, Any]) -> str:
    for backbone, classifier in CLASSIFIERS.items():
        if network["name"] == classifier:
            return backbone
    expected = " or ".join(CLASSIFIERS.values())
    raise CheckpointError(f"The network {network['name']!r} is not a MobileNetV3 classifier; expected {expected}.")


def classifier_flat(network: Mapping[str, Any]) -> list[str]:
    """Return what ``flat`` does, for a classifier."""
    return [new for new in classifier_names(network, "dli14") if _squeezes(new)]


def _importer(publisher: Publisher, notes: str = "", doubt: str = "") -> Importer:
    return Importer(
        name=f"mobilenet_v3_{publisher}",
        source=SOURCES[publisher],
        layout=_layout(publisher),
        recognises=partial(recognises, publisher=publisher),
        network=partial(network, publisher=publisher),
        names=partial(names, publisher=publisher),
        input=CLASSIFIER_INPUT,
        part="backbone",
        excluded=tuple(f"{layer}." for layer in TAIL[publisher]),
        reference=partial(reference_backbones.mobilenet_v3, publisher=publisher),
        flat=flat if publisher == "dli14" else lambda network: [],
        notes=f"{notes} Imported as a backbone; --layout mobilenet_v3_{publisher}_classifier imports the whole "
        "classifier.".lstrip(),
        doubt=doubt,
    )


def _classifier_importer(publisher: Publisher, notes: str = "", doubt: str = "") -> Importer:
    return Importer(
        name=f"mobilenet_v3_{publisher}_classifier",
        source=SOURCES[publisher],
        layout=f"{_layout(publisher)}, as a classifier",
        recognises=partial(recognises, publisher=publisher),
        network=partial(classifier_network, publisher=publisher),
        names=partial(classifier_names, publisher=publisher),
        input=CLASSIFIER_INPUT,
        skeletons={0: BOXES},
        codec={"name": "box_class"},
        reference=partial(reference_backbones.mobilenet_v3_classifier, publisher=publisher),
        compares="outputs",
        flat=classifier_flat if publisher == "dli14" else lambda network: [],
        pointwise=lambda network: ["head.hidden.weight"] if publisher == "timm" else [],
        notes=f"{notes} The checkpoint does not name its classes.".lstrip(),
        doubt=doubt,
    )


NOTES: dict[Publisher, tuple[str, str]] = {
    "dli14": ("Squeeze-and-excitation comes before the activation.", ""),
    "torchvision": ("Batch norm has an epsilon of 1e-3.", ""),
    "timm": (
        "",
        "Assumed to be timm's mobilenetv3_*. Its tf_mobilenetv3_* have the same names, but pad as TensorFlow does and "
        "have an epsilon of 1e-3: those do not compute the same here.",
    ),
}
"""What a user should know about the weights of each publisher, and what their names do not show."""

IMPORTERS = (
    *(_importer(publisher, *said) for publisher, said in NOTES.items()),
    *(_classifier_importer(publisher, *said) for publisher, said in NOTES.items()),
)
"""Backbones first: the names of both are the same, and a checkpoint is taken as the first that recognises it."""
