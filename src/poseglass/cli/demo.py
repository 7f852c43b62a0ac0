"""``poseglass demo``: the main job with what ships, then a network trained in about a minute."""

import dataclasses
import shutil
from importlib import resources
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
import typer
from rich.console import Console

from poseglass.cli.pictures import Picture, list_pictures, read_pictures, write_poses
from poseglass.cli.train import train_with_bar
from poseglass.core.image import read_image, write_image
from poseglass.core.table import build
from poseglass.datasets import DATASETS
from poseglass.datasets.body_pose import EVERYDAY
from poseglass.draw.sheet import contact_sheet
from poseglass.engine.recipe import Recipe
from poseglass.engine.run import prepare
from poseglass.estimators.load import DEFAULT, load


def demo(
    image: Annotated[list[Path] | None, typer.Option("--image", help="Your own picture(s) instead of ours.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("demo"),
    weights: Annotated[str, typer.Option(help="A name that ships, or a .safetensors file.")] = DEFAULT,
    train: Annotated[bool, typer.Option("--train/--no-train", help="Train the one-minute network too.")] = True,
) -> None:
    """Find poses in photographs with the network that ships; then train a small one on drawn people and measure it."""
    console = Console()
    estimator = load(weights, flip_test=True)
    if image:
        paths = list_pictures(image)
        failed = write_poses(estimator, read_pictures(paths, [None] * len(paths)), out, console, heatmaps=True)
        if failed:
            raise ValueError(" ".join(failed))
    else:
        write_poses(estimator, our_pictures(), out, console, heatmaps=True)
    if not train:
        return
    recipe = Recipe.read(one_minute_recipe())
    folder = out / "run"
    if folder.exists():
        if f'name = "{recipe.name}"' not in (folder / "recipe.toml").read_text():
            raise FileExistsError(f"{folder} holds another run than the demo's. Choose another --out.")
        shutil.rmtree(folder)  # the demo's own, from the last time
    console.print(f"\nThe other half: {recipe.name}, a small hourglass trained on drawn people for about a minute.")
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


def our_pictures() -> list[Picture]:
    """Return a photograph that matplotlib carries and a drawn scene of several people with their boxes."""
    hopper = read_image(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    scene = build(
        DATASETS, "synthetic", count=1, seed=7, size_wh=(640, 400), people=3, occluders=0.0, fill=(0.9, 1.0),
        activities=EVERYDAY,
    )[0]  # fmt: skip
    return [
        Picture("grace_hopper", "grace_hopper.jpg", hopper, None, 0),
        Picture("drawn_scene", "", scene.image, np.asarray(scene.instances.box_xyxy), 1),
    ]


def one_minute_recipe() -> Path:
    """Return the recipe of the one-minute training, which travels inside the package."""
    return Path(str(resources.files("poseglass") / "recipes" / "synthetic" / "one_minute.toml"))
