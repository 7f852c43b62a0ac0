"""``poseglass import CHECKPOINT --out FILE``: converts a public checkpoint to a weights file with a card."""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from poseglass.checkpoints import IMPORTERS, import_state, read_network, told_of
from poseglass.checkpoints.certificate import certify
from poseglass.checkpoints.top_down import SIZE_DOUBT
from poseglass.core.card import WeightCard
from poseglass.core.image import read_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.shapes_only import shapes_only
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import SKELETONS
from poseglass.core.table import nearest
from poseglass.estimators.fit import card_network
from poseglass.estimators.load import card_codec
from poseglass.estimators.weights_file import read_weights, save_weights, sha256_of
from poseglass.runs.recipe import RecipeError, apply_override


def import_weights(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint of another project: .pth, .pt, .pth.tar or .safetensors.")
    ],
    out: Annotated[Path, typer.Option(help="Output file, .safetensors, with its card in the header.")],
    skeleton: Annotated[
        str,
        typer.Option(
            help=f"Keypoints of its outputs, in order: one of {', '.join(SKELETONS)}, or a JSON file with 'name' and "
            "'keypoints'. Required if the number of keypoints is ambiguous."
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the weights in the card.")] = "",
    layout: Annotated[
        str,
        typer.Option(
            help=f"Layout of the checkpoint, if it cannot be recognised from the tensor names: {', '.join(IMPORTERS)}."
        ),
    ] = "",
    take: Annotated[
        str,
        typer.Option(
            help="Path of the network in the file, if it holds several (averaged weights, a teacher) and the automatic "
            "choice is not the right one; import lists them."
        ),
    ] = "",
    half: Annotated[bool, typer.Option("--half", help="Store kernels as float16, for half the file size.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Set what the file does not contain: --set 'input.size_wh=[288, 384]', --set codec.sigma=3. May be "
            "repeated.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compare the outputs of the new file with those of the original tensors; fail if they differ.",
        ),
    ] = False,
    check_image: Annotated[
        list[Path] | None,
        typer.Option(help="Image for --check, instead of synthetic people. May be repeated."),
    ] = None,
) -> None:
    """Convert a checkpoint of a public implementation to a weights file. Code in a checkpoint is never run."""
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must name a .safetensors file, got {out.name!r}.")
    if out.exists() and out.resolve() == checkpoint.resolve():
        raise ValueError(f"--out is the checkpoint itself: {out}. Choose another file.")
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists. Choose another name, or overwrite it with --force.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {out}: no folder {out.parent}. Create it first.")
    chosen = read_skeleton(skeleton) if skeleton else None
    if check_image and not check:
        raise ValueError("--check-image requires --check. Add it, or omit the image.")
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
                renamed, card = read_weights(unchecked)  # write exactly what was checked
                save_weights(out, renamed, dataclasses.replace(card, certificate=certificate), half=half)
                del renamed  # its tensors are mapped from the file that is deleted
        else:
            save_weights(out, renamed, card, half=half)
    written, card = read_weights(out)  # report what is on disk
    values = sum(tensor.numel() for tensor in written.values() if tensor.is_floating_point())
    doubt = importer.doubt if SIZE_DOUBT in card.notes else importer.doubt.replace(SIZE_DOUBT, "").strip()
    told = card.notes
    for text in (doubt, *found.notes):  # these have separate rows
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
    """Return a card with values set by the user: "input.KEY=VALUE" and "codec.KEY=VALUE".

    Raises:
        RecipeError: A malformed override, or an unknown key.
        ValueError: An invalid value of input or codec, or a size that the network does not support.
        CheckpointError: The codec cannot be built.
    """
    if not overrides:
        return card
    tables: dict[str, Any] = {"input": dataclasses.asdict(card.input), "codec": dict(card.codec)}
    kept = [key for key in tables if tables[key]]
    for override in overrides:
        part, _, key = override.partition("=")[0].strip().partition(".")
        if part not in kept or not key or key == "name":
            raise RecipeError(
                f"--set {override!r}: only {' and '.join(f'{k}.KEY=VALUE' for k in kept)} can be set here; the layout "
                "determines the codec."
            )
        if part == "input" and key not in tables["input"]:
            raise RecipeError(f"--set {override!r}: known keys of input are {', '.join(tables['input'])}.")
        apply_override(tables, override)
    try:
        spec = InputSpec(**tables["input"])
    except TypeError as error:
        raise ValueError(f"--set input: {error}.") from None
    notes = card.notes
    if spec.size_wh != card.input.size_wh and tables["codec"] != card.codec:  # the doubt about the size is resolved
        notes = notes.replace(SIZE_DOUBT, "").replace("  ", " ").strip()
    notes += f" Stated at import: {', '.join(overrides)}."
    card = dataclasses.replace(card, input=spec, codec=tables["codec"], notes=notes)
    if card.part == "network":
        card_codec(card)
        with shapes_only():
            divisor = int(getattr(card_network(card), "divisor", 1))
        if any(side % divisor for side in spec.size_wh):
            raise ValueError(
                f"--set input.size_wh: the sides for {card.network['name']} must be divisible by {divisor}."
            )
    return card


def certificate_line(certificate: dict[str, Any]) -> str:
    """Return a line on how much the outputs differed from those of the original."""
    if not certificate.get("checked"):
        return "no; --check compares the file with the original tensors"
    on = f"on {', '.join(certificate['images'])}"
    apart = f"{certificate['maps_relative']:.1e} of their largest value"
    if "keypoints_max_px" not in certificate:
        what = str(certificate.get("compared", "features")).partition(" ")[0]
        return f"{what} differ by {apart}, {on}"
    return (
        f"heatmaps differ by {apart}, keypoints by at most {certificate['keypoints_max_px']:.2g} px "
        f"(mean {certificate['keypoints_mean_px']:.2g}), {on}"
    )


def read_skeleton(text: str) -> Skeleton:
    """Return the skeleton with a given name, or from a JSON file.

    Raises:
        LookupError: No skeleton has that name.
        FileNotFoundError: No such file.
        ValueError: The file is not a skeleton.
    """
    path = Path(text)
    if path.suffix.lower() != ".json":
        if text not in SKELETONS:
            raise LookupError(
                f"Unknown skeleton {text!r}.{nearest(text, SKELETONS)} Known: {', '.join(SKELETONS)}. "
                "For a custom skeleton, give a .json file with 'name' and 'keypoints'."
            )
        return SKELETONS[text]
    if not path.is_file():
        raise FileNotFoundError(f"No such skeleton file: {path}.")
    try:
        return Skeleton.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a skeleton ({error}). Expected JSON with 'name' and 'keypoints'.") from error
