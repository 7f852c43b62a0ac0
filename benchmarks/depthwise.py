"""Time a training step in bfloat16 and in float32, of networks with depthwise convolutions and of one without.

Batches of 32 at 128 px on one core; interleaved runs, medians.

    taskset -c 0 python benchmarks/depthwise.py
"""

import time
from statistics import median

import torch
from machine import RESULTS, machine, write_rows

from poseglass.core.table import build
from poseglass.networks import NETWORKS

NAMES = ("mobile_pose_small", "mobile_pose_large", "unet_light")
REPEATS = 5


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name in NAMES:
        network = build(NETWORKS, name, num_keypoints=14).train()
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
        images = torch.randn(32, 3, 128, 128).contiguous(memory_format=torch.channels_last)
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(2 + REPEATS):
            for bfloat16, taken in seconds.items():
                start = time.perf_counter()
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    maps = network(images)[-1]["heatmap"]
                optimizer.zero_grad()
                maps.float().square().mean().backward()
                optimizer.step()
                taken.append(time.perf_counter() - start)
        low, full = (1000 * median(seconds[key][2:]) for key in (True, False))
        rows.append({"network": name, "bfloat16 ms": f"{low:.0f}", "float32 ms": f"{full:.0f}",
                     "float32 is times as fast": f"{low / full:.2f}"})  # fmt: skip
        print(*rows[-1].values())
    write_rows(RESULTS / f"depthwise-{machine()}.csv", rows, "networks")


if __name__ == "__main__":
    main()
