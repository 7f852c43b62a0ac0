"""Skeleton: the names, bones and left-right symmetry of K keypoints."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from poseglass.core.sides import alone, name_pairs, side_of
from poseglass.core.table import listed, nearest


@dataclass(frozen=True)
class Skeleton:
    """Names, bones and symmetry of K keypoints.

    Args:
        name: Name of the skeleton, "coco17".
        keypoints: K unique names, "left_wrist". Left and right are the person's own. Empty for objects that are only
            detected as boxes.
        bones: Pairs of keypoint names.
        sigmas: K OKS constants (COCO's, i.e. half of the paper's kappa), or none.
        flip_pairs: Pairs that are swapped when the image is flipped. None derives them from left and right in the
            names; an empty tuple means that nothing is swapped.

    Raises:
        ValueError: Names repeat, a bone or pair names an unknown keypoint, or the number of sigmas is not K.

    Example:
        >>> toy = Skeleton("toy3", ("nose", "left_eye", "right_eye"), (("nose", "left_eye"),))
        >>> toy.flip.tolist(), toy.bone_indices.tolist(), toy.index("right_eye")
        ([0, 2, 1], [[0, 1]], 2)
    """

    name: str
    keypoints: tuple[str, ...]
    bones: tuple[tuple[str, str], ...] = ()
    sigmas: tuple[float, ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] | None = field(default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keypoints", tuple(self.keypoints))
        object.__setattr__(self, "bones", tuple((a, b) for a, b in self.bones))
        object.__setattr__(self, "sigmas", tuple(float(s) for s in self.sigmas))
        if self.flip_pairs is not None:
            object.__setattr__(self, "flip_pairs", tuple((a, b) for a, b in self.flip_pairs))
        repeated = sorted({n for n in self.keypoints if self.keypoints.count(n) > 1})
        if repeated:
            raise ValueError(f"Skeleton {self.name!r}: keypoint names must be unique, repeated: {', '.join(repeated)}.")
        if self.sigmas and len(self.sigmas) != len(self.keypoints):
            raise ValueError(
                f"Skeleton {self.name!r}: expected {len(self.keypoints)} sigmas (one per keypoint) or none, "
                f"got {len(self.sigmas)}."
            )
        if any(not (np.isfinite(s) and s > 0) for s in self.sigmas):
            raise ValueError(f"Skeleton {self.name!r}: sigmas must be positive and finite, got {self.sigmas}.")
        for what, pairs in (("bone", self.bones), ("flip pair", self.flip_pairs or ())):
            for a, b in pairs:
                for end in (a, b):
                    if end not in self.keypoints:
                        raise ValueError(
                            f"Skeleton {self.name!r}: {what} ({a!r}, {b!r}) names unknown keypoint {end!r}."
                            f"{nearest(end, self.keypoints)} Known: {', '.join(self.keypoints)}."
                        )
        paired = [n for pair in self.flip_pairs or () for n in pair]
        if len(set(paired)) != len(paired):
            raise ValueError(f"Skeleton {self.name!r}: a keypoint may be in one flip pair only, got {self.flip_pairs}.")

    def __len__(self) -> int:
        return len(self.keypoints)

    @cached_property
    def flip(self) -> np.ndarray:
        """``(K,)`` int64: ``xy[flip]`` is the order of keypoints after flipping the image."""
        order = np.arange(len(self.keypoints))
        if self.flip_pairs is not None:
            for a, b in self.flip_pairs:
                i, j = self.index(a), self.index(b)
                order[i], order[j] = j, i
            return order
        for i, j in name_pairs(self.keypoints):
            order[i], order[j] = j, i
        return order

    @cached_property
    def sides(self) -> tuple[str | None, ...]:
        """K times "left", "right" or None: the side according to a keypoint's name or its flip pair."""
        found = [side_of(name) for name in self.keypoints]
        pairs = self.flip_pairs
        if pairs is None:
            pairs = tuple((self.keypoints[i], self.keypoints[j]) for i, j in name_pairs(self.keypoints))
        for a, b in pairs:
            i, j = self.index(a), self.index(b)
            if found[i] is None and found[j] is None:
                found[i], found[j] = "left", "right"
        return tuple(found)

    @cached_property
    def mirroring_unknown(self) -> str:
        """Why it is not known which keypoints to swap when an image is flipped; empty if it is known.

        It is known if flip pairs are given (an empty tuple: nothing is swapped), or if the names give at least one pair
        and no name has a side without a partner. Otherwise neither training nor the flip test flips images: that would
        teach, or average, left as right.

        Example:
            >>> Skeleton("leaf", ("tip", "base")).mirroring_unknown
            'no two of the names differ by left and right (tip, base)'
            >>> Skeleton("leaf", ("tip", "base"), flip_pairs=()).mirroring_unknown
            ''
        """
        if self.flip_pairs is not None or not self.keypoints:
            return ""
        lone = alone(self.keypoints)
        if lone:
            return f"the other side of {', '.join(lone)} is not among the keypoints"
        if not name_pairs(self.keypoints):
            return f"no two of the names differ by left and right ({listed(self.keypoints)})"
        return ""

    @property
    def mirrors(self) -> bool:
        """Whether it is known which keypoints are swapped when an image is flipped."""
        return not self.mirroring_unknown

    @cached_property
    def bone_indices(self) -> np.ndarray:
        """``(M, 2)`` int64 indices of the bones' ends."""
        return np.array([[self.index(a), self.index(b)] for a, b in self.bones], dtype=np.int64).reshape(-1, 2)

    def index(self, keypoint: str) -> int:
        """Return the position of a keypoint.

        Raises:
            LookupError: No keypoint of that name.
        """
        try:
            return self.keypoints.index(keypoint)
        except ValueError:
            raise LookupError(
                f"Skeleton {self.name!r} has no keypoint {keypoint!r}.{nearest(keypoint, self.keypoints)} "
                f"Known: {', '.join(self.keypoints)}."
            ) from None

    def indices_of(self, keypoints: Sequence[str]) -> np.ndarray:
        """Return the position of each name here, -1 where this skeleton lacks it: ``(len(keypoints),)`` int64."""
        known = {name: i for i, name in enumerate(self.keypoints)}
        return np.array([known.get(name, -1) for name in keypoints], dtype=np.int64)

    def all_indices_of(self, keypoints: Sequence[str], *, needed_by: str, advice: str) -> np.ndarray:
        """Return the position of each name here, where none may be missing: ``(len(keypoints),)`` int64.

        Args:
            keypoints: Names.
            needed_by: What needs them, for the message.
            advice: What to do without them, a sentence for the message.

        Raises:
            ValueError: This skeleton lacks some.

        Example:
            >>> Skeleton("eyes", ("left_eye", "right_eye")).all_indices_of(["left_eye"], needed_by="a", advice="B.")
            array([0])
        """
        found = self.indices_of(keypoints)
        lacking = [name for name, at in zip(keypoints, found.tolist(), strict=True) if at < 0]
        if lacking:
            raise ValueError(f"Skeleton {self.name!r} lacks {listed(lacking)}, which {needed_by} needs. {advice}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and strings for a card or a JSON file."""
        return {
            "name": self.name,
            "keypoints": list(self.keypoints),
            "bones": [list(b) for b in self.bones],
            "sigmas": list(self.sigmas),
            "flip_pairs": None if self.flip_pairs is None else [list(p) for p in self.flip_pairs],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Skeleton":
        """Rebuild a skeleton from the result of ``to_dict``.

        Raises:
            ValueError: As the constructor, or a field is missing.
        """
        if not isinstance(data, dict) or "keypoints" not in data:
            raise ValueError(f"A skeleton must be a table with 'name' and 'keypoints', got {data!r}.")
        flip_pairs = data.get("flip_pairs")
        return cls(
            name=str(data.get("name", "unnamed")),
            keypoints=tuple(data["keypoints"]),
            bones=tuple((a, b) for a, b in data.get("bones", ())),
            sigmas=tuple(data.get("sigmas", ())),
            flip_pairs=None if flip_pairs is None else tuple((a, b) for a, b in flip_pairs),
        )
