"""Small people in large images: whole images, chips, and chips with negative ones, trained for the same time.

All three start from the same detector, which recipes/people/small_people.toml trains on whole images without a
photograph of coco_more, and see the same images: two thirds of the photographs of coco_more in which everybody is
labelled, and scenes composed of people of lspet's part "train". Each third is tested by the networks that did not see
it. Large scenes (960 x 720 px, people of 20 to 60 px) composed of lspet's part "choose" are tested by all. Scenes are
written to files first, since composing them takes longer than training on them. The first training, which proposes
negative chips, counts as training; looking for them does not, and its time is written down.

People of less than 64 px (square root of the box's area) are counted: AP over IoU 0.5 to 0.95 and at 0.5, and recall at
0.5 with up to 100 boxes of any score in an image. Intervals are 95 % of 200 draws of images with replacement, the
same for every row, of the mean over seeds.

    python -m poseglass train recipes/people/small_people.toml --data data --run runs/small-start
    python benchmarks/small_people.py --start runs/small-start --data data      # trains; resumes where it was stopped
    python benchmarks/small_people.py --summary
"""

import argparse
import csv
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from found_boxes import intervals, kept
from machine import RESULTS, commit, machine, write_rows

RECIPE = Path(__file__).parents[1] / "recipes/people/small_people.toml"
FOLDS = 3
SMALL_PX = 64
DRAWS = 200
SMALLEST = "{ scale = 1.5, up_to_px = 64 }, { scale = 0.75, from_px = 48, up_to_px = 160 }"
SCALES = f'[{SMALLEST}, {{ scale = "whole", from_px = 120 }}]'
WAYS = {
    "whole images": ["train.epochs=20"],
    "chips": ["train.epochs=4", f"data.chips.scales={SCALES}"],
    "chips and negatives": [
        "train.epochs=2", f"data.chips.scales={SCALES}",
        "data.chips.negatives={ epochs = 1, at_least = 5, share = 0.5 }",
    ],
}  # fmt: skip
"""Overrides of the recipe. Epochs are chosen so that all take about the same number of steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="Folder with lspet, coco and coco_more.")
    parser.add_argument("--start", type=Path, default=Path("runs/small-start"), help="Run of the recipe as it stands.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Each leaves out another third.")
    parser.add_argument("--runs", type=Path, default=Path("runs/small-people"), help="Folder for the training runs.")
    parser.add_argument("--summary", action="store_true", help="Do not train, only summarise.")
    arguments = parser.parse_args()
    if not arguments.summary:
        for seed in arguments.seeds:
            for way in WAYS:
                file = RESULTS / "small-people" / f"{way.replace(' ', '-')}-{seed}.json"
                if not file.is_file():
                    run(way, seed, arguments.data, arguments.start, arguments.runs, file)
    summarise()


def folds(data: Path) -> list[list[int]]:
    """Return the ids of the photographs in which everybody is labelled, in as many parts as there are folds."""
    images = json.loads((data / "coco_more/people19.json").read_text())["images"]
    ids = [int(image["id"]) for image in images if image.get("boxes_complete")]
    order = np.random.default_rng(0).permutation(len(ids))
    return [[ids[i] for i in order[fold::FOLDS]] for fold in range(FOLDS)]


def run(way: str, seed: int, data: Path, start: Path, runs: Path, file: Path) -> None:
    """Train in one way, leaving out the fold of this seed, and store what is found in the test images."""
    data = data.resolve()
    parts = folds(data)
    learnt = [i for fold, part in enumerate(parts) if fold != seed % FOLDS for i in part]
    folder = runs / file.stem
    scenes = write_scenes(data, runs)
    photographs = f'name="coco", annotations="{data}/coco_more/people19.json", boxes_only=true'
    train = [
        f"{{ {photographs}, where={{ id={learnt} }}, repeat=2 }}",
        f'{{ name="coco", annotations="{scenes}/large.json", boxes_only=true }}',
        f'{{ name="coco", annotations="{scenes}/usual.json", boxes_only=true }}',
    ]
    val = f"{{ {photographs}, where={{ id={parts[seed % FOLDS]} }} }}"
    overrides = [
        *WAYS[way], f"seed={seed}", f"data.train=[{', '.join(train)}]", f"data.val={val}", "evaluate.every_epochs=50",
        f'train.init_from="{start.resolve() / "best.safetensors"}"',
        "train.schedule.warmup_steps=20", "train.optimizer.lr=7e-4",
    ]  # fmt: skip
    command = [sys.executable, "-m", "poseglass", "train"]
    if (folder / "recipe.toml").is_file():
        command += ["--resume", "--run", str(folder)]
    else:
        sets = [part for override in overrides for part in ("--set", override)]
        command += [str(RECIPE), "--data", str(data), "--run", str(folder), *sets]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    print(way, seed, done.stdout.strip().splitlines()[-2:], f"{time.monotonic() - begun:.0f} s", flush=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    curves = [folder / "curve.csv", Path(f"{folder}-proposals") / "curve.csv"]
    rows = [list(csv.DictReader(curve.open()))[-1] for curve in curves if curve.is_file()]
    result: dict[str, Any] = {
        "way": way, "seed": seed, "steps": sum(int(row["step"]) for row in rows),
        "train_seconds": round(sum(float(row["train_seconds"]) for row in rows)),
        "log": [
            line.replace(f"{runs}/", "runs/small-people/")
            for line in done.stdout.splitlines() + done.stderr.splitlines()
            if "chips" in line
        ],
        "tests": tests(folder, way, parts[seed % FOLDS], data, scenes), "machine": machine(), "commit": commit(),
    }  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = json.dumps(result).replace('{"boxes"', '\n{"boxes"')  # a line for each image
    file.with_suffix(".part").write_text(lines + "\n")
    file.with_suffix(".part").rename(file)


def write_scenes(data: Path, runs: Path) -> Path:
    """Write the composed scenes as COCO files, once, and return their folder."""
    import cv2

    from poseglass.data.composed_scenes import composed

    folder = runs.resolve() / "scenes"
    shared = {"upright": True, "boxes_only": True, "cutouts": data / "lspet/cutouts.npz"}
    large = {"size_wh": (960, 720), "most": 20, "enlarge": 0.4}
    sets = {
        "large": {"where": {"part": "train"}, "scenes": 40, "seed": 10} | large,
        "usual": {"where": {"part": "train"}, "scenes": 100, "seed": 20, "onto": data / "coco/people19.json"},
        "large-test": {"where": {"part": "choose"}, "scenes": 24, "seed": 5} | large,
    }
    for name, options in sets.items():
        if (folder / f"{name}.json").is_file():
            continue
        (folder / name).mkdir(parents=True, exist_ok=True)
        dataset = composed(data / "lspet/people19.json", **shared, **options)  # type: ignore[arg-type]
        document: dict[str, list[dict[str, Any]]] = {
            "images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]
        }  # fmt: skip
        for i in range(len(dataset)):
            image, box_xyxy = dataset.image(i), dataset.instances(i).box_xyxy.astype(float) + 0.5
            cv2.imwrite(str(folder / name / f"{i}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
            size = {"width": image.shape[1], "height": image.shape[0]}
            document["images"].append({"id": i, "file_name": f"{name}/{i}.jpg"} | size)
            for x0, y0, x1, y1 in box_xyxy.tolist():
                bbox = [x0, y0, x1 - x0, y1 - y0]
                document["annotations"].append(
                    {"id": len(document["annotations"]), "image_id": i, "category_id": 1, "bbox": bbox}
                    | {"area": bbox[2] * bbox[3], "iscrowd": 0}
                )
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder


def tests(folder: Path, way: str, left_out: list[int], data: Path, scenes: Path) -> dict[str, Any]:
    """Return what is found in each test image, by test set and by how images are looked at."""
    import torch

    import poseglass as pg
    from poseglass.estimators.chips import Chips
    from poseglass.readers.coco import coco
    from poseglass.runs.recipe import Recipe
    from poseglass.transforms.chips import ChipRule, ChipScale

    torch.set_num_threads(1)
    scales = Recipe.read(RECIPE, [f"data.chips.scales={SCALES}"]).data.chips
    assert scales is not None
    rule = ChipRule(tuple(ChipScale(s.scale, s.from_px, s.up_to_px) for s in scales.scales), (256, 256))
    whole = pg.load_detector(folder, min_box_score=0.02, chips=False)
    looks = {"in chips": dataclasses.replace(whole, chips=Chips(rule))}
    if way == "whole images":
        looks["whole"] = whole
    sets = {
        "photographs": coco(data / "coco_more/people19.json", where={"id": left_out}, boxes_only=True),
        "large scenes": coco(scenes / "large-test.json", boxes_only=True),
    }
    found: dict[str, Any] = {}
    for look, estimator in looks.items():
        for name, dataset in sets.items():
            images, begun = [], time.monotonic()
            for i in range(len(dataset)):
                sample = dataset[i]
                images.append(kept(estimator(sample.image), dataset.instances(i), 100))
            seconds = (time.monotonic() - begun) / len(dataset)
            found[f"{name}, {look}"] = {"seconds_per_image": round(seconds, 3), "images": images}
    return found


def measured(images: list[dict[str, Any]]) -> dict[str, float]:
    """Return AP, AP50 and recall at IoU 0.5 of people of less than 64 px; NaN if there are none."""
    from poseglass.core.boxes import xyxy_to_xywh
    from poseglass.metrics.box_average_precision import BoxDetections, BoxTruth, evaluate_boxes

    def flat(key: str, width: int) -> np.ndarray:
        return np.concatenate([np.asarray(one[key], float).reshape(-1, *([width] if width else [])) for one in images])

    truth_xywh, found_xywh = xyxy_to_xywh(flat("truth", 4)), xyxy_to_xywh(flat("boxes", 4))
    of = np.arange(len(images))
    labelled = np.repeat(of, [len(one["truth"]) for one in images])
    found = np.repeat(of, [len(one["scores"]) for one in images])
    truth = BoxTruth(
        image=labelled, category=np.zeros(len(labelled), int), box_xywh=truth_xywh,
        area=truth_xywh[:, 2] * truth_xywh[:, 3], crowd=flat("crowd", 0).astype(bool),
    )  # fmt: skip
    detections = BoxDetections(
        image=found, category=np.zeros(len(found), int), box_xywh=found_xywh, score=flat("scores", 0)
    )
    result = evaluate_boxes(
        truth, detections, areas={"all": (0.0, 1e10), "small": (0.0, float(SMALL_PX**2))}, categories=1
    )
    half = int(np.flatnonzero(np.isclose(result.thresholds, 0.5))[0])
    values = {
        "AP": float(result.precision[:, :, 0, 1].mean()), "AP50": float(result.precision[half, :, 0, 1].mean()),
        "recall": float(result.recall[half, 0, 1, -1]),
    }  # fmt: skip
    return {name: value if value >= 0 else float("nan") for name, value in values.items()}


def summarise() -> None:
    """Write a row for each way and test set; photographs of the folds are pooled, since each is tested once."""
    files = sorted((RESULTS / "small-people").glob("*.json"))
    results = [json.loads(file.read_text()) for file in files]
    rows: list[dict[str, object]] = []
    for test in ("photographs", "large scenes"):
        for way in WAYS:
            mine = [one for one in results if one["way"] == way]
            for look in ("whole", "in chips"):
                key = f"{test}, {look}"
                found = [one["tests"][key]["images"] for one in mine if key in one["tests"]]
                if not found:
                    continue
                sets = [[image for images in found for image in images]] if test == "photographs" else found
                each = [measured(images) for images in sets]
                ends = intervals(sets, measured, DRAWS)
                times = [one["tests"][key] for one in mine]
                row: dict[str, object] = {"test": test, "trained on": way, "looks at": look}
                for name in ("AP", "AP50", "recall"):
                    value = statistics.mean(one[name] for one in each)
                    row[name] = f"{value:.4f}"
                    row[f"{name} interval"] = f"{ends[name][0]:.3f} to {ends[name][1]:.3f}"
                    row[f"{name} seeds"] = " ".join(f"{measured(images)[name]:.3f}" for images in found)
                row["seconds an image"] = f"{statistics.mean(t['seconds_per_image'] for t in times):.2f}"
                row["steps"] = " ".join(str(one["steps"]) for one in mine)
                row["train seconds"] = " ".join(str(one["train_seconds"]) for one in mine)
                rows.append(row)
                print(*list(row.values())[:3], *(row[k] for k in ("AP", "AP50", "recall", "recall interval")), sep="  ")
    write_rows(RESULTS / "small-people.csv", rows)


if __name__ == "__main__":
    main()
