"""``poseglass look``: a contact sheet of a dataset, as labelled or as augmented for training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from poseglass.cli.read_data import FORMATS, OVERRIDES, data_options, read_data, say_notes
from poseglass.cli.screen import wide_console
from poseglass.codecs import CODECS
from poseglass.core.image import write_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.sample import Dataset, PoseSample
from poseglass.core.table import build
from poseglass.data import DATASETS
from poseglass.data.chip_images import ChipImages
from poseglass.data.crops import Crops
from poseglass.data.whole_images import WholeImages
from poseglass.drawing.sheet import contact_sheet
from poseglass.runs.build import make, make_examples, training_data
from poseglass.runs.recipe import Recipe
from poseglass.transforms import ColorJitter, RandomAffine


def look(
    data: Annotated[
        str, typer.Argument(help="A recipe (.toml), a COCO JSON file, the path of another format, or 'synthetic'.")
    ],
    format: Annotated[str, typer.Option("--format", help=f"Format of DATA: {', '.join(sorted(FORMATS))}.")] = "coco",
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images. Default: next to the labels.")
    ] = None,
    data_folder: Annotated[
        Path | None, typer.Option("--data", help="The folder that the recipe calls data/. Default: ./data.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Output image.")] = Path("look.png"),
    count: Annotated[int, typer.Option(min=1, max=400, help="Number of people.")] = 24,
    columns: Annotated[int, typer.Option(min=1, max=20, help="Number of tiles per row.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Seed for the choice of people and the augmentation.")] = 0,
    augment: Annotated[
        bool,
        typer.Option("--augment/--no-augment", help="Scale, rotate, flip and jitter colours (not for a recipe)."),
    ] = True,
    plain: Annotated[bool, typer.Option("--plain", help="Show whole images as labelled, without crops.")] = False,
    overrides: OVERRIDES = None,
) -> None:
    """Draw people of a dataset on one sheet, augmented as in a recipe or, without one, in a common way."""
    console = wide_console()
    dataset, examples = _open(data, format, images, data_folder, overrides or [], plain=plain, augment=augment)
    rng = np.random.default_rng(seed)
    samples: list[PoseSample]
    if examples is None:
        chosen = rng.permutation(len(dataset))[:count]
        samples = [dataset[int(i)] for i in sorted(chosen)]
    else:
        width, height = examples.input.size_wh
        chosen = rng.permutation(len(examples))[:count]
        samples = [examples[(seed, int(i), width, height)] for i in sorted(chosen)]
    replaced = out.exists()
    write_image(out, contact_sheet(samples, columns=columns, legend=True))
    skeleton = dataset.skeleton
    shown = "" if examples is None else f"{len(examples):,} {examples.kind} with a label, "
    console.print(
        f"{len(dataset):,} images, {shown}{len(skeleton)} keypoints ({skeleton.name}); {len(samples)} of them are on "
        f"{out}{', which replaces the image that was there' * replaced}",
        markup=False,
    )
    say_notes(dataset, console)


def _open(
    data: str,
    format: str,
    images: Path | None,
    data_folder: Path | None,
    overrides: Sequence[str],
    *,
    plain: bool,
    augment: bool,
) -> tuple[Dataset, Crops | WholeImages | ChipImages | None]:
    if data.endswith(".toml"):
        recipe = Recipe.read(data, overrides, data_folder=data_folder)
        dataset = training_data(recipe)
        return dataset, None if plain else make_examples(recipe, dataset, make(CODECS, recipe.codec, "codec"))
    if data_folder is not None:
        raise ValueError("--data is only for a recipe (.toml), which may call a folder data/; omit it.")
    drawn = data == "synthetic"
    dataset = (
        build(DATASETS, "synthetic", count=1000)
        if drawn
        else read_data(Path(data), format, images, data_options(overrides))
    )
    if plain:
        return dataset, None
    if not augment:
        return dataset, Crops(dataset, InputSpec())
    return dataset, Crops(dataset, InputSpec(), (RandomAffine(), ColorJitter(0.2, 0.2)))
