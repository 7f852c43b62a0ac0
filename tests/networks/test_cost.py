"""Costs: the fact sheet's counts, exactly; and nothing about the network changes by being counted."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from poseglass.networks import NETWORKS, cost
from poseglass.networks.cost import latency_ms, multiply_adds, parameters
from poseglass.networks.stacked_hourglass import StackedHourglass


def hourglass(stacks: int, keypoints: int, stem: str = "newell", blocks: int = 1) -> nn.Module:
    with torch.device("meta"):
        return StackedHourglass(keypoints, num_stacks=stacks, num_blocks=blocks, stem=stem)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("stacks", [1, 2, 4, 8])
@pytest.mark.parametrize("keypoints", [11, 16, 17])
def test_parameters_are_those_of_the_original_layout(stacks: int, keypoints: int) -> None:
    expected = 352_640 + stacks * (3_069_696 + 257 * keypoints) + (stacks - 1) * (66_048 + 256 * keypoints)
    assert parameters(hourglass(stacks, keypoints)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stacks", "blocks", "expected"),
    [(1, 1, 3_586_960), (2, 1, 6_730_912), (4, 1, 13_018_816), (8, 1, 25_594_624), (2, 4, 24_751_264)],
)
def test_parameters_of_the_bearpaw_layout(stacks: int, blocks: int, expected: int) -> None:
    assert parameters(hourglass(stacks, 16, "bearpaw", blocks)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stacks", "keypoints", "stem", "blocks", "expected"),
    [
        (1, 16, "newell", 1, 5_150_343_168),
        (2, 16, "newell", 1, 8_334_606_336),
        (2, 11, "newell", 1, 8_318_877_696),
        (2, 17, "newell", 1, 8_337_752_064),
        (4, 16, "newell", 1, 14_703_132_672),
        (8, 16, "newell", 1, 27_440_185_344),
        (1, 16, "bearpaw", 1, 5_804_654_592),
        (2, 16, "bearpaw", 1, 8_988_917_760),
        (4, 16, "bearpaw", 1, 15_357_444_096),
        (8, 16, "bearpaw", 1, 28_094_496_768),
        (2, 16, "bearpaw", 4, 24_671_944_704),
    ],
)
def test_multiply_adds_at_256_px(stacks: int, keypoints: int, stem: str, blocks: int, expected: int) -> None:
    assert multiply_adds(hourglass(stacks, keypoints, stem, blocks), (256, 256)) == expected


@pytest.mark.parametrize(
    ("module", "size_wh", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (10, 6), 10 * 6 * 3 * 8 * 9),
        (nn.Conv2d(3, 6, (1, 3), stride=2, groups=3, bias=False), (11, 7), 5 * 4 * 6 * 3),
        (nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1), (10, 6), 10 * 6 * 3 * 4 * 16),
        (nn.ConvTranspose2d(3, 9, 2, stride=2, groups=3), (10, 6), 10 * 6 * 3 * 3 * 4),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 7), nn.ReLU()), (4, 4), 3 * 4 * 4 * 7),
        (nn.Linear(10, 7), (10, 6), 3 * 6 * 10 * 7),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2)), (8, 8), 0),
    ],
    ids=["conv", "grouped", "transposed", "grouped transposed", "linear", "linear on an axis", "nothing counts"],
)
def test_multiply_adds_of_one_layer(module: nn.Module, size_wh: tuple[int, int], expected: int) -> None:
    assert multiply_adds(module, size_wh) == expected


class Functional(nn.Module):
    """Work outside modules: a convolution, a product, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 3, 3, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = functional.conv2d(images, self.weight).flatten(2)  # (1, 4, 24)
        return tokens @ tokens.mT


def test_what_is_called_outside_modules_counts_too() -> None:
    assert multiply_adds(Functional(), (8, 6)) == 24 * 4 * 27 + 4 * 4 * 24


class Counted:
    """The convention once more, by module: an answer to compare with."""

    def __init__(self, network: nn.Module) -> None:
        self.total = 0
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                module.register_forward_hook(self.count)

    def count(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weight = module._parameters["weight"]
        assert weight is not None
        positions = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        channels = weight.shape[0]  # of these positions
        axis = -1 if isinstance(module, nn.Linear) else 1
        assert positions.shape[axis] == channels
        self.total += weight.numel() * (positions.numel() // channels)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "hg2_light", "unet_light", "hourglass_52", "cpm_light", "cpn_light", "hrnet_w16_light", "simple_baseline_r18",
        "mobile_pose_small", "mobile_pose_large", "simple_baseline_light", "hg1_light", "dilated_light",
    ],
)  # fmt: skip
def test_the_counter_agrees_with_the_convention(name: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[name](num_keypoints=5)
        counted = Counted(network)
        images = torch.empty(1, 3, 256, 128)
    expected = multiply_adds(network, (128, 256))
    counted.total = 0
    with torch.no_grad():
        network.eval()(images)
    assert expected == counted.total > 0


def test_a_module_used_twice_counts_twice_and_its_parameters_once() -> None:
    shared = nn.Conv2d(3, 3, 1, bias=False)
    network = nn.Sequential(shared, shared)
    assert (multiply_adds(network, (5, 4)), parameters(network)) == (2 * 5 * 4 * 9, 9)


def test_counting_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)).eval()).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    multiply_adds(network, (8, 8))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(tensor.device.type == "cpu" for tensor in network.state_dict().values())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_size_that_does_not_divide_is_refused_and_no_hook_stays() -> None:
    network = hourglass(1, 16)
    with pytest.raises(ValueError, match=r"Input of 250 x 256 pixels .* 192 x 256 or 256 x 256"):
        multiply_adds(network, (250, 256))
    assert not any(module._forward_hooks for module in network.modules())


def test_counting_does_no_arithmetic() -> None:
    # 1 petabyte of features, were there any
    assert multiply_adds(nn.Conv2d(3, 16, 1), (2**22, 2**22)) == 48 * 2**44


def test_latency_is_the_median_after_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = iter([9.0, 9.0, 0.004, 0.001, 0.002])
    now = [0.0]

    def clock() -> float:
        return now[0]

    class Slow(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape == (2, 3, 32, 64)
            assert not self.training
            now[0] += next(durations)
            return images

    monkeypatch.setattr(cost.time, "perf_counter", clock)
    network = Slow().train()
    assert latency_ms(network, (64, 32), batch=2, repeats=3, warm_up=2) == pytest.approx(2.0)
    assert network.training


@pytest.mark.parametrize("name", ["batch", "repeats"])
def test_latency_refuses_a_count_of_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        latency_ms(nn.Conv2d(3, 1, 1), (8, 8), **{name: 0})
