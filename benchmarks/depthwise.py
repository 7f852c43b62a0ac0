"""Time a training step in bfloat16 and in float32, of networks with depthwise convolutions and of one without.

In bfloat16 twice: with the gradients of ``layers/depthwise.py`` and with PyTorch's own. Batches of 32 at 128 px on one
core; interleaved runs, medians.

    taskset -c 0 python benchmarks/depthwise.py
"""

import time
from statistics import median

import torch
from machine import RESULTS, machine, write_rows

from poseglass.core.allocator import keep_freed_memory
from poseglass.core.table import build
from poseglass.layers.depthwise import DepthwiseConv2d
from poseglass.networks import NETWORKS

LITE0 = {"backbone": {"name": "efficientnet_lite0"}, "neck": {"name": "unet", "width": 64}, "head": {"name": "heatmap"}}
NETWORKS_OF = {
    "mobile_pose_small": ("mobile_pose_small", {}),
    "mobile_pose_large": ("mobile_pose_large", {}),
    "EfficientNet-Lite0, U-Net 64": ("composed", LITE0),
    "unet_light": ("unet_light", {}),
}
REPEATS = 5
OWN = DepthwiseConv2d._has_slow_gradient


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for words, (name, options) in NETWORKS_OF.items():
        network = build(NETWORKS, name, num_keypoints=14, **options).train()
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
        images = torch.randn(32, 3, 128, 128).contiguous(memory_format=torch.channels_last)
        seconds: dict[str, list[float]] = {"own": [], "plain": [], "float32": []}
        for _ in range(2 + REPEATS):
            for variant, taken in seconds.items():
                DepthwiseConv2d._has_slow_gradient = OWN if variant == "own" else lambda layer: False  # type: ignore
                start = time.perf_counter()
                with torch.autocast("cpu", torch.bfloat16, enabled=variant != "float32"):
                    maps = network(images)[-1]["heatmap"]
                optimizer.zero_grad()
                maps.float().square().mean().backward()
                optimizer.step()
                taken.append(time.perf_counter() - start)
        own, plain, full = (1000 * median(seconds[key][2:]) for key in seconds)
        rows.append(
            {
                "network": words, "bfloat16 ms": f"{own:.0f}", "bfloat16 with PyTorch's gradients ms": f"{plain:.0f}",
                "float32 ms": f"{full:.0f}", "ratio of the gradients": f"{plain / own:.2f}",
                "float32 is times as fast": f"{own / full:.2f}",
            }
        )  # fmt: skip
        print(rows[-1], flush=True)
    write_rows(RESULTS / f"depthwise-{machine()}.csv", rows, "networks", "layers")


if __name__ == "__main__":
    main()
