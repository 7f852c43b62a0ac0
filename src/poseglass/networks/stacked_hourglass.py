"""Stacked Hourglass Networks: repeated bottom-up, top-down inference with intermediate supervision.

Newell, Yang, Deng, "Stacked Hourglass Networks for Human Pose Estimation", ECCV 2016, https://arxiv.org/abs/1603.06937.
Reference code: princeton-vl/pose-hg-train (BSD), princeton-vl/pytorch_stacked_hourglass (BSD). Written from the paper
and tables of their layers.

How this differs from the paper: it does not, at ``width=256, depth=4, num_blocks=1, stem="newell"``. The light family
is our own: narrower, for inputs of 128 px, where a depth of 3 ends at the paper's 4 x 4. So are the lighter residuals
of ``layers/light_residual.py`` (``block``). The network that mmpose and CenterNet call Hourglass-52 and Hourglass-104
is a different one (CornerNet's), and its weights do not fit here.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from poseglass.core.prediction import Prediction, Stages
from poseglass.layers.input_size import check_input
from poseglass.layers.light_residual import RESIDUALS, check_block

Block = Literal["bottleneck", "depthwise", "dense"]
"""What an hourglass is made of: the paper's residual, or a lighter one."""

MOST_SCALE = 8
"""Largest factor by which features are enlarged."""


def residuals(in_channels: int, out_channels: int, count: int, block: Block = "bottleneck") -> nn.Sequential:
    """Return ``count`` residuals in sequence; the first one changes the width."""
    widths = [in_channels, *[out_channels] * count]
    return nn.Sequential(*(RESIDUALS[block](a, b) for a, b in itertools.pairwise(widths)))


class Hourglass(nn.Module):
    """One hourglass: pool, process at half the resolution (recursively), upsample, add the skip branch.

    Args:
        depth: Number of poolings.
        width: Number of channels, the same everywhere.
        num_blocks: Number of residuals at every position.
        block: Kind of the residuals.

    Source:
        Newell et al. 2016, section 3.1, figure 3. Upsampling is nearest-neighbour.
    """

    def __init__(self, depth: int, width: int, num_blocks: int = 1, block: Block = "bottleneck") -> None:
        super().__init__()
        self.skip = residuals(width, width, num_blocks, block)
        self.down = residuals(width, width, num_blocks, block)
        self.inner: nn.Module = (
            Hourglass(depth - 1, width, num_blocks, block) if depth > 1 else residuals(width, width, num_blocks, block)
        )
        self.up = residuals(width, width, num_blocks, block)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, width, h, w)`` to the same shape; h and w must be divisible by ``2 ** depth``."""
        low = self.up(self.inner(self.down(functional.max_pool2d(features, 2))))
        return self.skip(features) + functional.interpolate(low, scale_factor=2.0, mode="nearest")


class Stem(nn.Module):
    """Image to features at a quarter of its size: 7x7 stride 2, residual, pool, two residuals."""

    def __init__(self, width: int, layout: Literal["newell", "bearpaw"], block: Block = "bottleneck") -> None:
        super().__init__()
        residual = RESIDUALS[block]
        first, half = width // 4, width // 2
        middle = half if layout == "newell" else width
        self.conv = nn.Conv2d(3, first, 7, stride=2, padding=3)
        self.norm = nn.BatchNorm2d(first)
        self.residual1 = residual(first, half)
        self.residual2 = residual(half, middle)
        self.residual3 = residual(middle, width)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, width, H/4, W/4)``."""
        features = functional.relu(self.norm(self.conv(images)), inplace=True)
        features = functional.max_pool2d(self.residual1(features), 2)
        return self.residual3(self.residual2(features))


