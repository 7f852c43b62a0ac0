"""``poseglass look``: a contact sheet of a dataset, as labelled and as training sees it."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from poseglass.core.image import write_image
from poseglass.core.sample import Dataset, PoseSample
from poseglass.core.table import build, lookup
from poseglass.datasets import DATASETS
from poseglass.draw.sheet import contact_sheet
from poseglass.engine.crops import Crops
from poseglass.engine.recipe import Recipe
from poseglass.engine.run import make_crops, training_data


def look(
    data: Annotated[
        str, typer.Argument(help="A recipe (.toml), a COCO JSON, the path of another format, or 'synthetic'.")
    ],
    format: Annotated[
        str, typer.Option("--format", help=f"How DATA is written: {', '.join(sorted(DATASETS))}.")
    ] = "coco",
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the pictures, if not beside the labels.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("look.png"),
    count: Annotated[int, typer.Option(min=1, max=400, help="How many people.")] = 24,
    columns: Annotated[int, typer.Option(min=1, max=20, help="Tiles in a row.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Which people, and which augmentation.")] = 0,
    plain: Annotated[bool, typer.Option("--plain", help="Whole pictures as labelled, without crops.")] = False,
) -> None:
    """Draw people of a dataset on one sheet; with a recipe, after its augmentation."""
    console = Console()
    dataset, crops = _open(data, format, images)
    rng = np.random.default_rng(seed)
    samples: list[PoseSample]
    if plain:
        chosen = rng.permutation(len(dataset))[:count]
        samples = [dataset[int(i)] for i in sorted(chosen)]
    else:
        width, height = crops.input.size_wh
        chosen = rng.permutation(len(crops))[:count]
        samples = [crops[(seed, int(i), width, height)] for i in sorted(chosen)]
    write_image(out, contact_sheet(samples, columns=columns))
    console.print(
        f"{len(dataset):,} images, {len(crops):,} people with a label, {len(crops.skeleton)} keypoints "
        f"({crops.skeleton.name}); {len(samples)} of them are on {out}"
    )
    for note in getattr(dataset, "notes", ()):
        console.print(f"note: {note}")


def _open(data: str, format: str, images: Path | None) -> tuple[Dataset, Crops]:
    if data.endswith(".toml"):
        recipe = Recipe.read(data)
        dataset = training_data(recipe)
        return dataset, make_crops(recipe, dataset)
    if data == "synthetic":
        dataset = build(DATASETS, "synthetic", count=1000)
    else:
        if not Path(data).exists():
            raise FileNotFoundError(f"No such file or folder: {data}. It is relative to {Path.cwd()}.")
        reader = lookup(DATASETS, format, kind="format")
        dataset = reader(data) if images is None else reader(data, images=images)
    from poseglass.core.card import InputSpec

    return dataset, Crops(dataset, InputSpec())
