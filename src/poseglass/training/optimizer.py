"""Optimisers, and the weights that weight decay applies to."""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from poseglass.core.part import Part


class OptimizerPart(Part):
    """The optimiser and its hyperparameters."""

    name: Literal["rmsprop", "adam", "adamw", "sgd"] = "adamw"
    lr: float = Field(default=1e-3, ge=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    betas: tuple[float, float] = (0.9, 0.999)
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0


def make_optimizer(network: nn.Module, part: OptimizerPart) -> torch.optim.Optimizer:
    """Make the optimiser; there is no weight decay on biases and normalisation (one-dimensional weights)."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": part.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if part.name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=part.lr, alpha=part.alpha, eps=part.eps, momentum=part.momentum)
    if part.name == "sgd":
        return torch.optim.SGD(groups, lr=part.lr, momentum=part.momentum, fused=True)
    kind = torch.optim.AdamW if part.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=part.lr, betas=part.betas, eps=part.eps, fused=True)
