"""CenterNet in stages against one stage, at equal multiply-adds and equal steps of training, on people and on pages.

Each further stage sees the features and the maps of the stage before. The networks differ in the number of stages and
in the width of their heads, which is chosen so that all cost the same. Backbone and neck start alike: those of a
network that was trained before, such as by recipes/people/small_people.toml, or of ImageNet, or random. They are those
of the recipe ("light"), or ResNet-18 or the way down of an hourglass, both under the same neck.

People are tested in the photographs of coco_more in which everybody is labelled (AP and AP50 of boxes), pages on 60
rendered pages (F1 with and without the character). Intervals are 95 % of 300 draws of images with replacement, of the
mean over seeds.

    python benchmarks/stages.py people --start runs/small-start --data data     # trains; resumes where it was stopped
    python benchmarks/stages.py pages --network resnet
    python benchmarks/stages.py people --summary
    python benchmarks/stages.py people --maps IMAGE --data data                 # an image of the maps of each stage

What every stage of a network finds is kept beside its weights in --runs, as found.json.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from found_boxes import instances_of, intervals, kept
from machine import RESULTS, commit, machine, write_rows

ROOT = Path(__file__).parents[1]
DRAWS = 300
LEAST_SCORE = 0.1
"""Of characters on pages, which F1 counts."""

WIDTH = 96
"""Width of the head of one stage; the others have less."""

VARIANTS = {"1 stage": (1, False), "2 stages": (2, False), "3 stages": (3, False), "3 stages, shared": (3, True)}
NETWORKS = {
    "light": None,
    "resnet": '{ name = "composed", backbone = { name = "resnet18" }, neck = NECK, head = HEAD }',
    "hourglass": '{ name = "composed", backbone = { name = "residual_path", width = 128 }, neck = NECK, head = HEAD }',
}
"""Tables of networks with a place for the head; None is the recipe's network."""

RECIPES = {"people": ROOT / "recipes/people/small_people.toml", "pages": ROOT / "recipes/pages/characters.toml"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=RECIPES)
    parser.add_argument("--data", type=Path, default=Path("data"), help="Folder with lspet, coco and coco_more.")
    parser.add_argument("--network", choices=NETWORKS, default="light", help="What is under the heads.")
    parser.add_argument(
        "--start", type=Path, help="Training run whose backbone and neck all start from. Default: ImageNet, or random."
    )
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), help="Only these variants.")
    parser.add_argument("--runs", type=Path, default=Path("runs/stages"), help="Folder for the training runs.")
    parser.add_argument("--summary", action="store_true", help="Do not train, only summarise.")
    parser.add_argument("--maps", type=Path, help="Only draw the maps of each stage for this image, of seed 0.")
    arguments = parser.parse_args()
    if arguments.maps:
        draw_maps(folder_of(arguments), arguments.maps, arguments.runs)
        return
    if not arguments.summary:
        for seed in arguments.seeds:
            for variant in arguments.only:
                run(arguments.what, variant, seed, arguments)
    summarise(arguments.what, folder_of(arguments), arguments.runs)


def folder_of(arguments: argparse.Namespace) -> str:
    """Return the name under which the results of these data and this network are kept."""
    return arguments.what if arguments.network == "light" else f"{arguments.what}-{arguments.network}"


def network_of(kind: str, table: str) -> str:
    """Return the override of the recipe that puts a head on a network."""
    whole = NETWORKS[kind]
    if whole is None:
        return f"network.head={table}"
    neck = '{ name = "unet", width = 64 }'
    return f"network={whole.replace('NECK', neck).replace('HEAD', table)}"


def head(what: str, variant: str, width: int) -> str:
    """Return the table of a head."""
    stages, shared = VARIANTS[variant]
    features = ", features = 64" if what == "pages" else ""
    kind = f'name = "stacked_centernet", stages = {stages}, shared = {str(shared).lower()}'
    return f"{{ {kind}, width = {width}{features} }}"


