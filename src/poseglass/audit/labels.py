"""The input of an audit: every record of a set of labels in flat arrays; invalid records are listed, not raised.

Records are read by the readers' own parser (``readers.coco_records``), which lists what is wrong with them: a reader
raises the first error, an audit reports all. So labels that pass an audit can be read, and what a reader rejects is
found by an audit.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from poseglass.core.boxes import area as box_area
from poseglass.core.boxes import xywh_to_xyxy
from poseglass.core.image import read_header, read_image, read_with_levels, white_levels
from poseglass.core.instances import Instances
from poseglass.core.levels import WhiteLevels
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.readers.coco import read_tables
from poseglass.readers.coco_categories import Categories, finish_skeleton, read_categories
from poseglass.readers.coco_records import Fault, Faults, people_of, read_image_table, read_records
from poseglass.readers.image_files import default_folder, find_images
from poseglass.readers.json_file import whole_number
from poseglass.readers.notes import labelled_names, mirroring_note, notes_of, unlabelled_note
from poseglass.readers.sigmas import KNOWN_SIGMAS

KINDS: dict[str, str] = {
    "wrong-k": "keypoint list of the wrong length",
    "bad-record": "record that cannot be used",
    "bad-category": "category without usable keypoint names",
    "flip-pair": "flip pair that the data contradict",
    "observer-sides": "left and right are the observer's",
    "not-symmetric": "flipping may be wrong for this object",
    "nothing-labelled": "nothing is labelled",
    "normalised": "coordinates are fractions, not pixels",
    "visibility-value": "visibility other than 0, 1, 2",
    "labelled-at-origin": "labelled keypoint at 0, 0",
    "unlabelled-with-place": "unlabelled keypoint with coordinates",
    "visibility-constant": "visibility is the same everywhere",
    "num-keypoints": "num_keypoints does not match",
    "outside-image": "keypoint outside the image",
    "outside-box": "keypoint far outside the box",
    "box-elsewhere": "box not around the keypoints",
    "box-empty": "box without area or no box",
    "box-outside-image": "box outside the image",
    "box-corners": "box that looks like two corners",
    "area": "area that cannot be that of the box",
    "swapped-body": "left and right swapped, whole body",
    "swapped-arms": "left and right swapped, arms",
    "swapped-legs": "left and right swapped, legs",
    "swapped-part": "left and right swapped, part of the body",
    "joint-misplaced": "joint in an implausible place",
    "impossible-bone": "bone far too long",
    "zero-bone": "two joints of a bone at the same point",
    "duplicate-person": "person labelled twice",
    "image-missing": "image missing",
    "image-unreadable": "image unreadable",
    "image-size": "image of another size than declared",
    "image-named-twice": "image listed twice",
    "duplicate-image": "same image under two names",
    "leakage": "image also in the other set",
}
"""What is looked for: the kind of a finding and its description. The order is that of the tables."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or probably wrong.

    Args:
        kind: A key of ``KINDS``.
        severity: "error" for a broken rule, "warning" for a probable error.
        sure: In [0, 1]: 1 for a broken rule, else the estimated probability that something is wrong.
        text: A plain description, with what to do.
        image: Name of the image, empty if the finding concerns the whole set.
        annotation: Id of the annotation, or None.
        keypoints: Names of the keypoints concerned.
        value: The number measured, or None.
        count: How many people (or images) this finding stands for: systematic errors are reported once.
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
    """One image as named in the labels.

    Args:
        name: As in the label file.
        path: Its path, or None where the set has no files.
        size_wh: As declared, pixels, or None.
    """

    name: str
    path: Path | None
    size_wh: tuple[int, int] | None


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """N records of one skeleton.

    Args:
        skeleton: Skeleton of all of them.
        xy: ``(N, K, 2)`` float64, image pixels, NaN where not labelled or not finite.
        raw: ``(N, K, 3)`` float64, x, y and visibility as written.
        box_xyxy: ``(N, 4)`` float64, NaN where there is none.
        area: ``(N,)`` square pixels, NaN where not given.
        image: ``(N,)`` int64, index into ``Labels.images``.
        annotation: N ids.
        crowd: ``(N,)`` bool.
        declared: ``(N,)`` int64, ``num_keypoints`` as written, -1 where it is missing.
        box_format_given: Whether the user has specified the format of the boxes, so that it is not guessed.
        has_visibility: Whether ``raw[..., 2]`` comes from the labels (a dataset's is derived).
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
    box_format_given: bool = False

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
        name: Used in headings.
        images: All images.
        groups: The records, one group per skeleton.
        findings: Errors in records that are in no group.
        notes: What the user should know about how the labels were read.
        load: ``(index, reduce) -> image``; raises as ``read_image``.
        refused: What the reader rejects in records that are in a group, where the rules should find it too.
    """

    name: str
    image_files: list[ImageFile]
    groups: list[People]
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load: Callable[[int, int], np.ndarray] | None = None
    refused: tuple[Finding, ...] = ()

    @property
    def num_people(self) -> int:
        """Number of records in all groups."""
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
            raise FileNotFoundError(f"{self.image_files[index].name}: the labels do not state where this image is.")
        return read_image(path, reduce=reduce)


