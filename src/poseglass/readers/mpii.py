"""MPII Human Pose in the four formats in which it is distributed.

Andriluka et al., "2D Human Pose Estimation: New Benchmark and State of the Art Analysis", CVPR 2014,
http://human-pose.mpi-inf.mpg.de; research use. The split of its training images into training and validation is
that of Tompson et al. (CVPR 2015): 22,246 and 2,958 people on 14,679 and 2,729 images.

=======================================  ==========================================================================
file                                     what it holds
=======================================  ==========================================================================
``mpii_human_pose_v1_u12_1.mat``         The official release: everything, with head boxes; test people unlabelled
``train.json``, ``valid.json``           Lists with "joints", "joints_vis", "center", "scale" (HRNet, mmpose). A joint
                                         is labelled or not; hidden ones are not marked
``mpii_annotations.json`` (``.gz``)      Lists with "joint_self", "objpos", "scale_provided" (the hourglass ports)
``train.h5``, ``valid.h5``               Newell's split: arrays "part", "visible", "center", "scale", "normalize";
                                         joints truncated to whole pixels
=======================================  ==========================================================================

Coordinates in all of them count from 1 (MATLAB); here the centre of the first pixel is 0, so 1 is subtracted.

A person's size is ``scale``, in units of 200 px. The protocol moves the centre down by ``15 * scale`` px, enlarges
``scale`` by 1.25 and crops a square of ``200 * scale`` px. ``valid.h5`` holds centre and scale after these two steps,
the other files before them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.skeletons import MPII16
from poseglass.core.table import nearest
from poseglass.readers.json_file import finite_number, read_json, shortened
from poseglass.readers.labelled import LabelledImages, PackedLabels
from poseglass.readers.mat_file import as_number, as_numbers, check_file, is_hdf5, is_mat, listed, read_hdf5, read_mat

FULL_BODY_SPAN = 0.78
"""Median extent of fully labelled people over 200 px times their scale: 0.87 before the adjustment, 0.70 after it
(measured on all 25,204 people). It shows which of the two a file holds."""


@dataclass(frozen=True, slots=True, eq=False)
class _People:
    """One row per person, in the file's coordinates and order."""

    image: list[str]
    joints: np.ndarray  # (N, 16, 2) float64, counted from 1, NaN = not labelled
    hidden: np.ndarray  # (N, 16) bool
    center: np.ndarray  # (N, 2) float64, counted from 1
    scale: np.ndarray  # (N,) float64, units of 200 px
    head_px: np.ndarray  # (N,) float64, NaN = unknown
    size_wh: np.ndarray  # (N, 2) int64, 0 = unknown


def mpii(
    annotations: str | Path,
    *,
    images: str | Path | None = None,
    split: Literal["train", "val", "test"] | None = None,
    head_boxes: str | Path | None = None,
    adjusted: bool | None = None,
    name: str | None = None,
) -> LabelledImages:
    """Read MPII in any of its forms (see the top of the module); the content decides which, not the name.

    ``box_xyxy`` is the **raw** person box about the protocol's centre: a square of ``200 * scale`` px about
    ``(x, y + 15 * scale)`` with the raw scale. An input with ``padding=1.25`` (the default of ``InputSpec``) then
    crops exactly what the protocol crops. The adjustment is thus applied once, whatever the file holds.

    ``keypoint_extra`` holds "occluded" (labelled but hidden, where the file marks it), ``extra`` "annotation_id" (the
    0-based row of the person among those read, for results in the file's order) and, where head boxes are known,
    "head_px": 0.6 times the diagonal of the head box, which normalises PCKh.

    Args:
        annotations: The file.
        images: Folder of the images; None takes ``images`` beside the file if there is one, else the file's own folder.
        split: Part of a file that holds several: "train" or "val" of ``mpii_annotations.json``, "train" or "test" of
            the official release. None reads all.
        head_boxes: ``detections_our_format.mat`` of the 2,958 validation people, for forms without head boxes.
        adjusted: Whether HDF5 files hold centre and scale after the protocol's adjustment. None assumes so, as in
            Newell's ``train.h5`` and ``valid.h5``, and rejects a file whose people contradict it.
        name: Name of the dataset; None makes "mpii/val" or the like.

    Raises:
        FileNotFoundError: No such file.
        ValueError: None of the formats, damaged, an invalid record, or a split that the file does not mark.
    """
    path = Path(annotations)
    if split not in (None, "train", "val", "test"):
        raise ValueError(f"split must be 'train', 'val', 'test' or None, got {split!r}.{nearest(str(split), SPLITS)}")
    check_file(path)
    if is_hdf5(path):
        people = _from_hdf5(path, split, adjusted)
    elif is_mat(path):
        people = _from_release(path, split)
    else:
        people = _from_json(path, split)
    if head_boxes is not None:
        people = _with_head_boxes(people, Path(head_boxes), path)
    return _grouped(people, path, images, name or f"mpii/{split or path.name.split('.')[0]}")


