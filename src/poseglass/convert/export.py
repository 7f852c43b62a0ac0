"""A weights file of ours in the layout of a public implementation: import undone."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from poseglass.convert.importer import Importer
from poseglass.core.card import WeightCard
from poseglass.estimators.weights import CheckpointError


def fits(state: Mapping[str, Tensor], card: WeightCard, importer: Importer) -> bool:
    """Return whether a layout has a name for every tensor of these weights, and no name for another."""
    if importer.part != card.part:
        return False
    try:
        return importer.names(card.network).keys() == state.keys()
    except (CheckpointError, LookupError, TypeError, ValueError):
        return False


def export_state(
    state: Mapping[str, Tensor], card: WeightCard, layout: str, importers: Mapping[str, Importer]
) -> dict[str, Tensor]:
    """Return a state of ours in the names and shapes of a public layout.

    Raises:
        LookupError: No such layout.
        CheckpointError: The layout does not hold this network; those that do are named.
    """
    if layout not in importers or not fits(state, card, importers[layout]):
        fitting = [name for name, importer in importers.items() if fits(state, card, importer)]
        hint = f"It fits {', '.join(fitting)}." if fitting else "None of the layouts known here does."
        known = "is none of the layouts" if layout not in importers else "has no place for them"
        raise CheckpointError(
            f"Weights {card.name!r} (network {card.network.get('name')!r}) cannot be written as {layout!r}, which "
            f"{known}. {hint}"
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
        raise ValueError(f"--to must name a .pth, .pt or .safetensors file, got {path.name!r}.")
    aside = path.with_name(f".{path.name}.partial")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    try:
        if path.suffix == ".safetensors":
            save_file(tensors, aside)
        else:
            torch.save(tensors, aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