def labels_of(dataset: Dataset, name: str = "dataset") -> Labels:
    """Arrange a dataset for an audit. Visibility is derived: 2 known, 1 known and occluded, 0 not known."""
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
    notes = list(notes_of(dataset))
    return Labels(name, image_files, [people], notes=notes, load=lambda i, reduce: dataset.image(i, reduce=reduce))


def read_coco_leniently(
    path: str | Path,
    *,
    images: str | Path | None = None,
    flip: tuple[int, ...] | None = None,
    category: str | int | Sequence[str | int] | None = None,
    skeleton: Skeleton | dict[str, Any] | None = None,
    flip_pairs: Iterable[tuple[str, str]] | None = None,
    sigmas: Sequence[float] | Mapping[str, float] | None = None,
    box_format: Literal["xywh", "xyxy"] | None = None,
    area: Literal["file", "box"] = "file",
    sizes: Literal["declared", "file"] = "declared",
    white: float | None = None,
) -> Labels:
    """Read a COCO keypoint file as ``readers.coco`` does, and list all errors instead of raising the first.

    Args:
        path: The JSON file.
        images: Folder of the images; None searches where the reader does.
        flip: K positions after flipping (``flip_idx``) to test instead of those that follow from the names.
        category: As in ``readers.coco``, like all that follow.
        skeleton: Names for a file that has none.
        flip_pairs: Pairs of names that are swapped in a flipped image.
        sigmas: OKS constants.
        box_format: "xywh" or "xyxy"; None detects it.
        area: "file" or "box".
        sizes: "declared" or "file".
        white: For images of more than 8 bits, the value that becomes 255.

    Raises:
        FileNotFoundError: No such file, or no such folder of images.
        ValueError: Not JSON, not a COCO keypoint file at all, or ``flip`` is invalid.
    """
    path = Path(path)
    if images is not None and not Path(images).is_dir():
        raise FileNotFoundError(f"No such folder of images: {images}. Pass an existing folder with --images.")
    data = read_tables(path)
    annotations = [a for a in data["annotations"] if isinstance(a, dict)]
    if annotations and not any("keypoints" in a for a in annotations):
        raise ValueError(
            f"{path} holds {len(annotations)} annotations but none has 'keypoints': these are boxes or masks only. "
            "Pass the keypoint file, such as person_keypoints_train2017.json."
        )
    findings: list[Finding] = []
    notes: list[str] = []
    chosen = _categories(path, data, category, skeleton, notes, findings)
    faults = Faults(path)
    table = read_image_table(path, data["images"], data["annotations"], faults)
    if sizes == "file":
        table = replace(table, sizes_wh=np.zeros_like(table.sizes_wh))
    records = read_records(data["annotations"], chosen, table, faults, corners=box_format == "xyxy")
    people, _ = people_of(records, chosen, table, notes, box_areas=area == "box", judge_areas=False)
    folder = Path(images) if images is not None else default_folder(path, table.file_names)
    paths = find_images(folder, table.file_names, notes)
    image_files = [
        ImageFile(name, file, (int(size[0]), int(size[1])) if min(size) > 0 else _size_of(file))
        for name, file, size in zip(table.file_names, paths, table.sizes_wh, strict=True)
    ]
    findings += [_finding_of(fault, image_files) for fault in faults.found if fault.kind in ("bad-record", "wrong-k")]
    for name, times in Counter(p.name for p in image_files).items():
        if times > 1:
            text = f"{name} is listed {times} times under different ids; its people are spread over them. Merge them."
            findings.append(Finding("image-named-twice", "error", 1.0, text, image=name, value=times))
    try:
        finish_skeleton(path, chosen, people, flip_pairs, sigmas, notes)
    except ValueError as error:
        findings.append(Finding("bad-category", "error", 1.0, str(error)))
        flip_pairs = None
    notes += faults.notes_of_unused()
    final = chosen.skeleton if flip_pairs is None else replace(chosen.skeleton, flip_pairs=tuple(flip_pairs))
    notes += mirroring_note(final) if flip is None else []
    if len(people):
        notes += unlabelled_note(final, labelled_names(people, final))
    boxes = xywh_to_xyxy(records.box_xywh)
    raw = records.raw
    # A keypoint labelled at the exact origin is reported by the rules and excluded from the statistics.
    labelled = (raw[..., 2] > 0) & (raw[..., :2] != 0).any(-1)
    groups: list[People] = []
    for key, places in chosen.places.items():
        mine = records.category == key
        if not mine.any():
            continue
        own = _group_skeleton(chosen, key, flip_pairs, flip)
        block = raw[np.ix_(mine, places)]
        xy = np.where(labelled[np.ix_(mine, places)][..., None], block[..., :2], np.nan)
        groups.append(
            People(
                own, xy, block, boxes[mine], records.area_px2[mine] if area == "file" else box_area(boxes[mine]),
                records.image_of[mine], [records.ids[i] for i in np.flatnonzero(mine)], records.crowd[mine],
                records.declared[mine], box_format_given=box_format is not None,
            )
        )  # fmt: skip
    levels = white_levels(paths) if white is None else white
    if isinstance(levels, WhiteLevels):
        notes += levels.notes("The data set's option white overrides it.")

    def load(index: int, reduce: int) -> np.ndarray:
        return read_with_levels(paths[index], reduce=reduce, white=levels)[0]

    labels = Labels(path.name, image_files, groups, findings, notes, load)
    labels.refused = tuple(_finding_of(f, image_files) for f in faults.found if f.kind not in ("bad-record", "wrong-k"))
    return labels


