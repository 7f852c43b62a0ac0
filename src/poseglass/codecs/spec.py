"""CodecSpec: what a codec is, asked instead of guessed: what it reads, in which shapes, on which grid."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Activation = Literal["none", "softmax", "sigmoid"]
"""What a map holds: values as they are, or logits of a softmax over its pixels (or bins), or of a sigmoid each."""

Grid = Literal["center", "corner", "udp"]
"""How view and map pixels correspond: ``(x + 0.5) / stride - 0.5``, ``x / stride``, ``x * (w - 1) / (W - 1)``."""


@dataclass(frozen=True, slots=True)
class Output:
    """One thing that a codec reads from a head.

    Args:
        shape: After the batch axis; numbers, and the letters K (keypoints), C (classes), h and w (the map's height and
            width), X and Y (bins along x and y).
        activation: What its values are.
    """

    shape: tuple[str | int, ...]
    activation: Activation = "none"


@dataclass(frozen=True, slots=True)
class CodecSpec:
    """What a codec reads and draws.

    Args:
        outputs: What a network has to give, by key.
        stride: View pixels per map pixel; 1 where there are no maps.
        alignment: Of view and map pixels.
        sigma: Of the Gaussian that is drawn, map pixels (or bins); None where none is drawn.
        bins_per_px: Of codecs that classify coordinates.
        loss_keys: What is encoded besides, for losses alone: no network gives it.

    Example:
        >>> spec = CodecSpec({"heatmap": Output(("K", "h", "w"))}, stride=4)
        >>> spec.shapes(17, (192, 256))
        {'heatmap': (17, 64, 48)}
    """

    outputs: Mapping[str, Output]
    stride: int = 1
    alignment: Grid = "center"
    sigma: float | None = None
    bins_per_px: int = 1
    loss_keys: tuple[str, ...] = field(default=())

    def shapes(self, num_keypoints: int, size_wh: tuple[int, int], num_classes: int = 1) -> dict[str, tuple[int, ...]]:
        """Return the shape of every output for a view of ``size_wh``, without the batch axis."""
        width, height = size_wh
        sides = {
            "K": num_keypoints, "C": num_classes, "h": height // self.stride, "w": width // self.stride,
            "X": width * self.bins_per_px, "Y": height * self.bins_per_px,
        }  # fmt: skip
        return {
            key: tuple(side if isinstance(side, int) else sides[side] for side in output.shape)
            for key, output in self.outputs.items()
        }
