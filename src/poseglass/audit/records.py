"""Rules for single records: visibility, coordinates, boxes, counts; and people labelled twice."""

import numpy as np

from poseglass.audit.labels import Finding, Labels, People
from poseglass.core.boxes import area, around, iou, xyxy_to_xywh
from poseglass.core.plausible import box_fractions, boxes_as_corners, fractions, implausible_areas
from poseglass.core.skeleton import Skeleton

SYSTEMATIC = 0.2
"""A rule broken for more than this fraction of a group's people is reported once for the set, not for each person."""

OUTSIDE_IMAGE = 0.02
"""Keypoints may lie outside by this fraction of the image's longer side, as labels of truncated people often do."""

OUTSIDE_BOX = 0.25
"""Keypoints may lie outside the box by this fraction of its longer side."""


def check_records(labels: Labels, group: int) -> list[Finding]:
    """Return the rules broken by one group's records; systematic errors are merged into one finding."""
    people = labels.groups[group]
    if not len(people):
        return []
    return [
        *_visibility(labels, group),
        *_places(labels, group),
        *_boxes(labels, group),
        *_duplicates(labels, group),
    ]


def finding(
    labels: Labels,
    group: int,
    row: int,
    kind: str,
    severity: str,
    sure: float,
    text: str,
    keypoints: np.ndarray | None = None,
    value: float | None = None,
) -> Finding:
    """Create a finding about one person; ``keypoints`` is a mask ``(K,)`` or indices."""
    people = labels.groups[group]
    image_index = int(people.image_index[row])
    names = () if keypoints is None else tuple(np.array(people.skeleton.keypoints, object)[keypoints])
    return Finding(
        kind, severity, float(sure), text, labels.image_files[image_index].name, people.annotation[row], names,
        None if value is None else float(value), 1, (group, row), image_index,
    )  # fmt: skip


def each_or_once(
    labels: Labels, group: int, bad: np.ndarray, kind: str, severity: str, text: str, once: str, *, fold: bool = True
) -> list[Finding]:
    """Return a finding for each person with a bad keypoint, or one for the set if it is systematic.

    Args:
        labels: All labels.
        group: Number of the group.
        bad: ``(N, K)`` bool.
        kind: Kind of the findings.
        severity: Severity of the findings.
        text: Text for one person; ``{names}`` is filled in.
        once: Text for the set; ``{people}`` and ``{share}`` are filled in.
        fold: Whether systematic errors are merged at all.
    """
    rows = np.flatnonzero(bad.any(1))
    total = len(labels.groups[group])
    if fold and len(rows) > max(SYSTEMATIC * total, 20):
        return [fold_up(labels, group, rows, kind, severity, once)]
    names = labels.groups[group].skeleton.keypoints
    return [
        finding(
            labels, group, int(r), kind, severity, 1.0,
            text.format(names=", ".join(names[k] for k in np.flatnonzero(bad[r]))), bad[r], bad[r].sum(),
        )
        for r in rows
    ]  # fmt: skip


def fold_up(labels: Labels, group: int, rows: np.ndarray, kind: str, severity: str, once: str) -> Finding:
    """Return one finding that stands for many people, with the first as its example."""
    total = len(labels.groups[group])
    text = once.format(people=f"{len(rows):,} of {total:,} annotations", share=f"{len(rows) / total:.0%}")
    example = finding(labels, group, int(rows[0]), kind, severity, 1.0, text, value=len(rows))
    return Finding(
        kind, severity, 1.0, text, example.image, example.annotation, (), len(rows), len(rows), example.person,
        example.image_index,
    )  # fmt: skip


