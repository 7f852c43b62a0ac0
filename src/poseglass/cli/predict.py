"""``poseglass predict``: finds poses in images."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from poseglass.cli.given_boxes import boxes_of_images, images_without_boxes
from poseglass.cli.images import list_images, parse_box, read_images, write_poses
from poseglass.cli.screen import wide_console
from poseglass.cli.speed import BFLOAT16, COMPILED, say_compiling
from poseglass.core.image import white_levels
from poseglass.core.levels import WhiteLevels, check_white
from poseglass.core.table import listed
from poseglass.estimators.load import DEFAULT, load
from poseglass.runs.build import choose_device


def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    weights: Annotated[str, typer.Option(help="Name of weights, a .safetensors file, or a run folder.")] = DEFAULT,
    box: Annotated[
        list[str] | None,
        typer.Option("--box", help="Box of a person in a single image: x0,y0,x1,y1 in pixels. May be repeated."),
    ] = None,
    boxes_file: Annotated[
        Path | None,
        typer.Option(
            "--boxes",
            help="JSON file with boxes of people: COCO results of a detector, or COCO labels. Image ids are kept.",
        ),
    ] = None,
    min_box_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Lowest score of boxes from --boxes; others are excluded. Default: 0.5."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder for annotated images and poses.")] = Path("poses"),
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Lowest score of the keypoints to draw.")] = 0.3,
    flip_test: Annotated[bool, typer.Option("--flip-test", help="Average with the flipped crop.")] = False,
    names: Annotated[bool, typer.Option("--names", help="Draw the names of the keypoints.")] = False,
    heatmaps: Annotated[
        bool, typer.Option("--heatmaps", help="Also write the heatmaps of the first person in each image.")
    ] = False,
    white: Annotated[
        float | None,
        typer.Option(
            "--white",
            help="White level of images with more than 8 bits, such as 4095 for 12 bits. Default: as declared in the "
            "files, else estimated once for all images and printed.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, ...")] = "auto",
    bfloat16: BFLOAT16 = False,
    compiled: COMPILED = False,
) -> None:
    """Find the poses of people in images. Without boxes, an image is treated as one person filling it."""
    found = list_images(images)
    paths = found.paths
    if box and boxes_file is not None:
        raise ValueError("--box and --boxes both give boxes; omit one of them.")
    if min_box_score is not None and boxes_file is None:
        raise ValueError("--min-box-score requires --boxes. Add it, or omit the score.")
    if box and len(paths) > 1:
        raise ValueError(
            f"--box is for a single image, but {len(paths)} were given. Give one image, or boxes for each image with "
            "--boxes FILE.json: a list of {file_name, image_id, category_id, bbox: [x, y, width, height], score}."
        )
    if white is not None:
        check_white(white)
    for written in ("poses.json", "poses_coco.json"):
        if boxes_file is not None and boxes_file.resolve() == (out / written).resolve():
            raise ValueError(f"The output would overwrite --boxes {boxes_file}. Give another folder with --out.")
    console = wide_console()
    notes = list(found.notes)
    if boxes_file is not None:
        least = 0.5 if min_box_score is None else min_box_score
        given, more = boxes_of_images(boxes_file, paths, least)
        notes += more
        without = [one.path.name for one in given if one.boxes is not None and not len(one.boxes)]
        if without:
            notes.append(
                f"{boxes_file} has no box with a score of at least {least:g} for {len(without)} of {len(paths)} "
                f"images, which get no poses: {listed(without)}"
            )
    else:
        boxes = np.array([parse_box(b) for b in box], np.float32) if box else None
        given, more = images_without_boxes(paths, boxes)
        notes += more
    levels = white_levels(paths) if white is None else white
    if isinstance(levels, WhiteLevels):
        notes += levels.notes("Set another with --white.")
    for note in notes:
        console.print(note, markup=False, highlight=False)
    estimator = load(
        weights, flip_test=flip_test, device=choose_device(device),
        precision="bfloat16" if bfloat16 else "float32", compiled=compiled,
    )  # fmt: skip
    say_compiling(compiled)
    passed: list[str] = []
    items = read_images(given, levels, from_folders=found.from_folders, passed=passed)
    failed = write_poses(estimator, items, out, console, min_score=min_score, names=names, heatmaps=heatmaps)
    done = len(paths) - len(failed) - len(passed)
    if passed and done:
        console.print(f"Skipped {len(passed)} of {len(paths)} images: {' '.join(passed)}", markup=False)
    if failed or not done:
        said = " ".join(failed if done else [*failed, *passed])
        raise ValueError(said + (f" Processed {done} of {len(paths)} images." if len(paths) > 1 else ""))
