"""Half-body augmentation: some crops show only a person's upper or lower half, like truncated people.

As used by the HRNet repository for COCO (leoxiaobin/deep-high-resolution-net.pytorch, MIT), after the Megvii entry of
the COCO 2018 keypoint challenge. One difference: the halves follow from the names of the keypoints, so this works for
any skeleton of a body.
"""

from dataclasses import dataclass

import numpy as np

from poseglass.core.boxes import fit_aspect
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.view import View

LOWER_WORDS = ("hip", "knee", "ankle", "pelvis", "heel", "toe", "foot")
"""Keypoints whose names contain one of these are in the lower half; all others are in the upper half."""


@dataclass(frozen=True, slots=True)
class HalfBody:
    """Choose a half of a person's known keypoints, and a box around it.

    Args:
        probability: Share of the people with enough keypoints whose crop shows a half.
        more_than: Only people with more known keypoints than this are used.
        upper_probability: Share of those that show the upper half. The original uses ``randn() < 0.5``, which is
            0.69, not 0.5.
        padding: The box around the half is enlarged to the crop's aspect ratio, then by this factor.

    Raises:
        ValueError: A probability outside 0 to 1, a count below 0, or a padding that is not positive.
    """

    probability: float = 0.3
    more_than: int = 8
    upper_probability: float = 0.69
    padding: float = 1.5

    def __post_init__(self) -> None:
        for name in ("probability", "upper_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"HalfBody.{name} must be within 0 and 1, got {getattr(self, name)}.")
        if self.more_than < 0 or not self.padding > 0:
            raise ValueError(f"HalfBody needs more_than >= 0 and padding > 0, got {self.more_than} and {self.padding}.")

    def draw(
        self, xy: np.ndarray, known: np.ndarray, skeleton: Skeleton, aspect: float, rng: np.random.Generator
    ) -> np.ndarray | None:
        """Return the box of a half, or None to show the whole person.

        Args:
            xy: ``(K, 2)``, pixels.
            known: ``(K,)`` bool.
            skeleton: Its keypoint names determine the halves.
            aspect: Width over height of the crop.
            rng: Always draws two numbers, so that other draws do not depend on the labels.

        Returns:
            ``(4,)`` x0 y0 x1 y1 in the pixels of ``xy``, about the mean of the half's keypoints.
        """
        wanted, upper_first = rng.random() < self.probability, rng.random() < self.upper_probability
        if not wanted or known.sum() <= self.more_than:
            return None
        lower = np.array([any(word in name for word in LOWER_WORDS) for name in skeleton.keypoints])
        halves = [known & ~lower, known & lower]
        if not upper_first or halves[0].sum() <= 2:
            halves.reverse()
        chosen = next((half for half in halves if half.sum() > 2), None)
        if chosen is None:
            return None
        points = xy[chosen].astype(np.float64)
        center, half_wh = points.mean(0), np.maximum(np.ptp(points, axis=0) / 2, 1.0)
        return fit_aspect(np.concatenate([center - half_wh, center + half_wh]), aspect, padding=self.padding)

    def choose_view(self, view: View, person: Instances, spec: InputSpec, rng: np.random.Generator) -> View:
        """Return the view of a half, or the same view to show the whole person; see ``ViewTransform``."""
        box = self.draw(person.xy[0], person.known[0], person.skeleton, spec.aspect, rng)
        return view if box is None else View.of_region(box, view.size_wh, spec.crop)