def settings(what: str, data: Path, seed: int) -> list[str]:
    """Return overrides of the recipe that all variants share."""
    shared = [f"seed={seed}", "evaluate.every_epochs=50", "train.schedule.warmup_steps=20", "train.optimizer.lr=1e-3"]
    if what == "people":
        people = f'annotations="{data}/lspet/people19.json", where={{ part="train" }}, upright=true, boxes_only=true'
        people += f', cutouts="{data}/lspet/cutouts.npz"'
        scenes = (
            f'{{ name="composed", {people}, scenes=400, most=8, seed={30 + seed}, onto="{data}/coco/people19.json" }}'
        )
        photographs = f'{{ name="coco", annotations="{data}/coco/people19.json", boxes_only=true, repeat=2 }}'
        return [*shared, f"data.train=[{photographs}, {scenes}]"]
    page = "size_wh=[256,256], num_kana=48, num_kanji=0"
    return [
        *shared, "input.size_wh=[256,256]", "codec.features=64", "train.batch_size=16", "train.ema_decay=0.99",
        f'data.train={{ name="pages", count=800, seed={seed + 2}, {page} }}',
        f'data.val={{ name="pages", count=60, seed=1, {page} }}',
    ]  # fmt: skip


def width_of(what: str, kind: str, variant: str, data: Path) -> tuple[int, int]:
    """Return the width of a variant's heads and the multiply-adds with it, nearly those of one stage."""
    from poseglass.core.skeletons import BOXES
    from poseglass.networks.cost import multiply_adds
    from poseglass.runs.build import make_network
    from poseglass.runs.recipe import Recipe

    classes = () if what == "people" else tuple(map(str, range(48)))

    def cost(name: str, width: int) -> int:
        recipe = Recipe.read(RECIPES[what], [*settings(what, data, 0), network_of(kind, head(what, name, width))])
        return multiply_adds(make_network(recipe, BOXES, classes)[0], recipe.input.size_wh)

    aim = cost("1 stage", WIDTH)
    if VARIANTS[variant][0] == 1:
        return WIDTH, aim
    costs = {width: cost(variant, width) for width in range(8, WIDTH, 4)}
    width = min(costs, key=lambda width: abs(costs[width] - aim))
    return width, costs[width]