def _visibility(labels: Labels, group: int) -> list[Finding]:
    people = labels.groups[group]
    v, at_origin = people.raw[..., 2], (people.raw[..., :2] == 0).all(-1)
    found: list[Finding] = []
    if not people.has_visibility:
        return found
    strange = ~np.isin(v, (0.0, 1.0, 2.0))
    fractions = strange.any() and (v[strange] > 0).all() and (v[strange] < 1).all()
    advice = "They look like scores in [0, 1]." if fractions else "COCO uses 0 (not labelled), 1 (hidden), 2 (visible)."
    found += each_or_once(
        labels, group, strange, "visibility-value", "error",
        f"The visibility of {{names}} is none of 0, 1, 2. {advice}",
        f"{{people}} have keypoints with a visibility other than 0, 1, 2. {advice}",
    )  # fmt: skip
    found += each_or_once(
        labels, group, (v > 0) & at_origin, "labelled-at-origin", "error",
        "{names}: labelled (v > 0) but at 0, 0, which means 'unknown'. A network trained on it learns the corner.",
        "{people} have keypoints marked as labelled (v > 0) at 0, 0. Set v = 0 where the position is unknown.",
    )  # fmt: skip
    found += each_or_once(
        labels, group, (v == 0) & ~at_origin, "unlabelled-with-place", "warning",
        "{names}: has coordinates but v = 0, so it is not trained on. Set v to 1 or 2, or the coordinates to 0, 0.",
        "{people} ({share}) have keypoints with coordinates but v = 0: they count as unlabelled. If the positions are "
        "real, set v to 1 (hidden) or 2 (visible).",
    )  # fmt: skip
    used = v[(v > 0) & ~at_origin]
    if len(people) >= 20 and len(used) and (used == 1).all():
        text = "Every labelled keypoint of {people} has v = 1 (hidden). If they can be seen they should have v = 2."
        found.append(fold_up(labels, group, np.arange(len(people)), "visibility-constant", "warning", text))
    declared = people.declared
    counted = (v > 0).sum(1)
    wrong = (declared >= 0) & (declared != counted)
    if wrong.sum() > max(SYSTEMATIC * len(people), 20):
        text = "num_keypoints of {people} is not the number of keypoints with v > 0. Evaluation relies on it."
        found.append(fold_up(labels, group, np.flatnonzero(wrong), "num-keypoints", "error", text))
    else:
        for row in np.flatnonzero(wrong):
            text = f"num_keypoints says {declared[row]}, but {counted[row]} keypoints have v > 0."
            value = declared[row] - counted[row]
            found.append(finding(labels, group, int(row), "num-keypoints", "error", 1.0, text, value=value))
    return found


def _places(labels: Labels, group: int) -> list[Finding]:
    people = labels.groups[group]
    sizes = np.array([p.size_wh or (np.nan, np.nan) for p in labels.image_files], np.float64).reshape(-1, 2)
    size_wh = sizes[people.image_index]
    known = people.known
    if fractions(people.xy, people.box_xyxy, size_wh):
        largest = np.abs(people.xy[known]).max()
        text = (
            f"All coordinates of {{people}} lie between 0 and {largest:.2f}: fractions of the image's size, as YOLO "
            "writes them, not pixels. Multiply x by the width and y by the height."
        )
        return [fold_up(labels, group, np.arange(len(people)), "normalised", "error", text)]
    slack = OUTSIDE_IMAGE * np.fmax(size_wh[:, 0], size_wh[:, 1])[:, None, None]
    with np.errstate(invalid="ignore"):
        beyond: np.ndarray = np.fmax(-0.5 - people.xy, people.xy - (size_wh[:, None] - 0.5))
        outside = (beyond.max(-1, keepdims=True) > slack)[..., 0] & known
    found = each_or_once(
        labels, group, outside, "outside-image", "error",
        "{names}: outside the image by more than 2 % of its size. Remove the label, or fix the image's size.",
        "{people} ({share}) have keypoints outside their image. Are the coordinates for these images, at this size?",
    )  # fmt: skip
    return found


