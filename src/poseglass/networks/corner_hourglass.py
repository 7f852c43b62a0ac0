"""Hourglass-52 and Hourglass-104, the backbones of CornerNet and CenterNet, as pose networks.

Law and Deng, "CornerNet: Detecting Objects as Paired Keypoints", ECCV 2018, section 3.5, https://arxiv.org/abs/1808.01244;
Zhou et al., "Objects as Points", 2019, https://arxiv.org/abs/1904.07850. Reference code: xingyizhou/CenterNet (MIT),
open-mmlab/mmpose (Apache-2.0). Written from the papers and tables of layers.

It shares its name and basic idea with Newell's network (``stacked_hourglass.py``), but no weights: residuals are two
3x3 convolutions with the activation last, downsampling uses a strided residual instead of pooling, the width grows with
depth (256-256-384-384-384-512), the stem reduces the input to a quarter with two strides, and only features are passed
from stack to stack, never predictions.

How this differs from the reference code: with one stack, mmpose and CornerNet also store a residual "between the
stacks" that never runs; it does not exist here.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from poseglass.core.prediction import Prediction, Stages
from poseglass.heads.heatmap import HeatmapHead
from poseglass.layers.conv_norm import ConvNorm
from poseglass.layers.input_size import check_input
from poseglass.layers.resnet_blocks import BasicBlock

WIDTHS = (256, 256, 384, 384, 384, 512)
"""Channels of the features and after each downsampling step, for Hourglass-52 and -104."""

BLOCKS = (2, 2, 2, 2, 2, 4)
"""Residuals per position on each level and at the bottom, for Hourglass-52 and -104."""


class Hourglass(nn.Module):
    """One hourglass: downsample by a strided residual, process (recursively), upsample, add the skip branch.

    Args:
        widths: Channels of the input and output, then of each lower level: one more than there are downsampling steps.
        blocks: Residuals per position on each level, as many as ``widths``; the last number is for the bottom.

    Source:
        Law and Deng 2018, section 3.5. Upsampling is nearest-neighbour; the last residual before it narrows.
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        here, below = widths[:2]
        more = range(blocks[0] - 1)
        self.skip = nn.Sequential(*(BasicBlock(here, here) for _ in range(blocks[0])))
        self.down = nn.Sequential(BasicBlock(here, below, stride=2), *(BasicBlock(below, below) for _ in more))
        self.inner: nn.Module = (
            Hourglass(widths[1:], blocks[1:])
            if len(widths) > 2
            else nn.Sequential(*(BasicBlock(below, below) for _ in range(blocks[1])))
        )
        self.up = nn.Sequential(*(BasicBlock(below, below) for _ in more), BasicBlock(below, here))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, widths[0], h, w)`` to the same shape; h and w must be divisible by 2 per downsampling step."""
        low = self.up(self.inner(self.down(features)))
        return self.skip(features) + functional.interpolate(low, scale_factor=2.0, mode="nearest")


class CornerHourglassTrunk(nn.Module):
    """Images to one feature map per stack, for any kind of head.

    Args:
        num_stacks: Number of hourglasses in sequence; no weights are shared.
        widths: Channels of the features, then after each downsampling step. The stem starts at half of the first.
        blocks: Residuals per position on each level, as many as ``widths``.

    Attributes:
        out_channels: Channels of every feature map, ``widths[0]``.
        stride: Stride of the features, 4.
        divisor: Both sides of an input must be divisible by it.

    Raises:
        ValueError: An invalid argument; the message says what is allowed.

    Source:
        Law and Deng 2018, section 3.5.
    """

    stride = 4

    def __init__(self, *, num_stacks: int, widths: Sequence[int] = WIDTHS, blocks: Sequence[int] = BLOCKS) -> None:
        super().__init__()
        if len(widths) < 2 or len(blocks) != len(widths):
            raise ValueError(
                "An hourglass needs at least two widths (its features and one downsampling step) and as many block "
                f"counts; got {len(widths)} widths and {len(blocks)} blocks."
            )
        for name, numbers in (("num_stacks", [num_stacks]), ("widths", widths), ("blocks", blocks)):
            if any(int(n) != n or n < 1 for n in numbers):
                raise ValueError(f"An hourglass takes whole numbers above 0 for {name}, got {list(numbers)}.")
        width = widths[0]
        if width % 2:
            raise ValueError(f"The first width of an hourglass must be even (the stem halves it), got {width}.")
        self.out_channels = width
        self.divisor = self.stride * 2 ** (len(widths) - 1)
        self.stem = ConvNorm(3, width // 2, 7, stride=2)
        self.stem_residual = BasicBlock(width // 2, width, stride=2)
        self.hourglasses = nn.ModuleList(Hourglass(widths, blocks) for _ in range(num_stacks))
        self.outputs = nn.ModuleList(ConvNorm(width, width, 3) for _ in range(num_stacks))
        between = range(num_stacks - 1)
        self.keep = nn.ModuleList(ConvNorm(width, width, 1, activation="none") for _ in between)
        self.feedback = nn.ModuleList(ConvNorm(width, width, 1, activation="none") for _ in between)
        self.between = nn.ModuleList(BasicBlock(width, width) for _ in between)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map ``(B, 3, H, W)`` to one ``(B, out_channels, H/4, W/4)`` per stack.

        Raises:
            ValueError: H or W is not divisible by ``divisor``; the message suggests valid sizes.
        """
        features = self.begin(images)
        maps: list[Tensor] = []
        for i in range(len(self.hourglasses)):
            maps.append(self.stack(i, features))
            if i < len(self.between):
                features = self.onward(i, features, maps[-1])
        return maps

    def begin(self, images: Tensor) -> Tensor:
        """Return the features that the first stack sees.

        Raises:
            ValueError: H or W is not divisible by ``divisor``.
        """
        check_input(images, self.divisor)
        return self.stem_residual(self.stem(images))

    def stack(self, number: int, features: Tensor) -> Tensor:
        """Return what a stack makes of its features, for its head."""
        return self.outputs[number](self.hourglasses[number](features))

    def onward(self, number: int, features: Tensor, maps: Tensor, more: Tensor | None = None) -> Tensor:
        """Return the features that the next stack sees, from those of this one and from what it made of them.

        Args:
            number: This stack, not the last.
            features: What it saw.
            maps: What it made of them.
            more: Features to add, as of its predictions.
        """
        joined = self.keep[number](features) + self.feedback[number](maps)
        return self.between[number](functional.relu(joined if more is None else joined + more))


