"""``poseglass export WEIGHTS --to KIND --out FILE``: writes weights for a runtime, or in a public layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import typer
from rich.console import Console

from poseglass.checkpoints import IMPORTERS
from poseglass.checkpoints.export import export_state, fits, other_input, write_checkpoint
from poseglass.cli.read_data import FORMATS, read_data, say_notes
from poseglass.core.sample import Dataset
from poseglass.core.skeletons import SKELETONS
from poseglass.core.table import listed, lookup, nearest
from poseglass.estimators.load import MIN_BOX_SCORE, AnyEstimator, find_weights
from poseglass.estimators.weights_file import read_weights
from poseglass.evaluation.evaluate import evaluate
from poseglass.evaluation.found import evaluate_found
from poseglass.export.export import TARGETS, export_file, photograph_samples
from poseglass.export.exportable import exportable
from poseglass.export.parity import MAX_DRIFT, Drift, Sample
from poseglass.metrics import METRICS
from poseglass.programs.graph_card import GraphCard, Precision

CALIBRATION_IMAGES = 200
"""Number of images of a dataset on which ranges of activations are measured for int8."""

MOST_IMAGES = 64
"""Number of images of a dataset on which keypoints are compared one by one."""


def export(
    weights: Annotated[str, typer.Argument(help="A weights file, or the name of built-in or fetched weights.")],
    to: Annotated[
        str,
        typer.Option(
            help=f"Kind of file: {', '.join(TARGETS)}; or a public layout: {', '.join(IMPORTERS)}.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Output file: .onnx, .xml (openvino), .pt2 (torch); .pth or .safetensors for a layout."),
    ],
    precision: Annotated[
        str, typer.Option(help=f"What the network computes in: {', '.join(get_args(Precision))}.")
    ] = "float32",
    whole_image: Annotated[
        bool,
        typer.Option(
            "--whole-image",
            help="The file takes a whole image of any size, with boxes for weights that need them, instead of crops.",
        ),
    ] = False,
    detector: Annotated[
        str | None,
        typer.Option(help="With --whole-image: weights of a detector, which then finds the boxes in the same file."),
    ] = None,
    flip_test: Annotated[
        bool, typer.Option("--flip-test", help="Average with the flipped image: twice the computation.")
    ] = False,
    skeleton: Annotated[
        str | None, typer.Option(help=f"Keypoints to return: {', '.join(SKELETONS)}. Default: all.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the square crops in pixels; 0 uses the size in the card.")] = 0,
    min_box_score: Annotated[
        float, typer.Option(help="With --whole-image: people found with a lower score are not returned.")
    ] = MIN_BOX_SCORE,
    data: Annotated[
        Path | None,
        typer.Option(help="A dataset on which to compare the file with PyTorch, and to evaluate both."),
    ] = None,
    format: Annotated[str, typer.Option(help=f"Format of --data: {', '.join(sorted(FORMATS))}.")] = "coco",
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images of --data. Default: next to the labels.")
    ] = None,
    max_drift: Annotated[
        float | None,
        typer.Option(
            help="Refuse to write if a keypoint moves farther, in pixels of a crop. Default: "
            f"{MAX_DRIFT['float32'][1]:g} (the largest distance) in float32, {MAX_DRIFT['float16'][1]:g} in float16 "
            f"and {MAX_DRIFT['bfloat16'][1]:g} in bfloat16 and int8 (the median).",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a file that takes an image and gives keypoints, for a runtime; or weights in a public layout.

    A file for a runtime holds normalisation, network, flip test, decoding and calibration, and the way back to image
    pixels. It is compared with PyTorch on a photograph, or on --data, before it is kept.

    A public layout gives weights the tensor names of a public implementation, so that it can load them. A backbone is
    written without a classifier: load it there with strict=False.
    """
    if max_drift is not None and not max_drift >= 0:
        raise ValueError(f"--max-drift must be a number of pixels from 0 on, got {max_drift:g}.")
    if to not in TARGETS and to not in IMPORTERS and nearest(to, TARGETS):
        lookup(TARGETS, to, kind="kind of file")  # raises; what is far from them is taken for a layout
    if to not in TARGETS:
        unused = {
            "--precision": precision != "float32", "--whole-image": whole_image, "--detector": detector is not None,
            "--flip-test": flip_test, "--skeleton": skeleton is not None, "--size": bool(size),
            "--data": data is not None, "--max-drift": max_drift is not None,
            "--min-box-score": min_box_score != MIN_BOX_SCORE,
        }  # fmt: skip
        wrong = [option for option, given in unused.items() if given]
        if wrong:
            raise ValueError(
                f"{' and '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} for files that run by themselves: --to "
                f"{', '.join(TARGETS)}. A public layout ({to}) holds weights only."
            )
        source = find_weights(weights)
        if out.exists() and out.resolve() == source.resolve():
            raise ValueError(f"--out is the weights file itself: {out}. Choose another file.")
        check_out(out, force)
        write_layout(source, to, out)
        return
    check_out(out, force)
    if to == "openvino":
        check_out(out.with_suffix(".bin"), force)
    target = TARGETS[to]
    if out.suffix != target.suffix:
        raise ValueError(f"A file for --to {to} ends with {target.suffix}; got --out {out}.")
    if precision not in target.precisions:
        raise ValueError(f"--to {to} writes {', '.join(target.precisions)}; got --precision {precision}.")
    if min_box_score != MIN_BOX_SCORE and not whole_image:
        raise ValueError(
            "--min-box-score is for files that take whole images: who calls a file of crops or letterboxes decides by "
            "the scores. Add --whole-image, or omit it."
        )
    target.check()
    if precision == "int8" and data is None:
        raise ValueError(
            "--precision int8 measures the ranges of activations on images like those the network will see. Give a "
            "dataset with --data, best a part of the training data."
        )
    work = exportable(
        weights, detector=detector, whole_image=whole_image, flip_test=flip_test, skeleton=skeleton,
        size_wh=(size, size) if size else None, min_box_score=min_box_score,
        precision=lookup({p: p for p in target.precisions}, precision, kind="precision"), lowers=target.lowers,
    )  # fmt: skip
    console = Console()
    dataset = None if data is None else read_data(data, format, images)
    samples, inputs = photograph_samples(), "the photograph that ships with poseglass"
    if dataset is not None:
        say_notes(dataset, console, mirroring=False)
        samples = samples_of(dataset, half=0 if precision == "int8" else None)
        if not samples:
            raise ValueError(f"No image of {data} has a box, so there is nothing to compare on. Check --data.")
        inputs = f"{len(samples)} images of {data.name if data else ''}"
    calibration = samples_of(dataset, CALIBRATION_IMAGES, 1) if dataset is not None and precision == "int8" else []
    takes = "some minutes" if precision == "int8" else "up to a minute"
    console.print(f"converting to {to}, which takes {takes} ...", highlight=False)
    card, drift, files = export_file(
        work, target, out, samples, inputs, calibration=calibration, max_drift_px=max_drift,
        measure=None if dataset is None else lambda estimator: measured(estimator, dataset),
        on_call=lambda number, total: console.print(f"measured {number} of {total} convolutions", highlight=False)
        if number % 50 == 0 or number == total
        else None,
    )  # fmt: skip
    for line in in_words(card, drift):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    for file in files:
        console.print(f"wrote     {file} ({file.stat().st_size / 1e6:.1f} MB)", highlight=False, markup=False)