class Output(nn.Module):
    """After each hourglass: residual, 1x1 with BN and ReLU (the "features"), 1x1 to the heatmaps."""

    def __init__(self, width: int, num_keypoints: int, num_blocks: int, block: Block = "bottleneck") -> None:
        super().__init__()
        self.residual = residuals(width, width, num_blocks, block)
        self.conv = nn.Conv2d(width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.heatmap = nn.Conv2d(width, num_keypoints, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(B, width, h, w)`` to refined features of the same shape and heatmaps ``(B, K, h, w)``."""
        features = functional.relu(self.norm(self.conv(self.residual(features))), inplace=True)
        return features, self.heatmap(features)


class StackedHourglass(nn.Module):
    """The whole network: images to one stage of heatmaps per stack.

    Args:
        num_keypoints: Number of keypoints, K.
        num_stacks: Number of hourglasses in sequence, each supervised; no weights are shared.
        width: Channels of every hourglass, a multiple of 4 (of 16 with dense residuals). The stem widens from a
            quarter of it.
        depth: Number of poolings inside an hourglass.
        num_blocks: Number of residuals at every position of an hourglass.
        stem: "newell" (64-128-128-256 at width 256) as published, or "bearpaw" (64-128-256-256) as
            bearpaw/pytorch-pose and its forks build it.
        scales: Scales at which the hourglasses see the features of the stem, which is run once; the heatmaps of every
            stage are averaged on the grid of the scale 1. Our own, not in the paper: multi-scale testing for less, see
            ``programs.several_scales``. The weights are those of a network with one scale.
        block: Kind of every residual: "bottleneck" as published; "depthwise" or "dense", see
            ``layers/light_residual.py``, with about 0.4 and 0.66 of its parameters.

    Attributes:
        stride: Stride of the heatmaps, 4.
        divisor: Both sides of an input must be divisible by it.
        scales: As given.
        usual_size_wh: Usual training input size, pixels; variants for another size override it.

    Raises:
        ValueError: An invalid argument; the message says what is allowed.

    Source:
        Newell et al. 2016, section 3.
    """

    stride = 4
    usual_size_wh: tuple[int, int] = (256, 256)

    def __init__(
        self,
        num_keypoints: int,
        *,
        num_stacks: int = 8,
        width: int = 256,
        depth: int = 4,
        num_blocks: int = 1,
        stem: Literal["newell", "bearpaw"] = "newell",
        scales: Sequence[float] = (1.0,),
        block: Block = "bottleneck",
    ) -> None:
        super().__init__()
        counts = {"num_keypoints": num_keypoints, "num_stacks": num_stacks, "depth": depth, "num_blocks": num_blocks}
        for name, value in counts.items():
            if int(value) != value or value < 1:
                raise ValueError(f"StackedHourglass: {name} must be a whole number above 0, got {value!r}.")
        check_block("StackedHourglass", block, width)
        if stem not in ("newell", "bearpaw"):
            raise ValueError(f"StackedHourglass: stem must be 'newell' or 'bearpaw', got {stem!r}.")
        self.scales = tuple(float(scale) for scale in scales)
        if not self.scales or not all(0 < scale <= MOST_SCALE for scale in self.scales):
            raise ValueError(
                f"StackedHourglass: scales must be numbers above 0 and at most {MOST_SCALE}, such as [0.75, 1, 1.25], "
                f"got {list(scales)}."
            )
        twice = next((scale for i, scale in enumerate(self.scales) if scale in self.scales[:i]), None)
        if twice is not None:
            raise ValueError(f"StackedHourglass: the scale {twice:g} is given twice. Give each scale once.")
        self.num_keypoints = num_keypoints
        self.divisor = self.stride * 2**depth
        self._grain = 2**depth
        self.stem = Stem(width, stem, block)
        self.hourglasses = nn.ModuleList(Hourglass(depth, width, num_blocks, block) for _ in range(num_stacks))
        self.outputs = nn.ModuleList(Output(width, num_keypoints, num_blocks, block) for _ in range(num_stacks))
        self.feature_feedback = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(num_stacks - 1))
        self.heatmap_feedback = nn.ModuleList(nn.Conv2d(num_keypoints, width, 1) for _ in range(num_stacks - 1))

    def forward(self, images: Tensor) -> Stages:
        """Map ``(B, 3, H, W)`` to S stages, each ``{"heatmap": (B, K, H/4, W/4)}``; the last is the prediction.

        Raises:
            ValueError: H or W is not divisible by ``divisor``; the message suggests valid sizes.
        """
        state = self.begin(images)
        stages: Stages = []
        for number in range(self.num_stages):
            prediction, state = self.stage(number, state)
            stages.append(prediction)
        return stages

    @property
    def num_stages(self) -> int:
        """Number of stages that ``stage`` runs, one per stack."""
        return len(self.hourglasses)

    def begin(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map ``(B, 3, H, W)`` to what the first stage sees; see ``programs.early_exit.StageByStage``.

        Raises:
            ValueError: H or W is not divisible by ``divisor``.
        """
        check_input(images, self.divisor)
        features = self.stem(images)
        if self.scales == (1.0,):
            return (features,)
        height, width = features.shape[-2:]
        sizes = [
            tuple(max(round(side * s / self._grain), 1) * self._grain for side in (height, width)) for s in self.scales
        ]
        for i, size in enumerate(sizes):
            if size in sizes[:i]:
                raise ValueError(
                    f"StackedHourglass: the scales {self.scales[sizes.index(size)]:g} and {self.scales[i]:g} both give "
                    f"features of {size[1]} x {size[0]} for an input of {images.shape[-1]} x {images.shape[-2]} px, "
                    f"since their sides must be divisible by {self._grain}. Omit one, or use a larger input."
                )
        return (features, *(_resized(features, size) for size in sizes))

    def stage(self, number: int, state: tuple[Tensor, ...]) -> tuple[Prediction, tuple[Tensor, ...]]:
        """Run one stack; return its heatmaps and what the next one sees. Every tensor of a state has the axis B."""
        if self.scales == (1.0,):
            heatmap, state = self._stack(number, state)
            return {"heatmap": heatmap}, state
        whole, *rest = state  # the features at scale 1 say the size of the maps
        each = len(rest) // len(self.scales)
        runs = [self._stack(number, tuple(rest[i * each : (i + 1) * each])) for i in range(len(self.scales))]
        size = whole.shape[-2:]
        mean = torch.stack([_resized(heatmap, size) for heatmap, _ in runs]).mean(0)
        return {"heatmap": mean}, (whole, *(one for _, kept in runs for one in kept))

    def _stack(self, number: int, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run one stack at one scale; return its heatmaps and the state of the next."""
        features = state[0]
        if number:
            _, refined, heatmap = state
            features = features + self.feature_feedback[number - 1](refined)
            features = features + self.heatmap_feedback[number - 1](heatmap)
        refined, heatmap = self.outputs[number](self.hourglasses[number](features))
        return heatmap, (features, refined, heatmap)


def _resized(maps: Tensor, size_hw: tuple[int, ...]) -> Tensor:
    """Return maps ``(B, C, h, w)`` of another size; edges correspond."""
    if tuple(maps.shape[-2:]) == tuple(size_hw):
        return maps
    smaller = size_hw[0] < maps.shape[-2]
    # on CPUs PyTorch has no antialiased resizing in bfloat16
    wide = maps.float() if maps.dtype in (torch.bfloat16, torch.float16) else maps
    return functional.interpolate(wide, tuple(size_hw), mode="bilinear", antialias=smaller).to(maps.dtype)


def hg1(num_keypoints: int, *, stem: Literal["newell", "bearpaw"] = "newell") -> StackedHourglass:
    """One stack: 3,426,448 parameters at 16 keypoints, 5.150 G multiply-adds at 256 x 256."""
    return StackedHourglass(num_keypoints, num_stacks=1, stem=stem)


def hg2(num_keypoints: int, *, stem: Literal["newell", "bearpaw"] = "newell") -> StackedHourglass:
    """Two stacks: 6,570,400 parameters at 16 keypoints, 8.335 G multiply-adds at 256 x 256."""
    return StackedHourglass(num_keypoints, num_stacks=2, stem=stem)


def hg4(num_keypoints: int, *, stem: Literal["newell", "bearpaw"] = "newell") -> StackedHourglass:
    """Four stacks: 12,858,304 parameters at 16 keypoints, 14.703 G multiply-adds at 256 x 256."""
    return StackedHourglass(num_keypoints, num_stacks=4, stem=stem)


def hg8(num_keypoints: int, *, stem: Literal["newell", "bearpaw"] = "newell") -> StackedHourglass:
    """The paper's eight stacks: 25,434,112 parameters at 16 keypoints, 27.440 G multiply-adds at 256 x 256."""
    return StackedHourglass(num_keypoints, num_stacks=8, stem=stem)


def hg1_light(num_keypoints: int, *, block: Block = "bottleneck") -> StackedHourglass:
    """One narrow stack for inputs of 64 to 128 px; trains in a minute."""
    network = StackedHourglass(num_keypoints, num_stacks=1, width=64, depth=3, block=block)
    network.usual_size_wh = (64, 64)
    return network


def hg2_light(num_keypoints: int, *, width: int = 160, block: Block = "bottleneck") -> StackedHourglass:
    """Two stacks of width 160 and depth 3, for inputs of 128 px and up (sides a multiple of 32); weights ship."""
    network = StackedHourglass(num_keypoints, num_stacks=2, width=width, depth=3, block=block)
    network.usual_size_wh = (128, 128)
    return network
