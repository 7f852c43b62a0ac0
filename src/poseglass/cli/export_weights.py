"""``poseglass export WEIGHTS --layout NAME --to FILE``: weights as a public implementation stores them."""

from pathlib import Path
from typing import Annotated

import typer

from poseglass.checkpoints import IMPORTERS
from poseglass.checkpoints.export import export_state, fits, other_input, write_checkpoint
from poseglass.estimators.load import find_weights
from poseglass.estimators.weights_file import read_weights


def export_weights(
    weights: Annotated[str, typer.Argument(help="A weights file, or a name of weights that ship or were fetched.")],
    layout: Annotated[str, typer.Option(help=f"Whose names to write: {', '.join(IMPORTERS)}.")],
    to: Annotated[Path, typer.Option("--to", help="The .pth or .safetensors to write, a plain state dict.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write weights under the tensor names of a public implementation, which can load them as its own.

    A backbone is written without a classifier: load it there with strict=False.
    """
    source = find_weights(weights)
    if to.exists() and to.resolve() == source.resolve():
        raise ValueError(f"--to names the weights themselves: {to}. Choose another file.")
    if to.exists() and not force:
        raise FileExistsError(f"{to} exists. Choose another name, or overwrite it with --force.")
    if not to.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {to}: no folder {to.parent}. Make it first.")
    state, card = read_weights(source)
    public = export_state(state, card, layout, IMPORTERS)
    write_checkpoint(to, public)
    importer = IMPORTERS[layout]
    print(f"layout      {importer.layout} (commit {importer.source.commit})")
    other = other_input(card, importer)
    if other:
        alike = [n for n, i in IMPORTERS.items() if fits(state, card, i) and not other_input(card, i)]
        print(f"input       not what that code gives: these weights want {other}. Change it there.")
        if alike:
            print(f"            These weights as they are: --layout {' or '.join(alike)}")
    zeros = importer.never_run(card.network)
    if zeros:
        print(f"zeros       {len(zeros)} tensors that the original stores and never runs")
    if importer.excluded:
        print(f"not written what starts with {', '.join(importer.excluded)}: load the file there with strict=False")
    print(f"wrote       {to} ({to.stat().st_size / 1e6:.1f} MB, {len(public)} tensors)")
