"""``poseglass pack``: prepares weights for distribution: half precision, and a complete card."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from poseglass.core.card import WeightCard
from poseglass.estimators.load import card_codec, find_weights
from poseglass.estimators.weights_file import read_weights, save_weights
from poseglass.runs.recipe import apply_override


def pack(
    weights: Annotated[
        str, typer.Argument(help="A .safetensors file with a card, a run folder, or the name of weights.")
    ],
    out: Annotated[Path, typer.Option(help="Output file, .safetensors.")],
    name: Annotated[str, typer.Option(help="Name of the weights. Default: that in the card.")] = "",
    data: Annotated[str, typer.Option(help="Training data and its owner, as text. Default: that in the card.")] = "",
    terms: Annotated[str, typer.Option(help="Terms of use, as text. Default: those in the card.")] = "",
    notes: Annotated[str, typer.Option(help="Notes for users, as text. Default: those in the card.")] = "",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a value of the card: --set input.padding=1.0, --set codec.name=dark. May be repeated."
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half/--no-half", help="Store kernels as float16, for half the file size.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write weights in half precision, with data, terms and notes in the card; --set can change the decoding."""
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must name a .safetensors file, got {out.name!r}.")
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists. Choose another name, or overwrite it with --force.")
    source = find_weights(weights)
    if out.exists() and out.resolve() == source.resolve():
        raise ValueError(f"--out is the weights file itself: {out}. Choose another file.")
    state, card = read_weights(source)
    given = {"name": name, "data": data, "license": terms, "notes": notes}
    card = dataclasses.replace(card, **{field: text for field, text in given.items() if text})
    if overrides:
        table = json.loads(card.to_json())
        for override in overrides:
            apply_override(table, override)
        changed = WeightCard.from_json(json.dumps(table))
        kept = (changed.codec, changed.input, changed.network) == (card.codec, card.input, card.network)
        if card.calibrations and not kept:
            changed = dataclasses.replace(changed, calibrations=())
            Console().print("The calibration is dropped, because scores are others now: poseglass calibrate fits one.")
        card = changed
    card_codec(card)  # an unusable card fails here, not when the file is loaded
    save_weights(out, state, card, half=half)
    size_mb = out.stat().st_size / 1e6
    parameters = sum(t.numel() for k, t in state.items() if "running_" not in k and "num_batches" not in k)
    Console().print(f"{card.name}: {parameters:,} parameters in {size_mb:.1f} MB, written to {out}", soft_wrap=True)
