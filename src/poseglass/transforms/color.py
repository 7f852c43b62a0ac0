"""Photometric augmentation: colour, brightness and covered patches. No pixel moves, and coordinates are unchanged."""

from dataclasses import dataclass

import cv2
import numpy as np

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class ColorJitter:
    """Scale each channel, change contrast and brightness, sometimes convert to grey; one matrix on uint8.

    Args:
        channel: Each channel is multiplied by U(1 - channel, 1 + channel).
        contrast: Differences from mid-grey are scaled by U(1 - contrast, 1 + contrast).
        brightness: U(-brightness, brightness) of the full range is added.
        grey_probability: Share of crops converted to grey.

    Raises:
        ValueError: A number outside 0 to 1.

    Source:
        The original code (pose-hg-train) multiplies each channel by U(0.6, 1.4).
    """

    channel: float = 0.4
    contrast: float = 0.0
    brightness: float = 0.0
    grey_probability: float = 0.0

    def __post_init__(self) -> None:
        for name in ("channel", "contrast", "brightness", "grey_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"ColorJitter.{name} must be within 0 and 1, got {getattr(self, name)}.")

    def repaint(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the augmented ``(H, W, 3)`` uint8 image."""
        gains = rng.uniform(1 - self.channel, 1 + self.channel, 3)
        contrast = rng.uniform(1 - self.contrast, 1 + self.contrast)
        shift = rng.uniform(-self.brightness, self.brightness) * 255
        to_grey = np.tile(_LUMA, (3, 1)) if rng.random() < self.grey_probability else np.eye(3)
        # ((value or grey) * gain - middle) * contrast + middle + shift, rounded and clipped once
        offset = np.full((3, 1), 127.5 * (1 - contrast) + shift)
        matrix = np.concatenate([(gains * contrast)[:, None] * to_grey, offset], axis=1)
        return cv2.transform(image, matrix.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Occlusion:
    """Cover a random patch with noise or one colour, like objects and crop borders.

    Args:
        probability: Share of crops.
        size: Smallest and largest side of the patch, as a share of the crop's side.

    Raises:
        ValueError: A probability outside 0 to 1, or invalid sizes.

    Source:
        Zhong et al. 2017, "Random Erasing Data Augmentation", https://arxiv.org/abs/1708.04896.
    """

    probability: float = 0.5
    size: tuple[float, float] = (0.1, 0.35)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        if not 0 <= self.probability <= 1:
            raise ValueError(f"Occlusion.probability must be within 0 and 1, got {self.probability}.")
        if len(self.size) != 2 or not 0 < self.size[0] <= self.size[1] <= 1:
            raise ValueError(f"Occlusion.size must be (low, high) with 0 < low <= high <= 1, got {self.size}.")

    def repaint(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the augmented ``(H, W, 3)`` uint8 image; the input is unchanged."""
        height, width = image.shape[:2]
        if rng.random() >= self.probability:
            return image
        w, h = (max(int(rng.uniform(*self.size) * side), 1) for side in (width, height))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        covered = image.copy()
        if rng.random() < 0.5:
            covered[y : y + h, x : x + w] = rng.integers(0, 256, 3, dtype=np.uint8)
        else:
            covered[y : y + h, x : x + w] = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        return covered