class CornerHourglass(nn.Module):
    """The trunk with one heatmap head per stack: images to one stage per stack.

    Args:
        num_keypoints: Number of keypoints, K.
        num_stacks: Number of hourglasses in sequence, each supervised.
        widths: Channels of the features, then after each downsampling step; fewer make a shallower hourglass.
        blocks: Residuals per position on each level, as many as ``widths``.

    Attributes:
        stride: Stride of the heatmaps, 4.
        divisor: Both sides of an input must be divisible by it.
        usual_size_wh: Usual training input size, pixels; variants for another size override it.

    Raises:
        ValueError: An invalid argument; the message says what is allowed.

    Source:
        Law and Deng 2018, section 3.5; the 1x1 heads are from mmpose.
    """

    stride = 4
    usual_size_wh: tuple[int, int] = (256, 256)

    def __init__(
        self,
        num_keypoints: int,
        *,
        num_stacks: int = 1,
        widths: Sequence[int] = WIDTHS,
        blocks: Sequence[int] = BLOCKS,
    ) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        self.trunk = CornerHourglassTrunk(num_stacks=num_stacks, widths=widths, blocks=blocks)
        self.heads = nn.ModuleList(HeatmapHead(self.trunk.out_channels, num_keypoints) for _ in range(num_stacks))
        self.divisor = self.trunk.divisor

    def forward(self, images: Tensor) -> Stages:
        """Map ``(B, 3, H, W)`` to S stages, each ``{"heatmap": (B, K, H/4, W/4)}``; the last is the prediction.

        Raises:
            ValueError: H or W is not divisible by ``divisor``; the message suggests valid sizes.
        """
        return [head(features) for head, features in zip(self.heads, self.trunk(images), strict=True)]

    @property
    def num_stages(self) -> int:
        """Number of stages that ``stage`` runs, one per stack."""
        return len(self.heads)

    def begin(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map ``(B, 3, H, W)`` to what the first stage sees; see ``programs.early_exit.StageByStage``.

        Raises:
            ValueError: H or W is not divisible by ``divisor``.
        """
        return (self.trunk.begin(images),)

    def stage(self, number: int, state: tuple[Tensor, ...]) -> tuple[Prediction, tuple[Tensor, ...]]:
        """Run one stack; return its heatmaps and what the next one sees. Every tensor of a state has the axis B."""
        features = state[0] if number == 0 else self.trunk.onward(number - 1, *state)
        maps = self.trunk.stack(number, features)
        return self.heads[number](maps), (features, maps)


def hourglass_52(num_keypoints: int) -> CornerHourglass:
    """One stack, as in mmpose: 93,666,960 parameters at 16 keypoints, 28.619 G multiply-adds at 256 x 256."""
    return CornerHourglass(num_keypoints, num_stacks=1)


def hourglass_104(num_keypoints: int) -> CornerHourglass:
    """Two stacks, as in CornerNet: 187,708,576 parameters at 16 keypoints, 58.541 G multiply-adds at 256 x 256."""
    return CornerHourglass(num_keypoints, num_stacks=2)


def hourglass_52_light(num_keypoints: int) -> CornerHourglass:
    """One narrow stack with three downsampling steps, for inputs of 128 px.

    1,878,960 parameters at 16 keypoints, 0.293 G multiply-adds at 128 x 128.
    """
    network = CornerHourglass(num_keypoints, widths=(64, 64, 96, 128), blocks=(1, 1, 1, 2))
    network.usual_size_wh = (128, 128)
    return network
