"""OKS-AP compared with pycocotools: 5,000 images, 11,004 people, 50,000 detections of 17 keypoints.

Both evaluate the same random set, interleaved in one process; the result is a ratio of medians. "evaluate" is matching
and accumulating, starting from what each has loaded; "with loading" starts from the lists and dicts that ``json.load``
returns. The ten values are compared before anything is timed.

    python benchmarks/oks_ap.py [--repeats 3] [--output benchmarks/results]
"""

import argparse
import contextlib
import csv
import io
import platform
import re
import statistics
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from poseglass.core.skeletons import COCO17
from poseglass.metrics.average_precision import evaluate_oks, read_coco

SIGMAS = COCO17.sigmas


def random_set(images: int, people: int, detections: int, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make people of all sizes and detections of them: some close, some poor, some of nobody."""
    rng = np.random.default_rng(seed)
    k = len(SIGMAS)
    image_ids = np.sort(rng.choice(10 * images, images, replace=False))
    crowding = rng.dirichlet(np.full(images, 0.8))
    image = rng.choice(images, people, p=crowding)
    size = np.exp(rng.uniform(np.log(20), np.log(300), people))
    xy = rng.uniform(0, 600, (people, 1, 2)) + rng.normal(0, 0.4, (people, k, 2)) * size[:, None, None]
    visible = (rng.random((people, k)) < 0.7) * 2
    visible[rng.random(people) < 0.05] = 0
    crowd = rng.random(people) < 0.01
    low, high = xy.min(1), xy.max(1)
    annotations = [
        {
            "id": i + 1,
            "image_id": int(image_ids[image[i]]),
            "category_id": 1,
            "keypoints": np.where(visible[i, :, None] > 0, np.c_[xy[i].round(), visible[i]], 0).ravel().tolist(),
            "num_keypoints": int((visible[i] > 0).sum()),
            "area": float(size[i] ** 2),
            "bbox": [*low[i].tolist(), *(high[i] - low[i]).tolist()],
            "iscrowd": int(crowd[i]),
        }
        for i in range(people)
    ]
    who = rng.integers(0, people, detections)
    noise = np.exp(rng.uniform(np.log(0.01), np.log(0.4), detections))
    nobody = rng.random(detections) < 0.4
    where = np.where(nobody, rng.integers(0, images, detections), image[who])
    points = xy[who] + rng.normal(0, 1, (detections, k, 2)) * (noise * size[who])[:, None, None]
    score = np.clip(1 - noise - 0.3 * nobody + rng.normal(0, 0.15, detections), 0, 1)
    results = [
        {
            "image_id": int(image_ids[where[i]]),
            "category_id": 1,
            "keypoints": np.c_[points[i].round(2), np.ones(k)].ravel().tolist(),
            "score": float(score[i]),
        }
        for i in range(detections)
    ]
    dataset = {
        "info": {},
        "images": [{"id": int(i)} for i in image_ids],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    return dataset, results


def time_pycocotools(dataset: dict[str, Any], results: list[dict[str, Any]]) -> tuple[float, float, np.ndarray]:
    """Return seconds of evaluation, seconds with loading, and the ten values."""
    dataset = {**dataset, "annotations": [dict(a) for a in dataset["annotations"]]}
    results = [dict(r) for r in results]  # pycocotools modifies both
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
        found = truth.loadRes(results)
        loaded = time.perf_counter()
        evaluation = COCOeval(truth, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
        evaluation.evaluate()
        evaluation.accumulate()
        end = time.perf_counter()
        evaluation.summarize()
    return end - loaded, end - start, np.array(evaluation.stats)


def time_poseglass(dataset: dict[str, Any], results: list[dict[str, Any]]) -> tuple[float, float, np.ndarray]:
    """Return seconds of evaluation, seconds with loading, and the ten values."""
    start = time.perf_counter()
    truth, detections, _ = read_coco(dataset, results, len(SIGMAS))
    loaded = time.perf_counter()
    result = evaluate_oks(truth, detections, SIGMAS)
    end = time.perf_counter()
    return end - loaded, end - start, np.array(list(result.results().values()))


def machine() -> str:
    """Return the processor and its number of cores, as part of a file name."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    names = re.findall(r"model name\s*:\s*(.+)", text)
    model = names[0] if names else model
    cores = max(len(names), 1)
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", model.lower())).strip("-") + f"-{cores}cores"


def commit() -> str:
    """Return the commit of the code, with a plus when the metrics differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run(
            [*git, "diff", "--quiet", "HEAD", "--", "../src/poseglass/metrics"], check=False
        ).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.strip() + ("+" if changed else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()

    images, people, detections = 5000, 11004, 50000
    dataset, results = random_set(images, people, detections)
    times: dict[str, list[tuple[float, float]]] = {"pycocotools": [], "poseglass": []}
    expected = np.zeros(10)
    for _ in range(arguments.repeats):
        for name, function in (("pycocotools", time_pycocotools), ("poseglass", time_poseglass)):
            evaluate, total, figures = function(dataset, results)
            times[name].append((evaluate, total))
            if name == "pycocotools":
                expected = figures
            elif not np.allclose(figures, expected, rtol=0, atol=1e-6):
                raise SystemExit(f"The results differ: pycocotools {expected}, poseglass {figures}.")
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}

    rows = []
    for column, what in enumerate(("evaluate", "with loading")):
        for name in times:
            seconds = medians[name][column]
            rows.append(
                {
                    "what": what,
                    "library": name,
                    "seconds": f"{seconds:.4f}",
                    "times as fast": f"{medians['pycocotools'][column] / seconds:.1f}",
                    "repeats": arguments.repeats,
                    "images": images,
                    "people": people,
                    "detections": detections,
                    "AP": f"{expected[0]:.6f}",
                    "machine": machine(),
                    "torch": torch.__version__.split("+")[0],
                    "numpy": np.__version__,
                    "pycocotools": version("pycocotools"),
                    "python": platform.python_version(),
                    "commit": commit(),
                }
            )
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"oks_ap-{rows[0]['machine']}-torch{rows[0]['torch']}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(f"{row['what']:<13} {row['library']:<12} {row['seconds']:>8} s  {row['times as fast']:>6} x")
    print(path)


if __name__ == "__main__":
    main()
