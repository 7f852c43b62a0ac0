"""What an audit looks at: every record of a set of labels in flat arrays, the broken ones told apart, not raised.

The readers of this package raise at the first record they cannot use; here a COCO file is read leniently, so that one
audit lists all of them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.boxes import xywh_to_xyxy
from poseglass.core.image import read_image
from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import SKELETONS
from poseglass.readers.json_file import read_json

KINDS: dict[str, str] = {
    "wrong-k": "keypoint list of the wrong length",
    "bad-record": "record that cannot be used",
    "bad-category": "category without usable keypoint names",
    "flip-pair": "flip pair that the data contradict",
    "observer-sides": "left and right are the observer's",
    "normalised": "coordinates are fractions, not pixels",
    "visibility-value": "visibility other than 0, 1, 2",
    "labelled-at-origin": "labelled keypoint at 0, 0",
    "unlabelled-with-place": "unlabelled keypoint with coordinates",
    "visibility-constant": "visibility says nothing",
    "num-keypoints": "num_keypoints does not match",
    "outside-image": "keypoint outside the image",
    "outside-box": "keypoint far outside the box",
    "box-elsewhere": "box not around the keypoints",
    "box-empty": "box of no area or no box",
    "box-outside-image": "box outside the image",
    "swapped-body": "left and right swapped, whole body",
    "swapped-arms": "left and right swapped, arms",
    "swapped-legs": "left and right swapped, legs",
    "swapped-part": "left and right swapped, part of the body",
    "joint-misplaced": "joint where it can hardly be",
    "impossible-bone": "bone far too long",
    "zero-bone": "two joints of a bone in one place",
    "duplicate-person": "person labelled twice",
    "image-missing": "image missing",
    "image-unreadable": "image unreadable",
    "image-size": "image of another size than declared",
    "image-named-twice": "image listed twice",
    "duplicate-image": "same image under two names",
    "leakage": "image also in the other set",
}
"""What is looked for: the kind of a finding and its name in words. The order is that of the tables."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or probably wrong.

    Args:
        kind: A key of ``KINDS``.
        severity: "error" where a rule is broken, "warning" where it is probable.
        sure: In [0, 1]: 1 for a broken rule, else the estimated probability that something is wrong.
        text: In plain words, with what to do.
        image: Name of the image, empty where it concerns the whole set.
        annotation: Id of the annotation, or None.
        keypoints: Names of those concerned.
        value: The number measured, or None.
        count: How many people (or images) this one finding stands for: systematic faults are told once.
        person: Group and row in ``Labels.groups``, for the image; None where no person is concerned.
        image: Index in ``Labels.images``, or None.
        other: Index of a second image (duplicates), or None.
    """

    kind: str
    severity: str
    sure: float
    text: str
    image: str = ""
    annotation: int | str | None = None
    keypoints: tuple[str, ...] = ()
    value: float | None = None
    count: int = 1
    person: tuple[int, int] | None = None
    image_index: int | None = None
    other: int | None = None


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image as the labels name it.

    Args:
        name: As the file of labels gives it.
        path: Where it is, or None where the set keeps no files.
        size_wh: As declared, pixels, or None.
    """

    name: str
    path: Path | None
    size_wh: tuple[int, int] | None


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """N records of one skeleton.

    Args:
        skeleton: Of all of them.
        xy: ``(N, K, 2)`` float64, image pixels, NaN where not labelled or not finite.
        raw: ``(N, K, 3)`` float64, x, y and visibility as written.
        box_xyxy: ``(N, 4)`` float64, NaN where there is none.
        area: ``(N,)`` square pixels, NaN where not given.
        image: ``(N,)`` int64, index into ``Labels.images``.
        annotation: N ids.
        crowd: ``(N,)`` bool.
        declared: ``(N,)`` int64, ``num_keypoints`` as written, -1 where it is not.
        has_visibility: Whether ``raw[..., 2]`` was written by someone (a dataset's is derived).
    """

    skeleton: Skeleton
    xy: np.ndarray
    raw: np.ndarray
    box_xyxy: np.ndarray
    area: np.ndarray
    image_index: np.ndarray
    annotation: list[int | str]
    crowd: np.ndarray
    declared: np.ndarray
    has_visibility: bool = True

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def known(self) -> np.ndarray:
        """``(N, K)`` bool: labelled, with finite coordinates."""
        return known_keypoints(self.xy)


