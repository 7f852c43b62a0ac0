"""Networks that are trained with pairs of 2D points and 3D poses: Martinez et al. 2017, and the one that ships.

``MartinezLifter`` is that of "A simple yet effective baseline for 3d human pose estimation",
https://arxiv.org/abs/1705.03098. ``MaskedLifter`` is ours: it takes unknown keypoints, and tells how far each keypoint
of its pose may be wrong.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class _NormalisedBlock(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(layer for _ in range(2) for layer in _normalised(width, width, dropout)))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


def _normalised(inputs: int, width: int, dropout: float) -> list[nn.Module]:
    return [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]


class MartinezLifter(nn.Module):
    """Fully connected layers with batch norm and dropout, in two residual blocks of two layers.

    Args:
        num_keypoints: K, 16 as published.
        width: 1024 as published.
        blocks: 2 as published.
        dropout: 0.5 as published.

    Example:
        >>> sum(p.numel() for p in MartinezLifter().parameters())
        4291632
    """

    def __init__(self, num_keypoints: int = 16, width: int = 1024, blocks: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        self.enter = nn.Sequential(*_normalised(2 * num_keypoints, width, dropout))
        self.blocks = nn.Sequential(*(_NormalisedBlock(width, dropout) for _ in range(blocks)))
        self.leave = nn.Linear(width, 3 * num_keypoints)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, points: Tensor) -> Tensor:
        """Map points ``(B, 2K)``, x then y, to poses ``(B, 3K)``, x then y then z."""
        return self.leave(self.blocks(self.enter(points)))


class _LayerNormBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(functional.relu(self.first(self.norm(features))))


class MaskedLifter(nn.Module):
    """A residual network that knows which keypoints are known, and how sure it is of each.

    Layer norm before each block instead of batch norm: it computes the same for one person as for many.

    Args:
        num_keypoints: K.
        width: Of all layers.
        blocks: Residual blocks of two layers each.

    Example:
        >>> net = MaskedLifter(17, width=64, blocks=1)
        >>> pose, spread = net(torch.zeros(2, 17, 2), torch.zeros(2, 17, dtype=torch.bool))
        >>> tuple(pose.shape), tuple(spread.shape)
        ((2, 17, 3), (2, 17))
    """

    def __init__(self, num_keypoints: int = 17, width: int = 512, blocks: int = 3) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        self.enter = nn.Linear(3 * num_keypoints, width)
        self.blocks = nn.Sequential(*(_LayerNormBlock(width) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, 4 * num_keypoints)

    def forward(self, points: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Lift points.

        Args:
            points: ``(B, K, 2)``, centred and scaled; what unknown keypoints hold does not matter, unless it is NaN.
            known: ``(B, K)`` bool.

        Returns:
            Poses ``(B, K, 3)`` in metres, and the expected distance from the truth ``(B, K)`` in metres, above 0.
        """
        seen = known.to(points.dtype)
        values = torch.cat([(points * seen[..., None]).flatten(1), seen], 1)
        out = self.leave(self.norm(self.blocks(self.enter(values)))).view(-1, self.num_keypoints, 4)
        return out[..., :3], functional.softplus(out[..., 3]) * 0.1 + 1e-3
