"""Chips: the parts of an image, at several scales, in which objects of a fitting size are learnt and found.

A large image shown whole in a view loses its small objects, and shown at full size costs too much. SNIPER cuts square
chips around the objects: small ones from the enlarged image, large ones from the reduced one, and nothing where no
object is.

Source:
    Singh, Najibi, Davis, "SNIPER: Efficient Multi-Scale Training", NeurIPS 2018, https://arxiv.org/abs/1805.09300,
    sections 3.1 (chips, valid ranges), 3.2 (positive chips) and 3.3 (negative chips). How this differs: chips on the
    right and lower edge are candidates too, as in the public code. Where a box nearly fills a chip and lies in none of
    the grid, a chip at its upper left corner is a candidate; the public code leaves such boxes out. Both leave out
    boxes that are larger than a chip at that scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from poseglass.core.boxes import area
from poseglass.core.view import View

Whole = Literal["whole"]

MOST_SCALES = 8
"""Largest number of scales of a rule."""

LARGEST_SCALE = 16.0
"""Largest factor by which images are enlarged."""


@dataclass(frozen=True, slots=True)
class ChipScale:
    """One scale of the pyramid, and the size of the objects that are learnt and found at it.

    Args:
        scale: Factor by which an image is resized, or "whole": the whole image fits into one chip.
        from_px: Least square root of a box's area, pixels of the original image.
        up_to_px: The square root must be below this.

    Raises:
        ValueError: A scale that is not in (0, 16], or a range that nothing satisfies.
    """

    scale: float | Whole
    from_px: float = 0.0
    up_to_px: float = float("inf")

    def __post_init__(self) -> None:
        if self.scale != "whole" and not (
            isinstance(self.scale, int | float) and 0 < self.scale <= LARGEST_SCALE and not isinstance(self.scale, bool)
        ):
            raise ValueError(
                f"The scale of chips must be a factor above 0 and up to {LARGEST_SCALE:g}, or 'whole', got "
                f"{self.scale!r}."
            )
        if not 0 <= self.from_px < self.up_to_px:
            raise ValueError(
                f"The valid range of scale {self.scale} goes from {self.from_px:g} up to {self.up_to_px:g} px: no box "
                "can be in it. Both are the square root of a box's area in pixels of the original image, and from_px "
                "is the smaller one."
            )

    def to_card(self) -> dict[str, float | str | None]:
        """Return the scale as a card of weights holds it; None is no upper end."""
        high = None if np.isinf(self.up_to_px) else self.up_to_px
        return {"scale": self.scale, "from_px": self.from_px, "up_to_px": high}

    @classmethod
    def from_card(cls, table: Mapping[str, Any]) -> "ChipScale":
        """Rebuild a scale from a card of weights.

        Raises:
            ValueError: A number is missing, of the wrong type, or out of range.
        """
        try:
            high = float("inf") if table["up_to_px"] is None else float(table["up_to_px"])
            scale: float | Whole = "whole" if table["scale"] == "whole" else float(table["scale"])
            return cls(scale, float(table["from_px"]), high)
        except (KeyError, TypeError) as error:
            raise ValueError(f"Chips must have scale, from_px and up_to_px, got {dict(table)!r:.80}.") from error

    def holds(self, box_xyxy: np.ndarray) -> np.ndarray:
        """Return which boxes ``(N, 4)`` in image pixels have an area, and a valid size: ``(N,)`` bool."""
        size = np.sqrt(area(np.asarray(box_xyxy, dtype=np.float64).reshape(-1, 4)))
        return np.asarray((size > 0) & (size >= self.from_px) & (size < self.up_to_px))


ARTICLE = (ChipScale(3.0, 0.0, 80.0), ChipScale(1.667, 32.0, 150.0), ChipScale("whole", 120.0))
"""Scales and valid ranges of the paper for COCO, section 4."""


@dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """A chip of an image.

    Args:
        level: Index of its scale in the rule.
        corner_px: Its upper left corner in the resized image, whole pixels.
        scale: View pixels per image pixel.
        size_wh: Size of the chip, pixels of the resized image; where the image ends before, it is black.
    """

    level: int
    corner_px: tuple[int, int]
    scale: float
    size_wh: tuple[int, int]

    @property
    def view(self) -> View:
        """The chip as a view; ``view.home`` brings results back into the image."""
        x, y = (corner / self.scale - 0.5 for corner in self.corner_px)
        return View.chip((x, y), self.scale, self.size_wh)

    @property
    def box_xyxy(self) -> np.ndarray:
        """Part of the image that it shows, image pixels; it may reach beyond the image."""
        return self.view.home.box(np.array([-0.5, -0.5, self.size_wh[0] - 0.5, self.size_wh[1] - 0.5]))

    def covers(self, box_xyxy: np.ndarray) -> np.ndarray:
        """Return which boxes ``(N, 4)`` in image pixels lie in the chip as a whole, ``(N,)`` bool."""
        low, high = _in_resized(box_xyxy, self.scale)
        corner = np.array(self.corner_px)
        return np.asarray((low >= corner - _SLACK).all(-1) & (high <= corner + self.size_wh + _SLACK).all(-1))


@dataclass(frozen=True)
class ChipRule:
    """How chips are chosen.

    Args:
        scales: The scales of the pyramid with their valid ranges.
        size_wh: Size of the chips, which is the network's input size.
        stride: Distance between neighbouring candidates, pixels of the resized image.

    Raises:
        ValueError: No scale or more than 8, one given twice, a size below 32 px, or a stride outside 1 to the smaller
            side.

    Example:
        >>> rule = ChipRule(size_wh=(512, 512))
        >>> [chip.level for chip in rule.positive(np.array([[10.0, 10.0, 60.0, 60.0]]), (800, 600))]
        [0, 1]
    """

    scales: tuple[ChipScale, ...] = ARTICLE
    size_wh: tuple[int, int] = (512, 512)
    stride: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        if not 1 <= len(self.scales) <= MOST_SCALES:
            raise ValueError(f"Chips need 1 to {MOST_SCALES} scales, got {len(self.scales)}.")
        factors = [each.scale for each in self.scales]
        if len(set(factors)) < len(factors):
            twice = next(factor for factor in factors if factors.count(factor) > 1)
            raise ValueError(f"The scale {twice} is given twice for chips. Remove one of them.")
        width, height = self.size_wh
        if min(width, height) < 32:
            raise ValueError(f"Chips need sides of at least 32 px, got {width} x {height}.")
        if not 1 <= self.stride <= min(width, height):
            raise ValueError(
                f"The stride of chips must be 1 to {min(width, height)}, their shorter side, got {self.stride}: with a "
                "larger one, there would be gaps between them."
            )

    def factor(self, level: int, image_wh: tuple[int, int]) -> float:
        """Return view pixels per image pixel of a scale for an image of this size."""
        scale = self.scales[level].scale
        if scale == "whole":
            return min(side / full for side, full in zip(self.size_wh, image_wh, strict=True))
        return float(scale)

    def positive(
        self, box_xyxy: np.ndarray, image_wh: tuple[int, int], rng: np.random.Generator | None = None
    ) -> list[Chip]:
        """Choose the positive chips of an image: together they show every box of a valid size whole, at each scale.

        Greedy: always the candidate that shows most boxes which no chip shows yet. Boxes that are cut by a chip do not
        count as shown. A box that is larger than a chip at a scale is not shown at it; see ``too_large``.

        Args:
            box_xyxy: ``(N, 4)``, image pixels. What counts of a box, its size too, is the part in the image.
            image_wh: Size of the image, pixels.
            rng: Chooses among candidates that show equally many; None takes the first.

        Raises:
            ValueError: Boxes that are not finite, or an image without area.
        """
        boxes = _checked(box_xyxy, image_wh)
        chips: list[Chip] = []
        for level, scale in enumerate(self.scales):
            valid = boxes[scale.holds(boxes) & ~self._too_large(level, boxes, image_wh)]
            chips += _Candidates(self, level, image_wh, valid).cover(valid, 1, rng)
        return chips

    def negative(
        self,
        proposal_xyxy: np.ndarray,
        positive: Sequence[Chip],
        image_wh: tuple[int, int],
        at_least: Sequence[int],
        rng: np.random.Generator | None = None,
    ) -> list[Chip]:
        """Choose chips with many proposals of a briefly trained network beside the objects: where it is likely to err.

        Proposals that a positive chip of the same scale shows are dropped; what remains is covered greedily, by chips
        that show enough of them. Such a chip may still show objects: of another size, cut, or in positive chips too.

        Args:
            proposal_xyxy: ``(N, 4)``, image pixels.
            positive: The positive chips of the image.
            image_wh: Size of the image, pixels.
            at_least: Proposals that a chip must show, for each scale.
            rng: As in ``positive``.

        Raises:
            ValueError: Boxes that are not finite, or not one number of at least 1 for each scale.
        """
        if len(at_least) != len(self.scales) or min(at_least) < 1:
            raise ValueError(
                f"Negative chips need a number of proposals of at least 1 for each of {len(self.scales)} scales, got "
                f"{tuple(at_least)}."
            )
        boxes = _checked(proposal_xyxy, image_wh)
        chips: list[Chip] = []
        for level, scale in enumerate(self.scales):
            left = scale.holds(boxes) & ~self._too_large(level, boxes, image_wh)
            for chip in positive:
                if chip.level == level:
                    left &= ~chip.covers(boxes)
            chips += _Candidates(self, level, image_wh, boxes[:0]).cover(boxes[left], at_least[level], rng)
        return chips

    def in_no_range(self, box_xyxy: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
        """Return which boxes ``(N, 4)`` have a valid size at no scale: ``(N,)``, also those outside the image."""
        boxes = _checked(box_xyxy, image_wh)
        return np.asarray(~np.any([scale.holds(boxes) for scale in self.scales], axis=0))

    def too_large(self, box_xyxy: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
        """Return which boxes ``(N, 4)`` of a valid size no chip can show whole, at no scale of theirs: ``(N,)``."""
        boxes = _checked(box_xyxy, image_wh)
        valid, shown = (np.zeros(len(boxes), dtype=bool) for _ in range(2))
        for level, scale in enumerate(self.scales):
            here = scale.holds(boxes)
            valid |= here
            shown |= here & ~self._too_large(level, boxes, image_wh)
        return np.asarray(valid & ~shown)

    def tiles(self, level: int, image_wh: tuple[int, int], overlap: int) -> list[Chip]:
        """Return chips on a grid that cover the whole image at a scale, row by row.

        Args:
            level: Index of the scale.
            image_wh: Size of the image, pixels.
            overlap: Pixels of the resized image that neighbours share at least.

        Raises:
            ValueError: An overlap that leaves no way forward, or an image without area.
        """
        if not 0 <= overlap < min(self.size_wh):
            raise ValueError(f"Chips of {self.size_wh[0]} x {self.size_wh[1]} px cannot overlap by {overlap} px.")
        _checked(np.zeros((0, 4)), image_wh)
        factor = self.factor(level, image_wh)
        columns, rows = (
            _evenly(resized, side, side - overlap)
            for resized, side in zip(_resized_wh(image_wh, factor), self.size_wh, strict=True)
        )
        return [Chip(level, (int(x), int(y)), factor, self.size_wh) for y in rows for x in columns]

    def _too_large(self, level: int, boxes: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
        low, high = _in_resized(boxes, self.factor(level, image_wh))
        return np.asarray((np.floor(low + _SLACK) + self.size_wh < high - _SLACK).any(-1))


_SLACK = 1e-6
"""Pixels by which rounding may move an edge."""


class _Candidates:
    """All places of a chip at one scale: a regular grid, and the right and lower edge of the resized image.

    Boxes ``to_show`` that lie in none of them get a chip at their upper left corner.
    """

    def __init__(self, rule: ChipRule, level: int, image_wh: tuple[int, int], to_show: np.ndarray) -> None:
        self.rule, self.level = rule, level
        self.scale = rule.factor(level, image_wh)
        resized_wh = _resized_wh(image_wh, self.scale)
        self.columns, self.rows = (
            _places(resized, side, rule.stride) for resized, side in zip(resized_wh, rule.size_wh, strict=True)
        )
        corners = np.floor(_in_resized(to_show, self.scale)[0] + _SLACK).astype(np.int64)
        corners = np.minimum(corners, np.maximum(np.subtract(resized_wh, rule.size_wh), 0))
        spans = self._spans(to_show)
        self.columns = np.union1d(self.columns, corners[spans[:, 0] >= spans[:, 1], 0])
        self.rows = np.union1d(self.rows, corners[spans[:, 2] >= spans[:, 3], 1])

    def cover(self, boxes: np.ndarray, at_least: int, rng: np.random.Generator | None) -> list[Chip]:
        """Choose chips greedily until none shows ``at_least`` more of the boxes.

        The candidates that show a box form a rectangle of the grid, so that the number of boxes that each shows is a
        sum of rectangles, of which those of shown boxes are taken away again.
        """
        spans = self._spans(boxes)
        count = np.zeros((len(self.rows), len(self.columns)), dtype=np.int32)
        for x0, x1, y0, y1 in spans:
            count[y0:y1, x0:x1] += 1
        left = np.ones(len(spans), dtype=bool)
        chips: list[Chip] = []
        while left.any():
            most = int(count.max())
            if most < at_least or most == 0:
                break
            best = np.flatnonzero(count == most)
            y, x = divmod(int(best[0] if rng is None else rng.choice(best)), len(self.columns))
            chips.append(Chip(self.level, (int(self.columns[x]), int(self.rows[y])), self.scale, self.rule.size_wh))
            shown = left & (spans[:, 0] <= x) & (x < spans[:, 1]) & (spans[:, 2] <= y) & (y < spans[:, 3])
            for x0, x1, y0, y1 in spans[shown]:
                count[y0:y1, x0:x1] -= 1
            left &= ~shown
        return chips

    def _spans(self, boxes: np.ndarray) -> np.ndarray:
        """Return columns and rows of the candidates that show each box whole: ``(N, 4)``, x0 x1 y0 y1, ends open."""
        low, high = _in_resized(boxes, self.scale)
        spans = np.empty((len(boxes), 4), dtype=np.int64)
        for axis, places in enumerate((self.columns, self.rows)):
            side = self.rule.size_wh[axis]
            spans[:, 2 * axis] = np.searchsorted(places, high[:, axis] - side - _SLACK)
            spans[:, 2 * axis + 1] = np.searchsorted(places, low[:, axis] + _SLACK, side="right")
        return spans


def _places(resized: int, side: int, stride: int) -> np.ndarray:
    """Return where chips may begin along an axis: every ``stride``, and where the last one ends with the image."""
    last = max(resized - side, 0)
    return np.unique(np.append(np.arange(0, last + 1, stride), last))


def _evenly(resized: int, side: int, most_apart: int) -> np.ndarray:
    """Return where the fewest chips begin that cover an axis, evenly, at most so far apart."""
    last = max(resized - side, 0)
    return np.round(np.linspace(0, last, -(-last // most_apart) + 1)).astype(np.int64)


def _resized_wh(image_wh: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return the size of a resized image, whole pixels, none cut off."""
    return int(np.ceil(image_wh[0] * scale - _SLACK)), int(np.ceil(image_wh[1] * scale - _SLACK))


def _in_resized(box_xyxy: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of boxes ``(N, 4)`` in the resized image, its upper left corner at (0, 0): two ``(N, 2)``."""
    edges = (np.asarray(box_xyxy, dtype=np.float64).reshape(-1, 4) + 0.5) * scale
    return edges[:, :2], edges[:, 2:]


def _checked(box_xyxy: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
    """Return boxes ``(N, 4)`` float64, clipped to the image.

    Raises:
        ValueError: They are not finite, or the image has no area.
    """
    if min(image_wh) < 1:
        raise ValueError(f"Chips need an image with area, got {image_wh[0]} x {image_wh[1]} pixels.")
    boxes = np.asarray(box_xyxy, dtype=np.float64).reshape(-1, 4)
    if not np.isfinite(boxes).all():
        raise ValueError("Chips need finite boxes; leave out instances without a box.")
    return np.clip(boxes, -0.5, np.array([*image_wh, *image_wh]) - 0.5)
