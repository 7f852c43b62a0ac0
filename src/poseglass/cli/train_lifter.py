"""``poseglass train-lifter``: trains what lifts 2D keypoints to 3D, on motion capture."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from poseglass.cli.read_data import data_options, read_data, say_notes
from poseglass.core.instances import Instances
from poseglass.core.skeletons import H36M17
from poseglass.lifting.labelled import labelled_points
from poseglass.lifting.lifter import load_lifter
from poseglass.lifting.recipe import read_lift_recipe, recipe_text, shipped_recipes
from poseglass.lifting.train import errors_of, held_out_pairs, train_lifter, training_part
from poseglass.readers.poses_npz import read_poses


def train_lifter_command(
    recipe: Annotated[
        str,
        typer.Argument(help=f"A TOML file, or a recipe that ships: {', '.join(shipped_recipes())}."),
    ],
    poses: Annotated[
        Path, typer.Option("--poses", help="Motion capture: an .npz of 3D poses, see poseglass.readers.poses_npz.")
    ],
    run: Annotated[Path, typer.Option("--run", help="Folder of the run: lifter.safetensors, curve.csv, last.pt.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="2D labels of photographs, for RepNet: half of each batch then. They need arms, legs, neck and "
            "head_top, as LSP's have; COCO's own labels lack the last two.",
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="Format of the labels' file; see `poseglass evaluate --help`.")] = "coco",
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
) -> None:
    """Train a lifter of 2D keypoints to 3D on motion capture: RepNet without pairs, or others with pairs.

    Ctrl-C writes a checkpoint, and the exit status is then 130. At the end, the errors on the test subjects of the
    recipe, from eight sides, are printed: millimetres on people of the mean size of the training people.
    """
    console = Console()

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    chosen = read_lift_recipe(recipe)
    clips = read_poses(poses)
    if clips.skeleton.keypoints != H36M17.keypoints:
        raise ValueError(
            f"{poses} has the keypoints of {clips.skeleton.name!r}; lifters are trained on those of {H36M17.name!r}: "
            f"{', '.join(H36M17.keypoints)}. Convert the motion capture with poseglass.readers.joint_names.to_h36m17."
        )
    points = None
    if labels is not None:
        dataset = read_data(labels, format, None, data_options(None))
        say_notes(dataset, console, mirroring=False)
        people = Instances.concatenate([dataset.instances(i) for i in range(len(dataset))])
        train = training_part(clips, chosen.split)
        world = train.xyz_mm[np.isfinite(train.xyz_mm).all((1, 2))]
        points = labelled_points(people, world, clips.skeleton)
        say(f"{len(points):,} of {len(people):,} labelled people have all keypoints, and are seen in training.")
    file = train_lifter(
        chosen, clips, run, seed=seed, labelled=points, resume=resume, recipe_text=recipe_text(recipe), say=say
    )
    if file is None:
        raise typer.Exit(130)
    pairs = held_out_pairs(clips, chosen.split.test)
    if pairs is not None:
        found = errors_of(load_lifter(file), pairs).compute()
        said = ", ".join(
            f"{name} {found[name]:.1f} mm" for name in ("pa_mpjpe", "pa_mpjpe_reflected", "mpjpe", "symmetry_error")
        )
        say(f"test subjects, {len(pairs):,} views: {said}, 3DPCK {found['pck3d@150']:.3f}, AUC {found['auc3d']:.3f}")
