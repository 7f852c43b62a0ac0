"""``poseglass demo``: finds everybody with the built-in weights, then trains a network in about a minute."""

import dataclasses
import shutil
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from poseglass.cli.given_boxes import images_without_boxes
from poseglass.cli.images import NamedImage, list_images, read_images
from poseglass.cli.poses_file import noun_of
from poseglass.cli.screen import wide_console
from poseglass.cli.train import train_with_bar
from poseglass.cli.write_poses import write_poses
from poseglass.core.image import read_image, white_levels, write_image
from poseglass.drawing.sheet import contact_sheet
from poseglass.estimators import load as loading
from poseglass.estimators.load import DEFAULT, load, load_detector, load_top_down
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.twostage import TwoStageEstimator
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe


def demo(
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", help="Your own image or folder, instead of the built-in images. May be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("demo"),
    weights: Annotated[str, typer.Option(help="Name of weights, or a .safetensors file.")] = DEFAULT,
    train: Annotated[bool, typer.Option("--train/--no-train", help="Also train the one-minute network.")] = True,
) -> None:
    """Find everybody's pose in images with the built-in weights; then train a small network on synthetic people."""
    console, wide = Console(), wide_console()
    estimator = load(weights, flip_test=True)
    person = noun_of(estimator.skeleton) == "person"
    if isinstance(estimator, TopDownEstimator) and person and loading.DEFAULT_DETECTOR is not None:
        estimator = TwoStageEstimator(load_detector(loading.DEFAULT_DETECTOR), estimator)
    maps = not isinstance(estimator, OneStageEstimator)
    if image:
        found = list_images(image)
        given, notes = images_without_boxes(found.paths, None)
        white = white_levels(found.paths)
        for note in [*found.notes, *notes, *white.notes("poseglass predict --white sets another.")]:
            wide.print(note, markup=False, highlight=False)
        passed: list[str] = []
        items = read_images(given, white, from_folders=found.from_folders, passed=passed)
        failed = write_poses(estimator, items, out, wide, heatmaps=maps)
        done = len(given) - len(failed) - len(passed)
        if failed or not done:
            raise ValueError(" ".join([*failed, *passed]))
        if passed:
            wide.print(f"Skipped {len(passed)} of {len(given)} images: {' '.join(passed)}", markup=False)
    else:
        write_poses(estimator, our_images(), out, wide, heatmaps=maps)
    if not train:
        return
    recipe = Recipe.read(one_minute_recipe())
    folder = out / "run"
    if folder.exists():
        if f'name = "{recipe.name}"' not in (folder / "recipe.toml").read_text():
            raise FileExistsError(f"{folder} holds a run that is not the demo's. Choose another --out.")
        shutil.rmtree(folder)  # left by a previous demo
    console.print(f"\nPart two: {recipe.name}, a small hourglass trained on synthetic people for about a minute.")
    run = prepare(recipe, folder)
    train_with_bar(run, console)
    shutil.copy(run.folder.report, out / "report.html")
    assert run.val is not None
    estimate = load_top_down(run.folder.best)
    samples = [run.val[i] for i in range(min(len(run.val), 12))]
    found = [dataclasses.replace(s, instances=estimate(s.image, boxes=s.instances.box_xyxy)) for s in samples]
    write_image(out / "trained_for_a_minute.png", contact_sheet(found, columns=6, captions=[""] * len(found)))
    console.print(
        "After one minute, the network has begun to separate people from the background, but hardly left from right. "
        f"Its predictions on validation scenes: {out / 'trained_for_a_minute.png'}"
    )
    console.print(f"Training report, to open in a browser: {out / 'report.html'}")


def our_images() -> list[NamedImage]:
    """Return a photograph of a group of people, and one of a single person from matplotlib's sample data.

    The second is a portrait, whose person is given a box: detectors miss people who are larger than the image.
    """
    import matplotlib  # imported here because it takes a third of a second, and other commands do not need it

    group = Path(str(resources.files("poseglass") / "photographs" / "surfers.jpg"))
    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    portrait = read_image(hopper)
    height, width = portrait.shape[:2]
    box_xyxy = np.array([[-0.5, -0.5, width - 0.5, height - 0.5]], np.float32)
    return [
        NamedImage(group.stem, group.name, read_image(group), None, 0),
        NamedImage(hopper.stem, hopper.name, portrait, box_xyxy, 1),
    ]


def one_minute_recipe() -> Path:
    """Return the path of the one-minute recipe, which is part of the package."""
    return Path(str(resources.files("poseglass") / "recipes" / "synthetic" / "one_minute.toml"))
