"""Record what public implementations compute, into ``networks/``: run once, by hand, beside their code.

    python tests/parity/record_networks.py SOURCES [NAME ...]

SOURCES holds checkouts of the repositories named in ``networks.toml``, at the commits named there; mmpose, torchvision
and timm are installed packages (mmpose with mmengine and mmcv-lite). Nothing of them is copied: the public code builds
its network, the network is filled by ``fill.py``, and its names, shapes and output are written.
"""

import argparse
import json
import runpy
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
formula = SimpleNamespace(**runpy.run_path(str(HERE / "fill.py")))

Run = Callable[[Tensor], Tensor]


def princeton(sources: Path) -> tuple[nn.Module, Run]:
    sys.path.insert(0, str(sources / "pytorch_stacked_hourglass"))
    from models.posenet import PoseNet

    network = PoseNet(2, 256, 16)
    return network, lambda x: network(x.permute(0, 2, 3, 1))[:, -1]


def bearpaw(sources: Path) -> tuple[nn.Module, Run]:
    sys.path.insert(0, str(sources / "pytorch-stacked-hourglass" / "src"))
    from stacked_hourglass import hg2

    network = hg2(pretrained=False)
    return network, lambda x: network(x)[-1]


def leoxiaobin(sources: Path, file: str, config: str) -> tuple[nn.Module, Run]:
    import yaml

    folder = sources / "deep-high-resolution-net.pytorch"
    sys.path.insert(0, str(folder / "lib" / "models"))

    class Config(dict):
        __getattr__ = dict.__getitem__

    def nested(value: Any) -> Any:
        return Config({k: nested(v) for k, v in value.items()}) if isinstance(value, dict) else value

    numbers = nested(yaml.safe_load((folder / "experiments" / config).read_text()))
    network = __import__(file).get_pose_net(numbers, is_train=False)
    return network, network


def mmpose(config: str) -> tuple[nn.Module, Run]:
    import mmpose as package
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmpose.models import build_pose_estimator

    path = Path(package.__file__).parent / ".mim/configs/body_2d_keypoint/topdown_heatmap" / config
    model = Config.fromfile(path).model
    model.backbone.init_cfg = None
    init_default_scope("mmpose")
    network = build_pose_estimator(model)

    def run(x: Tensor) -> Tensor:
        maps = network.head.forward(network.extract_feat(x))
        return maps[-1] if isinstance(maps, list | tuple) else maps

    return network, run


def dli14(sources: Path, whole: bool = False) -> tuple[nn.Module, Run]:
    sys.path.insert(0, str(sources / "mobilenetv3.pytorch"))
    from mobilenetv3 import mobilenetv3_small

    network = mobilenetv3_small()
    return network, network if whole else lambda x: network.conv(network.features(x))


def torchvision(name: str, whole: bool = False) -> tuple[nn.Module, Run]:
    import torchvision

    network = getattr(torchvision.models, name)()
    if whole:
        return network, network
    if name.startswith("mobilenet"):
        return network, network.features
    return network, nn.Sequential(*list(network.children())[:-2])


def lr_aspp() -> tuple[nn.Module, Run]:
    import torchvision

    network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    return network, lambda x: network(x)["out"]


def timm(name: str, whole: bool = False) -> tuple[nn.Module, Run]:
    import timm

    network = timm.create_model(name)
    if whole:
        return network, network
    if not name.startswith("hrnet"):
        return network, nn.Sequential(network.conv_stem, network.bn1, network.blocks)  # type: ignore[arg-type]
    stem = nn.Sequential(network.conv1, network.bn1, network.act1, network.conv2, network.bn2, network.act2)  # type: ignore[arg-type]
    return network, lambda x: network.stages(stem(x))  # type: ignore[operator]


def ucbdrive(sources: Path) -> tuple[nn.Module, Run]:
    sys.path.insert(0, str(sources / "dla"))
    from dla import dla34

    network = dla34(return_levels=True)
    return network, lambda x: network(x)[-1]


def ml_illustrated(sources: Path) -> tuple[nn.Module, Run]:
    sys.path.insert(0, str(sources / "EfficientNet-Lite-PyTorch"))
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    blocks = nn.Sequential(*network._blocks)
    return network, lambda x: blocks(network._swish(network._bn0(network._conv_stem(x))))


CENTERNET = ("hm", "wh", "reg", "hps", "hm_hp", "hp_offset")
"""The public names of the outputs, in the order in which their channels are recorded, of the last stack."""


def centernet(sources: Path, file: str) -> ModuleType:
    sys.path.insert(0, str(sources / "CenterNet/src/lib/models/networks"))
    return __import__(file)