def known_keypoints(xy: np.ndarray) -> np.ndarray:
    """Return ``(N, K)`` bool: both coordinates of ``(N, K, 2)`` are finite."""
    finite: np.ndarray = np.isfinite(xy)
    return np.logical_and(finite[..., 0], finite[..., 1])


@dataclass(slots=True, eq=False)
class Labels:
    """Everything an audit reads.

    Args:
        name: For headings.
        images: All images.
        groups: The records, one group per skeleton.
        findings: What was wrong with records that are in no group.
        notes: What the user should know of how it was read.
        load: ``(index, reduce) -> image``; raises as ``read_image``.
    """

    name: str
    image_files: list[ImageFile]
    groups: list[People]
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load: Callable[[int, int], np.ndarray] | None = None

    @property
    def num_people(self) -> int:
        """Records of all groups."""
        return sum(len(g) for g in self.groups)

    def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
        """Return an image ``(H, W, 3)`` uint8 RGB, decoded at ``1 / reduce`` of its size or larger.

        Raises:
            FileNotFoundError, ValueError: As ``read_image``.
        """
        if self.load is not None:
            return self.load(index, reduce)
        path = self.image_files[index].path
        if path is None:
            raise FileNotFoundError(f"{self.image_files[index].name}: the labels do not say where this image is.")
        return read_image(path, reduce=reduce)


def labels_of(dataset: Dataset, name: str = "dataset") -> Labels:
    """Lay out a dataset for an audit. Visibility is derived: 2 known, 1 known and occluded, 0 not known."""
    paths = getattr(dataset, "paths", None)
    sizes = getattr(dataset, "sizes_wh", None)
    image_files: list[ImageFile] = []
    parts: list[Instances] = []
    owner: list[int] = []
    for i in range(len(dataset)):
        size = (int(sizes[i][0]), int(sizes[i][1])) if sizes is not None and min(sizes[i]) > 0 else None
        source = dataset.source(i)
        image_files.append(ImageFile(Path(source).name, Path(paths[i]) if paths is not None else None, size))
        part = dataset.instances(i)
        parts.append(part)
        owner += [i] * len(part)
    k, n = len(dataset.skeleton), len(owner)

    def column(values: list[np.ndarray], *shape: int) -> np.ndarray:
        return np.concatenate(values).astype(np.float64) if values else np.zeros((0, *shape))

    xy = column([p.xy for p in parts], k, 2)
    known = column([p.known for p in parts], k) > 0
    occluded = column([np.asarray(p.keypoint_extra.get("occluded", np.zeros((len(p), k)))) for p in parts], k) > 0
    xy = np.where(known[..., None], xy, np.nan)
    raw = np.concatenate([np.nan_to_num(xy), np.where(known, np.where(occluded, 1.0, 2.0), 0.0)[..., None]], -1)
    ids = column([np.asarray(p.extra.get("annotation_id", np.full(len(p), -1))) for p in parts])
    people = People(
        dataset.skeleton, xy, raw,
        column([p.box_xyxy for p in parts], 4),
        column([np.asarray(p.extra.get("area", np.full(len(p), np.nan))) for p in parts]),
        np.array(owner, np.int64),
        [int(a) if a >= 0 else row for row, a in enumerate(ids)],
        column([np.asarray(p.extra.get("crowd", np.zeros(len(p)))) for p in parts]) > 0,
        np.full(n, -1, np.int64),
        has_visibility=False,
    )  # fmt: skip
    notes = [str(n) for n in getattr(dataset, "notes", ())]
    return Labels(name, image_files, [people], notes=notes, load=lambda i, reduce: dataset.image(i, reduce=reduce))


