"""Poses on images: limbs and joints scaled to the person, sides by colour, scores by opacity."""

import itertools
from collections.abc import Iterator

import cv2
import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.boxes import whole_image
from poseglass.core.instances import Instances
from poseglass.core.sample import check_image
from poseglass.core.view import View
from poseglass.drawing.palette import OUTLINE_RGB, pose_colors
from poseglass.drawing.text import text_size, write_text

_FAINTEST = 0.3
"""Opacity of a keypoint of score 0; a score of 1 is opaque."""


def draw(
    image: np.ndarray,
    people: Instances,
    *,
    min_score: float = 0.1,
    boxes: bool = False,
    names: bool = False,
    occluded: bool = False,
    numbers: bool = False,
    thickness: float = 1.0,
) -> np.ndarray:
    """Return the image with poses drawn on it.

    Left limbs are orange, right ones blue (the person's own), the middle white; all have a dark outline. The lower
    a keypoint's score, the fainter it is; unknown keypoints and the bones that end there are not drawn. Where
    visibility is predicted, occluded keypoints are rings, and absent ones are not drawn. A skeleton without bones gives
    points only; one without sides (a hand) gets a colour per joint.

    Args:
        image: ``(H, W, 3)`` uint8 RGB; it is not changed.
        people: In this image's pixels; points may lie outside.
        min_score: Keypoints below it are not drawn.
        boxes: Also draw the boxes, with track and score where they are known.
        names: Write the keypoints' names beside them, without overlap. Names without space are counted in the lower
            left corner ("+3 names"); a larger image has space for more.
        occluded: Draw keypoints marked in ``keypoint_extra["occluded"]`` too, as rings; otherwise they are not drawn.
        numbers: Write the number of each instance, from 1, at its box: its row plus 1.
        thickness: Factor on all widths.

    Raises:
        ValueError: The image is not uint8 RGB, or the thickness is not positive.
    """
    check_image(image)
    if not thickness > 0:
        raise ValueError(f"thickness must be above 0 (1 is usual), got {thickness}.")
    out = image.copy()
    hidden = _occluded(people)
    shown = _present(people) & (people.score >= min_score)
    if not occluded:
        shown &= ~hidden
    if people.visibility is not None:
        hidden = hidden | (people.visibility == 1)
    radii = [_radius(people, i, shown[i], image) * thickness for i in range(len(people))]
    # Large people first: small people in front of them stay visible.
    order = sorted(range(len(people)), key=lambda i: -radii[i])
    for i in order:
        if boxes:
            _draw_box(out, people, i, radii[i])
    for i in order:
        _draw_person(out, people, i, shown[i], hidden[i], radii[i])
    placed: list[tuple[float, float, float, float]] = []
    if boxes or numbers:
        joints = people.xy[shown].astype(np.float64)
        for i in order:
            _write_label(out, people, i, radii[i], joints, placed, number=numbers, score=boxes)
    if names:
        without = sum(_draw_names(out, people, i, shown[i], radii[i], placed) for i in order)
        if without:
            text = f"+{without} name{'s' * (without > 1)}"
            high = text_size(text, _SMALLEST_PX)[1]
            write_text(out, text, (3, out.shape[0] - high - 3), size_px=_SMALLEST_PX, ground=OUTLINE_RGB)
    return out


