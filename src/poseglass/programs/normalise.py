"""Converts uint8 views to network inputs."""

import torch
from torch import Tensor

from poseglass.core.input_spec import InputSpec
from poseglass.core.targets import ModelInput, RawBatch


def normalise(views: Tensor, spec: InputSpec) -> Tensor:
    """Convert ``(B, H, W, 3)`` uint8 RGB to ``(B, 3, H, W)`` float32, normalised, in channels-last memory.

    The channels have the order of ``spec.color``, which is also that of its mean and standard deviation.

    Raises:
        TypeError: Views that are not uint8 ``(B, H, W, 3)``.
    """
    if views.dtype != torch.uint8 or views.ndim != 4 or views.shape[-1] != 3:
        dtype = str(views.dtype).removeprefix("torch.")
        raise TypeError(
            f"Views must be uint8 (B, H, W, 3) RGB, got {dtype} {tuple(views.shape)}. "
            "View.read(image) makes one from an image; normalisation is done here, once."
        )
    device = views.device
    mean, std = torch.tensor(spec.mean, device=device) * 255, torch.tensor(spec.std, device=device) * 255
    # one multiply-add over contiguous NHWC memory; the permuted view is channels_last for free
    ordered = views.flip(-1) if spec.color == "bgr" else views
    return torch.addcmul(-mean / std, ordered.float(), 1 / std).permute(0, 3, 1, 2)


def model_input(batch: RawBatch, spec: InputSpec) -> ModelInput:
    """Return a batch as a network input: the images normalised, the targets unchanged.

    Raises:
        TypeError: Not a raw batch, for example one that is already normalised.
    """
    if not isinstance(batch, RawBatch):
        raise TypeError(
            f"model_input takes a RawBatch, whose images are uint8 as a loader yields them, got {type(batch).__name__}."
        )
    return ModelInput(normalise(batch.images, spec), batch.targets)
