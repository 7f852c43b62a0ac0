"""``poseglass export WEIGHTS --to LAYOUT --out FILE``: writes weights in the layout of a public implementation."""

from pathlib import Path
from typing import Annotated

import typer

from poseglass.checkpoints import IMPORTERS
from poseglass.checkpoints.export import export_state, fits, other_input, write_checkpoint
from poseglass.estimators.load import find_weights
from poseglass.estimators.weights_file import read_weights


def export_weights(
    weights: Annotated[str, typer.Argument(help="A weights file, or the name of built-in or fetched weights.")],
    to: Annotated[str, typer.Option(help=f"Public layout to write: {', '.join(IMPORTERS)}.")],
    out: Annotated[Path, typer.Option(help="Output file, .pth or .safetensors: a plain state dict.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write weights with the tensor names of a public implementation, so that it can load them.

    A backbone is written without a classifier: load it there with strict=False.
    """
    source = find_weights(weights)
    if out.exists() and out.resolve() == source.resolve():
        raise ValueError(f"--out is the weights file itself: {out}. Choose another file.")
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists. Choose another name, or overwrite it with --force.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {out}: no folder {out.parent}. Create it first.")
    state, card = read_weights(source)
    public = export_state(state, card, to, IMPORTERS)
    write_checkpoint(out, public)
    importer = IMPORTERS[to]
    print(f"layout      {importer.layout} (commit {importer.source.commit})")
    other = other_input(card, importer)
    if other:
        alike = [n for n, i in IMPORTERS.items() if fits(state, card, i) and not other_input(card, i)]
        print(f"input       differs from that code's: these weights need {other}. Change it there.")
        if alike:
            print(f"            A layout with the same input: --to {' or '.join(alike)}")
    zeros = importer.never_run(card.network)
    if zeros:
        print(f"zeros       {len(zeros)} tensors that the original stores but never uses")
    if importer.excluded:
        print(f"not written names starting with {', '.join(importer.excluded)}: load the file there with strict=False")
    print(f"wrote       {out} ({out.stat().st_size / 1e6:.1f} MB, {len(public)} tensors)")
