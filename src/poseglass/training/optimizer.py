"""Optimisers, the weights that weight decay applies to, and a learning rate of the backbone's own."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from poseglass.core.part import Part
from poseglass.core.table import listed, nearest


class OptimizerPart(Part):
    """The optimiser and its hyperparameters."""

    name: Literal["rmsprop", "adam", "adamw", "sgd"] = "adamw"
    lr: float = Field(default=1e-3, ge=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    betas: tuple[float, float] = (0.9, 0.999)
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    backbone_lr_scale: float = Field(default=1.0, gt=0.0, description="Factor on the backbone's learning rate.")


def backbone_of(network: nn.Module, key: str) -> nn.Module:
    """Return a network's backbone; ``key`` is what needs one, for the message.

    Raises:
        ValueError: The network has none.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ValueError(
            f"{key} is for networks with a backbone, which {type(network).__name__} has not. Omit it, or compose a "
            'network: network = {name = "composed", backbone = {name = ...}, neck = {name = ...}}.'
        )
    return backbone


def freeze(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Switch off the gradients of modules, and return them; whoever trains keeps them in evaluation mode.

    Args:
        network: The network.
        names: Names of modules, as in ``network.named_modules()``: "backbone.stem", "backbone.stages.0".

    Raises:
        ValueError: The network has no such module, or nothing is left to train.
    """
    inside = dict(network.named_modules())
    chosen = []
    for name in names:
        if name not in inside or not name:
            known = [each for each in inside if each and each.count(".") <= 2]
            raise ValueError(
                f"train.frozen: {type(network).__name__} has no module {name!r}.{nearest(name, known)} Its first "
                f"levels: {listed(known)}."
            )
        chosen.append(inside[name].requires_grad_(False))
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError("train.frozen: all of the network is frozen, so nothing can be learnt. Freeze fewer modules.")
    return chosen


def make_optimizer(network: nn.Module, part: OptimizerPart) -> torch.optim.Optimizer:
    """Make the optimiser; there is no weight decay on biases and normalisation (one-dimensional weights).

    Frozen parameters are left out.

    With a ``backbone_lr_scale`` other than 1, the parameters of the network's ``backbone`` have groups of their own,
    with the scale as ``lr_scale``; the training loop multiplies the rate of each group by it.

    Raises:
        ValueError: A ``backbone_lr_scale`` for a network without a backbone.
    """
    parts = [([*network.parameters()], 1.0)]
    if part.backbone_lr_scale != 1.0:
        backbone = backbone_of(network, "train.optimizer.backbone_lr_scale")
        inside = {id(p) for p in backbone.parameters()}
        parts = [([p for p in network.parameters() if id(p) not in inside], 1.0)]
        parts.append(([*backbone.parameters()], part.backbone_lr_scale))
    groups: list[dict[str, Any]] = []
    for parameters, scale in parts:
        of_its_own = {} if scale == 1.0 else {"lr": part.lr * scale, "lr_scale": scale}
        for decays, weight_decay in ((True, part.weight_decay), (False, 0.0)):
            chosen = [p for p in parameters if (p.ndim > 1) == decays and p.requires_grad]
            groups.append({"params": chosen, "weight_decay": weight_decay, **of_its_own})
    if part.name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=part.lr, alpha=part.alpha, eps=part.eps, momentum=part.momentum)
    if part.name == "sgd":
        return torch.optim.SGD(groups, lr=part.lr, momentum=part.momentum, fused=True)
    kind = torch.optim.AdamW if part.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=part.lr, betas=part.betas, eps=part.eps, fused=True)
