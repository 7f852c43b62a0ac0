"""Skeleton: the names, bones and left-right symmetry of K keypoints."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from poseglass.core.table import nearest


def flipped_name(name: str) -> str:
    """Return the name with left and right exchanged; a name with neither is its own partner.

    Understands ``left_wrist``, ``wrist_left``, ``LeftWrist``, ``l_wrist``, ``wrist_l``, ``L wrist``, ``wrist.R``.

    Example:
        >>> flipped_name("left_wrist"), flipped_name("RightKnee"), flipped_name("nose")
        ('right_wrist', 'LeftKnee', 'nose')
        >>> flipped_name("r_hip"), flipped_name("upright"), flipped_name("hip.L")
        ('l_hip', 'upright', 'hip.R')
    """
    swap = {"left": "right", "right": "left", "l": "r", "r": "l"}

    def exchange(match: re.Match[str]) -> str:
        word = match.group(0)
        other = swap[word.lower()]
        if word.isupper():
            return other.upper()
        return other.capitalize() if word[0].isupper() else other

    # "left" counts at the border of a word or before a capital ("LeftKnee", "kneeLeft"), so "upright" stays;
    # a single letter counts only when it stands alone between separators.
    pattern = (
        r"(?<![A-Za-z])(?:[Ll]eft|[Rr]ight|LEFT|RIGHT)(?![a-z])|(?<=[a-z])(?:Left|Right)(?![a-z])"
        r"|(?<![A-Za-z0-9])[LlRr](?![A-Za-z0-9])"
    )
    return re.sub(pattern, exchange, name)


@dataclass(frozen=True)
class Skeleton:
    """Names, bones and symmetry of K keypoints.

    Args:
        name: Of the skeleton, "coco17".
        keypoints: K unique names, "left_wrist". Left and right are the person's own. Of what is detected as a box
            alone there are none.
        bones: Pairs of keypoint names.
        sigmas: K OKS constants (COCO's, i.e. half of the paper's kappa), or none.
        flip_pairs: Pairs that change places when the image is flipped. None derives them from left and right in
            the names; an empty tuple says that nothing changes places.

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
            raise ValueError(
                f"Skeleton {self.name!r}: a keypoint may stand in one flip pair only, got {self.flip_pairs}."
            )

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
        for i, name in enumerate(self.keypoints):
            other = flipped_name(name)
            if other in self.keypoints:
                order[i] = self.keypoints.index(other)
        return order

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
        """Return for each name its position here, -1 where this skeleton lacks it: ``(len(keypoints),)`` int64."""
        known = {name: i for i, name in enumerate(self.keypoints)}
        return np.array([known.get(name, -1) for name in keypoints], dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and strings, for a card or a JSON file."""
        return {
            "name": self.name,
            "keypoints": list(self.keypoints),
            "bones": [list(b) for b in self.bones],
            "sigmas": list(self.sigmas),
            "flip_pairs": None if self.flip_pairs is None else [list(p) for p in self.flip_pairs],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Skeleton":
        """Rebuild what ``to_dict`` gave.

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
