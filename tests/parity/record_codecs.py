"""Record what mmpose's codecs encode and decode, into ``codecs/``: run once, by hand, with mmpose 1.3.2 installed.

    python tests/parity/record_codecs.py

Input 192 x 256 (width x height), maps 48 x 64. Three people of 17 keypoints, some outside and some not visible. What is
decoded is the encoded targets with noise by formula (``fill.py``), rounded to float16, so it need not be stored.
"""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

HERE = Path(__file__).parent
formula = SimpleNamespace(**runpy.run_path(str(HERE / "fill.py")))

PEOPLE, KEYPOINTS = 3, 17

CODECS: dict[str, tuple[str, dict[str, Any]]] = {
    "msra_sigma2": ("MSRAHeatmap", {"sigma": 2}),
    "dark_sigma2_blur11": ("MSRAHeatmap", {"sigma": 2, "unbiased": True, "blur_kernel_size": 11}),
    "udp_gaussian_sigma2_blur11": ("UDPHeatmap", {"heatmap_type": "gaussian", "sigma": 2, "blur_kernel_size": 11}),
    "udp_combined_radius": ("UDPHeatmap", {"heatmap_type": "combined", "radius_factor": 0.0546875}),
    "simcc_sigma6_split2": ("SimCCLabel", {"smoothing_type": "gaussian", "sigma": 6.0, "simcc_split_ratio": 2.0}),
}


def people() -> tuple[np.ndarray, np.ndarray]:
    """Return keypoints ``(3, 17, 2)``, input pixels, up to 10 px outside, and whether they are visible ``(3, 17)``."""
    xy = formula.uniform([1], (PEOPLE, KEYPOINTS, 2)) / 2 + np.float32(0.5)
    visible = formula.uniform([2], (PEOPLE, KEYPOINTS)) > -0.6
    return (xy * np.array([212, 276]) - 10).astype(np.float32), visible.astype(np.float32)


def record(name: str) -> None:
    """Write ``codecs/NAME.npz``."""
    import mmpose.codecs

    kind, numbers = CODECS[name]
    maps = {} if kind == "SimCCLabel" else {"heatmap_size": (48, 64)}
    codec = getattr(mmpose.codecs, kind)(input_size=(192, 256), **maps, **numbers)
    keypoints, visible = people()
    encoded = [codec.encode(keypoints[i : i + 1].copy(), visible[i : i + 1].copy()) for i in range(PEOPLE)]
    kept = {f"encoded_{key}": np.stack([one[key] for one in encoded]) for key in encoded[0] if key != "keypoint_labels"}
    for key in kept:  # tails that no test sees, and that would not compress
        kept[key] = np.where(np.abs(kept[key]) < 1e-6, np.float32(0), kept[key])
    labels = [key for key in kept if not key.endswith("weights")]
    read = []
    for i in range(PEOPLE):
        outputs = [formula.noisy(kept[key])[i].astype(np.float32) for key in labels]
        read.append(codec.decode(*outputs))
    xy, score = (np.concatenate([one[k] for one in read]).astype(np.float32) for k in (0, 1))
    path = HERE / "codecs" / f"{name}.npz"
    np.savez_compressed(path, keypoints=keypoints, visible=visible, decoded_keypoints=xy, decoded_scores=score, **kept)
    print(f"{path.name}: { ({k: v.shape for k, v in kept.items()}) }, {path.stat().st_size:,} bytes")


def record_integral() -> None:
    """Write ``codecs/integral.npz``: what mmpose's head for integral regression reads out of maps by formula."""
    import torch
    from mmpose.codecs import RegressionLabel
    from mmpose.models.heads import IntegralRegressionHead

    keypoints, visible = people()
    codec = RegressionLabel(input_size=(192, 256))
    encoded = [codec.encode(keypoints[i : i + 1].copy(), visible[i : i + 1].copy()) for i in range(PEOPLE)]
    head = IntegralRegressionHead(
        in_channels=KEYPOINTS, in_featuremap_size=(48, 64), num_joints=KEYPOINTS, deconv_out_channels=None,
        deconv_kernel_sizes=None, final_layer=None, decoder={"type": "RegressionLabel", "input_size": (192, 256)},
    )  # fmt: skip
    coordinates, _ = head.forward((torch.from_numpy(formula.integral_maps()),))
    read, _ = codec.decode(coordinates.detach().numpy())
    labels = np.stack([one["keypoint_labels"][0] for one in encoded])
    path = HERE / "codecs" / "integral.npz"
    np.savez_compressed(path, keypoints=keypoints, encoded_labels=labels, decoded_keypoints=read)
    print(f"{path.name}: {labels.shape}, {read.shape}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    for name in CODECS:
        record(name)
    record_integral()
