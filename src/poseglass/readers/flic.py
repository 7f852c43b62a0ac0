"""FLIC: Frames Labelled In Cinema.

Sapp and Taskar, "MODEC: Multimodal Decomposable Models for Human Pose Estimation", CVPR 2013,
https://bensapp.github.io/flic-dataset.html; research use. 5,003 frames of 720 x 480, one labelled upper body each:
3,987 to train on, 1,016 to test on.

On disk::

    examples.mat     a struct array "examples": filepath, coords (2 x 29), torsobox, imgdims, istrain, istest
    images/          the frames
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.skeletons import FLIC11
from poseglass.core.table import nearest
from poseglass.readers.json_file import shortened
from poseglass.readers.labelled import LabelledImages, PackedLabels
from poseglass.readers.mat_file import as_number, as_numbers, listed, read_mat

COLUMNS = {
    "left_shoulder": 0, "left_elbow": 1, "left_wrist": 2, "right_shoulder": 3, "right_elbow": 4, "right_wrist": 5,
    "left_hip": 6, "right_hip": 9, "left_eye": 12, "right_eye": 13, "nose": 16,
}  # fmt: skip
"""Columns of the eleven labelled joints among the 29 of ``coords``; the others are empty."""

CROP_PX = 440.0
"""Side of the square that the hourglass ports crop from every frame: their scale is 2.2, in units of 200 px."""


def flic(
    annotations: str | Path,
    *,
    images: str | Path | None = None,
    split: Literal["train", "test"] | None = None,
    view: Literal["person", "observer"] = "person",
    name: str | None = None,
) -> LabelledImages:
    """Read FLIC's ``examples.mat``.

    **Left and right.** Here they are always the person's own. Copies of FLIC differ in what their names mean: with
    ``view="person"`` the file's left is the person's left; with ``view="observer"`` the file's left is what the
    observer sees on the left, so the two are swapped. That is right for people who face the camera, which is nearly
    everybody in FLIC, and wrong for people seen from behind. The eyes show which one a file means: in a frontal image
    the person's left eye appears on the right. If most eyes contradict ``view``, the dataset has a note that reports
    it.

    ``box_xyxy`` is a square about the torso's centre and the frame's middle height which, with ``padding=1.25``,
    becomes the 440 px that the hourglass ports crop. ``extra`` holds "torso_px", the distance that normalises PCK: from
    the right shoulder to the left hip as the file names them.

    Args:
        annotations: ``examples.mat``.
        images: Folder of the frames; None takes ``images`` beside the file if there is one, else the file's own folder.
        split: "train" (istrain), "test" (istest), or None for all.
        view: What left and right mean in the file.
        name: Name of the dataset; None makes "flic/train" or the like.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a FLIC file, damaged, or an invalid record.
    """
    path = Path(annotations)
    for field, value, known in (("split", split, ("train", "test", None)), ("view", view, ("person", "observer"))):
        if value not in known:
            hint = nearest(str(value), [k for k in known if k])
            raise ValueError(f"{field} must be one of {', '.join(map(repr, known))}, got {value!r}.{hint}")
    records = listed(read_mat(path, "examples"))
    folder = Path(images) if images is not None else path.parent / "images"
    if images is None and not folder.is_dir():
        folder = path.parent
    paths: list[Path] = []
    ids: list[int] = []
    sizes: list[tuple[int, int]] = []
    joints: list[np.ndarray] = []
    boxes: list[list[float]] = []
    for number, record in enumerate(records):
        where = f"{path}: example {number + 1}"
        if not isinstance(record, dict):
            raise ValueError(f"{where}: expected a struct with 'filepath' and 'coords', got {shortened(record)}.")
        if split is not None and not _flag(where, record, f"is{split}"):
            continue
        file = record.get("filepath")
        if not isinstance(file, str) or not file.strip() or "\0" in file:
            raise ValueError(f"{where}: 'filepath' must be the name of an image, got {shortened(file)}.")
        joints.append(_coords(where, record.get("coords")))
        size = _size_wh(where, record.get("imgdims"))
        boxes.append(_box(where, record.get("torsobox"), size))
        paths.append(folder / file)
        ids.append(number + 1)
        sizes.append(size)
    own = FLIC11.keypoints
    xy = (np.array(joints).reshape(-1, 29, 2) - 1.0)[:, [COLUMNS[n] for n in own]]
    torso = np.linalg.norm(xy[:, own.index("right_shoulder")] - xy[:, own.index("left_hip")], axis=-1)
    if view == "observer":
        xy = xy[:, FLIC11.flip]
    box = np.array(boxes).reshape(-1, 4)
    everyone = Instances.from_keypoints(FLIC11, xy, box_xyxy=box, extra={"torso_px": torso.astype(np.float32)})
    return LabelledImages(
        name=name or (f"flic/{split}" if split else "flic"),
        skeleton=FLIC11,
        paths=tuple(paths),
        labels=PackedLabels.by_image(everyone, np.arange(len(paths)), len(paths)),
        image_ids=tuple(ids),
        sizes_wh=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        notes=_which_view(xy, view),
    )


def _which_view(xy: np.ndarray, view: str) -> tuple[str, ...]:
    """Return a note if most people's left eye, as read, appears left of the right one, as if seen from behind."""
    left, right = xy[:, FLIC11.index("left_eye"), 0], xy[:, FLIC11.index("right_eye"), 0]
    both = np.isfinite(left) & np.isfinite(right)
    turned = float((left[both] < right[both]).mean()) if both.any() else 0.0
    if turned <= 0.5:
        return ()
    other = "observer" if view == "person" else "person"
    return (
        f"The left eye appears left of the right one in {turned:.0%} of the images, though people in FLIC face the "
        f"camera: the file's names seem to mean the {other}'s view. Pass view={other!r}.",
    )


