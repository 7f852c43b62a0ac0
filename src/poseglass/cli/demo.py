"""``poseglass demo``: the main job with what ships, then a network trained in about a minute."""

import dataclasses
import shutil
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from poseglass.cli.given_boxes import images_without_boxes
from poseglass.cli.images import NamedImage, list_images, read_images, write_poses
from poseglass.cli.screen import wide_console
from poseglass.cli.train import train_with_bar
from poseglass.core.image import read_image, white_levels, write_image
from poseglass.core.table import build
from poseglass.data import DATASETS
from poseglass.drawing.sheet import contact_sheet
from poseglass.estimators.load import DEFAULT, load
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe
from poseglass.synthetic.body_pose import EVERYDAY


def demo(
    image: Annotated[list[Path] | None, typer.Option("--image", help="Your own image(s) instead of ours.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("demo"),
    weights: Annotated[str, typer.Option(help="A name that ships, or a .safetensors file.")] = DEFAULT,
    train: Annotated[bool, typer.Option("--train/--no-train", help="Train the one-minute network too.")] = True,
) -> None:
    """Find poses in photographs with the network that ships; then train a small one on synthetic people."""
    console, wide = Console(), wide_console()
    estimator = load(weights, flip_test=True)
    if image:
        found = list_images(image)
        given, notes = images_without_boxes(found.paths, None)
        white = white_levels(found.paths)
        for note in [*found.notes, *notes, *white.notes("poseglass predict sets another with --white.")]:
            wide.print(note, markup=False, highlight=False)
        passed: list[str] = []
        items = read_images(given, white, from_folders=found.from_folders, passed=passed)
        failed = write_poses(estimator, items, out, wide, heatmaps=True)
        done = len(given) - len(failed) - len(passed)
        if failed or not done:
            raise ValueError(" ".join([*failed, *passed]))
        if passed:
            wide.print(f"Not done, {len(passed)} of {len(given)} images: {' '.join(passed)}", markup=False)
    else:
        write_poses(estimator, our_images(), out, wide, heatmaps=True)
    if not train:
        return
    recipe = Recipe.read(one_minute_recipe())
    folder = out / "run"
    if folder.exists():
        if f'name = "{recipe.name}"' not in (folder / "recipe.toml").read_text():
            raise FileExistsError(f"{folder} holds another run than the demo's. Choose another --out.")
        shutil.rmtree(folder)  # the demo's own, from the last time
    console.print(f"\nThe other half: {recipe.name}, a small hourglass trained on synthetic people for about a minute.")
    run = prepare(recipe, folder)
    train_with_bar(run, console)
    shutil.copy(run.folder.report, out / "report.html")
    assert run.val is not None
    estimate = load(run.folder.best)
    samples = [run.val[i] for i in range(min(len(run.val), 12))]
    found = [dataclasses.replace(s, instances=estimate(s.image, boxes=s.instances.box_xyxy)) for s in samples]
    write_image(out / "trained_for_a_minute.png", contact_sheet(found, columns=6, captions=[""] * len(found)))
    console.print(
        "A minute is little: it has begun to tell people from their surroundings, and sides hardly. What it finds in "
        f"scenes that it never saw: {out / 'trained_for_a_minute.png'}"
    )
    console.print(f"The report of that training, to open in a browser: {out / 'report.html'}")


def our_images() -> list[NamedImage]:
    """Return a photograph that matplotlib carries and a synthetic scene of several people with their boxes."""
    import matplotlib  # here: it takes a third of a second, and other commands do without

    hopper = read_image(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    scene = build(
        DATASETS, "synthetic", count=1, seed=7, size_wh=(640, 400), people=3, occluders=0.0, fill=(0.9, 1.0),
        activities=EVERYDAY,
    )[0]  # fmt: skip
    return [
        NamedImage("grace_hopper", "grace_hopper.jpg", hopper, None, 0),
        NamedImage("synthetic_scene", "", scene.image, np.asarray(scene.instances.box_xyxy), 1),
    ]


def one_minute_recipe() -> Path:
    """Return the recipe of the one-minute training, which travels inside the package."""
    return Path(str(resources.files("poseglass") / "recipes" / "synthetic" / "one_minute.toml"))
