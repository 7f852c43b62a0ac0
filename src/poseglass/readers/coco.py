"""COCO keypoint JSON with any skeleton.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, https://arxiv.org/abs/1405.0312; the format:
https://cocodataset.org/#format-data. Annotations of COCO itself are CC BY 4.0; its images have their own licences.

On disk::

    annotations.json     {"images": [...], "annotations": [...], "categories": [...]}, may be gzipped
    images/              or the images beside the JSON, or the folder passed as images=

Coordinates are used unchanged: COCO's keypoints are 0-based pixel indices, as in the frame used here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from poseglass.core.levels import check_white
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import nearest
from poseglass.readers.coco_categories import finish_skeleton, read_categories, read_classes
from poseglass.readers.coco_choice import Allowed, chosen_images
from poseglass.readers.coco_records import Faults, check_together, people_of, read_image_table, read_records
from poseglass.readers.image_files import default_folder, find_images
from poseglass.readers.json_file import read_json
from poseglass.readers.labelled import LabelledImages, PackedLabels

Handling = Literal["keep", "drop"]


def coco(
    annotations: str | Path,
    *,
    images: str | Path | None = None,
    where: Mapping[str, Allowed] | None = None,
    category: str | int | Sequence[str | int] | None = None,
    boxes_only: bool = False,
    skeleton: Skeleton | dict[str, Any] | None = None,
    flip_pairs: Iterable[tuple[str, str]] | None = None,
    sigmas: Sequence[float] | Mapping[str, float] | None = None,
    crowd: Handling = "keep",
    unlabelled: Handling = "keep",
    bad: Literal["raise", "drop"] = "raise",
    box_format: Literal["xywh", "xyxy"] | None = None,
    area: Literal["file", "box"] = "file",
    sizes: Literal["declared", "file"] = "declared",
    boxes_complete: bool = True,
    white: float | None = None,
    name: str | None = None,
) -> LabelledImages:
    """Read COCO keypoint JSON with the keypoints of its categories.

    Visibility: ``v = 0`` is unlabelled (NaN, score 0, its coordinates are ignored), ``v = 1`` labelled but hidden
    (``keypoint_extra["occluded"]``), ``v = 2`` labelled and visible. A file without any 2 uses 1 for "labelled"; then
    nothing counts as hidden, and a note reports it.

    A file whose keypoints are those of a known skeleton (``core.skeletons.SKELETONS``), in its order, gets that
    skeleton with its bones. ``extra`` holds "area", "crowd", "occluded", "annotation_id" and "category_id", and
    "head_px" and "torso_px" where every annotation has them. Images without annotations are kept: they contain no
    labelled instance.

    Args:
        annotations: The JSON file, plain or gzipped.
        images: Folder that ``file_name`` is relative to; None takes the folder "images" beside the JSON if there is
            one, else the JSON's own folder.
        where: Which images to read, by fields of their records: ``{"split": "train2017"}``, or a list of allowed
            values, ``{"license": [4, 5]}``. With several fields an image must fit all. None reads every image.
        category: Name or id of the categories to read, one or several; None reads every one that has keypoints.
            Categories with different keypoints get one skeleton, matched by name. The label of an instance is the
            position of its category among those read, in the order of their ids; ``classes`` has their names.
        boxes_only: Read boxes of any categories (None: all of them) and no keypoints; the skeleton is empty. This is an
            option because many files have both, and a file that should have keypoints must not lose them unnoticed.
        skeleton: Names the keypoints in the file's order, for a file that names them badly or not at all.
        flip_pairs: Pairs of names that are swapped in a flip. None takes the file's "flip_pairs", else left and right
            in the names.
        sigmas: OKS constants, in order or by name. None takes the file's "sigmas", else COCO's own for the names it
            has and an estimate (see ``estimate_sigmas``) for the others, with a note.
        crowd: What to do with boxes around crowds: "keep" marks them in ``extra["crowd"]``.
        unlabelled: What to do with people without any labelled keypoint. OKS-AP needs them as regions to ignore.
        bad: "raise" rejects a file with an invalid record; "drop" skips the record and notes why. A record without a
            labelled keypoint that cannot be used (a box without area, an unknown image) is skipped either way.
        box_format: Format of "bbox": "xywh" as in COCO, "xyxy" for two corners. None takes "xywh", and rejects boxes
            that look like corners.
        area: "file" takes the annotations' "area", "box" the area of the box.
        sizes: "declared" rejects an image, when it is read, whose size is not the "width" and "height" of its record;
            "file" ignores those and takes the size of the image.
        boxes_complete: What holds for images whose record has no "boxes_complete": whether everybody in them has a box
            (see ``core.sample.boxes_complete``).
        white: For images of more than 8 bits, the value that becomes 255; see ``LabelledImages``.
        name: Name of the dataset; None takes the file's.

    Raises:
        FileNotFoundError: No such JSON file.
        ValueError: Not JSON, not COCO, or an invalid record; the message names file, record and field. Or ``where``
            names a field that no image has, or leaves none, or ``boxes_only`` comes with an option for keypoints.
    """
    path = Path(annotations)
    if boxes_only:
        about_keypoints = {
            "skeleton": skeleton is not None, "flip_pairs": flip_pairs is not None, "sigmas": sigmas is not None,
            'unlabelled = "drop"': unlabelled == "drop",
        }  # fmt: skip
        given = [option for option, is_given in about_keypoints.items() if is_given]
        if given:
            raise ValueError(
                f"{path}: boxes_only reads no keypoints, so {' and '.join(given)} cannot apply. Omit one or the other."
            )
    _check_choice("crowd", crowd, ("keep", "drop"))
    _check_choice("unlabelled", unlabelled, ("keep", "drop"))
    _check_choice("bad", bad, ("raise", "drop"))
    _check_choice("area", area, ("file", "box"))
    _check_choice("sizes", sizes, ("declared", "file"))
    if white is not None:
        check_white(white)
    if box_format is not None:
        _check_choice("box_format", box_format, ("xywh", "xyxy"))
    data = read_tables(path)
    notes: list[str] = []
    faults = Faults(path)
    chosen = (
        read_classes(path, data, category) if boxes_only else read_categories(path, data, category, skeleton, notes)
    )
    keep_images = chosen_images(path, data["images"], where, notes) if where else None
    table = read_image_table(path, data["images"], data["annotations"], faults, keep=keep_images, boxes_only=boxes_only)
    if sizes == "file":
        table = replace(table, sizes_wh=np.zeros_like(table.sizes_wh))
    records = read_records(data["annotations"], chosen, table, faults, corners=box_format == "xyxy")
    if bad == "raise":
        faults.refuse()
    check_together(path, records, table, guess_format=box_format is None)
    people, image_of = people_of(records, chosen, table, notes, box_areas=area == "box")
    paths = find_images(
        images if images is not None else default_folder(path, table.file_names), table.file_names, notes
    )

    keep = np.ones(len(people), dtype=bool)
    if crowd == "drop":
        keep &= ~people.extra["crowd"]
    if unlabelled == "drop":
        keep &= people.known.any(1)
    if not keep.all():
        notes.append(
            f"Excluded {int((~keep).sum()):,} annotations as configured: crowds or without a labelled keypoint."
        )
        people, image_of, left_out = people[keep], image_of[keep], image_of[~keep]
    else:
        left_out = image_of[:0]
    complete = _complete(table.boxes_complete, boxes_complete)
    if len(left_out):  # who was dropped is still in the image, and must not be learnt as background
        complete = np.ones(len(table.ids), bool) if complete is None else complete
        complete[left_out] = False
    final = finish_skeleton(path, chosen, people, flip_pairs, sigmas, notes)
    labels = PackedLabels.by_image(replace(people, skeleton=final), image_of, len(table.ids))
    return LabelledImages(
        name=name or path.name.removesuffix(".gz").removesuffix(".json"),
        skeleton=final,
        paths=paths,
        labels=labels,
        image_ids=tuple(table.ids),
        sizes_wh=table.sizes_wh,
        classes=chosen.classes,
        complete=complete,
        white=white,
        notes=tuple(notes + faults.notes()),
    )


def _complete(stated: list[bool | None], otherwise: bool) -> np.ndarray | None:
    """Return ``(M,)`` bool, whether everybody has a box; None if that holds for all images."""
    complete = np.array([otherwise if one is None else one for one in stated], dtype=bool)
    return None if complete.all() else complete


def read_tables(path: Path) -> dict[str, Any]:
    """Read an annotation file: an object with the lists "images" and "annotations".

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not JSON, or not COCO.
    """
    data = read_json(path, drop=("segmentation",))
    if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("images", "annotations")):
        raise ValueError(f"{path} is not COCO keypoint JSON: {_what_instead(data)}")
    return data


def _what_instead(data: Any) -> str:
    expected = "expected an object with 'images', 'annotations' and 'categories'"
    if isinstance(data, list):
        if data and isinstance(data[0], dict) and "image_id" in data[0]:
            return f"{expected}, got a list of results. Results are evaluated against annotations; pass those here."
        if data and isinstance(data[0], dict) and ("joints" in data[0] or "joint_self" in data[0]):
            return f"{expected}, got a list of MPII records. Use poseglass.readers.mpii."
        return f"{expected}, got a list of {len(data)}."
    if isinstance(data, dict):
        keys = ", ".join(repr(k) for k in list(data)[:6]) or "nothing"
        return f"{expected} (lists), got an object with {keys}."
    return f"{expected}, got {type(data).__name__}."


def _check_choice(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"{field} must be {' or '.join(repr(k) for k in known)}, got {value!r}.{nearest(value, known)}"
        )
