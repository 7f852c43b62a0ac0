"""Ask MoveNet SinglePose Thunder for the keypoints of the people in COCO keypoint files.

Every person is shown twice, the second time mirrored. A keypoint is the mean of both answers, and its score is the
lower of the two, or 0 where the answers lie further apart than 3 % of the crop. The answers go into one file, which
labels.py reads: a list of {"file": the folder of the labels, "id": the id of the annotation, "keypoints": 17 times x, y
and score}. Any other network can write such a file in its place.

    python recipes/people/ask_teacher.py FOLDER ANNOTATIONS... --padding 1.1 --out answers.json

FOLDER holds movenet_torch.py, which runs the network (Apache-2.0, by Google) in PyTorch: its class MoveNet("thunder")
takes (B, 3, 256, 256) float RGB of 0 to 255, and returns the maps "heat" and "offset".
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import COCO17
from poseglass.core.view import View
from poseglass.readers import coco

SIZE, APART = 256, 0.03


def main() -> None:
    """Ask, and write the answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("annotations", nargs="+", type=Path)
    parser.add_argument("--padding", type=float, default=1.1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    sys.path.insert(0, str(given.folder))
    teacher = importlib.import_module("movenet_torch")

    network = teacher.MoveNet("thunder").eval()
    spec = InputSpec((SIZE, SIZE), padding=given.padding)
    answers = []
    for path in given.annotations:
        data = coco(path, boxes_only=True)
        for index in range(len(data)):
            sample = data[index]
            people = sample.instances
            for start in range(0, len(people), given.batch):
                rows = people[start : start + given.batch]
                views = [View.crop(box, spec) for box in rows.box_xyxy]
                crops = torch.from_numpy(np.stack([view.read(sample.image) for view in views]))
                points = ask(network, teacher.decode, crops.permute(0, 3, 1, 2).float())
                for view, found, record in zip(views, points, rows.extra["annotation_id"], strict=True):
                    found[:, :2] = view.home(found[:, :2])
                    answers.append(
                        {"file": path.parent.name, "id": int(record), "keypoints": found.round(3).ravel().tolist()}
                    )
        print(f"{path}: {len(answers):,} people so far.")
    given.out.write_text(json.dumps(answers))


def ask(network: torch.nn.Module, decode: Callable[..., torch.Tensor], crops: torch.Tensor) -> np.ndarray:
    """Return x, y and score of the 17 keypoints in crops ``(B, 3, 256, 256)``, pixels of the crop."""
    with torch.no_grad():
        straight, mirrored = (network(images) for images in (crops, crops.flip(3)))
    first, second = (decode(maps["heat"], maps["offset"], SIZE).numpy() for maps in (straight, mirrored))
    second[:, :, 0] = SIZE - second[:, :, 0]
    second = second[:, COCO17.flip]
    apart = np.hypot(*np.moveaxis(first[:, :, :2] - second[:, :, :2], 2, 0))
    score = np.where(apart > APART * SIZE, 0.0, np.minimum(first[:, :, 2], second[:, :, 2]))
    return np.concatenate([(first[:, :, :2] + second[:, :, :2]) / 2 - 0.5, score[:, :, None]], 2)


if __name__ == "__main__":
    main()
