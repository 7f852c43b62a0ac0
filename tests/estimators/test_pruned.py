"""Pruned networks: saved with the widths of their modules, loaded, and equal bit for bit; and cards that lie."""

import copy
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import poseglass as pg
from poseglass.backbones import BACKBONES
from poseglass.checkpoints import IMPORTERS
from poseglass.checkpoints.export import export_state
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import LSP14
from poseglass.core.table import build
from poseglass.estimators.fit import card_network, load_strictly
from poseglass.estimators.transfer import load_matching
from poseglass.estimators.weights_file import CARD_KEY, CheckpointError, read_card, read_weights, save_weights
from poseglass.networks import NETWORKS, StackedHourglass
from poseglass.networks.cost import multiply_adds, parameters
from poseglass.networks.widths import apply_widths, card_widths, widths_of
from poseglass.programs.exported import exported
from poseglass.programs.fast import difference, fast_forward
from poseglass.programs.torch_program import TorchProgram

SIMCC = {"name": "simcc", "size_wh": [64, 64]}
TABLES: dict[str, dict[str, Any]] = {
    "hg2_light": {"name": "hg2_light", "num_keypoints": 14},
    "mobile_pose_small": {"name": "mobile_pose_small", "num_keypoints": 14},
    "mobile_pose_simcc": {"name": "mobile_pose_small", "num_keypoints": 14, "head": SIMCC},
    "simple_baseline_light": {"name": "simple_baseline_light", "num_keypoints": 14},
}


def made(table: dict[str, Any], seed: int = 0) -> nn.Module:
    """Build a network in evaluation mode whose batch norms have seen something, so that each channel is its own."""
    torch.manual_seed(seed)
    network = build(NETWORKS, table["name"], **{k: v for k, v in table.items() if k != "name"}).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.running_var, 0.5, 1.5), (module.bias, -1, 1)):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high)
    return network


def keep(network: nn.Module, name: str, kept: Tensor, of: str) -> None:
    """Cut a convolution's inputs or outputs, or the channels of a norm or a depthwise convolution, to some of them."""
    module: Any = network.get_submodule(name)
    if isinstance(module, nn.BatchNorm2d):
        module.running_mean, module.running_var = module.running_mean[kept], module.running_var[kept]  # type: ignore[index]
        module.weight, module.bias = nn.Parameter(module.weight[kept]), nn.Parameter(module.bias[kept])
        module.num_features = len(kept)
        return
    transposed = isinstance(module, nn.ConvTranspose2d)
    axis = int(of == "inputs") if not transposed else int(of == "outputs")
    module.weight = nn.Parameter(module.weight.index_select(axis, kept))
    if module.bias is not None and of != "inputs":
        module.bias = nn.Parameter(module.bias[kept])
    if of == "channels":  # depthwise
        module.in_channels = module.out_channels = module.groups = len(kept)
    else:
        setattr(module, "in_channels" if of == "inputs" else "out_channels", len(kept))


def prune(network: nn.Module, count: int, *places: tuple[str, str]) -> None:
    """Keep so many channels, drawn at random, between the modules that make them and those that read them."""
    first = network.get_submodule(places[0][0])
    assert isinstance(first, nn.Conv2d | nn.ConvTranspose2d)
    kept = torch.randperm(first.out_channels)[:count].sort().values
    for name, of in places:
        keep(network, name, kept, of)


def prune_residual(network: nn.Module, at: str, first: int, second: int) -> None:
    """Narrow the inside of a pre-activation residual, both of its maps."""
    prune(network, first, (f"{at}.conv1", "outputs"), (f"{at}.norm2", "channels"), (f"{at}.conv2", "inputs"))
    prune(network, second, (f"{at}.conv2", "outputs"), (f"{at}.norm3", "channels"), (f"{at}.conv3", "inputs"))


def prune_inverted(network: nn.Module, at: str, count: int, squeezed: int | None = None) -> None:
    """Narrow the inside of an inverted residual, and the vector inside its squeeze-and-excitation."""
    places = [(f"{at}.expand.conv", "outputs"), (f"{at}.expand.norm", "channels"), (f"{at}.depthwise.conv", "channels")]
    places += [(f"{at}.depthwise.norm", "channels"), (f"{at}.project.conv", "inputs")]
    if squeezed is not None:
        places += [(f"{at}.squeeze_excite.reduce", "inputs"), (f"{at}.squeeze_excite.expand", "outputs")]
        inside = [(f"{at}.squeeze_excite.reduce", "outputs"), (f"{at}.squeeze_excite.expand", "inputs")]
        prune(network, squeezed, *inside)
    prune(network, count, *places)


