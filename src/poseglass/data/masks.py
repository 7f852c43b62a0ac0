"""Masks of labelled people, in a file beside the labels; ``data.cutouts`` finds them."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poseglass.core.files import write_bytes
from poseglass.core.skeleton import Skeleton

LONGEST_PX = 160
"""A photograph is cut at a size whose longer side has at most this many pixels; masks are kept at that size."""

TRUNK = ("left_shoulder", "right_shoulder", "right_hip", "left_hip")
"""Keypoints around the trunk, in order; a skeleton without them has no cutouts."""


@dataclass(frozen=True, slots=True)
class Cutouts:
    """Masks of people, each the size of a reduced photograph.

    Args:
        packed: Bits of each mask, row by row, by annotation id.
        sizes_wh: Width and height of each mask, by annotation id.
    """

    packed: Mapping[int, np.ndarray]
    sizes_wh: Mapping[int, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.packed)

    def __contains__(self, annotation_id: int) -> bool:
        return annotation_id in self.packed

    def mask(self, annotation_id: int) -> np.ndarray:
        """Return the mask ``(h, w)`` uint8, 0 or 255, of the whole photograph.

        Raises:
            KeyError: The person has no cutout.
        """
        width, height = self.sizes_wh[annotation_id]
        bits = np.unpackbits(self.packed[annotation_id], count=width * height)
        return (bits * np.uint8(255)).reshape(height, width)

    def write(self, path: str | Path) -> None:
        """Write all masks into one compressed ``.npz`` file."""
        ids = sorted(self.packed)
        file = io.BytesIO()
        np.savez_compressed(
            file,
            annotation_ids=np.array(ids, np.int64),
            sizes_wh=np.array([self.sizes_wh[i] for i in ids], np.int64).reshape(-1, 2),
            bits=np.concatenate([self.packed[i] for i in ids]) if ids else np.zeros(0, np.uint8),
        )
        write_bytes(path, file.getvalue())

    @classmethod
    def read(cls, path: str | Path) -> "Cutouts":
        """Read a file that ``write`` wrote.

        Raises:
            FileNotFoundError: No such file.
            ValueError: It is not such a file.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: no such file. Write it with `python -m poseglass.data.cutouts LABELS.json --out {path}`."
            )
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                ids, sizes, bits = (file[name] for name in ("annotation_ids", "sizes_wh", "bits"))
            lengths = (sizes.prod(-1) + 7) // 8
            if (
                sizes.shape != (len(ids), 2)
                or (sizes < 1).any()
                or lengths.sum() != len(bits)
                or bits.dtype != np.uint8
            ):
                raise ValueError("its arrays contradict each other")
        except Exception as error:  # zipfile, zlib and NumPy raise what they like for damaged files
            raise ValueError(
                f"{path}: expected cutouts as `python -m poseglass.data.cutouts` writes them, but {error}."
            ) from error
        parts = np.split(bits, np.cumsum(lengths)[:-1]) if len(ids) else []
        return cls(
            {int(i): part for i, part in zip(ids, parts, strict=True)},
            {int(i): (int(w), int(h)) for i, (w, h) in zip(ids, sizes, strict=True)},
        )


def mask_size_wh(image_wh: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the masks of an image."""
    factor = min(1.0, LONGEST_PX / max(image_wh))
    return max(round(image_wh[0] * factor), 1), max(round(image_wh[1] * factor), 1)


def check_trunk(skeleton: Skeleton, what: str) -> None:
    """Raise if a skeleton has no shoulders and hips.

    Args:
        skeleton: Any.
        what: What needs them, with its verb, to begin the message with.

    Raises:
        ValueError: It has none.
    """
    if not set(TRUNK) <= set(skeleton.keypoints):
        raise ValueError(
            f"{what} shoulders and hips ({', '.join(TRUNK)}), but the skeleton {skeleton.name!r} has "
            f"{', '.join(skeleton.keypoints)}."
        )