def read_coco_leniently(
    path: str | Path, *, images: str | Path | None = None, flip: tuple[int, ...] | None = None
) -> Labels:
    """Read a COCO keypoint file and list what is wrong with its records instead of raising at the first.

    Args:
        path: The JSON file.
        images: Folder of the images; None looks beside the file, in ``images`` beside it, and as COCO lays it out.
        flip: K positions after flipping (``flip_idx``) to test instead of those that the names give.

    Raises:
        FileNotFoundError: No such file, or no such folder of images.
        ValueError: Not JSON, not a COCO keypoint file at all, or ``flip`` does not fit.
    """
    path = Path(path)
    data = read_json(path, drop=("segmentation",))
    if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("images", "annotations")):
        came = (
            f"an object with {', '.join(map(repr, list(data)[:6]))}" if isinstance(data, dict) else type(data).__name__
        )
        raise ValueError(
            f"{path} is not COCO keypoint JSON: expected an object with the lists 'images' and 'annotations', got "
            f"{came or 'an empty object'}. For other formats pass --format."
        )
    findings: list[Finding] = []
    image_files, index_of = _image_files(data["images"], path, images, findings)
    annotations = [a for a in data["annotations"] if isinstance(a, dict)]
    if len(annotations) < len(data["annotations"]):
        lost = len(data["annotations"]) - len(annotations)
        findings.append(Finding("bad-record", "error", 1.0, f"{lost} annotations are no objects.", count=lost))
    if annotations and not any("keypoints" in a for a in annotations):
        raise ValueError(
            f"{path} holds {len(annotations)} annotations but none has 'keypoints': these are boxes or masks only. "
            "Give the keypoint file, such as person_keypoints_train2017.json."
        )
    groups: list[People] = []
    by_category: dict[Any, list[dict[str, Any]]] = {}
    for a in annotations:
        if "keypoints" in a:
            by_category.setdefault(_hashable(a.get("category_id")), []).append(a)
    categories = {_hashable(c.get("id")): c for c in data.get("categories") or [] if isinstance(c, dict)}
    _report_repeats([a.get("id") for a in annotations], "annotation", findings)
    for category_id, rows in by_category.items():
        skeleton = _skeleton(categories.get(category_id), category_id, rows, path.name, findings)
        if flip is not None and skeleton is not None:
            skeleton = with_flip(skeleton, flip)
        if skeleton is not None:
            groups.append(_people(skeleton, rows, index_of, image_files, findings))
    notes: list[str] = []
    if not by_category:
        notes.append("There is not a single annotation: nothing to audit but the images.")
    return Labels(path.name, image_files, groups, findings, notes)


def with_flip(skeleton: Skeleton, flip: tuple[int, ...]) -> Skeleton:
    """Return the skeleton with these positions after flipping.

    Raises:
        ValueError: They are not K positions of which each exchanges two or keeps one.
    """
    k = len(skeleton)
    if sorted(flip) != list(range(k)) or any(flip[flip[i]] != i for i in range(k)):
        raise ValueError(
            f"flip_idx must name each of the {k} keypoints of {skeleton.name!r} once, 0 to {k - 1}, and lead back to "
            f"where it came from when applied twice; got {list(flip)}."
        )
    pairs = tuple((skeleton.keypoints[i], skeleton.keypoints[j]) for i, j in enumerate(flip) if i < j)
    return Skeleton(skeleton.name, skeleton.keypoints, skeleton.bones, skeleton.sigmas, pairs)


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | str | float | None) else repr(value)


def _report_repeats(ids: list[Any], what: str, findings: list[Finding]) -> None:
    for value, times in Counter(map(_hashable, ids)).items():
        if times > 1 and value is not None:
            text = (
                f"The {what} id {value!r} is used {times} times; ids must be unique, or records overwrite each other."
            )
            findings.append(Finding("bad-record", "error", 1.0, text, annotation=value, value=times))


