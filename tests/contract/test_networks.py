"""What every network promises, by name of ``NETWORKS``; a new one is tested by standing there."""

import hashlib
import inspect
import re
from typing import Any

import pytest
import torch
from torch import nn

from poseglass.core.table import build
from poseglass.heads.box_class import BoxClassHead
from poseglass.networks import NETWORKS
from poseglass.networks.cost import multiply_adds, parameters
from poseglass.networks.msdnet import MultiScaleDenseNet

K = 16

STATED: dict[str, tuple[int, int, str]] = {
    "stacked_hourglass": (25_434_112, 2526, "9d762c9e19b305f3"),
    "hg1": (3_426_448, 377, "1cbe4b7bb3de32cf"),
    "hg2": (6_570_400, 684, "70a60f8d4e9810dc"),
    "hg4": (12_858_304, 1298, "f428a94f5ae0fb2e"),
    "hg8": (25_434_112, 2526, "9d762c9e19b305f3"),
    "hg1_light": (180_400, 314, "d928830771fae858"),
    "hg2_light": (2_078_032, 558, "3925991526bbef9a"),
    "unet": (31_038_608, 118, "2a17a36bbbcd7738"),
    "unet_full": (31_038_608, 118, "2a17a36bbbcd7738"),
    "unet_light": (4_375_216, 104, "a6633970405f0930"),
    "mobile_pose_small": (898_808, 314, "2241d902e0922641"),
    "mobile_pose_large": (2_915_152, 382, "3546523f9365e709"),
    "composed": (279_800, 252, "5a7fa51bfc5a6429"),
    "corner_hourglass": (93_666_960, 482, "ccddf107e36cbe9e"),
    "hourglass_52": (93_666_960, 482, "ccddf107e36cbe9e"),
    "hourglass_104": (187_708_576, 964, "867d9de657a99a89"),
    "hourglass_52_light": (1_878_960, 194, "d7036ee38021024b"),
    "pose_machine": (31_225_568, 216, "0414d74f2e745f6e"),
    "cpm": (31_225_568, 216, "0414d74f2e745f6e"),
    "cpm_light": (351_040, 120, "024bb1eef03adc5a"),
    "cpn": (27_395_296, 582, "e87c56c9469f2430"),
    "cpn_r50": (27_395_296, 582, "e87c56c9469f2430"),
    "cpn_r101": (46_387_424, 888, "9974abc3d3865eb6"),
    "cpn_light": (4_627_976, 384, "23022c5a871dbb0c"),
    "hrnet": (28_536_080, 1754, "4fe5977d2a43836e"),
    "hrnet_w32": (28_536_080, 1754, "4fe5977d2a43836e"),
    "hrnet_w48": (63_595_696, 1754, "75965bfa244d7b56"),
    "hrnet_w16_light": (2_722_640, 770, "41c61609df1bb065"),
    "simple_baseline": (33_999_440, 338, "8ab5fdd84526cd12"),
    "simple_baseline_r18": (15_376_464, 140, "47bdfbce743f0f8b"),
    "simple_baseline_r34": (25_484_624, 236, "c510abd34a2efd24"),
    "simple_baseline_r50": (33_999_440, 338, "8ab5fdd84526cd12"),
    "simple_baseline_r101": (52_991_568, 644, "82e3f462d8ef77a3"),
    "simple_baseline_r152": (68_635_216, 950, "7d2dea2da3be09aa"),
    "simple_baseline_light": (5_552_760, 140, "9aafaa3cba685023"),
    "dilated_r50": (23_540_816, 320, "2d415ef7adf863fb"),
    "dilated_light": (1_579_240, 122, "5f96603a27bc8a9e"),
    "centernet_hourglass": (194_809_582, 1008, "99a5fef36446ee6e"),
    "centernet_hourglass_52": (97_217_463, 504, "9f43519f8f3dd198"),
    "centernet_hourglass_104": (194_809_582, 1008, "99a5fef36446ee6e"),
    "centernet_light": (1_990_519, 216, "b93105ab4d4e3ffa"),
    "centernet_resnet": (16_261_047, 162, "572adbe76514f21c"),
    "centernet_resnet18": (16_261_047, 162, "572adbe76514f21c"),
    "centernet_resnet34": (26_369_207, 258, "23be9ee33f4bd2ab"),
    "centernet_resnet50": (34_884_023, 360, "bc4737b09fde245e"),
    "centernet_resnet101": (53_876_151, 666, "4ee9570549864e37"),
    "centernet_dla34": (19_430_119, 350, "4a9d24c78d6964be"),
    "centernet_hrnet_w32": (28_650_103, 1776, "d9856a8f11cf7ec5"),
    "centernet_mobilenet_v3": (3_081_495, 404, "6262bf8d41638037"),
    "centernet_fpn": (14_065_591, 156, "15601df73b1af562"),
    "centernet_fpn_resnet18": (14_065_591, 156, "15601df73b1af562"),
    "classifier": (927_585, 242, "dcf20ee838aac5b1"),
    "mobilenet_v3_large_classifier": (5_483_032, 312, "4d95ac3370963660"),
    "mobilenet_v3_small_classifier": (2_542_856, 244, "eaf8ff178956cac8"),
    "multi_scale_densenet": (16_162_888, 1090, "2b1f39363a9da7ac"),
    "msdnet": (16_162_888, 1090, "2b1f39363a9da7ac"),
    "clcnet_a_classifier": (3_253_640, 176, "29db3c95ee33c97e"),
    "clcnet_b_classifier": (4_085_128, 212, "0bcf1dfbca411261"),
}
"""At 16 keypoints, as built without further arguments (or with ``REQUIRED``): parameters, entries in the state dict,
and the start of the SHA-256 of their names, shapes and dtypes. Weights in the world depend on those: where one changes
on purpose, an importer for the old names belongs to the change."""