def _flag(where: str, record: dict[str, Any], field: str) -> bool:
    value = as_number(record.get(field))
    if value not in (0, 1):
        got = shortened(record.get(field))
        raise ValueError(f"{where}: {field!r} must be 0 or 1, got {got}. Omit split= to read all.")
    return value == 1


def _coords(where: str, value: Any) -> np.ndarray:
    """Return ``(29, 2)`` float64, NaN = not labelled."""
    coords = as_numbers(value)
    if coords is None or coords.shape != (2, 29):
        raise ValueError(f"{where}: 'coords' must be 2 x 29 numbers, got {shortened(value)}.")
    known = np.isfinite(coords).all(0)
    if (np.abs(coords[:, known]) >= 1e9).any():
        raise ValueError(f"{where}: 'coords' must be pixels, got {np.abs(coords[:, known]).max():g}.")
    return np.where(known, coords, np.nan).T


def _size_wh(where: str, value: Any) -> tuple[int, int]:
    """Return width and height from ``imgdims`` (height, width, channels); 0, 0 where it is missing."""
    dims = as_numbers(value)
    if value is None or (dims is not None and not dims.size):
        return 0, 0
    dims = np.zeros(0) if dims is None else dims.ravel()
    if len(dims) < 2 or not (np.isfinite(dims).all() and (dims[:2] >= 1).all() and (dims[:2] < 2**31).all()):
        raise ValueError(f"{where}: 'imgdims' must be height, width, channels, got {shortened(value)}.")
    return int(dims[1]), int(dims[0])


def _box(where: str, value: Any, size_wh: tuple[int, int]) -> list[float]:
    torso = as_numbers(value)
    torso = np.zeros(0) if torso is None else torso.ravel()
    if torso.shape != (4,) or not np.isfinite(torso).all() or (np.abs(torso) >= 1e9).any():
        raise ValueError(f"{where}: 'torsobox' must be 4 numbers x1, y1, x2, y2, got {shortened(value)}.")
    if not (torso[2] > torso[0] and torso[3] > torso[1]):
        raise ValueError(f"{where}: 'torsobox' {torso.tolist()} (x1, y1, x2, y2) has no area.")
    x = (torso[0] + torso[2]) / 2 - 1.0
    y = (size_wh[1] - 1) / 2 if size_wh[1] else (torso[1] + torso[3]) / 2 - 1.0
    half = CROP_PX / 1.25 / 2
    return [x - half, y - half, x + half, y + half]