def _image_files(
    rows: list[Any], path: Path, images: str | Path | None, findings: list[Finding]
) -> tuple[list[ImageFile], dict[Any, int]]:
    folder = _image_folder(path, images, [r for r in rows if isinstance(r, dict)])
    image_files: list[ImageFile] = []
    index_of: dict[Any, int] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str) or row.get("id") is None:
            text = f"Image record {number} lacks 'id' or 'file_name': {str(row)[:80]}."
            findings.append(Finding("bad-record", "error", 1.0, text))
            continue
        size = (row.get("width"), row.get("height"))
        fine = all(isinstance(s, int | float) and s > 0 for s in size)
        index_of.setdefault(_hashable(row["id"]), len(image_files))
        image_files.append(
            ImageFile(row["file_name"], folder / row["file_name"], (int(size[0]), int(size[1])) if fine else None)  # type: ignore[arg-type]
        )
    _report_repeats([r.get("id") for r in rows if isinstance(r, dict)], "image", findings)
    for name, times in Counter(p.name for p in image_files).items():
        if times > 1:
            text = f"{name} is listed {times} times under different ids; its people are spread over them. Merge them."
            findings.append(Finding("image-named-twice", "error", 1.0, text, image=name, value=times))
    return image_files, index_of


def _image_folder(path: Path, images: str | Path | None, rows: list[dict[str, Any]]) -> Path:
    if images is not None:
        if not Path(images).is_dir():
            raise FileNotFoundError(f"No such folder of images: {images}. Pass --images with an existing folder.")
        return Path(images)
    names = [r["file_name"] for r in rows[:20] if isinstance(r.get("file_name"), str)]
    split = path.stem.removeprefix("person_keypoints_")
    beside = [path.parent / "images", path.parent, path.parent.parent / split, path.parent.parent / "images" / split]
    beside += [path.parent / split, path.parent.parent / "images", path.parent.parent]
    return next((f for f in beside if any((f / n).is_file() for n in names)), path.parent / "images")


def _skeleton(
    category: dict[str, Any] | None, category_id: Any, rows: list[dict[str, Any]], name: str, findings: list[Finding]
) -> Skeleton | None:
    """Names and bones of a category; where it has none, K as most records have it and numbers for names."""
    lengths = Counter(len(a["keypoints"]) // 3 for a in rows if isinstance(a["keypoints"], list))
    common = lengths.most_common(1)[0][0] if lengths else 0
    names = category.get("keypoints") if category else None
    if not isinstance(names, list) or not names or len({str(n) for n in names}) != len(names):
        problem = (
            f"annotations use category {category_id!r}, which 'categories' lacks" if category is None
            else f"category {category.get('name', category_id)!r} has no list of unique keypoint names"
        )  # fmt: skip
        text = f"In {name} {problem}: left and right cannot be told. Add 'keypoints': [names] to the category."
        findings.append(Finding("bad-category", "error", 1.0, text, count=len(rows)))
        return Skeleton(name, tuple(f"keypoint_{i}" for i in range(common))) if common else None
    keypoints = tuple(str(n) for n in names)
    bones: list[tuple[str, str]] = []
    for bone in category.get("skeleton") or []:  # type: ignore[union-attr]
        whole = isinstance(bone, list) and len(bone) == 2 and all(isinstance(b, int) for b in bone)
        if not whole or not all(1 <= b <= len(keypoints) for b in bone):
            text = (
                f"Bone {bone} of the category's 'skeleton' does not name two keypoints 1 to {len(keypoints)} (1-based)."
            )
            findings.append(Finding("bad-category", "error", 1.0, text))
            continue
        bones.append((keypoints[bone[0] - 1], keypoints[bone[1] - 1]))
    if not bones:
        known = next((s for s in SKELETONS.values() if set(s.keypoints) == set(keypoints)), None)
        bones = list(known.bones) if known else []
    known = next((s for s in SKELETONS.values() if s.keypoints == keypoints), None)
    pairs = _flip_pairs(category.get("flip_pairs"), keypoints, findings)  # type: ignore[union-attr]
    sigmas = known.sigmas if known else ()
    return Skeleton(str(category.get("name", name)), keypoints, tuple(bones), sigmas, pairs)  # type: ignore[union-attr]


def _flip_pairs(listed: Any, keypoints: tuple[str, ...], findings: list[Finding]) -> tuple[tuple[str, str], ...] | None:
    """Pairs of names as the category's own "flip_pairs" gives them; None where the names shall tell."""
    if listed is None:
        return None
    pairs: list[tuple[str, str]] = []
    taken: set[str] = set()
    for pair in listed if isinstance(listed, list) else [listed]:
        whole = isinstance(pair, list) and len(pair) == 2 and all(p in keypoints for p in pair)
        if not whole or taken & set(pair) or pair[0] == pair[1]:
            text = f"Flip pair {pair!r} of the category does not name two keypoints that stand in no other pair."
            findings.append(Finding("bad-category", "error", 1.0, text))
            continue
        taken |= set(pair)
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)


