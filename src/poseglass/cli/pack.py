"""``poseglass pack``: make weights ready to hand over: half precision, and a card that says what they are."""

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
        str, typer.Argument(help="A .safetensors with a card, the folder of a run, or a name of weights.")
    ],
    out: Annotated[Path, typer.Option(help="The .safetensors to write.")],
    name: Annotated[str, typer.Option(help="Name of the weights; the card's own unless given.")] = "",
    data: Annotated[str, typer.Option(help="What they were trained on, and whose it is.")] = "",
    terms: Annotated[str, typer.Option(help="Terms of use, in words.")] = "",
    notes: Annotated[str, typer.Option(help="Anything a user should know.")] = "",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the card: --set input.padding=1.0, --set codec.name=dark. May be repeated."),
    ] = None,
    half: Annotated[bool, typer.Option("--half/--no-half", help="Store kernels as float16: half the size.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write weights in half precision with data, terms and notes in their card, and other decoding if wanted."""
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must name a .safetensors file, got {out.name!r}.")
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists. Choose another name, or overwrite it with --force.")
    source = find_weights(weights)
    if out.exists() and out.resolve() == source.resolve():
        raise ValueError(f"--out names the weights themselves: {out}. Choose another file.")
    state, card = read_weights(source)
    given = {"name": name, "data": data, "license": terms, "notes": notes}
    card = dataclasses.replace(card, **{field: text for field, text in given.items() if text})
    if overrides:
        table = json.loads(card.to_json())
        for override in overrides:
            apply_override(table, override)
        card = WeightCard.from_json(json.dumps(table))
    card_codec(card)  # a card that cannot be used is refused here, not by whoever gets the file
    save_weights(out, state, card, half=half)
    size_mb = out.stat().st_size / 1e6
    parameters = sum(t.numel() for k, t in state.items() if "running_" not in k and "num_batches" not in k)
    Console().print(f"{card.name}: {parameters:,} parameters in {size_mb:.1f} MB, written to {out}", soft_wrap=True)
