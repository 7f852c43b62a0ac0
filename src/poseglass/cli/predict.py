"""``poseglass predict``: poses in images."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from poseglass.cli.images import boxes_of_images, list_images, parse_box, read_images, write_poses
from poseglass.cli.speed import BFLOAT16, COMPILED, say_compiling
from poseglass.core.table import listed
from poseglass.estimators.load import DEFAULT, load
from poseglass.runs.build import choose_device


def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    weights: Annotated[str, typer.Option(help="A name that ships, a .safetensors file, or a run's folder.")] = DEFAULT,
    box: Annotated[
        list[str] | None, typer.Option("--box", help="A person's box, x0,y0,x1,y1 in pixels. May be repeated.")
    ] = None,
    boxes_file: Annotated[
        Path | None, typer.Option("--boxes", help="Boxes of a detector: COCO results (JSON); category 1 is taken.")
    ] = None,
    min_box_score: Annotated[
        float | None, typer.Option(help="Boxes of --boxes below this score are excluded; 0.5 unless given.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for annotated images and poses.json.")] = Path("poses"),
    min_score: Annotated[float, typer.Option(help="Keypoints below this score are not drawn.")] = 0.3,
    flip_test: Annotated[bool, typer.Option("--flip-test", help="Average with the flipped image.")] = False,
    names: Annotated[bool, typer.Option("--names", help="Write the keypoints' names.")] = False,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Write the heatmaps of the first person too.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    bfloat16: BFLOAT16 = False,
    compiled: COMPILED = False,
) -> None:
    """Find the poses of people in images; without boxes an image is taken as one person filling it."""
    paths = list_images(images)
    if box and boxes_file is not None:
        raise ValueError("--box and --boxes both give the boxes; leave one of them out.")
    if min_box_score is not None and boxes_file is None:
        raise ValueError("--min-box-score goes with --boxes. Add it, or leave the score out.")
    if boxes_file is not None:
        least = 0.5 if min_box_score is None else min_box_score
        boxes = boxes_of_images(boxes_file, paths, least)
        without = [path.name for path, mine in zip(paths, boxes, strict=True) if not len(mine)]
        if without:
            print(
                f"{boxes_file} has no box of score {least:g} and more for {len(without)} of {len(paths)} images, "
                f"where nothing is looked for: {listed(without)}"
            )
    else:
        boxes = [np.array([parse_box(b) for b in box], np.float32) if box else None] * len(paths)
        if box and len(paths) > 1:
            print(f"the same {len(box)} box{'es' * (len(box) > 1)} of --box taken in each of {len(paths)} images")
    estimator = load(
        weights, flip_test=flip_test, device=choose_device(device),
        precision="bfloat16" if bfloat16 else "float32", compiled=compiled,
    )  # fmt: skip
    say_compiling(compiled)
    failed = write_poses(
        estimator, read_images(paths, boxes), out, Console(), min_score=min_score, names=names, heatmaps=heatmaps
    )
    if failed:
        done = len(paths) - len(failed)
        raise ValueError(" ".join(failed) + (f" Done: {done} of {len(paths)} images." if len(paths) > 1 else ""))