def _people(
    skeleton: Skeleton,
    rows: list[dict[str, Any]],
    index_of: dict[Any, int],
    image_files: list[ImageFile],
    findings: list[Finding],
) -> People:
    k = len(skeleton)
    kept: list[dict[str, Any]] = []
    owner: list[int] = []
    for row in rows:
        values, where = row["keypoints"], index_of.get(_hashable(row.get("image_id")))
        image = image_files[where].name if where is not None else ""
        annotation = _hashable(row.get("id"))

        def report(kind: str, text: str, value: float | None = None) -> None:
            findings.append(Finding(kind, "error", 1.0, text, image, annotation, value=value, image_index=where))  # noqa: B023

        if where is None:
            text = f"The annotation belongs to image id {row.get('image_id')!r}, which 'images' does not list."
            report("bad-record", text)
        elif not isinstance(values, list) or len(values) != 3 * k:
            got = f"{len(values)} numbers" if isinstance(values, list) else type(values).__name__
            if isinstance(values, list) and len(values) % 3 == 0:
                got += f", i.e. {len(values) // 3} keypoints"
            text = f"'keypoints' must hold 3 x {k} = {3 * k} numbers (x, y, visibility), got {got}."
            number = float(len(values)) / 3 if isinstance(values, list) else None
            report("wrong-k", text, number)
        elif not all(isinstance(v, int | float) and abs(v) < 1e9 for v in values):
            bad = next(v for v in values if not (isinstance(v, int | float) and abs(v) < 1e9))
            text = f"'keypoints' holds {bad!r}, which is no finite number."
            report("bad-record", text)
        else:
            kept.append(row)
            owner.append(where)
    n = len(kept)
    raw = np.array([r["keypoints"] for r in kept], np.float64).reshape(n, k, 3)
    boxes = np.full((n, 4), np.nan)
    for i, row in enumerate(kept):
        box = row.get("bbox")
        if isinstance(box, list) and len(box) == 4 and all(isinstance(b, int | float) for b in box):
            boxes[i] = box
    areas = [r.get("area") if isinstance(r.get("area"), int | float) else np.nan for r in kept]
    counts = [r["num_keypoints"] if isinstance(r.get("num_keypoints"), int) else -1 for r in kept]
    # A keypoint labelled at the very origin is reported by the rules and left out of the statistics.
    labelled = (raw[..., 2] > 0) & (raw[..., :2] != 0).any(-1)
    return People(
        skeleton,
        np.where(labelled[..., None], raw[..., :2], np.nan),
        raw,
        xywh_to_xyxy(boxes),
        np.array(areas, np.float64),
        np.array(owner, np.int64),
        [_hashable(r.get("id")) for r in kept],
        np.array([bool(r.get("iscrowd")) for r in kept], bool),
        np.array(counts, np.int64),
    )