def centernet_hourglass(sources: Path) -> tuple[nn.Module, Run]:
    public = centernet(sources, "large_hourglass")
    heads = {"hm": 1, "wh": 2, "hps": 34, "reg": 2, "hm_hp": 17, "hp_offset": 2}
    pre = nn.Sequential(public.convolution(7, 3, 32, stride=2), public.residual(3, 32, 64, stride=2))
    network = public.exkp(
        5, 2, [64, 64, 96, 96, 96, 128], [2, 2, 2, 2, 2, 4], heads, pre=pre, cnv_dim=64,
        make_hg_layer=public.make_hg_layer,
    )  # fmt: skip
    return network, lambda x: joined(network(x)[-1])


def centernet_resnet(sources: Path) -> tuple[nn.Module, Run]:
    public = centernet(sources, "msra_resnet")
    block, layers = public.resnet_spec[18]
    network = public.PoseResNet(block, layers, {"hm": 80, "wh": 2, "reg": 2}, head_conv=64)
    return network, lambda x: joined(network(x)[-1])


def joined(maps: dict[str, Tensor]) -> Tensor:
    return torch.cat([maps[name] for name in CENTERNET if name in maps], 1)


NETWORKS: dict[str, Callable[[Path], tuple[nn.Module, Run]]] = {
    "princeton_hg2": princeton,
    "bearpaw_hg2": bearpaw,
    "leoxiaobin_hrnet_w32": lambda s: leoxiaobin(s, "pose_hrnet", "coco/hrnet/w32_256x192_adam_lr1e-3.yaml"),
    "leoxiaobin_resnet50": lambda s: leoxiaobin(s, "pose_resnet", "coco/resnet/res50_256x192_d256x3_adam_lr1e-3.yaml"),
    "mmpose_hourglass52": lambda s: mmpose("coco/td-hm_hourglass52_8xb32-210e_coco-256x256.py"),
    "mmpose_cpm": lambda s: mmpose("mpii/td-hm_cpm_8xb64-210e_mpii-368x368.py"),
    "mmpose_hrnet_w32": lambda s: mmpose("coco/td-hm_hrnet-w32_8xb64-210e_coco-256x192.py"),
    "mmpose_resnet50": lambda s: mmpose("coco/td-hm_res50_8xb64-210e_coco-256x192.py"),
    "dli14_mobilenet_v3_small": dli14,
    "torchvision_mobilenet_v3_small": lambda s: torchvision("mobilenet_v3_small"),
    "timm_mobilenet_v3_small": lambda s: timm("mobilenetv3_small_100"),
    "dli14_mobilenet_v3_small_classifier": lambda s: dli14(s, whole=True),
    "torchvision_mobilenet_v3_large_classifier": lambda s: torchvision("mobilenet_v3_large", whole=True),
    "timm_mobilenet_v3_large_classifier": lambda s: timm("mobilenetv3_large_100", whole=True),
    "torchvision_lr_aspp": lambda s: lr_aspp(),
    "torchvision_resnet18": lambda s: torchvision("resnet18"),
    "torchvision_resnet50": lambda s: torchvision("resnet50"),
    "timm_hrnet_w18": lambda s: timm("hrnet_w18"),
    "ucbdrive_dla34": ucbdrive,
    "ml_illustrated_efficientnet_lite0": ml_illustrated,
    "centernet_hourglass": centernet_hourglass,
    "centernet_resnet18": centernet_resnet,
}


def record(name: str, sources: Path) -> None:
    """Write ``networks/NAME.npz``: the names and shapes as JSON, and the output for one image."""
    about = SimpleNamespace(**tomllib.loads((HERE / "networks.toml").read_text())[name])
    network, run = NETWORKS[name](sources)
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    network.load_state_dict(formula.fill(shapes, about.gain))
    network.eval()
    with torch.no_grad():
        output = run(formula.image(*about.input_hw))
    maps = output if isinstance(output, Tensor) else torch.cat([level.flatten(1) for level in output], 1)
    if hasattr(about, "every"):
        maps = maps[..., :: about.every, :: about.every]
    text = np.frombuffer(json.dumps(shapes, separators=(",", ":")).encode(), np.uint8)
    path = HERE / "networks" / f"{name}.npz"
    np.savez_compressed(path, names_and_shapes=text, output=maps.numpy())
    print(f"{path.name}: {tuple(maps.shape)}, largest {maps.abs().max():.3g}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path)
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    arguments = parser.parse_args()
    for name in arguments.names:
        record(name, arguments.sources)
