"""``poseglass export WEIGHTS --layout NAME --to FILE``: weights as a public implementation stores them."""

from pathlib import Path
from typing import Annotated

import typer

from poseglass.convert import IMPORTERS
from poseglass.convert.export import export_state, write_checkpoint
from poseglass.estimators.load import shipped
from poseglass.estimators.weights import read_weights


def export_weights(
    weights: Annotated[str, typer.Argument(help="A weights file, or a name of weights that ship.")],
    layout: Annotated[str, typer.Option(help=f"Whose names to write: {', '.join(IMPORTERS)}.")],
    to: Annotated[Path, typer.Option("--to", help="The .pth or .safetensors to write, a plain state dict.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write weights under the tensor names of a public implementation, which can load them as its own."""
    if to.exists() and not force:
        raise FileExistsError(f"{to} exists. Choose another name, or overwrite it with --force.")
    if not to.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {to}: no folder {to.parent}. Make it first.")
    state, card = read_weights(shipped().get(weights, Path(weights)))
    public = export_state(state, card, layout, IMPORTERS)
    write_checkpoint(to, public)
    importer = IMPORTERS[layout]
    print(f"layout      {importer.layout} (commit {importer.source.commit})")
    zeros = importer.never_run(card.network)
    if zeros:
        print(f"zeros       {len(zeros)} tensors that the original stores and never runs")
    if importer.left_out:
        print(f"not written what starts with {', '.join(importer.left_out)}: it was left out at the import")
    print(f"wrote       {to} ({to.stat().st_size / 1e6:.1f} MB, {len(public)} tensors)")
