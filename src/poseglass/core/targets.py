"""Inputs of training: Targets in view pixels; RawBatch, as loaders yield it; ModelInput, as networks take it.

The two batches are separate types on purpose. A raw batch holds uint8 images ``(B, H, W, 3)``, a model input normalised
float images ``(B, 3, H, W)``; a function takes one of them and raises an error when it is given the other.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from poseglass.core.prediction import shapes_of


@dataclass(slots=True, repr=False)
class Targets:
    """The labels of B views, instances padded to N; N = 1 is not a special case.

    Args:
        xy: ``(B, N, K, 2)`` float32, view pixels; 0 where unknown.
        known: ``(B, N, K)`` float32, the weight of a keypoint: 0 where unknown or padding.
        valid: ``(B, N)`` bool, False for padding.
        label: ``(B, N)`` int64, the class; 0 where there is one class, -1 for a crowd of any class.
        box_xyxy: ``(B, N, 4)`` float32, view pixels; all 0 where there is none.
        crowd: ``(B, N)`` bool: a region to ignore, in which nothing of its class counts as found or missed.
        occluded: ``(B, N, K)`` bool, labelled but hidden; None where not annotated.
        xyz_mm: ``(B, N, K, 3)`` float32, camera frame, NaN where unknown or padding; None where not annotated.
        observed_3d: ``(B, N, 8)`` float32, what the view shows of boxes in space, columns as ``core.box_3d.OBSERVED``,
            NaN where unknown or padding; None where not annotated.
        scaled: ``(B, N)`` bool: augmentation made the view larger or smaller; None where it was not told.

    Raises:
        ValueError: A shape does not match that of ``xy``.
    """

    xy: Tensor
    known: Tensor
    valid: Tensor
    label: Tensor
    box_xyxy: Tensor
    crowd: Tensor
    occluded: Tensor | None = None
    xyz_mm: Tensor | None = None
    observed_3d: Tensor | None = None
    scaled: Tensor | None = None

    def __post_init__(self) -> None:
        batch, count, keypoints = self.xy.shape[:3]
        expected = {
            "xy": (batch, count, keypoints, 2), "known": (batch, count, keypoints), "valid": (batch, count),
            "label": (batch, count), "box_xyxy": (batch, count, 4), "crowd": (batch, count),
            "occluded": (batch, count, keypoints), "xyz_mm": (batch, count, keypoints, 3),
            "observed_3d": (batch, count, 8), "scaled": (batch, count),
        }  # fmt: skip
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise ValueError(
                    f"Targets.{name} must have shape {shape} (views, instances, keypoints of xy), got "
                    f"{tuple(value.shape)}."
                )

    def __repr__(self) -> str:
        return shapes_of(self)

    def __len__(self) -> int:
        return len(self.xy)

    def to(self, device: torch.device | str) -> "Targets":
        """Return the targets on a device."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self) -> "Targets":
        """Return the targets in page-locked memory, so that they can be copied to a GPU asynchronously."""
        return self._each(lambda value: value.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Targets":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if value is not None})

    @classmethod
    def of_keypoints(cls, xy: Tensor, known: Tensor | None = None) -> "Targets":
        """Return the targets of one instance per view, from ``(B, K, 2)`` view pixels and ``(B, K)`` weights (1).

        Boxes are the tight ones around the known keypoints.
        """
        weight = torch.ones(xy.shape[:2], dtype=torch.float32, device=xy.device) if known is None else known.float()
        there = (weight > 0)[..., None]
        low = torch.where(there, xy, torch.inf).amin(1).nan_to_num(posinf=0.0)
        high = torch.where(there, xy, -torch.inf).amax(1).nan_to_num(neginf=0.0)
        flat = torch.zeros(len(xy), 1, dtype=torch.int64, device=xy.device)
        return cls(
            xy[:, None], weight[:, None], flat == 0, flat, torch.cat([low, high], -1)[:, None].float(), flat == 1
        )


@dataclass(slots=True, repr=False)
class RawBatch:
    """What a loader yields: views as they were read, and their targets.

    Args:
        images: ``(B, H, W, 3)`` uint8 RGB.
        targets: Targets of the B views.
        to_source: ``(B, 2, 3)`` float64, view pixels to the file's pixels.
        sources: B paths or ids.

    Raises:
        TypeError: The images are not uint8 ``(B, H, W, 3)``.
    """

    images: Tensor
    targets: Targets
    to_source: Tensor
    sources: list[str]

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise TypeError(
                "RawBatch.images must be uint8 (B, H, W, 3) as a loader yields them, got "
                f"{str(self.images.dtype).removeprefix('torch.')} {tuple(self.images.shape)}. What a network takes, "
                "float (B, 3, H, W), is a ModelInput."
            )

    def __repr__(self) -> str:
        return shapes_of(self)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the views, pixels."""
        return self.images.shape[2], self.images.shape[1]

    def to(self, device: torch.device | str) -> "RawBatch":
        """Return the batch on a device; ``to_source`` stays where it is."""
        return replace(self, images=self.images.to(device, non_blocking=True), targets=self.targets.to(device))

    def pin_memory(self) -> "RawBatch":
        """Return the batch in page-locked memory."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())


@dataclass(slots=True, repr=False)
class ModelInput:
    """What a network and a criterion take: normalised views and their targets.

    Args:
        images: ``(B, 3, H, W)`` floating point, normalised.
        targets: Targets of the B views.

    Raises:
        TypeError: The images are not floating point ``(B, 3, H, W)``.
    """

    images: Tensor
    targets: Targets

    def __post_init__(self) -> None:
        if not self.images.is_floating_point() or self.images.ndim != 4 or self.images.shape[1] != 3:
            raise TypeError(
                "ModelInput.images must be floating point (B, 3, H, W), got "
                f"{str(self.images.dtype).removeprefix('torch.')} {tuple(self.images.shape)}. Convert a RawBatch "
                "with poseglass.programs.model_input(batch, spec)."
            )

    def __repr__(self) -> str:
        return shapes_of(self)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the views, pixels."""
        return self.images.shape[3], self.images.shape[2]


def one_instance(targets: Targets) -> tuple[Tensor, Tensor]:
    """Return keypoints ``(B, K, 2)`` and weights ``(B, K)`` for a codec that encodes one instance per view.

    A view without an instance has weight 0 everywhere.

    Raises:
        TypeError: A batch instead of its targets.
        ValueError: More than one instance per view.
    """
    check_targets(targets)
    if targets.xy.shape[1] != 1:
        raise ValueError(
            f"This codec encodes one instance per view, but the targets have {targets.xy.shape[1]}. Crop each instance "
            "(data.Crops), or use a codec of several instances."
        )
    return targets.xy[:, 0], targets.known[:, 0] * targets.valid


def check_targets(targets: object) -> None:
    """Raise unless the argument is a ``Targets``, as codecs encode it.

    Raises:
        TypeError: A batch or something else instead.
    """
    if isinstance(targets, Targets):
        return
    what = "batch.targets and batch.size_wh" if isinstance(targets, RawBatch | ModelInput) else "them"
    raise TypeError(
        f"encode takes Targets (labels in view pixels) and the view's size_wh, got {type(targets).__name__}. "
        f"Pass {what}."
    )
