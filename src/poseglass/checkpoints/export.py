"""Exports one of our weights files to the layout of a public implementation: the inverse of import.

A backbone is written without the classifier that its layout also has: load such a file with ``strict=False``. A
MobileNetV3 classifier is written whole by the layouts ``mobilenet_v3_*_classifier``.
"""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from poseglass.checkpoints.importer import Importer
from poseglass.core.card import WeightCard
from poseglass.core.files import write_bytes
from poseglass.core.shapes_only import shapes_only
from poseglass.core.table import nearest
from poseglass.estimators.fit import card_network
from poseglass.estimators.weights_file import CheckpointError


def fits(state: Mapping[str, Tensor], card: WeightCard, importer: Importer) -> bool:
    """Return whether a layout has exactly one name for every tensor of these weights, and describes the same network.

    Names and shapes may match those of a network that computes something else, such as a dilated ResNet or a
    MobileNetV3 with another epsilon: the network that the importer would read back must be built the same.
    """
    if importer.part != card.part:
        return False
    try:
        if importer.names(card.network).keys() != state.keys():
            return False
        back = importer.network(importer.publish(state, card.network))
        with shapes_only():
            return _built_the_same(card_network(card), card_network(replace(card, network=back, widths={})))
    except (CheckpointError, LookupError, TypeError, ValueError):
        return False


def _built_the_same(a: nn.Module, b: nn.Module) -> bool:
    """Return whether two networks have the same modules, with the same attribute values in each."""
    # ignore what every module has, including parameters and submodules; and the size and the share of dropout, which
    # change no result
    own = vars(nn.Module()).keys() | {"usual_size_wh", "p"}

    def parts(network: nn.Module) -> list[tuple[object, ...]]:
        return [
            (name, type(module), {key: value for key, value in vars(module).items() if key not in own})
            for name, module in network.named_modules()
        ]

    return parts(a) == parts(b)


def other_input(card: WeightCard, importer: Importer) -> str:
    """Return how the input channels of these weights differ from what the layout's code provides; else ""."""
    theirs = importer.input_of(card.network)
    wants = [(name, getattr(card.input, name), getattr(theirs, name)) for name in ("color", "mean", "std")]
    return ", ".join(f"{name} {ours} (there {other})" for name, ours, other in wants if ours != other)


def export_state(
    state: Mapping[str, Tensor], card: WeightCard, layout: str, importers: Mapping[str, Importer]
) -> dict[str, Tensor]:
    """Return one of our states with the names and shapes of a public layout.

    Raises:
        CheckpointError: No such layout, or it does not fit this network; the message lists those that do, and all.
    """
    if layout not in importers or not fits(state, card, importers[layout]):
        fitting = [name for name, importer in importers.items() if fits(state, card, importer)]
        if layout in importers:
            why = f"that layout is for {importers[layout].layout}, which these weights are not"
        else:
            why = "there is no layout of that name"
        hint = f"They fit {' and '.join(fitting)}." if fitting else "They fit no known layout."
        known = "; ".join(f"{name} ({importer.layout})" for name, importer in importers.items())
        raise CheckpointError(
            f"Weights {card.name!r} (network {card.network.get('name')!r}) cannot be written as {layout!r}: "
            f"{why}.{'' if layout in importers else nearest(layout, importers)} {hint} Layouts: {known}."
        )
    return importers[layout].publish(state, card.network)


def write_checkpoint(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """Write a plain state dict as ``.safetensors`` or ``.pth``, atomically: a crash leaves no partial file.

    Raises:
        ValueError: Another suffix.
        OSError: The folder is missing, full or not writable.
    """
    path = Path(path)
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise ValueError(f"--out must name a .pth, .pt or .safetensors file, got {path.name!r}.")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        write_bytes(path, safetensors.torch.save(tensors))
        return
    file = io.BytesIO()
    torch.save(tensors, file)
    write_bytes(path, file.getvalue())
