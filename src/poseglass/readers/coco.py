"""COCO keypoint JSON with any skeleton.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, https://arxiv.org/abs/1405.0312; the format:
https://cocodataset.org/#format-data. Annotations of COCO itself are CC BY 4.0, its images have licences of their own.

On disk::

    annotations.json     {"images": [...], "annotations": [...], "categories": [...]}, may be gzipped
    images/              or the images beside the JSON, or wherever images= says

Coordinates are taken as they are: COCO's keypoints are 0-based pixel indices, which is the frame used here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from poseglass.core.skeleton import Skeleton
from poseglass.core.table import nearest
from poseglass.readers.coco_categories import finish_skeleton, read_categories
from poseglass.readers.coco_records import Faults, read_image_table, read_people
from poseglass.readers.json_file import read_json
from poseglass.readers.labelled import LabelledImages, PackedLabels

Handling = Literal["keep", "drop"]


def coco(
    annotations: str | Path,
    *,
    images: str | Path | None = None,
    category: str | int | Sequence[str | int] | None = None,
    skeleton: Skeleton | dict[str, Any] | None = None,
    flip_pairs: Iterable[tuple[str, str]] | None = None,
    sigmas: Sequence[float] | Mapping[str, float] | None = None,
    crowd: Handling = "keep",
    unlabelled: Handling = "keep",
    bad: Literal["raise", "drop"] = "raise",
    name: str | None = None,
) -> LabelledImages:
    """Read COCO keypoint JSON, with whatever keypoints its categories have.

    Visibility: ``v = 0`` is unlabelled (NaN, score 0, coordinates ignored), ``v = 1`` labelled but hidden
    (``keypoint_extra["occluded"]``), ``v = 2`` labelled and visible. A file without any 2 uses 1 for "labelled"; then
    nothing counts as hidden, and a note says so.

    A file whose keypoints are those of a known skeleton (``core.skeletons.SKELETONS``), in its order, gets that
    skeleton with its bones. ``extra`` holds "area", "crowd", "occluded", "annotation_id" and "category_id", and
    "head_px" and "torso_px" where every annotation has them. Images without annotations stay: nobody is to be found
    there.

    Args:
        annotations: The JSON file, plain or gzipped.
        images: Folder that ``file_name`` starts from; None takes the folder "images" beside the JSON if there is
            one, else the JSON's own.
        category: Name or id of the categories to read, one or several; None reads every one that has keypoints.
            Categories with different keypoints get one skeleton, matched by name.
        skeleton: Names the keypoints in the file's order, for a file that does not name them or names them badly.
        flip_pairs: Pairs of names that change places in a flip. None takes the file's "flip_pairs", else left and
            right in the names.
        sigmas: OKS constants, in order or by name. None takes the file's "sigmas", else COCO's own for the names it
            has and an estimate (see ``estimate_sigmas``) for the others, with a note.
        crowd: What becomes of boxes around crowds: "keep" marks them in ``extra["crowd"]``.
        unlabelled: What becomes of people without any labelled keypoint. OKS-AP needs them as regions to ignore.
        bad: "raise" refuses a file with a faulty record; "drop" leaves the record out and notes why.
        name: Of the dataset; None takes the file's.

    Raises:
        FileNotFoundError: No such JSON file.
        ValueError: Not JSON, not COCO, or a faulty record; the message names file, record and field.
    """
    path = Path(annotations)
    _check_choice("crowd", crowd, ("keep", "drop"))
    _check_choice("unlabelled", unlabelled, ("keep", "drop"))
    _check_choice("bad", bad, ("raise", "drop"))
    data = read_json(path, drop=("segmentation",))
    notes: list[str] = []
    if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("images", "annotations")):
        raise ValueError(f"{path} is not COCO keypoint JSON: {_what_instead(data)}")
    faults = Faults(path, drop=bad == "drop")
    chosen = read_categories(path, data, category, skeleton, notes)
    table = read_image_table(path, data["images"], faults)
    folder = Path(images) if images is not None else _default_folder(path)
    people, image_of = read_people(path, data["annotations"], chosen, table, faults, notes)

    keep = np.ones(len(people), dtype=bool)
    if crowd == "drop":
        keep &= ~people.extra["crowd"]
    if unlabelled == "drop":
        keep &= people.known.any(1)
    if not keep.all():
        people, image_of = people[keep], image_of[keep]
    final = finish_skeleton(path, chosen, people, flip_pairs, sigmas, notes)
    labels = PackedLabels.by_image(replace(people, skeleton=final), image_of, len(table.ids))
    return LabelledImages(
        name=name or path.name.removesuffix(".gz").removesuffix(".json"),
        skeleton=final,
        paths=tuple(folder / f for f in table.file_names),
        labels=labels,
        image_ids=tuple(table.ids),
        sizes_wh=table.sizes_wh,
        notes=tuple(notes + faults.notes()),
    )


def _what_instead(data: Any) -> str:
    expected = "expected an object with 'images', 'annotations' and 'categories'"
    if isinstance(data, list):
        if data and isinstance(data[0], dict) and "image_id" in data[0]:
            return f"{expected}, got a list of results. Results are scored against annotations; pass those here."
        if data and isinstance(data[0], dict) and ("joints" in data[0] or "joint_self" in data[0]):
            return f"{expected}, got a list of MPII records. Use poseglass.readers.mpii for it."
        return f"{expected}, got a list of {len(data)}."
    if isinstance(data, dict):
        keys = ", ".join(repr(k) for k in list(data)[:6]) or "nothing"
        return f"{expected} (lists), got an object with {keys}."
    return f"{expected}, got {type(data).__name__}."


def _default_folder(path: Path) -> Path:
    beside = path.parent / "images"
    return beside if beside.is_dir() else path.parent


def _check_choice(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"{field} must be {' or '.join(repr(k) for k in known)}, got {value!r}.{nearest(value, known)}"
        )