SPLITS = ("train", "val", "test")


def _grouped(people: _People, path: Path, images: str | Path | None, name: str) -> LabelledImages:
    folder = Path(images) if images is not None else path.parent / "images"
    if images is None and not folder.is_dir():
        folder = path.parent
    row_of: dict[str, int] = {}
    image_of = np.array([row_of.setdefault(file, len(row_of)) for file in people.image], dtype=np.int64)
    scale = people.scale[:, None]
    center = people.center - 1.0 + np.concatenate([0.0 * scale, 15.0 * scale], 1)
    box = np.concatenate([center - 100.0 * scale, center + 100.0 * scale], 1)
    joints = people.joints - 1.0
    labelled = np.isfinite(joints).all(-1)
    extra: dict[str, np.ndarray] = {
        "annotation_id": np.arange(len(people.image), dtype=np.int64),
    }
    if np.isfinite(people.head_px).any():
        extra["head_px"] = people.head_px.astype(np.float32)
    everyone = Instances.from_keypoints(
        MPII16, joints, box_xyxy=box, extra=extra, keypoint_extra={"occluded": people.hidden & labelled}
    )
    sizes = np.zeros((len(row_of), 2), dtype=np.int64)
    sizes[image_of] = people.size_wh
    labels = PackedLabels.by_image(everyone, image_of, len(row_of))
    return LabelledImages(
        name=name,
        skeleton=MPII16,
        paths=tuple(folder / file for file in row_of),
        labels=labels,
        image_ids=tuple(range(1, len(row_of) + 1)),
        sizes_wh=sizes if sizes.any() else None,
    )


# ---------------------------------------------------------------------------------------------------------------------
# JSON: the HRNet split, and the list of the hourglass ports.


def _from_json(path: Path, split: str | None) -> _People:
    data = read_json(path, max_bytes=512 * 1024**2)
    expected = "expected a list of people with 'joints' or 'joint_self'"
    if not isinstance(data, list):
        hint = " For COCO keypoint JSON use poseglass.readers.coco." if isinstance(data, dict) else ""
        raise ValueError(f"{path} is not MPII JSON: {expected}, got {type(data).__name__}.{hint}")
    records: list[dict[str, Any]] = []
    for row, record in enumerate(data):
        if not isinstance(record, dict):
            raise ValueError(f"{path}: person {row}: expected an object, got {shortened(record)}.")
        records.append(record)
    if not records:
        raise ValueError(f"{path} is an empty list: {expected}.")
    if any("joint_self" in r for r in records):
        return _from_ports(path, records, split)
    if not all("center" in r and "image" in r for r in records):
        keys = ", ".join(repr(k) for k in list(records[0])[:6])
        raise ValueError(f"{path} is not MPII JSON: {expected}, got a list of objects with {keys}.")
    if split is not None:
        raise ValueError(f"{path} is one part of MPII and does not mark splits; omit split=.")
    n = len(records)
    unlabelled = sum("joints" not in r for r in records)
    if unlabelled not in (0, n):
        row = next(i for i, r in enumerate(records) if "joints" not in r)
        raise ValueError(f"{path}: person {row} has no 'joints' while others have; the file is damaged.")
    joints = np.full((n, 16, 2), np.nan)
    if not unlabelled:
        joints = _block(path, records, "joints", (16, 2))
        seen = _block(path, records, "joints_vis", (16,))
        joints[seen <= 0] = np.nan
    return _People(
        image=_names(path, records, "image"),
        joints=joints,
        hidden=np.zeros((n, 16), dtype=bool),
        center=_block(path, records, "center", (2,)),
        scale=_positive(path, _block(path, records, "scale", ()), "scale"),
        head_px=np.full(n, np.nan),
        size_wh=np.zeros((n, 2), dtype=np.int64),
    )


