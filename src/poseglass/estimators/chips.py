"""Chips of large images for a network that finds everybody: where it looks, and what of each look counts.

Where the network was trained on chips, scales and valid ranges are those of its training: of each scale, only the
instances of a size in its range count (Singh, Najibi, Davis, "SNIPER", NeurIPS 2018, sections 3.4 and 4). How this
differs: an instance that is too long to be whole in some chip of its scale for sure also counts at the coarser ones,
down to the first that shows it whole. For any other network of whole images, it is tiling with overlap: the image at
full size, at half, and so on down to the whole image in one chip, each for the sizes that fit its overlap.
"""

from dataclasses import dataclass

import numpy as np

from poseglass.transforms.chips import Chip, ChipRule, ChipScale

OVERLAP = 0.25
"""Least share of a chip's side that neighbours overlap."""

MOST_OVERLAP = 0.75
"""Largest share that the valid range of a trained scale makes them overlap."""

LONGER = 1.4
"""Longer side of an object by the square root of its area, that of a box twice as high as wide."""

SHARED = 0.7
"""Sizes from this share of a scale's largest on are looked for at the next coarser scale, too."""

_BORDER_PX = 2.0
"""An instance that comes so close to the edge of a chip may be cut by it."""


@dataclass(frozen=True, slots=True)
class Chips:
    """How an image is looked at in chips.

    Args:
        rule: Scales and valid ranges; its chips must have the size of the network's views. None takes ``pyramid``,
            which depends on the size of the image.
        overlap: Share of a chip's side that neighbouring chips overlap at least. With a rule, it is more where a
            scale's valid range needs it, up to ``MOST_OVERLAP``, so that all of that size are whole in some chip.

    Raises:
        ValueError: An overlap outside [0, 0.9].
    """

    rule: ChipRule | None = None
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(f"The overlap of chips must be a share of their side from 0 to 0.9, got {self.overlap}.")

    def rule_for(self, image_wh: tuple[int, int], size_wh: tuple[int, int]) -> ChipRule:
        """Return scales and ranges for an image of this size, and views of ``size_wh``.

        Raises:
            ValueError: The chips of the rule have another size than the views.
        """
        if self.rule is None:
            return pyramid(image_wh, size_wh, self.overlap)
        if self.rule.size_wh != size_wh:
            raise ValueError(f"Chips must have the size of the network's views, {size_wh}, got {self.rule.size_wh}.")
        return self.rule

    def of_image(self, image_wh: tuple[int, int], rule: ChipRule) -> list[Chip]:
        """Return all chips of an image of this size, the first scale first."""
        return [
            chip
            for level in range(len(rule.scales))
            for chip in rule.tiles(level, image_wh, round(self._share(level, rule, image_wh) * min(rule.size_wh)))
        ]

    def _share(self, level: int, rule: ChipRule, image_wh: tuple[int, int]) -> float:
        """Return the share of their side that the chips of a scale overlap."""
        largest = rule.scales[level].up_to_px * rule.factor(level, image_wh)
        if self.rule is None or not np.isfinite(largest):
            return self.overlap
        return max(self.overlap, min((LONGER * largest + 2 * _BORDER_PX) / min(rule.size_wh), MOST_OVERLAP))

    def counts(self, box_xyxy: np.ndarray, chip: Chip, rule: ChipRule, image_wh: tuple[int, int]) -> np.ndarray:
        """Return which instances of a chip count, ``(N,)`` bool: those of a valid size that the chip does not cut.

        What touches an edge of the chip inside the image may be a part of something larger, and is left to the
        neighbour, or to a coarser scale. The valid size is the square root of the area for a rule that a network was
        trained with, and the longer side for a pyramid, which has to know what is whole in some chip. With a trained
        rule, an instance of a smaller size counts as well if all finer scales at which it counts may cut it.

        Args:
            box_xyxy: ``(N, 4)``, image pixels.
            chip: Where they were found.
            rule: Has the valid ranges.
            image_wh: Size of the image.
        """
        box = box_xyxy.astype(np.float64)
        edge, image = chip.box_xyxy, np.array([-0.5, -0.5, image_wh[0] - 0.5, image_wh[1] - 0.5])
        near = _BORDER_PX / chip.scale
        scale = rule.scales[chip.level]
        longer = (box[:, 2:] - box[:, :2]).max(-1, initial=0.0)
        if self.rule is None:
            counts = (longer >= scale.from_px) & (longer < scale.up_to_px)
        else:
            counts = scale.holds(box) | self._missed_by_finer(box, chip.level, rule, image_wh)
        for axis in range(2):
            counts &= ~((box[:, axis] < edge[axis] + near) & (edge[axis] > image[axis] + 0.5))
            counts &= ~((box[:, axis + 2] > edge[axis + 2] - near) & (edge[axis + 2] < image[axis + 2] - 0.5))
        return np.asarray(counts)

    def _missed_by_finer(
        self, box_xyxy: np.ndarray, level: int, rule: ChipRule, image_wh: tuple[int, int]
    ) -> np.ndarray:
        """Return which boxes ``(N, 4)`` count at finer scales, all of which may cut them."""
        factors = [rule.factor(each, image_wh) for each in range(len(rule.scales))]
        finer = [each for each in range(len(factors)) if factors[each] > factors[level]]
        counts, whole = np.zeros((2, len(box_xyxy)), dtype=bool)
        for each in sorted(finer, key=lambda each: -factors[each]):  # what no finer scale shows counts at the next one
            counts |= rule.scales[each].holds(box_xyxy)
            whole |= counts & self._whole_in_some(box_xyxy, each, rule, image_wh)
        return np.asarray(counts & ~whole)

    def _whole_in_some(self, box_xyxy: np.ndarray, level: int, rule: ChipRule, image_wh: tuple[int, int]) -> np.ndarray:
        """Return which boxes ``(N, 4)`` lie whole in some chip of a scale, wherever they are."""
        factor = rule.factor(level, image_wh)
        shared = round(self._share(level, rule, image_wh) * min(rule.size_wh)) - 2 * _BORDER_PX
        whole = np.ones(len(box_xyxy), dtype=bool)
        for axis in range(2):
            if image_wh[axis] * factor > rule.size_wh[axis]:  # otherwise one chip shows the whole axis
                whole &= (box_xyxy[:, axis + 2] - box_xyxy[:, axis]) * factor <= shared
        return whole


def pyramid(image_wh: tuple[int, int], size_wh: tuple[int, int], overlap: float = OVERLAP) -> ChipRule:
    """Return the scales at which a network that was not trained on chips looks at an image.

    Full size, half, a quarter, ... and the whole image in one chip. A scale is for instances whose longer side is no
    larger than the overlap of its chips, so that each is whole in one of them; what is larger is left to the next
    coarser scale. Ranges are of the longer side, in pixels of the image.

    Args:
        image_wh: Size of the image, pixels.
        size_wh: Size of the network's views.
        overlap: Share of a chip's side that neighbours overlap.
    """
    whole = min(side / full for side, full in zip(size_wh, image_wh, strict=True))
    factors: list[float] = []
    factor = 1.0
    while factor > 1.4 * whole and len(factors) < 7:
        factors.append(factor)
        factor /= 2
    scales, low = [], 0.0
    for factor in factors:
        high = (max(overlap, 0.1) * min(size_wh) - 2 * _BORDER_PX) / factor
        scales.append(ChipScale(factor, low, high))
        low = SHARED * high
    return ChipRule((*scales, ChipScale("whole", low)), size_wh, min(size_wh))
