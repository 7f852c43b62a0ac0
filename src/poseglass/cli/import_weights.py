"""``poseglass import CHECKPOINT --out FILE``: a public checkpoint becomes a weights file with its card."""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from poseglass.checkpoints import IMPORTERS, import_state, read_network, told_of
from poseglass.checkpoints.certificate import certify
from poseglass.checkpoints.top_down import SIZE_DOUBT
from poseglass.core.card import WeightCard
from poseglass.core.image import read_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import SKELETONS
from poseglass.core.table import nearest
from poseglass.estimators.fit import card_network
from poseglass.estimators.load import card_codec
from poseglass.estimators.weights_file import read_weights, save_weights, sha256_of
from poseglass.runs.recipe import RecipeError, apply_override


def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth, .pt, .pth.tar or .safetensors of another project.")],
    out: Annotated[Path, typer.Option(help="The .safetensors to write, with its card in the header.")],
    skeleton: Annotated[
        str,
        typer.Option(
            help=f"Keypoints of its outputs, in order: one of {', '.join(SKELETONS)}, or a JSON file with 'name' and "
            "'keypoints'. Needed where their number does not tell."
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the weights, for their card.")] = "",
    layout: Annotated[
        str, typer.Option(help=f"Layout of the checkpoint, where its names do not tell: {', '.join(IMPORTERS)}.")
    ] = "",
    take: Annotated[
        str,
        typer.Option(
            help="Path of the network in the file, where it holds several (averaged weights, a teacher) and another is "
            "meant than import takes: it names them."
        ),
    ] = "",
    half: Annotated[bool, typer.Option("--half", help="Store kernels as float16: half the size.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="State what you know and the file does not: --set 'input.size_wh=[288, 384]', --set codec.sigma=3. "
            "May be repeated.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compare what the file computes with what the original's tensors do; no file is left if they differ.",
        ),
    ] = False,
    check_image: Annotated[
        list[Path] | None, typer.Option(help="With --check: an image to compare on, instead of synthetic people.")
    ] = None,
) -> None:
    """Turn a checkpoint of a public implementation into a weights file. Code in a checkpoint is never run."""
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must name a .safetensors file, got {out.name!r}.")
    if out.exists() and out.resolve() == checkpoint.resolve():
        raise ValueError(f"--out names the checkpoint itself: {out}. Choose another file.")
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists. Choose another name, or overwrite it with --force.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {out}: no folder {out.parent}. Make it first.")
    chosen = read_skeleton(skeleton) if skeleton else None
    if check_image and not check:
        raise ValueError("--check-image goes with --check. Add it, or leave the image out.")
    images = [(path.name, read_image(path)) for path in check_image or ()]
    found = read_network(checkpoint, layout=layout, take=take)
    original, importer = found.state, found.importer
    with told_of(checkpoint):
        renamed, card = import_state(
            original, importer, skeleton=chosen, name=name, sha256=sha256_of(checkpoint), notes=found.notes
        )
        card = stated(card, overrides or ())
        if check:
            with tempfile.TemporaryDirectory(dir=out.parent, prefix=".unchecked-") as folder:
                unchecked = Path(folder) / out.name
                save_weights(unchecked, renamed, card, half=half)
                certificate = certify(unchecked, original, importer, named_images=images, half=half)
                certificate |= {"taken": found.path, "notes": list(found.notes)}
                renamed, card = read_weights(unchecked)  # what was checked is what is delivered
                save_weights(out, renamed, dataclasses.replace(card, certificate=certificate), half=half)
                del renamed  # its tensors lie in the file that goes
        else:
            save_weights(out, renamed, card, half=half)
    written, card = read_weights(out)  # what is on the disk, not what was meant
    values = sum(tensor.numel() for tensor in written.values() if tensor.is_floating_point())
    doubt = importer.doubt if SIZE_DOUBT in card.notes else importer.doubt.replace(SIZE_DOUBT, "").strip()
    told = card.notes
    for text in (doubt, *found.notes):  # they have rows of their own
        told = told.replace(text, "")
    rows = {
        "recognised": " ".join(told.split()),
        "read under": found.path,
        "name": card.name,
        "network": json.dumps(card.network),
        "codec": json.dumps(card.codec),
        "skeleton": f"{card.skeleton.name}: {', '.join(card.skeleton.keypoints)}" if card.skeleton else "none",
        "input": f"{card.input.size_wh[0]} x {card.input.size_wh[1]} px, padding {card.input.padding}, "
        f"mean {card.input.mean}, std {card.input.std}, {card.input.color}, crop {card.input.crop}",
        "source": f"{card.source_url}, sha256 {card.sha256[:12]}",
        "licence": card.license,
        "checked": certificate_line(card.certificate),
    }
    if doubt:
        rows = {"read as": doubt} | rows
    if card.part == "backbone":
        rows["use"] = f"train.init_from = {str(out)!r}, in a recipe whose network has this backbone"
    for note in found.notes:
        label, _, text = note.partition(": ")
        print(f"{label.lower() if text else 'note':<11} {text or note}")
    for label, text in rows.items():
        print(f"{label:<11} {text}")
    print(f"wrote       {out} ({out.stat().st_size / 1e6:.1f} MB, {values:,} numbers)")


def stated(card: WeightCard, overrides: Sequence[str]) -> WeightCard:
    """Return a card with what a user knows better than the file: "input.KEY=VALUE" and "codec.KEY=VALUE".

    Raises:
        RecipeError: A malformed override, or one of something else.
        ValueError: A value that input or codec refuse, or a size that the network does not take.
        CheckpointError: A codec that cannot be built.
    """
    if not overrides:
        return card
    tables: dict[str, Any] = {"input": dataclasses.asdict(card.input), "codec": dict(card.codec)}
    kept = [key for key in tables if tables[key]]
    for override in overrides:
        part, _, key = override.partition("=")[0].strip().partition(".")
        if part not in kept or not key or key == "name":
            raise RecipeError(
                f"--set {override!r}: what can be stated here is {' and '.join(f'{k}.KEY=VALUE' for k in kept)}; which "
                "codec it is says the layout."
            )
        if part == "input" and key not in tables["input"]:
            raise RecipeError(f"--set {override!r}: known keys of input are {', '.join(tables['input'])}.")
        apply_override(tables, override)
    try:
        spec = InputSpec(**tables["input"])
    except TypeError as error:
        raise ValueError(f"--set input: {error}.") from None
    notes = card.notes
    if spec.size_wh != card.input.size_wh and tables["codec"] != card.codec:  # nothing is left to doubt about that
        notes = notes.replace(SIZE_DOUBT, "").replace("  ", " ").strip()
    notes += f" Stated at import: {', '.join(overrides)}."
    card = dataclasses.replace(card, input=spec, codec=tables["codec"], notes=notes)
    if card.part == "network":
        card_codec(card)
        with torch.device("meta"):
            divisor = int(getattr(card_network(card), "divisor", 1))
        if any(side % divisor for side in spec.size_wh):
            raise ValueError(f"--set input.size_wh: {card.network['name']} takes sides that divide by {divisor}.")
    return card


def certificate_line(certificate: dict[str, Any]) -> str:
    """Say in a line how far weights were from the original."""
    if not certificate.get("checked"):
        return "no; --check compares the file with the original's tensors"
    on = f"on {', '.join(certificate['images'])}"
    apart = f"{certificate['maps_relative']:.1e} of their largest value"
    if "keypoints_max_px" not in certificate:
        return f"features differ by {apart}, {on}"
    return (
        f"heatmaps differ by {apart}, keypoints by at most {certificate['keypoints_max_px']:.2g} px "
        f"(mean {certificate['keypoints_mean_px']:.2g}), {on}"
    )


def read_skeleton(text: str) -> Skeleton:
    """Return the skeleton of that name, or of that JSON file.

    Raises:
        LookupError: No skeleton of that name.
        FileNotFoundError: No such file.
        ValueError: The file is not a skeleton.
    """
    path = Path(text)
    if path.suffix.lower() != ".json":
        if text not in SKELETONS:
            raise LookupError(
                f"Unknown skeleton {text!r}.{nearest(text, SKELETONS)} Known: {', '.join(SKELETONS)}. "
                "One of your own: a .json file with 'name' and 'keypoints'."
            )
        return SKELETONS[text]
    if not path.is_file():
        raise FileNotFoundError(f"No such skeleton file: {path}.")
    try:
        return Skeleton.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a skeleton ({error}). Expected JSON with 'name' and 'keypoints'.") from error