def _boxes(labels: Labels, group: int) -> list[Finding]:
    people = labels.groups[group]
    box, known = people.box_xyxy, people.known
    size = box[:, 2:] - box[:, :2]
    with np.errstate(invalid="ignore"):
        empty = (np.nan_to_num(size).min(1) <= 0) & known.any(1)
        sizes = np.array([p.size_wh or (np.nan, np.nan) for p in labels.image_files], np.float64).reshape(-1, 2)
        limit = sizes[people.image_index]
        found: list[Finding] = []
        if box_fractions(people.xy, box):
            text = (
                f"All boxes of {{people}} lie between 0 and {np.nanmax(box):.2f}: fractions of the image's size, while "
                "the keypoints are in pixels. Multiply x and width by the image's width, y and height by its height."
            )
            return [fold_up(labels, group, np.arange(len(people)), "box-elsewhere", "error", text)]
        corners = np.zeros(len(people), dtype=bool)
        if not people.box_format_given:
            corners = boxes_as_corners(xyxy_to_xywh(box), people.xy, limit)
        if corners.any():
            text = (
                "The boxes of {people} look like corners x0, y0, x1, y1, where COCO has x, y, width, height. Write "
                'width and height, or read them with --set data.box_format=xyxy (box_format = "xyxy" in a recipe).'
            )
            return [fold_up(labels, group, np.flatnonzero(corners), "box-corners", "error", text)]
        found += _areas(labels, group, limit)
        if empty.sum() > max(SYSTEMATIC * len(people), 20):
            text = (
                "{people} have no box, or one without area; crops will be made around the keypoints or the whole image."
            )
            found.append(fold_up(labels, group, np.flatnonzero(empty), "box-empty", "warning", text))
        else:
            for row in np.flatnonzero(empty):
                came = "none" if np.isnan(box[row]).all() else f"width {size[row, 0]:g}, height {size[row, 1]:g}"
                text = f"The box has no area: {came}. A crop needs one."
                found.append(finding(labels, group, int(row), "box-empty", "error", 1.0, text))
        side: np.ndarray = size.max(1)[:, None]
        beyond: np.ndarray = np.fmax(box[:, None, :2] - people.xy, people.xy - box[:, None, 2:]).max(-1) / side
        off: np.ndarray = known & (beyond > OUTSIDE_BOX) & ~empty[:, None]
        # One point far outside is a misplaced point; half of them outside mean that the box is another person's.
        slightly: np.ndarray = known & (beyond > 0.05) & ~empty[:, None]
        elsewhere = (slightly.sum(1) >= np.fmax(2, 0.5 * known.sum(1))) & off.any(1)
        for row in np.flatnonzero(elsewhere):
            share = slightly[row].sum() / known[row].sum()
            text = f"{share:.0%} of the keypoints lie outside the box: is it of another person or scale?"
            found.append(finding(labels, group, int(row), "box-elsewhere", "error", 1.0, text, slightly[row], share))
        far = off & ~elsewhere[:, None]
        for row in np.flatnonzero(far.any(1)):
            worst = float(beyond[row][far[row]].max())
            names = ", ".join(np.array(people.skeleton.keypoints, object)[far[row]])
            text = f"{names}: outside the box by {worst:.0%} of its longer side."
            found.append(finding(labels, group, int(row), "outside-box", "warning", 1.0, text, far[row], worst))
        inside: np.ndarray = np.fmin(box[:, 2:], limit) - np.fmax(box[:, :2], 0)
        share_in = np.where((inside > 0).all(1), inside.prod(1) / np.where(empty, np.nan, size.prod(1)), 0.0)
        for row in np.flatnonzero(~empty & (share_in < 0.5) & np.isfinite(limit).all(1)):
            text = f"Only {share_in[row]:.0%} of the box lies inside the image."
            found.append(
                finding(labels, group, int(row), "box-outside-image", "error", 1.0, text, value=float(share_in[row]))
            )
    return found


