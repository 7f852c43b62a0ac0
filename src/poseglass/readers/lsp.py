"""Leeds Sports Pose and its extended set.

Johnson and Everingham, "Clustered Pose and Nonlinear Appearance Models for Human Pose Estimation", BMVC 2010 (2,000
people, the first 1,000 for training), and "Learning Effective Human Pose Estimation from Inaccurate Annotation", CVPR
2011 (10,000 people, all for training; crowd-sourced labels). Research use; photographs from Flickr.

On disk::

    joints.mat       "joints": 3 x 14 x 2000 (LSP) or 14 x 3 x 10000 (extended)
    images/          im0001.jpg ... (LSP) or im00001.jpg ... (extended), one person each

The third number means opposite things in the two files. LSP: 1 = **hidden**; hidden joints are labelled too.
Extended: 1 = **labelled**; a joint with 0 has no usable coordinates.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from poseglass.core.boxes import around
from poseglass.core.instances import Instances
from poseglass.core.skeletons import LSP14
from poseglass.core.table import nearest
from poseglass.readers.labelled import LabelledImages, PackedLabels
from poseglass.readers.mat_file import as_numbers, read_mat

BODY_OVER_JOINTS = 1.2
"""The files have no boxes: a person's box is the joints' box with its sides enlarged by this factor."""


def lsp(
    annotations: str | Path,
    *,
    images: str | Path | None = None,
    split: Literal["train", "test"] | None = None,
    name: str | None = None,
) -> LabelledImages:
    """Read ``joints.mat`` of LSP or of LSP extended; the layout of the array decides which.

    Left and right are the person's own. Coordinates count from 1 in the file and from 0 here. Joints hidden in LSP are
    labelled with ``keypoint_extra["occluded"]``; unlabelled joints of the extended set are NaN. Boxes are those of the
    joints with sides enlarged 1.2 times.

    Args:
        annotations: ``joints.mat``.
        images: Folder of the images; None takes ``images`` beside the file if there is one, else the file's own folder.
        split: For LSP, "train" (the first half) or "test" (the second); the extended set is all "train". None reads
            all.
        name: Name of the dataset; None makes "lsp/train", "lspet" or the like.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not one of the two files, damaged, or with coordinates that are not numbers.
    """
    path = Path(annotations)
    if split not in (None, "train", "test"):
        hint = nearest(str(split), ("train", "test"))
        raise ValueError(f"split must be 'train', 'test' or None, got {split!r}.{hint}")
    raw = read_mat(path, "joints")
    array = as_numbers(raw)
    if array is None or array.ndim not in (2, 3) or array.shape[:2] not in ((3, 14), (14, 3)):
        got = type(raw).__name__ if array is None else " x ".join(map(str, array.shape)) or "one number"
        raise ValueError(f"{path}: 'joints' must be 3 x 14 x N numbers (LSP) or 14 x 3 x N (LSP extended), got {got}.")
    if array.ndim == 2:  # one person
        array = array[..., None]
    extended = array.shape[0] == 14
    values = array.transpose(2, 0, 1) if extended else array.transpose(2, 1, 0)  # (N, 14, 3)
    flag = values[..., 2]
    if not np.isin(flag, (0, 1)).all():
        person = int(np.flatnonzero(~np.isin(flag, (0, 1)).all(1))[0])
        odd = next(v for v in flag[person] if v not in (0, 1))
        raise ValueError(f"{path}: person {person + 1}: the third number of a joint must be 0 or 1, got {odd:g}.")
    labelled = flag == 1 if extended else np.ones(flag.shape, dtype=bool)
    points = values[..., :2] - 1.0
    wrong = labelled & ~(np.isfinite(points).all(-1) & (np.abs(points) < 1e9).all(-1))
    if wrong.any():
        person, joint = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{path}: person {person + 1}: {LSP14.keypoints[joint]!r} must have finite coordinates, "
            f"got {values[person, joint, :2].tolist()}."
        )
    points[~labelled] = np.nan
    hidden = (flag == 1) & labelled if not extended else np.zeros(flag.shape, dtype=bool)
    rows = np.arange(len(points))
    if split is not None:
        half = len(points) if extended else len(points) // 2
        rows = rows[:half] if split == "train" else rows[half:]
        if extended and split == "test":
            raise ValueError(f"{path} is LSP extended, which has no {split!r} people: all are for training.")
    points, hidden = points[rows], hidden[rows]
    tight = around(points)
    center, half = (tight[:, :2] + tight[:, 2:]) / 2, (tight[:, 2:] - tight[:, :2]) / 2 * BODY_OVER_JOINTS
    box = np.concatenate([center - half, center + half], 1)
    everyone = Instances.from_keypoints(LSP14, points, box_xyxy=box, keypoint_extra={"occluded": hidden})
    folder = Path(images) if images is not None else path.parent / "images"
    if images is None and not folder.is_dir():
        folder = path.parent
    digits = 5 if extended else 4
    kind = "lspet" if extended else "lsp"
    return LabelledImages(
        name=name or (f"{kind}/{split}" if split else kind),
        skeleton=LSP14,
        paths=tuple(folder / f"im{i + 1:0{digits}d}.jpg" for i in rows),
        labels=PackedLabels.by_image(everyone, np.arange(len(rows)), len(rows)),
        image_ids=tuple(int(i) + 1 for i in rows),
        notes=(
            "The third number is taken as 1 = labelled (LSP extended)."
            if extended
            else "The third number is taken as 1 = hidden (LSP); hidden joints are labelled.",
        ),
    )
