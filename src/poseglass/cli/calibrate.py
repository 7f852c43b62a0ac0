"""``poseglass calibrate``: measures what the scores of weights mean, and stores it in their card."""

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from safetensors import safe_open

from poseglass.cli.evaluate_found import bar_of, load_one
from poseglass.cli.read_data import OVERRIDES, data_options, read_data, say_notes
from poseglass.core.device import choose_device
from poseglass.estimators.load import find_weights
from poseglass.estimators.weights_file import read_weights, save_weights
from poseglass.evaluation.calibrate import fit_calibration, joined
from poseglass.evaluation.observe import observe

FEW = 30
"""Labels below which a keypoint has hardly a curve of its own."""

FEW_PEOPLE = 200
"""People below which a note is printed."""


def calibrate(
    weights: Annotated[
        str, typer.Argument(help="A .safetensors file with a card, a run folder, or the name of weights.")
    ],
    data: Annotated[
        list[Path], typer.Argument(help="Labelled people that the weights were not trained on: one or more files.")
    ],
    out: Annotated[Path, typer.Option(help="Output file, .safetensors: the same weights with calibrated scores.")],
    format: Annotated[str, typer.Option(help="Format of the labels; see `poseglass evaluate --help`.")] = "coco",
    overrides: OVERRIDES = None,
    within: Annotated[
        float, typer.Option(min=0.01, max=2, help="A keypoint is right within this distance of its label, in torsos.")
    ] = 0.2,
    coverage: Annotated[
        float, typer.Option(min=0.5, max=0.99, help="Share of keypoints that lie within their radius.")
    ] = 0.9,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, ...")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Fit how often a keypoint of a given score is right, so that predictions state a probability and a radius.

    It is measured on people whose shoulders and hips are labelled, in the boxes of the annotations, with and without
    flip test. Use people that were neither trained on nor used to select the weights, and a few hundred of them.
    """
    console = Console()
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must name a .safetensors file, got {out.name!r}.")
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists. Choose another name, or overwrite it with --force.")
    sets = [read_data(path, format, None, data_options(overrides)) for path in data]
    for dataset in sets:
        say_notes(dataset, console, mirroring=False)
    path = find_weights(weights)
    state, card = read_weights(path)
    estimator = load_one(
        weights, device=choose_device(device), size_wh=None, precision="float32", compiled=False
    )  # fmt: skip
    fitted = []
    words = " and ".join(
        f"{len(dataset):,} images of {path.parent.name}/{path.stem}" for dataset, path in zip(sets, data, strict=True)
    )
    for flip_test in (False, True) if estimator.skeleton.mirrors else (False,):
        here = estimator.with_flip_test(flip_test)
        flip = "with flip test" if flip_test else "without flip test"
        with bar_of(console, flip, sum(len(dataset) for dataset in sets)) as advance:
            seen = joined([observe(here, dataset, on_image=advance) for dataset in sets])
        one = fit_calibration(seen, within=within, coverage=coverage, flip_test=flip_test, data=words)
        if one.measured is None:
            console.print(f"{len(seen.box_score):,} boxes, of which {seen.box_right.mean():.0%} are right.")
        else:
            with_torso = int((~np.isnan(seen.error_torsos)).any(1).sum())
            console.print(
                f"{flip}: {one.people:,} people, {with_torso:,} of them with a labelled torso. By cross-validation: "
                f"expected calibration error {one.measured['ece']:.3f}; Brier score {one.measured['brier']:.3f} (raw "
                f"scores {one.measured['brier of score']:.3f}, a constant {one.measured['brier of constant']:.3f}); "
                f"{one.measured['coverage']:.1%} of keypoints within their radius (target {coverage:.0%}).",
                soft_wrap=True, highlight=False,
            )  # fmt: skip
            if with_torso < FEW_PEOPLE and not flip_test:
                console.print(
                    f"note: {with_torso:,} people with a labelled torso are few, so the curves may be worse than the "
                    f"raw scores. Give at least {FEW_PEOPLE}.",
                    soft_wrap=True, highlight=False,
                )  # fmt: skip
        counts = (~np.isnan(seen.error_torsos)).sum(0)
        names = estimator.skeleton.keypoints
        never = [name for name, count in zip(names, counts, strict=True) if not count]
        few = [name for name, count in zip(names, counts, strict=True) if 0 < count < FEW]
        for what, which in ((f"have fewer than {FEW} labels", few), ("have no label at all", never)):
            if which and not flip_test:
                console.print(
                    f"note: {', '.join(which)} {what}: their probability is that of all keypoints together.",
                    soft_wrap=True, highlight=False, markup=False,
                )  # fmt: skip
        fitted.append(one)
    with safe_open(path, "pt") as stored:
        half = any(stored.get_slice(name).get_dtype() == "F16" for name in stored.keys())  # noqa: SIM118 (no mapping)
    save_weights(out, state, dataclasses.replace(card, calibrations=tuple(fitted)), half=half)
    console.print(f"written to {out}", soft_wrap=True, highlight=False, markup=False)
