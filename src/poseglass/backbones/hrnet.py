"""HRNet: parallel branches at several resolutions, which exchange information after every module.

Sun, Xiao, Liu, Wang, "Deep High-Resolution Representation Learning for Human Pose Estimation", CVPR 2019,
https://arxiv.org/abs/1902.09212. Layer details from leoxiaobin/deep-high-resolution-net.pytorch (MIT).

How this differs from the published code: it does not. Convolutions are initialised from N(0, 0.001), as there; each is
followed by batch norm, so their scale does not matter.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.conv_norm import ConvNorm
from poseglass.layers.resnet_blocks import BasicBlock, Bottleneck


class ExchangeModule(nn.Module):
    """Basic blocks in every branch, then fusion: every output is the sum of all branches at its own resolution.

    Args:
        widths: Channels of the branches, finest first; each has half the resolution of the previous one.
        num_blocks: Number of basic blocks in each branch.
        num_outputs: Number of resolutions returned, starting from the finest.

    Source:
        Sun et al. 2019, section 3, "Repeated multi-scale fusion". Upsampling is nearest-neighbour.
    """

    def __init__(self, widths: Sequence[int], num_blocks: int, num_outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(num_blocks))) for width in widths
        )
        self.exchange = nn.ModuleList(
            nn.ModuleList(_path(widths, j, i) for j in range(len(widths))) for i in range(num_outputs)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map one ``(B, widths[j], h / 2**j, w / 2**j)`` per branch to the same for the first ``num_outputs``."""
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        outputs: list[Tensor] = []
        for i, paths in enumerate(self.exchange):
            assert isinstance(paths, nn.ModuleList)
            total = paths[0](features[0])
            for j, (path, x) in enumerate(zip(paths[1:], features[1:], strict=True), 1):
                made = path(x)
                if j > i:
                    made = functional.interpolate(made, scale_factor=2.0 ** (j - i), mode="nearest")
                total = total + made
            outputs.append(functional.relu(total, inplace=True))
        return outputs


def _path(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """Return the path between two branches: identity, up (1x1; the caller upsamples) or down (3x3 with stride 2)."""
    if source == target:
        return nn.Sequential()
    if source > target:
        return ConvNorm(widths[source], widths[target], 1, activation="none")
    chain = [ConvNorm(widths[source], widths[source], 3, stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*chain, ConvNorm(widths[source], widths[target], 3, stride=2, activation="none"))


class HRNet(nn.Module):
    """Images to features at strides 4, 8, 16 and 32, or at 4 only.

    Args:
        width: C, channels of the finest branch; each coarser one has twice as many. 32 and 48 as published.
        num_modules: Number of exchange modules in stages 2, 3 and 4, which have two, three and four branches.
        num_blocks: Number of basic blocks in each branch of a module.
        num_bottlenecks: Number of bottlenecks in stage 1.
        stem_width: Channels of the stem, and inside a bottleneck.
        finest_only: Whether the last module outputs only the finest resolution, as for pose; the weights of the other
            outputs do not exist then.

    Attributes:
        channels, strides, divisor: As in every backbone.

    Raises:
        ValueError: A number below 1, or ``num_modules`` is not three numbers.

    Source:
        Sun et al. 2019, section 3, "Network instantiation".
    """

    def __init__(
        self,
        width: int = 32,
        *,
        num_modules: Sequence[int] = (1, 4, 3),
        num_blocks: int = 4,
        num_bottlenecks: int = 4,
        stem_width: int = 64,
        finest_only: bool = False,
    ) -> None:
        super().__init__()
        if len(num_modules) != 3:
            raise ValueError(f"HRNet: num_modules needs three numbers, for stages 2, 3 and 4, got {list(num_modules)}.")
        numbers = {"width": width, "num_blocks": num_blocks, "num_bottlenecks": num_bottlenecks}
        numbers |= {"stem_width": stem_width, "num_modules": min(num_modules)}
        for name, value in numbers.items():
            if int(value) != value or value < 1:
                raise ValueError(f"HRNet: {name} must be a whole number above 0, got {value!r}.")
        self.stem = nn.Sequential(ConvNorm(3, stem_width, 3, stride=2), ConvNorm(stem_width, stem_width, 3, stride=2))
        wide = Bottleneck.expansion * stem_width
        self.bottlenecks = nn.Sequential(
            *(Bottleneck(stem_width if i == 0 else wide, stem_width) for i in range(num_bottlenecks))
        )
        widths = [width * 2**i for i in range(4)]
        self.finest = ConvNorm(wide, width, 3)
        self.coarser = nn.ModuleList(
            ConvNorm(wide if i == 0 else widths[i], widths[i + 1], 3, stride=2) for i in range(3)
        )
        self.stages = nn.ModuleList()
        for i, count in enumerate(num_modules):
            branches = widths[: i + 2]
            last = 1 if finest_only and i == 2 else len(branches)
            outputs = [len(branches)] * (count - 1) + [last]
            self.stages.append(nn.ModuleList(ExchangeModule(branches, num_blocks, n) for n in outputs))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)
        self.channels: tuple[int, ...] = (width,) if finest_only else tuple(widths)
        self.strides: tuple[int, ...] = (4,) if finest_only else (4, 8, 16, 32)
        self.divisor = 32

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map ``(B, 3, H, W)`` to ``(B, channels[i], H / strides[i], W / strides[i])`` per level, finest first."""
        features = self.bottlenecks(self.stem(images))
        # Stage 1 has one branch; each later stage adds one, made from the coarsest of the stage before it.
        levels, coarsest = [self.finest(features)], features
        for begin, modules in zip(self.coarser, self.stages, strict=True):
            assert isinstance(modules, nn.ModuleList)
            levels = [*levels, begin(coarsest)]
            for module in modules:
                levels = module(levels)
            coarsest = levels[-1]
        return levels
