"""Widths by module: read, compared and set, on the meta device and on a real one; and what cannot be set says so."""

from typing import Any

import pytest
import torch
from torch import nn

from poseglass.backbones import BACKBONES
from poseglass.core.table import build
from poseglass.layers.synchronised_norm import SynchronisedBatchNorm, synchronise_norms
from poseglass.networks import NETWORKS, hg1_light
from poseglass.networks.cost import multiply_adds, parameters
from poseglass.networks.widths import apply_widths, card_widths, widths_of, widths_that_differ

REQUIRED: dict[str, dict[str, Any]] = {
    "composed": {"backbone": {"name": "mobilenet_v3_small", "width": 0.5}, "neck": {"name": "fpn", "width": 16}},
    "classifier": {"backbone": {"name": "mobilenet_v3_small", "width": 0.5}},
}
TABLE = {"name": "hg1_light", "num_keypoints": 5}


def every_kind() -> nn.Sequential:
    """One of each module that has widths; images of 8 x 8 to a vector."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.PReLU(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.GroupNorm(4, 8),
        nn.Conv2d(8, 12, 1, groups=4),
        nn.SyncBatchNorm(12),
        nn.ConvTranspose2d(12, 6, 2, stride=2, groups=2),
        SynchronisedBatchNorm(6),
        nn.PReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16 * 16, 10),
        nn.BatchNorm1d(10, affine=False),
    )


NARROWER = {
    "0": {"out_channels": 6},
    "1": {"num_features": 6},
    "2": {"num_parameters": 6},
    "3": {"in_channels": 6, "out_channels": 6, "groups": 6},
    "4": {"num_channels": 6, "num_groups": 3},
    "5": {"in_channels": 6, "out_channels": 10, "groups": 2},
    "6": {"num_features": 10},
    "7": {"in_channels": 10, "out_channels": 4},
    "8": {"num_features": 4},
    "11": {"in_features": 4 * 16 * 16, "out_features": 7},
    "12": {"num_features": 7},
}


def narrowed() -> nn.Sequential:
    """What ``NARROWER`` describes, built by hand."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.PReLU(6),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        nn.GroupNorm(3, 6),
        nn.Conv2d(6, 10, 1, groups=2),
        nn.SyncBatchNorm(10),
        nn.ConvTranspose2d(10, 4, 2, stride=2, groups=2),
        SynchronisedBatchNorm(4),
        nn.PReLU(),
        nn.Flatten(),
        nn.Linear(4 * 16 * 16, 7),
        nn.BatchNorm1d(7, affine=False),
    )


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_every_kind_of_module_takes_other_widths(device: str) -> None:
    with torch.device(device):
        network, expected = every_kind().double(), narrowed().double()
    modules = [*network.modules()]
    apply_widths(network, NARROWER)
    assert all(a is b for a, b in zip(modules, network.modules(), strict=True))
    assert repr(network) == repr(expected)
    assert widths_of(network) == widths_of(expected)
    own, made = network.state_dict(), expected.state_dict()
    assert {k: (v.shape, v.dtype, v.device) for k, v in own.items()} == {
        k: (v.shape, v.dtype, v.device) for k, v in made.items()
    }
    assert all(isinstance(parameter, nn.Parameter) and parameter.requires_grad for parameter in network.parameters())
    assert parameters(network) == parameters(expected)
    assert multiply_adds(network.float(), (8, 8)) == multiply_adds(expected.float(), (8, 8))


def test_new_tensors_begin_as_those_of_a_new_module() -> None:
    network = every_kind().eval()
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            tensor.fill_(9)
    apply_widths(network, NARROWER)
    norm: Any = network[1]
    assert norm.weight.tolist() == norm.running_var.tolist() == [1.0] * 6
    assert norm.bias.tolist() == norm.running_mean.tolist() == [0.0] * 6
    assert norm.num_batches_tracked == 0
    assert not norm.training
    for index in (0, 3, 5, 7, 11):
        module: Any = network[index]
        bound = nn.init._calculate_correct_fan(module.weight, "fan_in") ** -0.5
        assert 0 < module.weight.abs().max() <= bound  # as reset_parameters draws it
    untouched: Any = network[9]
    assert untouched.weight.item() == 9