def draw_pair(
    image: np.ndarray,
    truth: Instances,
    predicted: Instances,
    *,
    tile_px: int | None = None,
    min_score: float = 0.0,
    titles: tuple[str, str] | None = ("truth", "prediction"),
) -> np.ndarray:
    """Return the ground truth (left) and a prediction (right) side by side.

    Where both have the same number of instances, a thin line joins each predicted keypoint to its true position, so
    that an error appears as a line and a correct keypoint has none.

    Args:
        image: ``(H, W, 3)`` uint8 RGB, a crop.
        truth: In the crop's pixels; occluded keypoints are drawn as rings.
        predicted: In the crop's pixels.
        tile_px: Longest side of either half, pixels; None keeps the crop's own size.
        min_score: Predicted keypoints below it are not drawn.
        titles: Written on the halves; None writes nothing.

    Raises:
        ValueError: The image is not uint8 RGB, or ``tile_px`` is below 1.
    """
    check_image(image)
    tile, to_tile = resized(image, tile_px or max(image.shape[:2]))
    truth, predicted = truth.moved(to_tile), predicted.moved(to_tile)
    left = draw(tile, truth, min_score=0.0, occluded=True)
    right = draw(tile, predicted, min_score=min_score)
    if len(truth) == len(predicted):
        there = truth.in_skeleton(predicted.skeleton)
        both = there.known & _present(predicted) & (predicted.score >= min_score)
        for i, k in np.argwhere(both):
            radius = max(0.8, max(tile.shape[:2]) / 350)
            _line(right, predicted.xy[i, k], there.xy[i, k], radius + 0.8, OUTLINE_RGB, 0.7)
            _line(right, predicted.xy[i, k], there.xy[i, k], radius, (255, 77, 166), 1.0)
    if titles is not None:
        size_px = max(9, round(max(tile.shape[:2]) / 20))
        at = (size_px // 2, size_px // 3)
        for half, title in zip((left, right), titles, strict=True):
            write_text(half, title, at, size_px=size_px, outline=OUTLINE_RGB)
    gap = np.full((tile.shape[0], max(2, tile.shape[1] // 60), 3), 255, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def resized(image: np.ndarray, longest_px: int) -> tuple[np.ndarray, Affine]:
    """Return the image with its longest side at ``longest_px``, and the map from its pixels to the new ones.

    Raises:
        ValueError: ``longest_px`` is below 1.
    """
    if longest_px < 1:
        raise ValueError(f"The longest side must be at least 1 pixel, got {longest_px}.")
    height, width = image.shape[:2]
    factor = longest_px / max(height, width)
    size_wh = (max(1, round(width * factor)), max(1, round(height * factor)))
    if size_wh == (width, height):
        return image, Affine.identity()
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    out = cv2.resize(image, size_wh, interpolation=method)
    return out, View.of_region(whole_image((width, height)), size_wh).to_view


def _present(people: Instances) -> np.ndarray:
    """Return which keypoints have a place, and are not predicted to be absent: ``(N, K)`` bool."""
    return people.known if people.visibility is None else people.known & (people.visibility > 0)


def _occluded(people: Instances) -> np.ndarray:
    marked = people.keypoint_extra.get("occluded")
    if marked is None:
        return np.zeros(people.score.shape, bool)
    return np.asarray(marked, dtype=bool).reshape(people.score.shape)


def _radius(people: Instances, row: int, shown: np.ndarray, image: np.ndarray) -> float:
    """Return the radius of a joint, pixels: proportional to the person, but always visible in the image."""
    longest = max(image.shape[:2])
    points = people.xy[row][shown].astype(np.float64)
    size = float(np.ptp(points, axis=0).max()) if len(points) > 1 else 0.0
    box = people.box_xyxy[row]
    if np.isfinite(box).all():
        # A truncated person shows few keypoints in a large box; a wild prediction spreads far beyond a small one.
        side = float(max(box[2] - box[0], box[3] - box[1], 0))
        size = float(np.clip(size, 0.7 * side, 1.1 * side))
    size = min(size, 1.5 * longest)
    radius = 0.019 * (size if size > 0 else 0.3 * longest)
    if len(points) > 2:
        # Dense skeletons (a face of 68 points) would merge: at most as wide as the gaps between most neighbours.
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
        np.fill_diagonal(apart, np.inf)
        nearest = np.sort(apart.min(axis=1))
        median = (nearest[(len(nearest) - 1) // 2] + nearest[len(nearest) // 2]) / 2  # np.median imports much
        radius = min(radius, 0.4 * float(median))
    return max(radius, 1.5, longest / 1000)


def _cover(image: np.ndarray, a: np.ndarray, b: np.ndarray, radius: float) -> tuple[slice, slice, np.ndarray] | None:
    """Return how far each pixel is covered by the line from a to b, and where: rows, columns, ``(h, w)`` in [0, 1].

    The distance to the line is in floats: smooth edges and sub-pixel positions at any scale, no overflow far outside.
    """
    height, width = image.shape[:2]
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low, high = np.minimum(a, b) - radius - 1, np.maximum(a, b) + radius + 2
    x0, y0 = (int(max(v, 0)) for v in low)
    x1, y1 = int(min(high[0], width)), int(min(high[1], height))
    if x0 >= x1 or y0 >= y1:
        return None
    along = b - a
    length2 = float(along @ along)
    dx = np.arange(x0, x1, dtype=np.float64)[None] - a[0]
    dy = np.arange(y0, y1, dtype=np.float64)[:, None] - a[1]
    if length2 > 0:
        part = np.clip((dx * along[0] + dy * along[1]) / length2, 0, 1)
        dx, dy = dx - part * along[0], dy - part * along[1]
    return slice(y0, y1), slice(x0, x1), np.clip(radius + 0.5 - np.hypot(dx, dy), 0, 1)


def _blend(patch: np.ndarray, cover: np.ndarray, color: np.ndarray | tuple[int, int, int]) -> None:
    touched = cover > 0
    alpha = cover[touched][:, None]
    patch[touched] = np.round(patch[touched] * (1 - alpha) + np.asarray(color, np.float64) * alpha).astype(np.uint8)


def _line(
    image: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    radius: float,
    color: np.ndarray | tuple[int, int, int],
    opacity: float,
) -> None:
    covered = _cover(image, a, b, radius)
    if covered is not None:
        rows, columns, cover = covered
        _blend(image[rows, columns], cover * opacity, color)


def _draw_person(
    image: np.ndarray, people: Instances, row: int, shown: np.ndarray, hidden: np.ndarray, radius: float
) -> None:
    """Draw one person into ``image``: outlines of everything first, then bones, then joints."""
    xy, skeleton = people.xy[row], people.skeleton
    joint_rgb, bone_rgb = pose_colors(skeleton)
    opacity = _FAINTEST + (1 - _FAINTEST) * np.clip(np.nan_to_num(people.score[row]), 0, 1)
    opacity = np.where(hidden, 0.6, 1.0) * opacity
    edge = max(0.8, 0.3 * radius)
    bones = [(a, b, rgb) for (a, b), rgb in zip(skeleton.bone_indices, bone_rgb, strict=True) if shown[a] and shown[b]]
    joints = np.flatnonzero(shown)
    limb = 0.5 * radius
    # Joints close together (a face) shrink a little, so that each stays visible.
    apart = np.linalg.norm(xy[joints, None].astype(np.float64) - xy[None, joints], axis=-1)
    np.fill_diagonal(apart, np.inf)
    dots = np.full(len(xy), radius)
    dots[joints] = np.clip(0.45 * apart.min(axis=1, initial=np.inf), 0.65 * radius, radius)

    strokes = [(xy[a], xy[b], limb + edge, min(opacity[a], opacity[b])) for a, b, _ in bones]
    strokes += [(xy[k], xy[k], dots[k] + edge, opacity[k]) for k in joints]
    covers = [(_cover(image, a, b, width), strength) for a, b, width, strength in strokes]
    seen = [(covered, strength) for covered, strength in covers if covered is not None]
    if not seen:
        return
    top, bottom = min(c[0].start for c, _ in seen), max(c[0].stop for c, _ in seen)
    left, right = min(c[1].start for c, _ in seen), max(c[1].stop for c, _ in seen)
    around = image[top:bottom, left:right]
    outline = np.zeros(around.shape[:2])
    for (rows, columns, cover), strength in seen:
        # The strongest counts, not the sum: faint crossing lines must not add up to a dark one.
        part = outline[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        np.maximum(part, cover * (0.8 * strength), out=part)
    _blend(around, outline, OUTLINE_RGB)
    for a, b, rgb in bones:
        _line(image, xy[a], xy[b], limb, rgb, float(min(opacity[a], opacity[b])))
    for k in joints:
        _line(image, xy[k], xy[k], dots[k], OUTLINE_RGB, float(opacity[k]))
        _line(image, xy[k], xy[k], dots[k] - 0.25 * edge, joint_rgb[k], float(opacity[k]))
        if hidden[k]:
            _line(image, xy[k], xy[k], 0.6 * dots[k], OUTLINE_RGB, 0.9)


def _draw_box(image: np.ndarray, people: Instances, row: int, radius: float) -> None:
    box = people.box_xyxy[row]
    if not np.isfinite(box).all():
        return
    x0, y0, x1, y1 = (float(v) for v in box)
    corners = [np.array(c) for c in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))]
    width = max(0.6, 0.25 * radius)
    for color, grow, opacity in ((OUTLINE_RGB, max(0.6, 0.5 * width), 0.7), ((255, 255, 255), 0.0, 0.95)):
        for a, b in itertools.pairwise(corners):
            _line(image, a, b, width + grow, color, opacity)


def _write_label(
    image: np.ndarray,
    people: Instances,
    row: int,
    radius: float,
    joints: np.ndarray,
    placed: list[tuple[float, float, float, float]],
    *,
    number: bool,
    score: bool,
) -> None:
    """Write a person's number, track and the score of a found box at its box, within the image.

    It is written above the box on the left, or where it covers fewer of all people's ``joints`` ``(J, 2)`` and other
    labels (``placed``, x0 y0 x1 y1), to which it is added.
    """
    box = people.box_xyxy[row]
    if not np.isfinite(box).all():
        return
    words = [str(row + 1)] if number else []
    if score:
        words += [] if people.track_id is None else [f"#{people.track_id[row]}"]
        words += [f"{people.box_score[row]:.2f}"] if people.box_score[row] < 1 else []
    if not words:
        return
    size_px = int(np.clip(round(4 * radius), 9, 200))
    width, height = text_size(" ".join(words), size_px)
    gap = size_px / 4
    x0, y0, x1, y1 = (float(v) for v in box)
    best, least = (0.0, 0.0), np.inf
    for left, top in (
        (x0 + gap, y0 - height - gap), (x1 - width - gap, y0 - height - gap), (x0 + gap, y1 + gap),
        (x1 - width - gap, y1 + gap), (x0 - width - gap, y0 + gap), (x1 + gap, y0 + gap),
        (x0 + gap, y0 + gap), (x1 - width - gap, y0 + gap),
    ):  # fmt: skip
        left = max(min(left, image.shape[1] - width - gap), 0.0)
        top = max(min(top, float(image.shape[0] - height)), 0.0)
        right, bottom = left + width + gap, top + height + gap
        inside = (joints > (left - gap, top - gap)) & (joints < (right, bottom))
        others = sum(left < c and right > a and top < d and bottom > b for a, b, c, d in placed)
        covered = int(inside.all(1).sum()) + 3 * others
        if covered < least:
            best, least = (left, top), covered
        if not covered:
            break
    placed.append((*best, best[0] + width + gap, best[1] + height + gap))
    write_text(image, " ".join(words), best, size_px=size_px, ground=OUTLINE_RGB)


def _draw_names(
    image: np.ndarray,
    people: Instances,
    row: int,
    shown: np.ndarray,
    radius: float,
    taken: list[tuple[float, float, float, float]],
) -> int:
    """Write a person's names where no other name (``taken``, x0 y0 x1 y1) is, and return how many have no space.

    A name is beside its point, or further away with a line to it. Names that were written are added to ``taken``.
    """
    height, width = image.shape[:2]
    points = people.xy[row][shown].astype(np.float64)
    extent = float(np.ptp(points, axis=0).max()) if len(points) > 1 else np.inf
    # a box may be far larger than the person in it, for example the whole image
    size_px = int(np.clip(round(min(3 * radius, 0.06 * extent)), _SMALLEST_PX, 120))
    without = 0
    for k in np.flatnonzero(shown):
        x, y = (float(v) for v in people.xy[row, k])
        if not (0 <= x < width and 0 <= y < height):
            continue
        name = people.skeleton.keypoints[k]
        wide, high = text_size(name, size_px)
        place = next(
            (
                (left, top, far)
                for far, left, top in _places(x, y, wide, high, 1.6 * radius)
                if left >= 0 and top >= 0 and left + wide <= width and top + high <= height
                if all(left >= x1 or left + wide <= x0 or top >= y1 or top + high <= y0 for x0, y0, x1, y1 in taken)
            ),
            None,
        )
        if place is None:
            without += 1
            continue
        left, top, far = place
        taken.append((left, top, left + wide, top + high))
        if far:
            end = np.array([np.clip(x, left, left + wide), np.clip(y, top, top + high)])
            _line(image, np.array([x, y]), end, 1.2, OUTLINE_RGB, 0.6)
            _line(image, np.array([x, y]), end, 0.5, (255, 255, 255), 0.9)
        write_text(image, name, (left, top), size_px=size_px, outline=OUTLINE_RGB)
    return without


_SMALLEST_PX = 10
"""Smaller letters cannot be read."""


def _places(x: float, y: float, wide: float, high: float, away: float) -> Iterator[tuple[bool, float, float]]:
    """Yield positions for a name: whether it is far from its point, and its upper left corner; the best first."""
    for ring in range(5):
        d = away + ring * high
        middle = (y - high / 2, y - high / 2)
        yield from ((ring > 0, x + d, middle[0]), (ring > 0, x - d - wide, middle[1]))
        yield from ((ring > 0, x - wide / 2, y - d - high), (ring > 0, x - wide / 2, y + d))
        for top in (y - high - ring * high, y + ring * high):
            yield from ((ring > 0, x + away, top), (ring > 0, x - away - wide, top))
