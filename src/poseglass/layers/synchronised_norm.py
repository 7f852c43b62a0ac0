"""Batch norm over the batches of all processes, so that several processes train like one.

PyTorch has this for CUDA only (``nn.SyncBatchNorm``); this version runs wherever ``torch.distributed`` does, including
on the CPU with gloo, and keeps the names of batch norm's tensors, so that checkpoints do not depend on how many
processes wrote them.

Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, section 3, with sums over all processes; partial
statistics are combined as in Chan, Golub and LeVeque 1979 ("Updating formulae and a pairwise algorithm for computing
sample variances").
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Every batch norm class; PyTorch's common base class is private."""


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch norm for inputs of any number of axes, with training statistics over the batches of all processes.

    In evaluation mode, and without a process group of several processes, it is plain batch norm. Processes may have
    batches of different sizes. Running statistics are those that a single process would have kept: the variance is
    unbiased over the joint batch.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"SynchronisedBatchNorm takes (B, C, ...), got {input.dim()} axes.")

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(B, C, ...)`` to the same shape and dtype."""
        several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        if not several or not (self.training or self.running_mean is None):
            return super().forward(input)
        self._check_input_dim(input)
        normalised, mean, unbiased = _Normalise.apply(input, self.weight, self.bias, self.eps)
        if self.training and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(unbiased, momentum)
        return normalised


def synchronise_norms(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm by a synchronised one with the same tensors under the same names.

    On CUDA this is PyTorch's own, which is fused; elsewhere ``SynchronisedBatchNorm``.

    Args:
        network: Changed in place; parameters stay the same objects, so existing optimisers remain valid.
        device: The device it runs on.

    Returns:
        The network, or its replacement if it is itself a batch norm.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if isinstance(network, BATCH_NORMS) and not isinstance(network, (SynchronisedBatchNorm, nn.SyncBatchNorm)):
        made = SynchronisedBatchNorm(
            network.num_features, network.eps, network.momentum, network.affine, network.track_running_stats
        )
        made.weight, made.bias = network.weight, network.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(made, name, getattr(network, name))
        return made.train(network.training)
    for name, child in network.named_children():
        made = synchronise_norms(child, device)
        if made is not child:
            setattr(network, name, made)
    return network


class _Normalise(torch.autograd.Function):
    """Normalise by the statistics of all processes; the backward pass also sums over all processes."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the normalised input ``(B, C, ...)``, the joint mean ``(C,)`` and the unbiased variance ``(C,)``."""
        channels = images.shape[1]
        wide = _wide(images)
        variance, mean = torch.var_mean(wide, dim=_all_but_channels(images), correction=0)
        count = torch.full((1,), images.numel() / channels, dtype=torch.float64, device=images.device)
        # double precision costs nothing here (2 C + 1 numbers) and keeps the joint variance free of cancellation
        own = torch.cat([mean.double(), variance.double() * count, count])
        parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, own)
        every = torch.stack(parts)
        means, squares, counts = every[:, :channels], every[:, channels:-1], every[:, -1:]
        total = counts.sum()
        joint = (counts * means).sum(0) / total
        squares = (squares + counts * (means - joint).square()).sum(0)
        mean, variance = joint.to(wide.dtype), (squares / total).to(wide.dtype)
        ctx.save_for_backward(images, weight, mean, (variance + eps).rsqrt())
        ctx.total = float(total)
        if ctx.total < 2:
            raise ValueError(
                f"Batch norm needs more than 1 value per channel in training, got inputs of {tuple(images.shape)}. "
                "Use a larger batch."
            )
        unbiased = (squares / (total - 1)).to(wide.dtype)
        ctx.mark_non_differentiable(mean, unbiased)
        return functional.batch_norm(images, mean, variance, weight, bias, False, 0.0, eps), mean, unbiased

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients of input, weight and bias; those of weight and bias are this process's share."""
        images, weight, mean, inverse_std = ctx.saved_tensors
        axes, view = _all_but_channels(images), (1, -1, *[1] * (images.ndim - 2))
        upper = _wide(gradient)
        standard = (_wide(images) - mean.view(view)) * inverse_std.view(view)
        own = torch.stack([upper.sum(axes), (upper * standard).sum(axes)])
        sums = own.clone()
        distributed.all_reduce(sums)
        sums /= ctx.total
        scale = inverse_std if weight is None else inverse_std * weight
        lower = (upper - sums[0].view(view) - standard * sums[1].view(view)) * scale.view(view)
        plain = weight is None
        return lower.to(images.dtype), None if plain else own[1], None if plain else own[0], None


def _wide(values: Tensor) -> Tensor:
    """Return half precision as float32, other dtypes unchanged."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _all_but_channels(images: Tensor) -> list[int]:
    return [0, *range(2, images.ndim)]
