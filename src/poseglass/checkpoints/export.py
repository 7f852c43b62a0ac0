"""A weights file of ours in the layout of a public implementation: import undone.

A backbone is written without the classifier that its layout has besides: load such a file with ``strict=False``.
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
from poseglass.core.table import nearest
from poseglass.estimators.fit import card_network
from poseglass.estimators.weights_file import CheckpointError


def fits(state: Mapping[str, Tensor], card: WeightCard, importer: Importer) -> bool:
    """Return whether a layout has a name for every tensor of these weights, no other, and means the same network.

    Names and shapes may be those of a network that computes something else, such as a ResNet that is dilated or a
    MobileNetV3 of another epsilon: what the importer would read back has to be built the same.
    """
    if importer.part != card.part:
        return False
    try:
        if importer.names(card.network).keys() != state.keys():
            return False
        back = importer.network(importer.publish(state, card.network))
        with torch.device("meta"):
            return _built_the_same(card_network(card), card_network(replace(card, network=back, widths={})))
    except (CheckpointError, LookupError, TypeError, ValueError):
        return False


def _built_the_same(a: nn.Module, b: nn.Module) -> bool:
    """Return whether two networks have the same modules, with the same numbers and words in each."""
    # what every module has, parameters and modules inside among it; and the size, which changes no result
    own = vars(nn.Module()).keys() | {"usual_size_wh"}

    def parts(network: nn.Module) -> list[tuple[object, ...]]:
        return [
            (name, type(module), {key: value for key, value in vars(module).items() if key not in own})
            for name, module in network.named_modules()
        ]

    return parts(a) == parts(b)


def other_input(card: WeightCard, importer: Importer) -> str:
    """Return how these weights want the channels of their input where the layout's code gives others; else ""."""
    theirs = importer.input_of(card.network)
    wants = [(name, getattr(card.input, name), getattr(theirs, name)) for name in ("color", "mean", "std")]
    return ", ".join(f"{name} {ours} (there {other})" for name, ours, other in wants if ours != other)


def export_state(
    state: Mapping[str, Tensor], card: WeightCard, layout: str, importers: Mapping[str, Importer]
) -> dict[str, Tensor]:
    """Return a state of ours in the names and shapes of a public layout.

    Raises:
        CheckpointError: No such layout, or it does not hold this network; those that do are named, and all there are.
    """
    if layout not in importers or not fits(state, card, importers[layout]):
        fitting = [name for name, importer in importers.items() if fits(state, card, importer)]
        if layout in importers:
            why = f"that layout is for {importers[layout].layout}, which these weights are not"
        else:
            why = "there is no layout of that name"
        hint = f"They fit {' and '.join(fitting)}." if fitting else "No layout that is known here has a place for them."
        known = "; ".join(f"{name} ({importer.layout})" for name, importer in importers.items())
        raise CheckpointError(
            f"Weights {card.name!r} (network {card.network.get('name')!r}) cannot be written as {layout!r}: "
            f"{why}.{'' if layout in importers else nearest(layout, importers)} {hint} Layouts: {known}."
        )
    return importers[layout].publish(state, card.network)


def write_checkpoint(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """Write a plain state dict as ``.safetensors`` or ``.pth``; aside first, so a crash leaves no half of a file.

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