def samples_of(dataset: Dataset, most: int = MOST_IMAGES, half: int | None = None) -> list[Sample]:
    """Return images of a dataset with the boxes of their people, spread evenly over it.

    Args:
        dataset: The dataset.
        most: Largest number of images.
        half: 0 takes images of even numbers only, 1 of odd ones: a network is quantised on some, checked on others.
    """
    numbers = range(len(dataset)) if half is None else range(half, len(dataset), 2)
    with_boxes = [i for i in numbers if len(_boxes(dataset, i))]
    spread = np.linspace(0, len(with_boxes) - 1, min(most, len(with_boxes))).round().astype(int)
    return [(dataset.image(i), _boxes(dataset, i)) for i in (with_boxes[n] for n in spread)]


def _boxes(dataset: Dataset, number: int) -> np.ndarray:
    """Return the boxes ``(N, 4)`` of an image that are larger than a pixel."""
    boxes = dataset.instances(number).box_xyxy
    return boxes[(boxes[:, 2:] - boxes[:, :2] > 1).all(1)]


def measured(estimator: AnyEstimator, dataset: Dataset) -> dict[str, float]:
    """Return PCK of an estimator on a dataset, or the average precision of boxes if it finds no keypoints."""
    if not len(estimator.skeleton):
        return evaluate_found(estimator, dataset, [METRICS["box_ap"]()]).results
    metric: Any = METRICS["pck"](normaliser="torso", thresholds=(0.2,))
    judge = evaluate_found if estimator.finds_boxes else evaluate
    return judge(estimator, dataset, [metric]).results


def in_words(card: GraphCard, drift: Drift) -> Sequence[str]:
    """Return what a check found, and what the file takes and gives, line by line."""
    maps = ", ".join(f"{name} {value:.1g}" for name, value in drift.maps.items())
    lines = [
        f"checked   {drift.keypoints:,} keypoints on {drift.inputs}: largest distance {drift.largest_px:.2g} px of a "
        f"crop, median {drift.median_px:.2g} px; scores differ by at most {drift.score:.1g}",
    ]
    if drift.undecided:
        lines.append(
            f"undecided {drift.undecided:,} more keypoints: rounding decides between equally high places of their maps"
        )
    if card.quantised:
        kept = card.quantised["in_float"]
        lines.append(
            f"int8      {card.quantised['int8_share']:.1%} of the multiply-adds; in float: {listed(kept) or 'none'}; "
            f"ranges from {card.quantised['images']} images"
        )
    if maps:
        lines.append(f"maps      largest difference, relative to the largest value: {maps}")
    lines += [
        f"data      {name}: {before:.4f} by PyTorch, {after:.4f} by the file"
        for name, (before, after) in drift.results.items()
    ]
    width, height = card.input.size_wh
    given = {
        "views": f"views (B, {height}, {width}, 3) uint8 RGB, home (B, 2, 3) float32, from view to image pixels",
        "boxes": "image (H, W, 3) uint8 RGB, boxes_xyxy (N, 4) float32 in image pixels",
    }
    lines += [
        f"takes     {given.get(card.kind, 'image (H, W, 3) uint8 RGB')}",
        f"gives     {', '.join(card.outputs)}, in image pixels",
    ]
    return lines


def check_out(out: Path, force: bool) -> None:
    """Raise unless a file can be written.

    Raises:
        FileExistsError: It exists, and is not to be overwritten.
        FileNotFoundError: Its folder does not exist.
    """
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists. Choose another name, or overwrite it with --force.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {out}: no folder {out.parent}. Create it first.")


def write_layout(source: Path, to: str, out: Path) -> None:
    """Write weights with the tensor names of a public implementation."""
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
