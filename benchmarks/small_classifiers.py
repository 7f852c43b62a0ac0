"""Latency of MobileNetV3 classifiers and of segmentation networks on MobileNetV3, in one run.

Classifiers at 224 px and 1000 classes, segmentation at 512 px and 21 classes; batch 1, float32. Networks run
interleaved, and the medians are also given as a ratio to the first row of their table: a ratio in one run compares
across machines better than milliseconds do.

    python benchmarks/small_classifiers.py                            # writes two tables to benchmarks/results
    python benchmarks/small_classifiers.py --repeats 3 --quick        # a glance; writes nothing
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial

import torch
from machine import RESULTS, interleave, machine, write_rows
from torch import nn

from poseglass.networks import NETWORKS
from poseglass.networks.classifier import classifier
from poseglass.networks.cost import multiply_adds, parameters
from poseglass.networks.segmentation import SegmentationNetwork, lr_aspp_mobilenet_v3_large

LARGE = {"name": "mobilenet_v3_large"}
REDUCED = LARGE | {"reduced_tail": True}
SMALL = {"name": "mobilenet_v3_small"}


def _masks(backbone: Mapping[str, object], head: str, stride: int = 16, **more: object) -> Callable[[], nn.Module]:
    return partial(SegmentationNetwork, 21, backbone=backbone, head={"name": head, **more}, output_stride=stride)


CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    "MobileNetV3-Large": NETWORKS["mobilenet_v3_large_classifier"],
    "MobileNetV3-Large 0.75": partial(NETWORKS["mobilenet_v3_large_classifier"], width=0.75),
    "MobileNetV3-Small": NETWORKS["mobilenet_v3_small_classifier"],
    "MobileNetV3-Small 0.75": partial(NETWORKS["mobilenet_v3_small_classifier"], width=0.75),
    "EfficientNet-Lite0": partial(classifier, backbone={"name": "efficientnet_lite0"}, num_classes=1000),
    "ResNet-18": partial(classifier, backbone={"name": "resnet18"}, num_classes=1000),
}
"""What is timed at 224 px; entries of another paper's file go here too."""

SEGMENTATION: dict[str, Callable[[], nn.Module]] = {
    "Large, LR-ASPP": _masks(LARGE, "lr_aspp"),
    "Large, LR-ASPP, torchvision's": lr_aspp_mobilenet_v3_large,
    "Large, LR-ASPP, windows of 49 x 49": _masks(LARGE, "lr_aspp", pool_hw=(49, 49)),
    "Large, R-ASPP": _masks(LARGE, "r_aspp"),
    "Large, R-ASPP, 128 channels": _masks(LARGE, "r_aspp", width=128),
    "Large, ASPP": _masks(LARGE, "aspp"),
    "Large, reduced tail, LR-ASPP": _masks(REDUCED, "lr_aspp"),
    "Large, reduced tail, R-ASPP": _masks(REDUCED, "r_aspp"),
    "Large, reduced tail, LR-ASPP, output stride 8": _masks(REDUCED, "lr_aspp", 8),
    "Large, reduced tail, LR-ASPP, output stride 32": _masks(REDUCED, "lr_aspp", 32),
    "Small, reduced tail, LR-ASPP": _masks(SMALL | {"reduced_tail": True}, "lr_aspp"),
}
"""What is timed at 512 px, with an output stride of 16 unless another is named."""


def rows(makers: Mapping[str, Callable[[], nn.Module]], side: int, repeats: int) -> list[dict[str, object]]:
    """Return cost and latency of each network at a size."""
    networks = {name: make().eval() for name, make in makers.items()}
    images = torch.rand(1, 3, side, side)
    with torch.inference_mode():
        seconds = interleave({name: partial(network, images) for name, network in networks.items()}, repeats)
    first = next(iter(seconds.values()))
    return [
        {
            "network": name, "parameters": parameters(networks[name]),
            "multiply-adds": multiply_adds(networks[name], (side, side)), "ms": f"{1000 * taken:.1f}",
            "ratio to the first": f"{taken / first:.3f}", "side px": side, "threads": torch.get_num_threads(),
        }
        for name, taken in seconds.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="Write nothing.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for what, makers, side in (("classifiers", CLASSIFIERS, 224), ("segmentation", SEGMENTATION, 512)):
        found = rows(makers, side, arguments.repeats)
        for row in found:
            print(*row.values(), sep="  ", flush=True)
        if not arguments.quick:
            write_rows(RESULTS / f"small-{what}-{machine()}.csv", found, "backbones", "heads", "layers", "networks")


if __name__ == "__main__":
    main()