REQUIRED: dict[str, dict[str, Any]] = {
    "composed": {"backbone": {"name": "mobilenet_v3_small", "width": 0.5}, "neck": {"name": "fpn", "width": 16}},
    "classifier": {"backbone": {"name": "mobilenet_v3_small"}},
}
"""Arguments that a generic family cannot be built without."""

SMALL: dict[str, dict[str, Any]] = {
    "stacked_hourglass": {"num_stacks": 2, "width": 16, "depth": 2, "num_blocks": 2},
    "unet": {"width": 8, "depth": 2, "stem_stride": 2},
    "corner_hourglass": {"num_stacks": 2, "widths": (16, 16, 24), "blocks": (2, 1, 2)},
    "pose_machine": {"num_stages": 3, "width": 16, "first_width": 32, "feature_width": 8},
    "cpn": {"backbone": {"name": "resnet18", "width": 8}, "width": 8},
    "hrnet": {"width": 8, "num_modules": (2, 1, 2), "num_blocks": 1, "num_bottlenecks": 1, "stem_width": 8},
    "simple_baseline": {"depth": 18, "width": 8, "num_deconvs": 2, "deconv_width": 16},
    "centernet_hourglass": {"num_stacks": 2, "widths": (16, 16, 24), "blocks": (2, 1, 2), "head_width": 8},
    "centernet_resnet": {"width": 8, "deconv_width": 16, "head_width": 8, "num_classes": 3},
    "centernet_fpn": {"width": 8, "fpn_width": 16, "head_width": 8, "num_classes": 3},
    "multi_scale_densenet": {"exits": 2, "layers": 2, "growth": 4, "width": 8, "num_classes": 3},
    **REQUIRED,
}
"""Arguments that make a small member of a generic family, for what takes arithmetic."""

CLASSIFIERS = {
    "classifier",
    "mobilenet_v3_large_classifier",
    "mobilenet_v3_small_classifier",
    "multi_scale_densenet",
    "msdnet",
    "clcnet_a_classifier",
    "clcnet_b_classifier",
}
"""Networks that tell the class of a view instead of its keypoints: a stage is ``"class"`` ``(B, C)``."""

HUGE = {"hourglass_52", "hourglass_104", "centernet_hourglass_52", "centernet_hourglass_104"}
"""Members of such a family whose arithmetic takes minutes; the small member stands for them."""