def _from_ports(path: Path, records: list[dict[str, Any]], split: str | None) -> _People:
    rows = range(len(records))
    if split is not None:
        if split == "test":
            raise ValueError(
                f"{path} holds 'train' and 'val' people, not 'test'; the test labels were never published."
            )
        validation = _block(path, records, "isValidation", ())
        rows = [i for i in rows if (validation[i] != 0) == (split == "val")]
    records = [records[i] for i in rows]
    xyv = _block(path, records, "joint_self", (16, 3))
    joints = xyv[..., :2].copy()
    joints[(joints == 0).all(-1)] = np.nan
    sizes = np.zeros((len(records), 2), dtype=np.int64)
    if all("img_width" in r and "img_height" in r for r in records):
        sides = [_positive(path, _block(path, records, f, ()), f) for f in ("img_width", "img_height")]
        sizes = np.stack(sides, 1).clip(0, 2**31).astype(np.int64)
    return _People(
        image=_names(path, records, "img_paths"),
        joints=joints,
        hidden=xyv[..., 2] == 0,
        center=_block(path, records, "objpos", (2,)),
        scale=_positive(path, _block(path, records, "scale_provided", ()), "scale_provided"),
        head_px=np.full(len(records), np.nan),
        size_wh=sizes,
    )


def _block(path: Path, records: Sequence[dict[str, Any]], field: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return one field of all people as float64, ``(N, *shape)``; an error names the first that does not fit."""
    values = [r.get(field) for r in records]
    try:
        block = np.array(values)
    except (ValueError, OverflowError):
        block = np.array(None)
    if block.shape == (len(records), *shape) and block.dtype.kind in "iuf":
        block = block.astype(np.float64)
        if np.isfinite(block).all() and (np.abs(block) < 1e9).all():
            return block
    wanted = " x ".join(str(s) for s in shape) + " numbers" if shape else "a number"
    for row, value in enumerate(values):
        if not _fits(value, shape):
            raise ValueError(f"{path}: person {row}: {field!r} must be {wanted}, got {shortened(value)}.")
    return np.array(values, dtype=np.float64).reshape(len(records), *shape)


def _fits(value: Any, shape: tuple[int, ...]) -> bool:
    if not shape:
        number = finite_number(value)
        return number is not None and abs(number) < 1e9
    return isinstance(value, list) and len(value) == shape[0] and all(_fits(v, shape[1:]) for v in value)


def _names(path: Path, records: Sequence[dict[str, Any]], field: str) -> list[str]:
    for row, record in enumerate(records):
        value = record.get(field)
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ValueError(f"{path}: person {row}: {field!r} must be the name of an image, got {shortened(value)}.")
    return [record[field] for record in records]


def _positive(path: Path, values: np.ndarray, field: str) -> np.ndarray:
    wrong = np.flatnonzero(~(values > 0))
    if len(wrong):
        raise ValueError(f"{path}: person {wrong[0]}: {field!r} must be above 0, got {values[wrong[0]]:g}.")
    return values


# ---------------------------------------------------------------------------------------------------------------------
# HDF5: Newell's split.


def _from_hdf5(path: Path, split: str | None, adjusted: bool | None) -> _People:
    if split is not None:
        raise ValueError(f"{path} is one part of MPII and does not mark splits; omit split=.")
    found = read_hdf5(path, ("imgname", "part", "visible", "center", "scale", "normalize"))
    n = len(found["part"]) if "part" in found and found["part"].ndim else 0
    shapes = {"imgname": (n,), "part": (n, 16, 2), "center": (n, 2), "scale": (n,), "visible": (n, 16)}
    for field, shape in shapes.items():
        array = found.get(field)
        if array is None or (array.shape != shape and field != "imgname"):
            got = "nothing" if array is None else str(array.shape)
            raise ValueError(f"{path} is not MPII in HDF5: expected {field!r} of shape {shape}, got {got}.")
    for field in ("part", "center", "scale", "visible"):
        array = found[field]
        numbers = as_numbers(array)
        if numbers is None or not (np.isfinite(numbers) & (np.abs(numbers) < 1e9)).all():
            raise ValueError(f"{path}: {field!r} must be finite numbers, got {array.dtype} with others among them.")
    names = _hdf5_names(path, found["imgname"], n)
    part = found["part"].astype(np.float64)
    part[(part == 0).all(-1)] = np.nan
    scale = _positive(path, found["scale"].astype(np.float64), "scale")
    if adjusted is None:
        adjusted = True
        span = _full_body_span(part, scale)
        if span is not None and span > FULL_BODY_SPAN:
            raise ValueError(
                f"{path}: people extend over {span:.2f} of 200 px times their scale, as before the protocol's "
                "adjustment of centre and scale (0.87; after it 0.70). Pass adjusted=False, or True if you are sure."
            )
    center = found["center"].astype(np.float64)
    if adjusted:
        scale = scale / 1.25
        center = center - np.stack([0.0 * scale, 15.0 * scale], 1)
    head = as_numbers(found.get("normalize"))
    if head is None or head.shape != (n,):
        head = np.full(n, np.nan)
    return _People(
        image=names,
        joints=part,
        hidden=found["visible"] == 0,
        center=center,
        scale=scale,
        head_px=np.where((head > 0) & (head < 1e9), head, np.nan),
        size_wh=np.zeros((n, 2), dtype=np.int64),
    )


def _hdf5_names(path: Path, names: np.ndarray, n: int) -> list[str]:
    """Return names stored as fixed bytes, as strings, or (by the Lua writer) as rows of character codes."""
    if names.ndim == 2 and names.dtype.kind in "iuf" and len(names) == n and ((names >= 0) & (names < 128)).all():
        return [bytes(int(c) for c in row if c).decode("ascii") for row in names]
    if names.shape == (n,) and names.dtype.kind in "SO":
        texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in names.tolist()]
        if all(text.strip() and "\0" not in text for text in texts):
            return texts
    raise ValueError(f"{path} is not MPII in HDF5: expected {n} names in 'imgname', got {names.dtype} {names.shape}.")


def _full_body_span(part: np.ndarray, scale: np.ndarray) -> float | None:
    """Return the median extent of fully labelled people over 200 px times scale; None with fewer than 50 of them."""
    full = np.isfinite(part).all((1, 2))
    if full.sum() < 50:
        return None
    extent = (part[full].max(1) - part[full].min(1)).max(-1)
    return float(np.median(extent / (200.0 * scale[full])))


# ---------------------------------------------------------------------------------------------------------------------
# The official release.


def _from_release(path: Path, split: str | None) -> _People:
    if split == "val":
        raise ValueError(
            f"{path} has 'train' and 'test'; the validation people are a subset of 'train' chosen by Tompson et al. "
            "Use mpii_annotations.json, valid.json or valid.h5 for them."
        )
    release = read_mat(path, "RELEASE")
    if not isinstance(release, dict) or "annolist" not in release or "img_train" not in release:
        raise ValueError(
            f"{path}: 'RELEASE' must be a struct with 'annolist' and 'img_train', got {shortened(release)}."
        )
    images, flags = listed(release["annolist"]), listed(release["img_train"])
    if len(images) != len(flags):
        raise ValueError(f"{path}: {len(images)} images in 'annolist' need as many 'img_train', got {len(flags)}.")
    names: list[str] = []
    rows: list[tuple[np.ndarray, np.ndarray, float, float, float, float]] = []
    for number, (image, flag) in enumerate(zip(images, flags, strict=True)):
        if split is not None and (as_number(flag) == 1) != (split == "train"):
            continue
        where = f"{path}: image {number + 1}"
        file = image.get("image", {}) if isinstance(image, dict) else {}
        file = file.get("name") if isinstance(file, dict) else file
        if not isinstance(file, str) or not file.strip() or "\0" in file:
            raise ValueError(f"{where}: 'image.name' must be the name of an image, got {shortened(file)}.")
        for person in listed(image.get("annorect")):
            row = _release_person(where, person)
            if row is not None:
                names.append(file)
                rows.append(row)
    n = len(rows)
    return _People(
        image=names,
        joints=np.array([r[0] for r in rows]).reshape(n, 16, 2),
        hidden=np.array([r[1] for r in rows], dtype=bool).reshape(n, 16),
        center=np.array([r[2:4] for r in rows], dtype=np.float64).reshape(n, 2),
        scale=np.array([r[4] for r in rows], dtype=np.float64),
        head_px=np.array([r[5] for r in rows], dtype=np.float64),
        size_wh=np.zeros((n, 2), dtype=np.int64),
    )


def _release_person(where: str, person: Any) -> tuple[np.ndarray, np.ndarray, float, float, float, float] | None:
    """Return joints, hidden, centre x and y, scale and head size; None for a box without position (head box only)."""
    if not isinstance(person, dict):
        return None
    position, scale = person.get("objpos"), as_number(person.get("scale"))
    if not isinstance(position, dict) or scale is None:
        return None
    x, y = as_number(position.get("x")), as_number(position.get("y"))
    if x is None or y is None or not scale > 0:
        raise ValueError(
            f"{where}: 'objpos' must have x and y and 'scale' be above 0, got {shortened(position)} and {scale}."
        )
    joints, hidden = np.full((16, 2), np.nan), np.zeros(16, dtype=bool)
    points = person.get("annopoints")
    for point in listed(points.get("point")) if isinstance(points, dict) else []:
        values = [as_number(point.get(f)) for f in ("id", "x", "y")] if isinstance(point, dict) else [None]
        if any(v is None for v in values):
            raise ValueError(f"{where}: a point must have numbers x, y and id, got {shortened(point)}.")
        key, px, py = (float(v) for v in values if v is not None)
        if not (key.is_integer() and 0 <= key < 16):
            raise ValueError(f"{where}: a point has id {key:g}, expected 0 to 15.")
        joints[int(key)] = px, py
        seen = point.get("is_visible")  # "1", 1, "0", 0 or nothing
        hidden[int(key)] = seen == "0" if isinstance(seen, str) else as_number(seen) == 0
    corners = [as_number(person.get(f)) for f in ("x1", "y1", "x2", "y2")]
    head = np.nan
    if all(c is not None for c in corners):
        x1, y1, x2, y2 = (float(c) for c in corners if c is not None)
        head = 0.6 * float(np.hypot(x2 - x1, y2 - y1)) or np.nan
    return joints, hidden, x, y, scale, head


# ---------------------------------------------------------------------------------------------------------------------
# Head boxes of the evaluation.


def _with_head_boxes(people: _People, path: Path, annotations: Path) -> _People:
    """Add head sizes from the file of the official evaluation, whose people must be the same in the same order."""
    boxes, truth = as_numbers(read_mat(path, "headboxes_src")), as_numbers(read_mat(path, "pos_gt_src"))
    n = len(people.image)
    if boxes is None or truth is None or boxes.shape != (2, 2, n) or truth.shape != (16, 2, n):
        count = boxes.shape[-1] if boxes is not None and boxes.ndim else 0
        raise ValueError(
            f"{path} has {count} head boxes, {annotations} has {n} people; they must be the same people in the same "
            "order (split='val' of a file that holds all)."
        )
    distance = np.linalg.norm(truth.transpose(2, 0, 1) - people.joints, axis=-1)
    agree = np.nanmedian(np.where(np.isfinite(distance), distance, np.nan)) if np.isfinite(distance).any() else np.inf
    if not agree < 2.0:
        raise ValueError(
            f"{path}: its joints are {agree:.0f} px (median) from those of {annotations}; the people are not the same, "
            "or in another order."
        )
    head = 0.6 * np.linalg.norm(boxes[0] - boxes[1], axis=0)
    return _People(
        people.image, people.joints, people.hidden, people.center, people.scale, head, people.size_wh
    )  # fmt: skip
