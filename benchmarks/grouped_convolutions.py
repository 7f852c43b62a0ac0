"""Time convolutions of the same multiply-adds: dense, grouped, grouped with an interlace, depthwise.

Grouping divides the multiply-adds, and that is what tables state. Whether it divides the time depends on how well a
processor runs such a convolution, so each kind here does the same work: the more groups, the more channels. A row is a
3x3 convolution of one image on one thread in float32, channels last; all kinds of a size run interleaved, medians of
processor time, which other processes disturb less than the time on the wall. The second table times whole blocks at the
same width, as a network would use them: a dense 3x3, depthwise with 1x1, and the blocks of clcNet with the published
and the cheapest groups.

    taskset -c 0 python benchmarks/grouped_convolutions.py
"""

import time

import torch
from machine import RESULTS, interleave, machine, write_rows
from torch import nn

from poseglass.layers.channel_local import ChannelInterlace, ChannelLocalBlock
from poseglass.layers.conv_norm import ConvNorm, SeparableConvNorm
from poseglass.networks.cost import multiply_adds

SIZES = {56: 32, 28: 64, 14: 128}
"""Side of the features and channels of the dense convolution, as at strides 4, 8 and 16 of an image of 224 px."""

GROUPS = (4, 16)
REPEATS = 31


def layers_of(width: int) -> dict[str, nn.Module]:
    """Return 3x3 convolutions with the multiply-adds of a dense one of this width: n^2 / groups is the same."""

    def grouped(groups: int) -> nn.Conv2d:
        channels = round(width * groups**0.5)
        return nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)

    made: dict[str, nn.Module] = {"dense": grouped(1)}
    for groups in GROUPS:
        conv = grouped(groups)
        made[f"{groups} groups"] = conv
        made[f"{groups} groups, interlaced"] = nn.Sequential(conv, ChannelInterlace(conv.out_channels, groups))
    channels = width * width
    made["depthwise"] = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return made


def blocks_of(width: int) -> dict[str, nn.Module]:
    """Return blocks of the same width."""
    return {
        "block: dense 3x3": ConvNorm(width, width),
        "block: depthwise and 1x1": SeparableConvNorm(width, width),
        "block: clcNet, published groups": ChannelLocalBlock(width, width),
        "block: clcNet, cheapest groups": ChannelLocalBlock(width, width, groups="cheapest"),
    }


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for side, width in SIZES.items():
        for made in (layers_of(width), blocks_of(4 * width)):
            images, layers = {}, {}
            for name, layer in made.items():
                first = next(m for m in layer.modules() if isinstance(m, nn.Conv2d))
                images[name] = torch.randn(1, first.in_channels, side, side).contiguous(
                    memory_format=torch.channels_last
                )
                layers[name] = layer.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            with torch.inference_mode():
                timed = {name: (lambda n=name: layers[n](images[n])) for name in layers}  # noqa: B023
                seconds = interleave(timed, REPEATS, time.process_time)
            costs = {n: multiply_adds(_Taking(layers[n], images[n].shape[1]), (side, side)) for n in layers}
            dense = next(iter(layers))  # the first of each table
            for name, cost in costs.items():
                rows.append(
                    {
                        "layer": name, "side": side, "channels": images[name].shape[1], "multiply-adds": cost,
                        "ms": f"{1000 * seconds[name]:.3f}",
                        "G multiply-adds a second": f"{cost / seconds[name] / 1e9:.2f}",
                        "time as a multiple of dense": f"{seconds[name] / seconds[dense]:.2f}",
                        "multiply-adds as a multiple of dense": f"{cost / costs[dense]:.3f}",
                    }
                )  # fmt: skip
                print(*rows[-1].values(), sep="  ", flush=True)
    write_rows(RESULTS / f"grouped-convolutions-{machine()}.csv", rows, "layers")


class _Taking(nn.Module):
    """A layer of many channels, fed with an image of three, for counting."""

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.layer, self.channels = layer, channels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layer(image[:, :1].expand(-1, self.channels, -1, -1))


if __name__ == "__main__":
    main()