@pytest.fixture(scope="module", params=[name for name in NETWORKS if name not in HUGE])
def network(request: pytest.FixtureRequest) -> nn.Module:
    """A network with seeded weights and input statistics that are not those of a new one, in evaluation mode."""
    torch.manual_seed(0)
    made = build(NETWORKS, request.param, num_keypoints=K, **SMALL.get(request.param, {}))
    return made.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def images(network: nn.Module) -> torch.Tensor:
    """Two images, twice the divisor wide and once high: sides may differ."""
    divisor = _divisor(network)
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, divisor, 2 * divisor, generator=generator).to(memory_format=torch.channels_last)


def _divisor(network: nn.Module) -> int:
    divisor = network.divisor
    assert isinstance(divisor, int)
    return divisor


def _heatmaps(network: nn.Module) -> dict[str, int]:
    """Return the names of a stage's heatmaps with their strides: one, one per level, or none of a classifier."""
    if isinstance(network, MultiScaleDenseNet) or isinstance(getattr(network, "head", None), BoxClassHead):
        return {}
    strides = getattr(network, "strides", None)
    if strides is None:
        return {"heatmap": network.stride}  # type: ignore[dict-item]
    return {f"heatmap_{stride}": stride for stride in strides}


def _on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build(NETWORKS, name, num_keypoints=K, **REQUIRED.get(name, {}))


