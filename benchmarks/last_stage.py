"""The last stage of MobileNetV3-Large, before and after its redesign: multiply-adds of each layer, and latency.

Howard et al. 2019, section 5.1 and figure 5: the mean over the map moves before the widest layers, so that these see
one position instead of 49, and the depthwise convolution and the projection in front of them are left out. Counts are
those of ``poseglass.networks.cost``, at 7 x 7 positions (224 px) and 1000 classes; latency is the median of interleaved
repeats.

    python benchmarks/last_stage.py
"""

import argparse
from functools import partial

import torch
from machine import RESULTS, interleave, machine, write_rows
from torch import Tensor, nn

from poseglass.layers.conv_norm import ConvNorm
from poseglass.networks.mobilenet_v3 import mobilenet_v3_large_classifier


class Mean(nn.Module):
    """The mean over the map, ``(B, C, 1, 1)``."""

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, C, h, w)`` to ``(B, C, 1, 1)``."""
        return features.mean((-2, -1), keepdim=True)


def stages() -> dict[str, dict[str, nn.Module]]:
    """Return the layers of both last stages by name; the input has 160 channels."""
    wide = ConvNorm(160, 960, 1, activation="hardswish")
    return {
        "before": {
            "1x1, 160 to 960": wide,
            "3x3 depthwise, 960": ConvNorm(960, 960, 3, groups=960, activation="hardswish"),
            "1x1, 960 to 320": ConvNorm(960, 320, 1, activation="none"),
            "1x1, 320 to 1280": ConvNorm(320, 1280, 1, activation="hardswish"),
            "mean": Mean(),
            "1280 to 1000": nn.Conv2d(1280, 1000, 1),
        },
        "after": {
            "1x1, 160 to 960": wide,
            "mean": Mean(),
            "960 to 1280": nn.Sequential(nn.Conv2d(960, 1280, 1), nn.Hardswish()),
            "1280 to 1000": nn.Conv2d(1280, 1000, 1),
        },
    }


def counts(layers: dict[str, nn.Module], side: int = 7) -> dict[str, int]:
    """Return the multiply-adds of each layer on a map of ``side`` x ``side``."""
    from torch.utils.flop_counter import FlopCounterMode

    features, found = torch.zeros(1, 160, side, side), {}
    with torch.inference_mode():
        for name, layer in layers.items():
            with FlopCounterMode(display=False) as counter:
                features = layer.eval()(features)
            found[name] = counter.get_total_flops() // 2
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    both = stages()
    tables = {name: counts(layers) for name, layers in both.items()}
    for name, table in tables.items():
        print(f"{name} the redesign")
        for layer, count in {**table, "sum": sum(table.values())}.items():
            print(f"  {layer:20} {count:>12,}")
    saved = sum(tables["before"].values()) - sum(tables["after"].values())
    print(f"saved: {saved:,} multiply-adds")
    features = torch.randn(1, 160, 7, 7)
    networks: dict[str, nn.Module] = {name: nn.Sequential(*layers.values()) for name, layers in both.items()}
    ways = {name: partial(network, features) for name, network in networks.items()}
    ways["whole network"] = partial(mobilenet_v3_large_classifier().eval(), torch.rand(1, 3, 224, 224))
    with torch.inference_mode():
        seconds = interleave(ways, arguments.repeats)
    rows = [
        {"what": name, "multiply-adds": sum(tables[name].values()) if name in tables else 216_589_760,
         "ms": f"{1000 * taken:.3f}", "ratio to the whole network": f"{taken / seconds['whole network']:.3f}"}
        for name, taken in seconds.items()
    ]  # fmt: skip
    for row in rows:
        print(*row.values(), sep="  ")
    write_rows(RESULTS / f"last-stage-{machine()}.csv", rows, "layers", "networks", "backbones")


if __name__ == "__main__":
    main()
