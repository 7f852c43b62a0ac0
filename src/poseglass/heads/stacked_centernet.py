"""CenterNet in stages: each sees the features and the maps of the stage before, and has a loss of its own.

Objects of one image help each other: the characters of a column stand in line, and people in a crowd have similar
sizes. A stage that sees where the one before found objects can use that, as the stages of Convolutional Pose Machines
do for joints (Wei et al. 2016, https://arxiv.org/abs/1602.00134, section 3.2). For CenterNet (Zhou et al. 2019) this
has been proposed, but no result was published.
"""

from torch import Tensor, cat, nn

from poseglass.core.prediction import Prediction, Stages
from poseglass.heads.centernet import CenterNetHead
from poseglass.heads.heatmap import start_empty

_HEATMAPS = ("center", "heatmap")
_OF_CLASSES = ("features", "classifier")
"""Outputs that no stage sees: they only tell the classes of what it found."""


class MapFeedback(nn.Module):
    """The maps of a stage as features of the next: a batch norm, which brings them to one size, and a 1x1 convolution.

    The convolution starts near zero, so that a stage begins as if there was none before it.

    Args:
        head: The head that makes the maps.
        width: Channels of the features.
    """

    def __init__(self, head: CenterNetHead, width: int) -> None:
        super().__init__()
        channels = sum(
            output[-1].out_channels  # type: ignore[index]
            for name, output in head.outputs.items()
            if name not in _OF_CLASSES
        )
        self.norm = nn.BatchNorm2d(int(channels))
        self.merge = start_empty(nn.Conv2d(int(channels), width, 1))

    def forward(self, maps: Prediction) -> Tensor:
        """Map a stage's outputs to ``(B, width, h, w)``; heatmaps enter as probabilities."""
        parts = [
            values.sigmoid() if name in _HEATMAPS else values.flatten(1, -3)
            for name, values in maps.items()
            if name not in _OF_CLASSES
        ]  # fmt: skip
        return self.merge(self.norm(cat(parts, dim=1)))


class Refinement(nn.Module):
    """Residual blocks of a depthwise and a 1x1 convolution each, which see far at little cost.

    Args:
        width: Channels.
        blocks: Number of blocks, 1 or more.
        kernel: Side of the depthwise convolutions, odd.
    """

    def __init__(self, width: int, blocks: int, kernel: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False), nn.BatchNorm2d(width),
                nn.ReLU(inplace=True), nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width),
            )
            for _ in range(blocks)
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, width, h, w)`` to the same shape."""
        for block in self.blocks:
            features = nn.functional.relu(features + block(features))
        return features


class StackedCenterNetHead(nn.Module):
    """CenterNet heads in sequence, on the same features.

    The first is CenterNet's. Each further one sees the features refined, ``refine(features + feedback(maps))``, with
    the maps of the stage before.

    Args:
        in_channels: Channels of the features.
        num_keypoints: As for ``CenterNetHead``, and the next three likewise.
        num_classes: Number of classes.
        width: Channels between the two convolutions of every output.
        visibility: Also output visibility.
        features: Channels of the features that classes are told by, of every stage.
        stages: Number of stages, 1 or more; one is ``CenterNetHead``.
        shared: Whether all stages from the second on have the same weights.
        blocks: Residual blocks of each refinement.
        kernel: Side of their depthwise convolutions, odd.

    Raises:
        ValueError: As ``CenterNetHead``; or fewer than one stage or block, or an even kernel.
    """

    def __init__(
        self,
        in_channels: int,
        num_keypoints: int,
        *,
        num_classes: int = 1,
        width: int = 64,
        visibility: bool = False,
        features: int = 0,
        stages: int = 2,
        shared: bool = False,
        blocks: int = 2,
        kernel: int = 7,
    ) -> None:
        super().__init__()
        if stages < 1 or blocks < 1 or kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                "StackedCenterNetHead takes at least 1 stage and 1 block, and an odd kernel, got "
                f"stages={stages}, blocks={blocks}, kernel={kernel}."
            )
        self.stages = stages
        own = min(stages - 1, 1) if shared else stages - 1  # stages behind the first that have weights

        def head() -> CenterNetHead:
            return CenterNetHead(
                in_channels, num_keypoints, num_classes=num_classes, width=width, visibility=visibility,
                features=features,
            )  # fmt: skip

        self.first = head()
        self.feedback = nn.ModuleList(MapFeedback(self.first, in_channels) for _ in range(own))
        self.refine = nn.ModuleList(Refinement(in_channels, blocks, kernel) for _ in range(own))
        self.further = nn.ModuleList(head() for _ in range(own))

    def forward(self, features: Tensor) -> Stages:
        """Map ``(B, in_channels, h, w)`` to one prediction per stage, as ``CenterNetHead``; the last is the result."""
        found = [self.first(features)]
        for stage in range(self.stages - 1):
            i = min(stage, len(self.refine) - 1)
            refined = self.refine[i](features + self.feedback[i](found[-1]))
            found.append(self.further[i](refined))
        return found