def prune_hourglass(network: nn.Module) -> None:
    prune_residual(network, "hourglasses.0.inner.inner.skip.0", 48, 31)
    prune_residual(network, "hourglasses.1.down.0", 72, 1)
    prune_residual(network, "outputs.1.residual.0", 64, 80)
    prune_residual(network, "stem.residual2", 7, 11)  # whose skip has a convolution of its own


def prune_mobile(network: nn.Module) -> None:
    prune_inverted(network, "backbone.blocks.2", 60)  # adds its input
    prune_inverted(network, "backbone.blocks.8", 200, squeezed=17)
    at = "neck.merges.0"  # what stands between two separable convolutions
    places = [(f"{at}.0.pointwise.conv", "outputs"), (f"{at}.0.pointwise.norm", "channels")]
    places += [(f"{at}.1.depthwise.conv", "channels"), (f"{at}.1.depthwise.norm", "channels")]
    prune(network, 40, *places, (f"{at}.1.pointwise.conv", "inputs"))


def prune_before_the_head(network: nn.Module) -> None:
    at = "neck.merges.0.1.pointwise"
    prune(network, 33, (f"{at}.conv", "outputs"), (f"{at}.norm", "channels"), ("head.conv", "inputs"))


def prune_deconvolutions(network: nn.Module) -> None:
    for i, count in enumerate((100, 90)):
        at = f"neck.layers.{i}"
        prune(
            network,
            count,
            (f"{at}.conv", "outputs"),
            (f"{at}.norm", "channels"),
            (f"neck.layers.{i + 1}.conv", "inputs"),
        )


PRUNINGS: dict[str, Callable[[nn.Module], None]] = {
    "hg2_light": prune_hourglass,
    "mobile_pose_small": prune_mobile,
    "mobile_pose_simcc": prune_before_the_head,
    "simple_baseline_light": prune_deconvolutions,
}


def card_of(network: nn.Module, table: dict[str, Any]) -> WeightCard:
    codec = {"name": "simcc"} if table.get("head") == SIMCC else {"name": "heatmap"}
    spec = InputSpec((64, 64))
    return WeightCard("pruned", table, codec, LSP14, spec, widths=card_widths(network, table))


@pytest.fixture(scope="module", params=PRUNINGS)
def pruned(request: pytest.FixtureRequest) -> tuple[nn.Module, dict[str, Any]]:
    """A pruned network, and the table that it was built from."""
    network = made(TABLES[request.param])
    PRUNINGS[request.param](network)
    return network, TABLES[request.param]


@pytest.fixture
def saved(pruned: tuple[nn.Module, dict[str, Any]], tmp_path: Path) -> Path:
    path = tmp_path / "pruned.safetensors"
    save_weights(path, pruned[0].state_dict(), card_of(*pruned))
    return path


def maps(network: nn.Module, images: Tensor) -> list[dict[str, Tensor]]:
    with torch.inference_mode():
        return network(images)


def equal(a: list[dict[str, Tensor]], b: list[dict[str, Tensor]]) -> bool:
    return len(a) == len(b) and all(
        one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        for one, other in zip(a, b, strict=True)
    )


@pytest.mark.slow
def test_pruning_by_hand_is_right() -> None:
    """Channels that are zero behind their norm can go; so the pruning of these tests cuts what belongs together."""
    whole, images = made(TABLES["hg2_light"]), torch.rand(1, 3, 64, 64)
    at = "outputs.1.residual.0"
    norm: Any = whole.get_submodule(f"{at}.norm2")
    kept = torch.arange(0, 80, 2)
    with torch.no_grad():
        norm.weight[1::2], norm.bias[1::2] = 0.0, 0.0
    expected = maps(whole, images)
    for name, of in ((f"{at}.conv1", "outputs"), (f"{at}.norm2", "channels"), (f"{at}.conv2", "inputs")):
        keep(whole, name, kept, of)
    torch.testing.assert_close(maps(whole, images), expected)