def test_what_stays_keeps_its_numbers_and_frozen_stays_frozen() -> None:
    network = every_kind().requires_grad_(False)
    before: Any = network[5].weight
    apply_widths(network, {"0": {"out_channels": 6}, "1": {"num_features": 6}})
    assert network[5].weight is before
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_only_what_differs_is_listed() -> None:
    assert widths_that_differ(every_kind(), every_kind()) == {}
    assert widths_that_differ(narrowed(), every_kind()) == NARROWER
    assert widths_that_differ(synchronise_norms(narrowed(), torch.device("cpu")), every_kind()) == NARROWER


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        ({"13": {"out_channels": 6}}, r"name the module '13', which the network does not have\..*named_modules\(\)"),
        ({"0.weight": {"out_channels": 6}}, r"the module '0\.weight', which the network does not have"),
        (
            {"10": {"in_features": 6}},
            r"name the module '10', a Flatten, which has none\. .*have widths",
        ),
        (
            {"0": {"num_features": 6}},
            r"of '0' have 'num_features', but a Conv2d takes in_channels, out_channels, groups",
        ),
        ({"0": {"kernel_size": 5}}, r"of '0' have 'kernel_size'"),
        ({"0": {"forward": 5}}, r"of '0' have 'forward'"),
        ({"0": {"out_channels": 0}}, r"of '0': out_channels must be a whole number above 0, got 0\."),
        ({"0": {"out_channels": True}}, r"out_channels must be a whole number above 0, got True"),
        ({"0": {"out_channels": 6.0}}, r"out_channels must be a whole number above 0, got 6\.0"),
        (
            {"3": {"in_channels": 6}},
            r"of '3': groups=8 must divide in_channels=6\. A depthwise convolution takes the same",
        ),
        ({"5": {"groups": 8}}, r"of '5': groups=8 must divide out_channels=12"),
        ({"4": {"num_channels": 6}}, r"of '4': num_groups=4 must divide num_channels=6"),
    ],
)
def test_what_cannot_be_set_is_told_and_changes_nothing(widths: dict[str, dict[str, int]], says: str) -> None:
    network = every_kind()
    before, state = repr(network), dict(network.named_parameters())
    with pytest.raises(ValueError, match=says):
        apply_widths(network, {"1": {"num_features": 6}} | widths)
    assert repr(network) == before
    assert all(parameter is state[name] for name, parameter in network.named_parameters())


def test_the_nearest_module_is_named() -> None:
    with torch.device("meta"):
        network = hg1_light(5)
    with pytest.raises(ValueError, match=r"Did you mean 'stem\.conv'\?"):
        apply_widths(network, {"stem.cnov": {"out_channels": 6}})


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_widths_of_one_network_describe_another_of_the_same_modules(name: str) -> None:
    """All widths of every network are in the table: 5 keypoints become 7, and nothing else tells them apart."""
    with torch.device("meta"):
        network, other = (build(NETWORKS, name, k, **REQUIRED.get(name, {})) for k in (5, 7))
    apply_widths(network, widths_that_differ(other, network))
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("table", [NETWORKS, BACKBONES], ids=["networks", "backbones"])
def test_no_network_holds_a_tensor_that_its_state_does_not(table: dict[str, Any]) -> None:
    """Such a tensor would be lost where a network with a card's widths goes from the meta device to a real one."""
    for name in table:
        numbers = REQUIRED.get(name, {}) | ({"num_keypoints": 5} if table is NETWORKS else {})
        with torch.device("meta"):
            network = build(table, name, **numbers)
        held = dict(network.named_parameters()) | dict(network.named_buffers())
        assert held.keys() == network.state_dict().keys(), name
        for module in network.modules():
            assert not any(isinstance(value, torch.Tensor) for value in vars(module).values()), name


def test_a_network_as_it_was_built_needs_no_widths() -> None:
    assert card_widths(hg1_light(5), TABLE) == {}
    backbone = {"name": "resnet18", "width": 8}
    assert card_widths(build(BACKBONES, "resnet18", width=8), backbone, part="backbone") == {}


def cut_without_saying_so(network: nn.Module) -> None:
    conv: Any = network.get_submodule("stem.conv")
    conv.weight = nn.Parameter(conv.weight[:6])


def leave_a_norm_out(network: nn.Module) -> None:
    network.get_submodule("stem").norm = nn.Identity()


def add_a_layer(network: nn.Module) -> None:
    network.get_submodule("stem").more = nn.Conv2d(3, 3, 1)


def other_stride(network: nn.Module) -> None:
    conv: Any = network.get_submodule("stem.conv")
    conv.stride = (1, 1)


def other_epsilon(network: nn.Module) -> None:
    norm: Any = network.get_submodule("stem.norm")
    norm.eps = 1e-3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            cut_without_saying_so,
            r"stem\.conv\.weight is \(6, 3, 7, 7\), but the widths of its module make it \(16, 3, 7",
        ),
        (leave_a_norm_out, r"stem\.norm\.weight is missing"),
        (add_a_layer, r"stem\.more\.weight is unexpected"),
        (other_stride, r"stem\.conv\.stride is \(1, 1\), but the table makes it \(2, 2\)"),
        (other_epsilon, r"stem\.norm\.eps is 0\.001, but the table makes it 1e-05"),
    ],
)
def test_what_no_width_describes_is_refused(change: Any, says: str) -> None:
    network = hg1_light(5)
    change(network)
    with pytest.raises(
        ValueError, match=rf"not what .*'hg1_light'.* makes with other widths: .*{says}.*Give the table"
    ):
        card_widths(network, TABLE)


def test_the_table_of_another_variant_is_refused() -> None:
    """No shape shows the order of activation and squeeze-and-excitation."""
    with torch.device("meta"):
        network = build(NETWORKS, "mobile_pose_small", 5, order="excite_activate")
    with pytest.raises(ValueError, match=r"excites_first is True, but the table makes it False"):
        card_widths(network, {"name": "mobile_pose_small", "num_keypoints": 5})


def test_a_table_that_builds_nothing() -> None:
    with pytest.raises(LookupError, match="Did you mean 'hg1_light'"):
        card_widths(hg1_light(5), {"name": "hg1_ligth", "num_keypoints": 5})
    with pytest.raises(ValueError, match="network needs a name"):
        card_widths(hg1_light(5), {"num_keypoints": 5})