def _areas(labels: Labels, group: int, size_wh: np.ndarray) -> list[Finding]:
    """Return areas that are implausible for their boxes; ``size_wh`` ``(N, 2)`` is the size of each image."""
    people = labels.groups[group]
    wrong = implausible_areas(people.area, people.box_xyxy, size_wh, people.known.any(1) & ~people.crowd)
    rows = np.flatnonzero(wrong)
    box = area(people.box_xyxy)
    if len(rows) > 0.5 * len(people) or len(rows) > 20:
        first = rows[0]
        text = (
            f"'area' of {{people}} cannot be that of their boxes ({people.area[first]:g} where the box has "
            f"{box[first]:.0f} square pixels). OKS-AP depends on it. Write the area of mask or box in square pixels, "
            "or read it with --set data.area=box."
        )
        return [fold_up(labels, group, rows, "area", "error", text)]
    return [
        finding(
            labels, group, int(r), "area", "error", 1.0,
            f"'area' is {people.area[r]:g}, the box has {box[r]:.0f} square pixels: it cannot be the area of its "
            "content. OKS-AP depends on it.", value=people.area[r],
        )
        for r in rows
    ]  # fmt: skip


def _duplicates(labels: Labels, group: int, *, threshold: float = 0.85) -> list[Finding]:
    """Return pairs in one image with the same pose by OKS (sigmas, or 0.08 where unknown) over shared keypoints."""
    people = labels.groups[group]
    known = people.known
    rows = np.flatnonzero((known.sum(1) >= 3) & ~people.crowd)
    if not len(rows):
        return []
    order = rows[np.argsort(people.image_index[rows], kind="stable")]
    image_index = people.image_index[order]
    starts = np.flatnonzero(np.diff(image_index, prepend=-1))
    ends = np.append(starts[1:], len(order))
    extent = around(people.xy)
    extent_px2 = np.where(np.isfinite(people.area) & (people.area > 0), people.area, _box_area(people, extent))
    sigma2 = (2 * _sigmas(people.skeleton)) ** 2
    found: list[Finding] = []
    for start, end in zip(starts, ends, strict=True):
        if end - start < 2:
            continue
        member = order[start:end]
        both = known[member][:, None] & known[member][None]
        distance2 = np.nan_to_num(((people.xy[member][:, None] - people.xy[member][None]) ** 2).sum(-1))
        scale = np.minimum(extent_px2[member][:, None], extent_px2[member][None])[..., None]
        alike: np.ndarray = np.where(both, np.exp(-distance2 / (2 * sigma2 * np.maximum(scale, 1.0))), 0.0)
        shared = both.sum(-1)
        # Keypoints that only one of them has count as half: a second, shorter label of a person is a duplicate too.
        most = np.maximum(known[member].sum(1)[:, None], known[member].sum(1)[None])
        oks: np.ndarray = alike.sum(-1) / np.maximum((shared + most) / 2, 1)
        # Two people holding each other are close in some keypoints, but never also in their extent.
        same: np.ndarray = (oks > threshold) & (shared >= 3) & (iou(extent[member], extent[member]) > 0.6)
        for i, j in zip(*np.nonzero(np.triu(same, 1)), strict=True):
            a, b = int(member[i]), int(member[j])
            text = (
                f"The same pose as annotation {people.annotation[a]} in this image (OKS {oks[i, j]:.2f}): one labelled "
                "twice. Remove one."
            )
            sure = float(oks[i, j])
            found.append(finding(labels, group, b, "duplicate-person", "error", sure, text, value=sure))
    return found


def _sigmas(skeleton: Skeleton) -> np.ndarray:
    return np.array(skeleton.sigmas) if skeleton.sigmas else np.full(len(skeleton), 0.08)


def _box_area(people: People, extent_xyxy: np.ndarray) -> np.ndarray:
    box = np.where(np.isfinite(people.box_xyxy).all(1, keepdims=True), people.box_xyxy, extent_xyxy)
    return np.clip((box[:, 2:] - box[:, :2]).prod(1), 1.0, None)