def test_every_name_has_its_figures_stated() -> None:
    assert set(STATED) == set(NETWORKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_the_stated_ones(name: str) -> None:
    made = _on_meta(name)
    assert (parameters(made), len(made.state_dict())) == STATED[name][:2]


@pytest.mark.slow
@pytest.mark.slow_when_large
@pytest.mark.parametrize("name", [name for name, make in NETWORKS.items() if not isinstance(make, type)])
def test_a_count_in_the_docstring_is_right(name: str) -> None:
    text = inspect.getdoc(NETWORKS[name]) or ""
    for count in re.findall(r"([\d,]{7,}) parameters at (?:16 keypoints|1000 classes)", text):
        assert int(count.replace(",", "")) == STATED[name][0]
    for figure, unit, width, height in re.findall(r"([\d.]+) ([GM]) multiply-adds at (\d+) x (\d+)", text):
        count = multiply_adds(_on_meta(name), (int(width), int(height)))
        assert (f"{count / 1e9:.3f}" if unit == "G" else f"{count / 1e6:.1f}") == figure


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict_keys_are_stable(name: str) -> None:
    lines = [f"{key} {tuple(value.shape)} {value.dtype}" for key, value in _on_meta(name).state_dict().items()]
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
    assert digest == STATED[name][2], f"names, shapes or dtypes in the state dict of {name!r} have changed"


@pytest.mark.slow
@pytest.mark.slow_when_large
@pytest.mark.parametrize("name", NETWORKS)
def test_the_usual_size_is_stated_and_can_be_taken(name: str) -> None:
    made = _on_meta(name)
    assert isinstance(made.usual_size_wh, tuple)
    width, height = made.usual_size_wh
    assert width % _divisor(made) == height % _divisor(made) == 0
    assert multiply_adds(made, (width, height)) > 0


@pytest.mark.slow_when_large
@pytest.mark.parametrize("name", NETWORKS)
def test_one_keypoint_is_enough(name: str) -> None:
    with torch.device("meta"):
        made = build(NETWORKS, name, num_keypoints=1, **SMALL.get(name, {})).eval()
        stages = made(torch.zeros(1, 3, 2 * _divisor(made), _divisor(made)))
    assert (not _heatmaps(made)) == (name in CLASSIFIERS)
    assert all(stage[key].shape[1] == 1 for stage in stages for key in _heatmaps(made))


@pytest.mark.slow_when_large
def test_stages_of_the_stated_stride_every_parameter_with_a_gradient_and_no_nan(
    network: nn.Module, images: torch.Tensor
) -> None:
    stages = network(images[:1])
    assert isinstance(stages, list)
    assert stages
    for stage in stages:
        for heatmap, stride in _heatmaps(network).items():
            height, width = images.shape[2] // stride, images.shape[3] // stride
            assert stage[heatmap].shape == (1, K, height, width)
            level = heatmap.removeprefix("heatmap")  # "" if there is only one
            for maps in (maps for key, maps in stage.items() if key.endswith(level)):
                assert (maps.shape[0], *maps.shape[-2:]) == (1, height, width)
                assert maps.isfinite().all()
        if "class" in stage:
            linear = [one for one in network.modules() if isinstance(one, nn.Linear)][-1]
            assert stage["class"].shape == (1, linear.out_features)
            assert stage["class"].isfinite().all()
    network.zero_grad()
    torch.stack([maps.square().mean() for stage in stages for maps in stage.values()]).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"no gradient for {name}"
        assert parameter.grad.isfinite().all(), f"gradient of {name} is not finite"
        assert parameter.grad.abs().max() > 0, f"gradient of {name} is zero"
    network.zero_grad(set_to_none=True)


@pytest.mark.slow_when_large
def test_deterministic_and_an_image_does_not_depend_on_the_others_in_its_batch(
    network: nn.Module, images: torch.Tensor
) -> None:
    with torch.inference_mode():
        together, again, alone = network(images), network(images), network(images[1:])
    for a, b, c in zip(together, again, alone, strict=True):
        assert a.keys() == b.keys() == c.keys()
        for key, maps in a.items():
            assert torch.equal(maps, b[key])
            assert (maps[1:] - c[key]).abs().max() < 1e-4 * maps.abs().max()


@pytest.mark.slow_when_large
def test_evaluation_changes_nothing_in_the_network(network: nn.Module, images: torch.Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        network(images[:1])
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.slow_when_large
def test_a_size_that_does_not_divide_is_refused_with_sizes_that_do(network: nn.Module) -> None:
    divisor = _divisor(network)
    for width, height in ((divisor + 2, divisor), (divisor, 3 * divisor - 1), (divisor - 1, 1)):
        with pytest.raises(ValueError, match="Nearest valid sizes") as error:
            network(torch.zeros(1, 3, height, width))
        message = str(error.value)
        assert f"{width} x {height}" in message
        offered = re.findall(r"(\d+) x (\d+)", message.partition("valid sizes:")[2])
        assert offered
        assert all(int(side) % divisor == 0 and int(side) > 0 for size in offered for side in size)
    assert multiply_adds(network, (divisor, divisor)) > 0  # what was offered last


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_a_classifier_takes_a_number_of_classes_and_no_keypoints(name: str) -> None:
    with torch.device("meta"):
        made = build(NETWORKS, name, num_classes=7, **REQUIRED.get(name, {})).eval()
        stages = made(torch.zeros(2, 3, 224, 224))
    assert len(stages) == getattr(made, "num_stages", 1)
    for stage in stages:
        assert {key: value.shape for key, value in stage.items()} == {"class": (2, 7)}
    with pytest.raises(ValueError, match=r"num_classes=0|num_classes must be a whole number above 0, got 0"):
        build(NETWORKS, name, num_classes=0, **REQUIRED.get(name, {}))


@pytest.mark.parametrize(
    "name",
    [
        "hg1_light",
        "hrnet_w16_light",
        "simple_baseline_light",
        "unet_light",
        "mobile_pose_small",
        "cpm_light",
        "cpn_light",
    ],
)
def test_the_same_seed_makes_the_same_network(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build(NETWORKS, name, num_keypoints=2).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["hg1_light", "hrnet_w16_light", "simple_baseline_light", "dilated_light", "unet_light", "mobile_pose_small"],
)
def test_a_few_steps_lower_the_loss(name: str) -> None:
    torch.manual_seed(0)
    network = build(NETWORKS, name, num_keypoints=2).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    stride = network.stride
    assert isinstance(stride, int)
    side = 64 // stride
    images, target = torch.rand(4, 3, 64, 64), torch.rand(4, 2, side, side)
    losses = []
    for _ in range(6):
        loss = torch.stack([(stage["heatmap"] - target).square().mean() for stage in network(images)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