def run(what: str, variant: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train one network and store what each of its stages finds."""
    name = f"{variant.replace(',', '').replace(' ', '-')}-{seed}"
    folder = arguments.runs / folder_of(arguments) / name
    file = folder / "found.json"
    if file.is_file():
        return
    data = arguments.data.resolve()
    width, cost = width_of(what, arguments.network, variant, data)
    overrides = [
        *settings(what, data, seed), f"train.epochs={arguments.epochs}",
        network_of(arguments.network, head(what, variant, width)),
    ]  # fmt: skip
    if arguments.network != "light":
        overrides.append("train.init_from=random")
    if arguments.start:
        overrides.append(f'train.init_from="{arguments.start.resolve() / "best.safetensors"}"')
    command = [sys.executable, "-m", "poseglass", "train"]
    if (folder / "recipe.toml").is_file():
        command += ["--resume", "--run", str(folder)]
    else:
        sets = [part for override in overrides for part in ("--set", override)]
        where = ["--data", str(data)] if what == "people" else []  # pages are rendered
        command += [str(RECIPES[what]), *where, "--run", str(folder), *sets]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    print(what, variant, seed, done.stdout.strip().splitlines()[-2:], f"{time.monotonic() - begun:.0f} s", flush=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    last = list(csv.DictReader((folder / "curve.csv").open()))[-1]
    result: dict[str, Any] = {
        "variant": variant, "seed": seed, "width": width, "multiply_adds": cost, "steps": int(last["step"]),
        "train_seconds": round(float(last["train_seconds"])), "stages": stages_of(what, folder, data),
        "machine": machine(), "commit": commit(),
    }  # fmt: skip
    file.with_suffix(".part").write_text(json.dumps(result))
    file.with_suffix(".part").rename(file)


def stages_of(what: str, folder: Path, data: Path) -> list[list[dict[str, Any]]]:
    """Return what every stage finds, image by image."""
    import torch

    import poseglass as pg
    from poseglass.heads.stacked_centernet import StackedCenterNetHead
    from poseglass.readers.coco import coco
    from poseglass.synthetic.pages import pages

    torch.set_num_threads(1)
    least = 0.02 if what == "people" else LEAST_SCORE  # F1 counts no others
    estimator = pg.load_detector(folder, min_box_score=least, chips=False)
    heads = [part for part in estimator.network.modules() if isinstance(part, StackedCenterNetHead)]
    dataset = (
        coco(data / "coco_more/people19.json", where={"boxes_complete": True}, boxes_only=True)
        if what == "people"
        else pages(60, seed=1, size_wh=(256, 256), num_kana=48, num_kanji=0)
    )
    found: list[list[dict[str, Any]]] = []
    for stages in range(1, heads[0].stages + 1):
        heads[0].stages = stages
        images = []
        for i in range(len(dataset)):
            sample = dataset[i]
            images.append(kept(estimator(sample.image), dataset.instances(i), 100 if what == "people" else 400))
        found.append(images)
    return found


def metric_of(what: str, images: list[dict[str, Any]]) -> dict[str, float]:
    """Return the results of these images."""
    from poseglass.metrics import BoxAp
    from poseglass.metrics.center_f1 import CenterF1

    metric = BoxAp() if what == "people" else CenterF1(min_score=LEAST_SCORE)
    for image in images:
        metric.update(*instances_of(image))
    found = metric.compute()
    names = {"AP": "box_AP", "AP50": "box_AP50"} if what == "people" else {"F1": "f1", "F1 of places": "place_f1"}
    return {name: found[key] for name, key in names.items()}


def summarise(what: str, folder: str, runs: Path) -> None:
    """Write a row for each variant and stage."""
    results = [json.loads(file.read_text()) for file in sorted((runs / folder).glob("*/found.json"))]
    rows: list[dict[str, object]] = []
    for variant, (stages, _) in VARIANTS.items():
        mine = [one for one in results if one["variant"] == variant]
        for stage in range(stages if mine else 0):
            sets = [one["stages"][stage] for one in mine]
            each = [metric_of(what, images) for images in sets]
            ends = intervals(sets, lambda images: metric_of(what, images), DRAWS)
            row: dict[str, object] = {
                "variant": variant, "result of stage": stage + 1, "head width": mine[0]["width"],
                "multiply-adds": mine[0]["multiply_adds"],
            }  # fmt: skip
            for name in each[0]:
                low, high = ends[name]
                row[name] = f"{statistics.mean(one[name] for one in each):.4f}"
                row[f"{name} interval"] = f"{low:.3f} to {high:.3f}"
                row[f"{name} seeds"] = " ".join(f"{one[name]:.4f}" for one in each)
            row["steps"] = " ".join(str(one["steps"]) for one in mine)
            row["train seconds"] = " ".join(str(one["train_seconds"]) for one in mine)
            rows.append(row)
            print(*row.values(), sep="  ", flush=True)
    write_rows(RESULTS / f"stages-{folder}.csv", rows)


def draw_maps(folder: str, image: Path, runs: Path) -> None:
    """Draw the map of centres of every stage of the network of three stages beside the image."""
    import cv2
    import torch

    import poseglass as pg
    from poseglass.core.image import read_image
    from poseglass.heads.stacked_centernet import StackedCenterNetHead

    estimator = pg.load_detector(runs / folder / "3-stages-0", chips=False)
    pixels = read_image(image)
    maps: list[np.ndarray] = []
    head = next(part for part in estimator.network.modules() if isinstance(part, StackedCenterNetHead))
    hook = head.register_forward_hook(
        lambda _module, _inputs, stages: maps.extend(
            one["center"][0].sigmoid().amax(0).float().numpy(force=True) for one in stages
        )
    )
    with torch.inference_mode():
        estimator(pixels)
    hook.remove()
    side = 384
    scale = side / max(pixels.shape[:2])
    shown = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tiles = [np.zeros((side, side, 3), np.uint8)]
    top, left = (side - shown.shape[0]) // 2, (side - shown.shape[1]) // 2
    tiles[0][top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    for values in maps:
        grey = cv2.resize((255 * values).astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
        tiles.append(cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB))
    path = ROOT / f"docs/images/stages-{folder}.png"
    cv2.imwrite(str(path), np.concatenate(tiles, 1)[..., ::-1])
    print(path)


if __name__ == "__main__":
    main()
