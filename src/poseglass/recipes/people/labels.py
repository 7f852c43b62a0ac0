"""Write the labels that the networks "people*" are trained on: one skeleton, parts, and a teacher's opinion.

    python recipes/people/labels.py DATA --teacher answers.json

DATA holds lspet/train.json, coco/train.json and coco_more/train.json with their images; answers.json comes from
ask_teacher.py, and without it labels stay as they are. Beside each train.json it writes people19.json, in the same
format, with the keypoints of people19. What it changes:

- Every image gets a field "part": "train", "choose" or "test". "test" are COCO's val2017 images. "choose" are a fifth
  of its train2017 images (number divisible by 5), and 500 people of lspet: every fifteenth block of 20 successive
  image numbers, since neighbours often show the same person. Only "train" is changed by what follows.
- lspet has no nose, eyes and ears: the teacher's are added where it is sure (--face, its score).
- In a part of lspet's people, left and right are exchanged, for arms, legs or both. They are exchanged back where the
  teacher is sure of most of those joints, its points fit the exchanged labels several times as well, and the trunk is
  not twisted afterwards.
- A label that is further than half a torso from a point of which the teacher is sure (--sure) is removed: then nothing
  is learnt there.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.skeletons import COCO17, PEOPLE19

GROUPS = (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle"))
FACE = COCO17.keypoints[:5]
NUMBER = {name: number for number, name in enumerate(PEOPLE19.keypoints)}


def main() -> None:
    """Read, change and write the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--face", type=float, default=0.4)
    parser.add_argument("--sure", type=float, default=0.5)
    parser.add_argument("--name", default="people19.json")
    given = parser.parse_args()
    answers: dict[tuple[str, int], np.ndarray] = {}
    if given.teacher is not None:
        for answer in json.loads(given.teacher.read_text()):
            answers[answer["file"], answer["id"]] = np.reshape(answer["keypoints"], (17, 3))
    for name in ("lspet", "coco", "coco_more"):
        data = json.loads((given.data / name / "train.json").read_text())
        done = Counter[str]()
        names = data["categories"][0]["keypoints"]
        part_of = {image["id"]: part(name, image) for image in data["images"]}
        for image in data["images"]:
            image["part"] = part_of[image["id"]]
            done[f"images to {image['part']}"] += 1
        for person in data["annotations"]:
            points = joined(names, person.get("keypoints", ()))
            answer = answers.get((name, person["id"]))
            if name == "lspet" and answer is not None and part_of[person["image_id"]] == "train":
                done.update(second_opinion(points, answer, sure=given.sure, face=given.face))
            person["keypoints"] = points.round(2).ravel().tolist()
            person["num_keypoints"] = int((points[:, 2] > 0).sum())
        data["categories"] = [
            {
                "id": data["categories"][0]["id"], "name": "person", "keypoints": list(PEOPLE19.keypoints),
                "skeleton": (PEOPLE19.bone_indices + 1).tolist(),
            }
        ]  # fmt: skip
        path = given.data / name / given.name
        path.write_text(json.dumps(data))
        counts = ", ".join(f"{number:,} {what}" for what, number in sorted(done.items()))
        print(f"{path}: {len(data['annotations']):,} people; {counts}.")


def part(name: str, image: dict[str, Any]) -> str:
    """Return whether an image is to train on, to choose with, or to test with."""
    if name == "lspet":
        return "choose" if image["id"] // 20 % 15 == 7 else "train"
    if image["split"] == "val2017":
        return "test"
    return "choose" if image["id"] % 5 == 0 else "train"


def joined(names: list[str], keypoints: Iterable[float]) -> np.ndarray:
    """Return x, y and v of the keypoints of people19 ``(19, 3)``, zeros where not labelled."""
    points = np.zeros((len(PEOPLE19), 3))
    given = np.reshape(list(keypoints), (-1, 3))
    for name, row in zip(names, given, strict=True) if len(given) else ():
        points[NUMBER[name]] = row if row[2] > 0 else 0
    return points


def second_opinion(points: np.ndarray, answer: np.ndarray, *, sure: float, face: float) -> Counter[str]:
    """Correct the labels of one person in place, and count what was done.

    Args:
        points: ``(19, 3)`` x, y, v, pixels.
        answer: The teacher's 17 keypoints: x, y and its score.
        sure: Score from which the teacher's limb joints count.
        face: Score from which its points of the face are taken.
    """
    done = Counter[str]()
    scale = torso_px(points)
    if scale is None:
        return done
    teacher = np.zeros((len(PEOPLE19), 3))
    teacher[:17] = answer
    before = points.copy()
    exchanges = Counter[str]()
    for group in GROUPS:
        left, right = ([NUMBER[f"{side}_{joint}"] for joint in group] for side in ("left", "right"))
        both, other = left + right, right + left
        usable = (teacher[both, 2] >= sure) & (points[both, 2] > 0) & (points[other, 2] > 0)
        if usable.sum() < 4:
            continue
        as_is = np.linalg.norm(points[both, :2] - teacher[both, :2], axis=1)[usable].mean()
        exchanged = np.linalg.norm(points[other, :2] - teacher[both, :2], axis=1)[usable].mean()
        if exchanged < 0.15 * scale and as_is > 3 * exchanged and as_is > 0.2 * scale:
            points[both] = points[other]
            exchanges[f"times {group[0]}s to {group[2]}s exchanged"] += 1
    if exchanges and not untwisted(points):
        points[:] = before
    else:
        done += exchanges
    limbs = [NUMBER[f"{side}_{joint}"] for group in GROUPS for joint in group for side in ("left", "right")]
    far = np.linalg.norm(points[limbs, :2] - teacher[limbs, :2], axis=1) > 0.5 * scale
    for limb in np.array(limbs)[far & (teacher[limbs, 2] >= sure) & (points[limbs, 2] > 0)]:
        points[limb] = 0
        done["labels removed"] += 1
    if agrees(points, teacher, scale):
        for name in FACE:
            if teacher[NUMBER[name], 2] >= face:
                points[NUMBER[name]] = *teacher[NUMBER[name], :2], 2
                done["points of faces added"] += 1
    return done


def untwisted(points: np.ndarray) -> bool:
    """Return whether left lies on the same side for the shoulders as for the hips."""
    ends = [[NUMBER[f"{side}_{joint}"] for side in ("left", "right")] for joint in ("shoulder", "hip")]
    if (points[ends[0] + ends[1], 2] == 0).any():
        return True
    across = [points[left, :2] - points[right, :2] for left, right in ends]
    return float(across[0] @ across[1]) > 0


def torso_px(points: np.ndarray) -> float | None:
    """Return the mean distance of a shoulder from the opposite hip, or None if neither pair is labelled."""
    ends = [(NUMBER["left_shoulder"], NUMBER["right_hip"]), (NUMBER["right_shoulder"], NUMBER["left_hip"])]
    known = [np.linalg.norm(points[a, :2] - points[b, :2]) for a, b in ends if points[a, 2] > 0 and points[b, 2] > 0]
    return float(np.mean(known)) if known and np.mean(known) > 4 else None


def agrees(points: np.ndarray, teacher: np.ndarray, scale: float) -> bool:
    """Return whether the teacher looks at the same person: a shoulder of which it is sure lies near its label."""
    shoulders = [NUMBER["left_shoulder"], NUMBER["right_shoulder"]]
    near = np.linalg.norm(points[shoulders, :2] - teacher[shoulders, :2], axis=1) < 0.3 * scale
    return bool((near & (teacher[shoulders, 2] >= 0.3) & (points[shoulders, 2] > 0)).any())


if __name__ == "__main__":
    main()
