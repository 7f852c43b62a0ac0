"""Everybody in a photograph of 640 px with 1, 5 and 20 people: images a second in one stage and in two, end to end.

End to end is from the bytes of a JPEG file to poses in image pixels. Beside it stand the networks alone on tensors that
are ready: the detector's on one view, and for two stages also the pose network's on as many crops as boxes were found.
The difference is what reading, cropping, decoding and matching cost. All are interleaved in one process.

The photographs are scenes composed of people of lspet's validation set, so that their number is known. Detectors find
more or fewer of them; how many is stated, and it is what the time of two stages depends on.

    python benchmarks/everybody.py [--lspet data/lspet/val.json] [--repeats 15] [--threads 2]
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from machine import RESULTS, interleave, machine, write_rows

import poseglass as pg
from poseglass.core.view import View
from poseglass.data.composed_scenes import composed

PEOPLE = (1, 5, 20)
SIZE_WH = (640, 480)


def scene_of(count: int, lspet: Path) -> tuple[bytes, int]:
    """Return a scene as a JPEG, with as many people or the nearest number that found a place, and that number."""
    scenes = composed(lspet, scenes=200, size_wh=SIZE_WH, most=30 if count > 8 else max(count, 2), enlarge=0.8)
    numbers = [len(scenes.instances(i)) for i in range(len(scenes))]
    best = int(np.argmin([abs(n - count) for n in numbers]))
    done, data = cv2.imencode(".jpg", scenes.image(best)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    return data.tobytes(), numbers[best]


def decoded(data: bytes) -> np.ndarray:
    """Return the image of a JPEG, RGB."""
    return np.ascontiguousarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])


def ready(estimator: pg.OneStageEstimator | pg.TopDownEstimator, views: list[np.ndarray]) -> Callable[[], object]:
    """Return a call of a network alone, on views that are tensors already."""
    network = estimator.network.eval()
    spec = estimator.program.input
    images = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float().div(255)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    images = ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    def call() -> object:
        with torch.inference_mode():
            return network(images)

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lspet", type=Path, default=Path("data/lspet/val.json"))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    detector, poses = pg.load_detector("people"), pg.load_top_down()
    both = pg.load()
    rows = []
    for wanted in PEOPLE:
        data, count = scene_of(wanted, arguments.lspet)
        image = decoded(data)
        found = detector(image)
        view = View.letterbox(SIZE_WH, detector.input.size_wh).read(image)
        boxes = found.box_xyxy if len(found) else np.array([[0, 0, 100, 100]], np.float32)
        crops = [View.crop(box, poses.program.input).read(image) for box in boxes]
        calls: dict[str, Callable[[], object]] = {
            "one stage, end to end": lambda data=data: detector(decoded(data)),
            "one stage, network alone": ready(detector, [view]),
            "two stages, end to end": lambda data=data: both(decoded(data)),
            "two stages, pose network alone": ready(poses, crops),
            "reading the JPEG": lambda data=data: decoded(data),
        }
        medians = interleave(calls, arguments.repeats)
        alone = medians["one stage, network alone"]
        limits = {
            "one stage, end to end": alone,
            "two stages, end to end": alone + medians["two stages, pose network alone"] * (len(found) > 0),
        }
        for name, seconds in medians.items():
            row = {
                "what": name, "people": count, "found": len(found), "ms": f"{seconds * 1e3:.1f}",
                "images a second": f"{1 / seconds:.2f}",
                "times as long as the networks alone": f"{seconds / limits[name]:.2f}" if name in limits else "",
                "repeats": arguments.repeats, "threads": arguments.threads, "torch": torch.__version__,
            }  # fmt: skip
            rows.append(row)
            print(f"{count:3} people, {len(found):3} found  {name:32} {row['ms']:>9} ms {row['images a second']:>8} /s")
    write_rows(arguments.output / f"everybody-{machine()}.csv", rows)


if __name__ == "__main__":
    main()