def _size_of(path: Path) -> tuple[int, int] | None:
    """Return the size of an image that the labels do not declare; None if it is missing or cannot be read."""
    try:
        return read_header(path).size_wh
    except (OSError, ValueError):
        return None


def _categories(
    path: Path, data: dict[str, Any], category: Any, skeleton: Any, notes: list[str], findings: list[Finding]
) -> Categories:
    """Return the categories as the reader has them; for those that it rejects, what can be used."""
    try:
        return read_categories(path, data, category, skeleton, notes)
    except ValueError as error:
        text = str(error).removeprefix(f"{path}: ")
    findings.append(Finding("bad-category", "error", 1.0, text, count=len(data["annotations"])))
    if category is not None or skeleton is not None:
        raise ValueError(text)
    listed_categories = data.get("categories")
    records = [c for c in listed_categories if isinstance(c, dict)] if isinstance(listed_categories, list) else []
    plain = [{key: c[key] for key in ("id", "name", "keypoints") if key in c} for c in records]
    try:  # bones, sigmas or flip pairs are wrong
        return read_categories(path, data | {"categories": plain}, None, None, notes)
    except ValueError:
        pass
    # numbers for names, as many as most annotations have
    lengths: dict[int, Counter[int]] = {}
    for a in data["annotations"]:
        key = whole_number(a.get("category_id")) if isinstance(a, dict) else None
        if key is not None and isinstance(a.get("keypoints"), list) and a["keypoints"]:
            lengths.setdefault(key, Counter())[len(a["keypoints"]) // 3] += 1
    counts = {key: max(1, count.most_common(1)[0][0]) for key, count in lengths.items()} or {1: 1}
    own = {key: Skeleton(path.name, tuple(f"keypoint_{i}" for i in range(k))) for key, k in counts.items()}
    longest = max(own.values(), key=len)
    listed = {key for c in records if (key := whole_number(c.get("id"))) is not None}
    return Categories(longest, {key: np.arange(len(s)) for key, s in own.items()}, {}, frozenset({*listed, *own}), own)


def _group_skeleton(
    chosen: Categories, key: int, flip_pairs: Iterable[tuple[str, str]] | None, flip: tuple[int, ...] | None
) -> Skeleton:
    """Return the skeleton of a category with the flip pairs and OKS constants to test."""
    own = chosen.own[key]
    sigmas = KNOWN_SIGMAS | chosen.sigmas
    if all(name in sigmas for name in own.keypoints):
        own = replace(own, sigmas=tuple(sigmas[name] for name in own.keypoints))
    if flip_pairs is not None:
        own = replace(own, flip_pairs=tuple(p for p in flip_pairs if set(p) <= set(own.keypoints)))
    return own if flip is None else with_flip(own, flip)


def _finding_of(fault: Fault, image_files: list[ImageFile]) -> Finding:
    image = "" if fault.image is None else image_files[fault.image].name
    text = f"{fault.record}: {fault.text}" if fault.annotation is None else fault.text
    return Finding(fault.kind, "error", 1.0, text, image, fault.annotation, image_index=fault.image)


def with_flip(skeleton: Skeleton, flip: tuple[int, ...]) -> Skeleton:
    """Return the skeleton with the given positions after flipping.

    Raises:
        ValueError: They are not K positions of which each swaps two or keeps one.
    """
    k = len(skeleton)
    if sorted(flip) != list(range(k)) or any(flip[flip[i]] != i for i in range(k)):
        raise ValueError(
            f"flip_idx must name each of the {k} keypoints of {skeleton.name!r} once, 0 to {k - 1}, and return to "
            f"the original order when applied twice; got {list(flip)}."
        )
    pairs = tuple((skeleton.keypoints[i], skeleton.keypoints[j]) for i, j in enumerate(flip) if i < j)
    return Skeleton(skeleton.name, skeleton.keypoints, skeleton.bones, skeleton.sigmas, pairs)
