"""Measures how exactly a codec recovers the points it encoded; works for our codecs and for anyone else's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from poseglass.codecs import Codec
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets

Arrays = dict[str, np.ndarray]


class NumpyCodec(Protocol):
    """The interface that is measured: three functions, NumPy in and out. ``flip`` is optional."""

    def encode(self, xy: np.ndarray, size_wh: tuple[int, int]) -> Arrays:
        """Encode points ``(N, K, 2)``, network-input pixels, as a perfectly trained network would output them."""
        ...

    def decode(self, output: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Return points ``(N, K, 2)``, network-input pixels, and scores ``(N, K)``."""
        ...


@dataclass(frozen=True, slots=True)
class OurCodec:
    """Adapts one of our codecs to ``NumpyCodec``."""

    codec: Codec

    def encode(self, xy: np.ndarray, size_wh: tuple[int, int]) -> Arrays:
        """Encode known points; if the codec decodes logits, return the logarithm of the target."""
        target = self.codec.encode(Targets.of_keypoints(torch.from_numpy(xy.astype(np.float32))), size_wh)
        return {key: value.numpy() for key, value in as_output(self.codec, target).items()}

    def decode(self, output: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Decode."""
        decoded = self.codec.decode({key: torch.from_numpy(value) for key, value in output.items()})
        return decoded.xy[:, 0].numpy(), decoded.score[:, 0].numpy()

    def flip(self, output: Arrays) -> Arrays:
        """Convert the output for a flipped image into one for the original image; no keypoint has a partner."""
        count = next(iter(output.values())).shape[1]
        alone = Skeleton("alone", tuple(f"point_{k}" for k in range(count)))
        flipped = self.codec.flip({key: torch.from_numpy(value) for key, value in output.items()}, alone)
        return {key: value.numpy() for key, value in flipped.items()}


def as_output(codec: Codec, target: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the output of a perfectly trained network for a codec's targets, without entries that only losses use."""
    return {
        key: target[key].clamp_min(1e-6).log() if output.activation == "softmax" else target[key]
        for key, output in codec.spec.outputs.items()
    }


@dataclass(frozen=True, slots=True)
class Measure:
    """Distances between encoded and decoded points, network-input pixels, and the range of the scores."""

    condition: str
    median_px: float
    p95_px: float
    max_px: float
    score_low: float
    score_high: float


CONDITIONS = ("inside", "border", "noise", "float16", "bfloat16", "flip")


def measure(
    subject: NumpyCodec, size_wh: tuple[int, int] = (192, 256), *, people: int = 64, seed: int = 0
) -> list[Measure]:
    """Measure the round trip from points to output and back.

    Args:
        subject: The codec.
        size_wh: Size of the network's input, pixels.
        people: Number of people, with 16 keypoints each, tested under each condition.
        seed: Seed of the positions and the noise.

    Returns:
        One result per condition: sub-pixel positions at least 32 pixels from the border ("inside"); less than 28 pixels
        from it ("border"); inside, with Gaussian noise on the output of 2 % of its range around the keypoint, or 0.1
        for logits ("noise"); inside, in half precision ("float16" and "bfloat16"); and inside, decoded from the flipped
        image's output flipped back ("flip"; skipped if the codec has no ``flip``).

    Raises:
        ValueError: The decoded arrays have another shape than the encoded points.
    """
    rng = np.random.default_rng(seed)
    width, height = size_wh
    inside = rng.uniform(32, np.array([width - 33, height - 33]), (people, 16, 2))
    border = rng.uniform(0, np.array([width - 1, height - 1]), (people, 16, 2))
    axis = rng.integers(0, 2, (people, 16))
    depth = rng.uniform(0, 28, (people, 16))
    far = np.where(rng.random((people, 16)) < 0.5, depth, np.array(size_wh)[axis] - 1 - depth)
    np.put_along_axis(border, axis[..., None], far[..., None], -1)

    def noisy(output: Arrays) -> Arrays:
        return {key: value + rng.normal(0, _noise(value), value.shape) for key, value in output.items()}

    def flipped(_: Arrays) -> Arrays:
        points = inside.copy()
        points[..., 0] = width - 1 - points[..., 0]
        return subject.flip(subject.encode(points, size_wh))  # type: ignore[attr-defined]

    changes: dict[str, tuple[np.ndarray, Callable[[Arrays], Arrays]]] = {
        "inside": (inside, lambda output: output),
        "border": (border, lambda output: output),
        "noise": (inside, lambda output: {k: v.astype(np.float32) for k, v in noisy(output).items()}),
        "float16": (inside, lambda output: {k: v.astype(np.float16) for k, v in output.items()}),
        # NumPy has no bfloat16: its values are kept as float32
        "bfloat16": (
            inside,
            lambda output: {k: torch.from_numpy(v).bfloat16().float().numpy() for k, v in output.items()},
        ),
        "flip": (inside, flipped),
    }
    if not hasattr(subject, "flip"):
        del changes["flip"]
    measures: list[Measure] = []
    for condition, (points, change) in changes.items():
        xy, score = subject.decode(change(subject.encode(points, size_wh)))
        if xy.shape != points.shape or score.shape != points.shape[:2]:
            raise ValueError(
                f"decode must return points {points.shape} and scores {points.shape[:2]}, got {xy.shape} and "
                f"{score.shape}. "
                "Expected network-input pixels, one person per entry."
            )
        error = np.linalg.norm(xy - points, axis=-1)
        median, p95, largest = np.percentile(error, [50, 95, 100]).tolist()
        measures.append(Measure(condition, median, p95, largest, float(score.min()), float(score.max())))
    return measures


def _noise(value: np.ndarray) -> float:
    """Return 2 % of an output's range around a keypoint; for logits, which go down to -13, 0.1 is enough."""
    if value.min() < -10 and value.max() <= 1:
        return 0.1
    return 0.02 * min(float(value.max()), 1.0)
