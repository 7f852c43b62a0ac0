"""CodecSpec: states what a codec decodes, in which shapes and on which grid."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Activation = Literal["none", "softmax", "sigmoid"]
"""What a map holds: values as they are, logits of a softmax over its pixels (bins, states), or of a sigmoid at each."""

Grid = Literal["center", "corner", "udp"]
"""How view and map pixels correspond: ``(x + 0.5) / stride - 0.5``, ``x / stride``, ``x * (w - 1) / (W - 1)``."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a head that a codec decodes.

    Args:
        shape: Shape without the batch axis; numbers, and the letters K (keypoints), C (classes), h and w (the map's
            height and width), X and Y (bins along x and y).
        activation: What its values are.
        stride: View pixels per pixel of this map; None takes ``CodecSpec.stride``.
    """

    shape: tuple[str | int, ...]
    activation: Activation = "none"
    stride: int | None = None


@dataclass(frozen=True, slots=True)
class CodecSpec:
    """What a codec decodes and encodes.

    Args:
        outputs: What a network must output, by key.
        stride: View pixels per map pixel, where an output states no other; 1 if there are no maps.
        alignment: How view and map pixels correspond.
        sigma: Standard deviation of the Gaussian targets, map pixels (or bins); None if there are none.
        bins_per_px: Bins per pixel, for codecs that classify coordinates.
        loss_keys: Further encoded keys, used only by losses: no network outputs them.
        instances: Largest number of instances that are decoded per view; 1 for codecs of one instance.
        keypoints: Whether keypoints are decoded; without them, boxes or classes are.

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
    instances: int = 1
    keypoints: bool = True

    @property
    def boxes_3d(self) -> bool:
        """Whether boxes in space are decoded."""
        return "depth" in self.outputs

    def shapes(self, num_keypoints: int, size_wh: tuple[int, int], num_classes: int = 1) -> dict[str, tuple[int, ...]]:
        """Return the shape of every output for a view of ``size_wh``, without the batch axis."""
        width, height = size_wh
        shapes: dict[str, tuple[int, ...]] = {}
        for key, output in self.outputs.items():
            stride = self.stride_of(key)
            sides = {
                "K": num_keypoints, "C": num_classes, "h": height // stride, "w": width // stride,
                "X": width * self.bins_per_px, "Y": height * self.bins_per_px,
            }  # fmt: skip
            shapes[key] = tuple(side if isinstance(side, int) else sides[side] for side in output.shape)
        return shapes

    def stride_of(self, key: str) -> int:
        """Return the view pixels per map pixel of an output.

        Raises:
            LookupError: The codec decodes no output of that name.
        """
        return self.outputs[key].stride or self.stride