@pytest.mark.slow
def test_a_pruned_network_comes_back_bit_for_bit(pruned: tuple[nn.Module, dict[str, Any]], saved: Path) -> None:
    network, table = pruned
    state, card = read_weights(saved)
    rebuilt = card_network(card, state)
    assert json.loads(json.dumps(card.widths)) == card.widths
    assert repr(rebuilt) == repr(network)
    assert widths_of(rebuilt) == widths_of(network)
    assert not rebuilt.training
    images = torch.rand(2, 3, 64, 64)
    assert equal(maps(rebuilt, images), maps(network, images))
    assert parameters(rebuilt) == parameters(network) < parameters(made(table))
    assert multiply_adds(rebuilt, (64, 64)) == multiply_adds(network, (64, 64)) < multiply_adds(made(table), (64, 64))
    with torch.device("meta"):  # from the card alone, as `poseglass models` does
        hollow = card_network(card)
    assert parameters(hollow) == parameters(network)
    assert multiply_adds(hollow, (64, 64)) == multiply_adds(network, (64, 64))


@pytest.mark.slow
def test_load_gives_an_estimator_of_it(
    pruned: tuple[nn.Module, dict[str, Any]], saved: Path, synthetic_person: Path
) -> None:
    estimate, image = pg.load(saved), pg.read_image(synthetic_person)
    assert isinstance(estimate.program, TorchProgram)
    network = copy.deepcopy(pruned[0]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(2, 3, 64, 64)
    assert equal(maps(estimate.program.network, images), maps(network, images))
    whole = pg.TopDownEstimator(replace(estimate.program, network=network))
    boxes = [[5, 5, 90, 110]]
    assert np.array_equal(estimate(image, boxes=boxes).xy, whole(image, boxes=boxes).xy)


@pytest.mark.slow
def test_folding_and_exporting_see_nothing_unusual(saved: Path) -> None:
    program = pg.load(saved).program
    assert isinstance(program, TorchProgram)
    told: list[str] = []
    fast = fast_forward(program.network, (64, 64), on_warning=told.append)
    images = torch.rand(2, 3, 64, 64)
    assert difference(maps(program.network, images)[-1], fast(images)) < 1e-4
    assert told == []
    views = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    torch.testing.assert_close(exported(program)(views).xy, program(views).xy)


@pytest.mark.slow
def test_half_precision_keeps_the_widths(pruned: tuple[nn.Module, dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_weights(path, pruned[0].state_dict(), card_of(*pruned), half=True)
    state, card = read_weights(path)
    assert widths_of(card_network(card, state)) == widths_of(pruned[0])


def test_a_pruned_backbone_comes_back(tmp_path: Path) -> None:
    table = {"name": "mobilenet_v3_small", "width": 0.5}
    torch.manual_seed(0)
    backbone = build(BACKBONES, "mobilenet_v3_small", width=0.5).eval()
    prune_inverted(backbone, "blocks.8", 50, squeezed=9)
    widths = card_widths(backbone, table, part="backbone")
    card = WeightCard("half", table, {}, None, InputSpec((64, 64)), part="backbone", widths=widths)
    save_weights(tmp_path / "backbone.safetensors", backbone.state_dict(), card)
    state, card = read_weights(tmp_path / "backbone.safetensors")
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for ours, theirs in zip(card_network(card, state)(images), backbone(images), strict=True):
            assert torch.equal(ours, theirs)


def test_a_network_may_be_narrower_everywhere_than_its_table_states(tmp_path: Path) -> None:
    """No tensor of the file has a side of 64 then, and yet the card speaks the truth."""
    narrow = StackedHourglass(14, num_stacks=1, width=16, depth=2).eval()
    table = {"name": "stacked_hourglass", "num_keypoints": 14, "num_stacks": 1, "width": 64, "depth": 2}
    card = replace(card_of(narrow, table), name="narrow")
    save_weights(tmp_path / "narrow.safetensors", narrow.state_dict(), card)
    state, card = read_weights(tmp_path / "narrow.safetensors")
    images = torch.rand(1, 3, 64, 64)
    assert equal(maps(card_network(card, state), images), maps(narrow, images))


def test_what_the_table_makes_takes_no_memory() -> None:
    """A network of this width has 10**11 parameters; that of its widths is a small one."""
    narrow = StackedHourglass(14, num_stacks=1, width=16, depth=2).eval()
    table = {"name": "stacked_hourglass", "num_keypoints": 14, "num_stacks": 1, "width": 2**18, "depth": 2}
    card = replace(card_of(narrow, table), name="narrow")
    assert parameters(card_network(card, narrow.state_dict())) == parameters(narrow)


NARROW = StackedHourglass(14, num_stacks=1, width=16, depth=2).eval()
NARROW_TABLE = {"name": "stacked_hourglass", "num_keypoints": 14, "num_stacks": 1, "width": 16, "depth": 2}
NARROW_CARD = WeightCard("lies", NARROW_TABLE, {"name": "heatmap"}, LSP14, InputSpec((64, 64)))


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        (
            {"stem.conv2": {"out_channels": 3}},
            r"cannot be built\. widths name the module 'stem\.conv2', which.*mean 'stem",
        ),
        ({"stem": {"out_channels": 3}}, r"cannot be built\. widths name the module 'stem', a Stem, which has none"),
        ({"stem.conv": {"num_features": 3}}, r"cannot be built\. widths of 'stem\.conv' have 'num_features'"),
        ({"stem.conv": {"weight": 3}}, r"cannot be built\. widths of 'stem\.conv' have 'weight'"),
        ({"stem.conv": {"groups": 2}}, r"cannot be built\. widths of 'stem\.conv': groups=2 must divide in_channels=3"),
        (
            {"stem.conv": {"out_channels": 10**12}},
            r"their card says widths\['stem\.conv'\]\['out_channels'\] = 1000000000000, but no tensor of 'stem\.conv' "
            r"in the file has more than 588 values\. The card belongs to other weights",
        ),
        ({"nothing": {"out_channels": 10**12}}, r"no tensor of 'nothing' in the file has more than"),
        (
            {"stem.conv": {"out_channels": 5}},
            r"do not fit the network .*of another shape: stem\.conv\.weight \(4, 3, 7, 7\)",
        ),
    ],
)
def test_a_card_that_lies_about_widths(widths: dict[str, dict[str, int]], says: str) -> None:
    with pytest.raises(CheckpointError, match=rf"'lies'.*{says}"):
        card_network(replace(NARROW_CARD, widths=widths), NARROW.state_dict())
    if "of another" not in says and "in the file" not in says:
        with pytest.raises(CheckpointError, match=says):
            card_network(replace(NARROW_CARD, widths=widths))


def test_widths_that_do_not_fit_each_other_are_told_when_it_is_loaded(tmp_path: Path) -> None:
    network = copy.deepcopy(NARROW)
    apply_widths(network, {"stem.norm": {"num_features": 3}})
    path = tmp_path / "odd.safetensors"
    save_weights(path, network.state_dict(), card_of(network, NARROW_TABLE))
    with pytest.raises(
        CheckpointError,
        match=r"'pruned': with the widths of their card \(1 modules\) the network does not run on an input of 64 x 64 "
        r"pixels: running_mean should contain 4 elements not 3\. Modules that follow each other.*card_widths",
    ):
        pg.load(path)


class AsksForNumbers(nn.Module):
    """A network that does what the meta device cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        made = self.conv(images)
        return [{"heatmap": made if made.sum() > 0 else -made}]


def test_a_network_that_cannot_be_tried_without_numbers_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "asks", AsksForNumbers)
    network = AsksForNumbers().eval()
    apply_widths(network, {"conv": {"out_channels": 2}})
    card = card_of(network, {"name": "asks"})
    images = torch.rand(1, 3, 8, 8)
    assert equal(maps(card_network(card, network.state_dict()), images), maps(network, images))


def test_an_input_that_the_network_does_not_take_is_not_the_widths_fault(saved: Path) -> None:
    state, card = read_weights(saved)
    rebuilt = card_network(replace(card, input=InputSpec((50, 50))), state)
    assert all(torch.equal(state[name], value) for name, value in rebuilt.state_dict().items())


def test_a_network_of_ones_own_may_have_widths(tmp_path: Path) -> None:
    network = nn.Linear(2, 3, bias=False)
    card = replace(
        NARROW_CARD,
        network={"name": "torch.nn:Linear", "in_features": 2, "out_features": 5, "bias": False},
        widths={"": {"out_features": 3}},
    )
    with pytest.raises(CheckpointError, match="code outside poseglass"):
        card_network(card, network.state_dict())
    rebuilt = card_network(card, network.state_dict(), trust_code=True)
    assert torch.equal(rebuilt(torch.ones(1, 2)), network(torch.ones(1, 2)))


@pytest.mark.parametrize("widths", [[], {"stem": 3}, {"stem": {"a": 0}}, {"stem": {"a": 2.5}}, {"stem": {"a": "os:x"}}])
def test_unreadable_widths(tmp_path: Path, widths: Any) -> None:
    text = json.dumps(json.loads(NARROW_CARD.to_json()) | {"widths": widths})
    header = json.dumps({"__metadata__": {CARD_KEY: text}}).encode()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(
        CheckpointError,
        match=r"odd\.safetensors: .*cannot be read: WeightCard\.widths must be whole numbers above 0 by mod",
    ):
        read_card(path)


def test_an_infinite_width_of_the_table_is_no_crash() -> None:
    table = {"name": "mobile_pose_small", "num_keypoints": 14, "width": float("inf")}
    card = replace(NARROW_CARD, network=table, widths={"head.conv": {"in_channels": 3}})
    with pytest.raises(CheckpointError, match="'lies': their network cannot be built"):
        card_network(card, NARROW.state_dict())


def test_weights_saved_without_their_widths_say_what_is_missing(pruned: tuple[nn.Module, dict[str, Any]]) -> None:
    network, table = pruned
    with pytest.raises(CheckpointError, match=r"of another shape: .*if channels were pruned \(card\.widths\)"):
        card_network(replace(card_of(network, table), widths={}), network.state_dict())


def test_pruned_channels_are_not_taken_for_keypoints() -> None:
    """Cut from one inverted residual, all misshapen tensors differ in the same two numbers."""
    whole, narrow = made(TABLES["mobile_pose_small"]), made(TABLES["mobile_pose_small"])
    prune_inverted(narrow, "backbone.blocks.2", 60)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"of another shape: backbone\.blocks\.2\.expand\.conv\.weight \(60, "):
        load_strictly(whole, narrow.state_dict())
    with pytest.raises(
        CheckpointError,
        match=r"in more than the number of keypoints: backbone\.blocks\.2.*The modules are the same but their widths "
        r"differ.*apply_widths\(network, card\.widths\), or widths = \"init_from\" in a recipe\.",
    ):
        load_matching(whole, narrow.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())


def test_another_number_of_keypoints_is_still_told_in_keypoints(pruned: tuple[nn.Module, dict[str, Any]]) -> None:
    network, table = pruned
    other = made(table | {"num_keypoints": 16})
    apply_widths(other, card_of(network, table).widths)
    with pytest.raises(CheckpointError, match="predict 14 keypoints; asked for 16"):
        load_strictly(other, network.state_dict())
    assert load_matching(other, network.state_dict())


def test_an_offset_head_has_three_maps_a_keypoint() -> None:
    head = {"name": "offset"}
    network, other = (made(TABLES["mobile_pose_small"] | {"head": head, "num_keypoints": k}) for k in (14, 16))
    assert load_matching(other, network.state_dict()) == ["head.conv.weight", "head.conv.bias"]


@pytest.mark.slow
def test_a_public_layout_holds_no_pruned_network() -> None:
    table = {"name": "resnet18"}
    network = build(BACKBONES, "resnet18")
    card = WeightCard("r18", table, {}, None, InputSpec(), part="backbone")
    export_state(network.state_dict(), card, "resnet_torchvision", IMPORTERS)
    at = "stages.0.0"
    places = [(f"{at}.inside1.conv", "outputs"), (f"{at}.inside1.norm", "channels"), (f"{at}.inside2.conv", "inputs")]
    prune(network, 20, *places)
    card = replace(card, widths=card_widths(network, table, part="backbone"))
    with pytest.raises(CheckpointError, match="cannot be written as 'resnet_torchvision': that layout is for a ResNet"):
        export_state(network.state_dict(), card, "resnet_torchvision", IMPORTERS)
