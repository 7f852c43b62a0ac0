"""Early exit: what each view gets is what a run of all stages gives at the stage where it leaves."""

import numpy as np
import pytest
import torch

import poseglass as pg
from poseglass.codecs import CODECS
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import LSP14
from poseglass.estimators.weights_file import save_weights
from poseglass.networks import NETWORKS
from poseglass.networks.msdnet import MultiScaleDenseNet
from poseglass.programs.early_exit import ConfidentExit, EarlyExit

MAPS = CODECS["heatmap"](stride=4, sigma=1.0, alignment="center")


def network_of(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    made = {
        "stacked_hourglass": {"num_stacks": 4, "width": 8, "depth": 2},
        "corner_hourglass": {"num_stacks": 3, "widths": (8, 8, 8), "blocks": (1, 1, 1)},
        "cpm_light": {},
        "several scales": {"num_stacks": 3, "width": 8, "depth": 2, "scales": [0.5, 1.0]},
    }[kind]
    return NETWORKS["stacked_hourglass" if kind == "several scales" else kind](5, **made).eval()


@pytest.mark.parametrize("kind", ["stacked_hourglass", "corner_hourglass", "cpm_light", "several scales"])
def test_each_view_ends_at_the_first_stage_that_agrees_with_the_one_before(kind):
    network, images = network_of(kind), torch.randn(9, 3, 64, 96)
    with torch.inference_mode():
        stages = network(images)
    points = torch.stack([MAPS.decode(stage).xy[:, 0] for stage in stages])  # (S, B, K, 2)
    moved = (points[1:] - points[:-1]).norm(dim=-1).mean(-1)  # (S - 1, B)
    within = float(moved[0].median())
    first = [next((s for s in range(1, len(stages)) if moved[s - 1, b] <= within), len(stages) - 1) for b in range(9)]
    assert len(set(first)) > 1  # else nothing is tested
    exits = EarlyExit(network, MAPS, within)
    found = exits(images)["heatmap"]
    expected = torch.stack([stages[first[b]]["heatmap"][b] for b in range(9)])
    assert torch.allclose(found, expected, atol=1e-5)
    assert exits.exits == [first.count(s) for s in range(len(stages))]


def test_no_distance_runs_all_stages_and_infinity_stops_at_the_second():
    network, images = network_of("stacked_hourglass"), torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        stages = network(images)
    for within, stage in ((0.0, 3), (float("inf"), 1)):
        exits = EarlyExit(network, MAPS, within)
        assert torch.allclose(exits(images)["heatmap"], stages[stage]["heatmap"], atol=1e-5)
        assert exits.exits[stage] == 3
    assert EarlyExit(network, MAPS, 1.0).in_words() == "Early exit within 1 px: no view was run."
    assert exits.in_words() == "Early exit within inf px: of 3 views, 3 after stage 2 of 4; 2.00 stages on average."


def test_stages_after_the_exit_are_not_run():
    network, images = network_of("stacked_hourglass"), torch.randn(3, 3, 64, 64)
    ran = [0] * 4
    for i, hourglass in enumerate(network.hourglasses):
        hourglass.register_forward_hook(lambda module, given, made, i=i: ran.__setitem__(i, len(made)))
    EarlyExit(network, MAPS, float("inf"))(images)
    assert ran == [3, 3, 0, 0]


@pytest.mark.parametrize(
    ("network", "codec", "within", "message"),
    [
        (network_of("stacked_hourglass"), MAPS, -1.0, "0 px or more, got -1.0"),
        (network_of("stacked_hourglass"), MAPS, float("nan"), "0 px or more, got nan"),
        (NETWORKS["hg2_light"](5), MAPS, 1.0, "StackedHourglass here has 2: nothing is left to omit"),
        (NETWORKS["unet_light"](5), MAPS, 1.0, "has none that can be run one by one"),
        (network_of("stacked_hourglass"), CODECS["centernet"](), 1.0, "decodes something else"),
    ],
)
def test_what_cannot_stop_early_is_said(network, codec, within, message):
    with pytest.raises(ValueError, match=message):
        EarlyExit(network, codec, within)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a network of three stacks."""
    path = tmp_path_factory.mktemp("weights") / "three.safetensors"
    torch.manual_seed(0)
    numbers = {"num_stacks": 3, "width": 8, "depth": 2}
    codec = {"name": "heatmap", "stride": 4, "sigma": 1.0, "alignment": "center"}
    network = {"name": "stacked_hourglass", "num_keypoints": 14} | numbers
    card = WeightCard("three", network, codec, LSP14, InputSpec((64, 64)))
    save_weights(path, NETWORKS["stacked_hourglass"](14, **numbers).state_dict(), card)
    return path


def test_an_estimator_stops_early_and_says_where(weights, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (80, 70, 3), np.uint8)
    plain, early = pg.load_top_down(weights), pg.load_top_down(weights, early_exit_px=0.0)
    assert plain.early_exit is None
    assert np.allclose(plain(image).xy, early(image).xy, atol=1e-3)
    assert early.early_exit is not None
    assert early.early_exit.exits == [0, 0, 1]
    flipped = early.with_flip_test(True)
    flipped(image)
    assert early.early_exit.exits == [0, 0, 3]  # the image and its mirror image


def test_early_exit_with_what_it_excludes_is_refused(weights):
    with pytest.raises(ValueError, match="in float32 and not compiled"):
        pg.load(weights, early_exit_px=1.0, precision="bfloat16")
    with pytest.raises(ValueError, match="Early exit is for weights that find the keypoints in a box"):
        pg.load("people", early_exit_px=1.0)


def test_a_classifier_stops_where_a_class_is_probable_enough():
    torch.manual_seed(0)
    network = MultiScaleDenseNet(num_classes=3, exits=3, layers=2, growth=4, width=8, stem_stride=1).eval()
    images = 3 * torch.randn(12, 3, 16, 16)
    with torch.inference_mode():
        logits = torch.stack([stage["class"] for stage in network(images)])
    sure = logits.softmax(-1).amax(-1)  # (S, B)
    least = float(sure[0].median())
    first = [next((s for s in range(3) if sure[s, b] >= least), 2) for b in range(12)]
    assert len(set(first)) > 1
    exits = ConfidentExit(network, least)
    expected = torch.stack([logits[first[b], b] for b in range(12)])
    assert torch.allclose(exits(images)["class"], expected, atol=1e-5)
    assert exits.exits == [first.count(s) for s in range(3)]
    assert exits.in_words().startswith(f"Exits at a confidence of {least:g}: of 12 views, 7 after stage 1")


def test_a_confident_exit_says_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        ConfidentExit(network_of("stacked_hourglass"), 1.5)
    with pytest.raises(ValueError, match="has no exits that can be run one by one"):
        ConfidentExit(NETWORKS["unet_light"](5), 0.5)
    with pytest.raises(ValueError, match="this network gives heatmap"):
        ConfidentExit(network_of("stacked_hourglass"), 0.5)(torch.zeros(1, 3, 64, 64))
