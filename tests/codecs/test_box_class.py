"""The class of what a box shows: codec, head, loss, program, and the second of two stages."""

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from poseglass.codecs.box_class import BoxClassCodec
from poseglass.codecs.centernet import CenterNetCodec
from poseglass.core.card import WeightCard
from poseglass.core.image import write_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.prediction import Decoded
from poseglass.core.skeletons import BOXES, LSP14
from poseglass.core.table import build
from poseglass.core.targets import Targets
from poseglass.data.crops import Crops
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.transfer import to_other_classes
from poseglass.estimators.twostage import TwoStageEstimator
from poseglass.evaluation.evaluate import evaluate
from poseglass.heads.box_class import BoxClassHead
from poseglass.losses.box_class import class_cross_entropy
from poseglass.metrics import CenterF1
from poseglass.networks import NETWORKS
from poseglass.programs import TorchProgram
from poseglass.programs.exported import exported
from poseglass.readers.labelled import LabelledImages
from poseglass.runs.check import check_poses
from poseglass.runs.recipe import RecipeError

SPEC = InputSpec((32, 32), 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Brightness(nn.Module):
    """Tells dark, grey and bright crops apart: classes 0, 1 and 2."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(12.0))

    def forward(self, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        mean = images.mean((1, 2, 3))
        return [{"class": torch.stack([-(((mean - at) * self.sharpness) ** 2) for at in (0.1, 0.5, 0.9)], -1)}]


def targets(labels: list[int], crowd: list[bool] | None = None) -> Targets:
    count = len(labels)
    valid = torch.ones(count, 1, dtype=torch.bool)
    crowds = torch.tensor(crowd or [False] * count)[:, None]
    label = torch.tensor(labels)[:, None]
    return Targets(
        torch.zeros(count, 1, 0, 2), torch.zeros(count, 1, 0), valid, label, torch.zeros(count, 1, 4), crowds
    )


def reader() -> TopDownEstimator:
    return TopDownEstimator(TorchProgram(Brightness(), BoxClassCodec(), BOXES, SPEC))


def page() -> np.ndarray:
    """Return an image with a bright, a dark and a grey square."""
    image = np.full((40, 120, 3), 128, np.uint8)
    image[:, :40], image[:, 40:80] = 230, 25
    return image


SQUARES = np.array([[0, 0, 39, 39], [40, 0, 79, 39], [80, 0, 119, 39]], np.float32)


def test_a_class_is_read_back() -> None:
    codec = BoxClassCodec()
    encoded = codec.encode(targets([2, 0], [False, True]), (32, 32))
    assert encoded["class"].tolist() == [[2], [0]]
    assert encoded["weight"].tolist() == [[1.0], [0.0]]  # a crowd is nothing to learn from
    decoded = codec.decode({"class": torch.tensor([[0.0, 1.0, 3.0], [float("nan"), 0.0, 0.0]])})
    assert decoded.label[0].tolist() == [2]
    assert decoded.box_score[0].item() == pytest.approx(float(np.exp(3) / (1 + np.exp(1) + np.exp(3))))
    assert decoded.box_score[1].item() == 0.0
    assert decoded.xy.shape == (2, 1, 0, 2)
    with pytest.raises(ValueError, match="encodes one instance per view, but the targets have 2"):
        codec.encode(replace(_pair(), label=torch.zeros(1, 2, dtype=torch.int64)), (32, 32))


def _pair() -> Targets:
    zeros = torch.zeros(1, 2)
    return Targets(
        torch.zeros(1, 2, 0, 2), torch.zeros(1, 2, 0), zeros == 0, zeros.long(), torch.zeros(1, 2, 4), zeros == 1
    )


def test_the_loss_is_the_cross_entropy_of_what_counts() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
    label, weight = torch.tensor([[0], [1], [0]]), torch.tensor([[1.0], [0.0], [1.0]])
    expected = (np.log(1 + np.exp(-2)) + np.log(2)) / 2
    assert class_cross_entropy(logits, label, weight).item() == pytest.approx(expected, abs=1e-6)
    assert class_cross_entropy(logits, label, 0 * weight).item() == 0.0
    smooth = class_cross_entropy(logits[:1], label[:1], weight[:1], smoothing=0.2).item()
    assert smooth == pytest.approx(np.log(1 + np.exp(-2)) + 0.1 * 2, abs=1e-6)
    with pytest.raises(ValueError, match=r"smoothing in \[0, 1\), got 1"):
        class_cross_entropy(logits, label, weight, smoothing=1.0)


def test_the_head_takes_any_size_and_says_what_it_does_not_take() -> None:
    head = BoxClassHead(8, num_classes=5, width=4, dropout=0.5).eval()
    assert head(torch.zeros(2, 8, 1, 3))["class"].shape == (2, 5)
    with pytest.raises(ValueError, match=r"at least 1 class, .* got num_classes=0, width=0, hidden_width=0, dropout"):
        BoxClassHead(8, num_classes=0)
    with pytest.raises(ValueError, match=r"widths of 0 or more .* hidden_width=-1, dropout=0.0"):
        BoxClassHead(8, hidden_width=-1)


def test_a_hidden_layer_is_the_published_tail() -> None:
    head = BoxClassHead(8, num_classes=5, hidden_width=6, dropout=0.5).eval()
    features = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(0))
    hidden = head.hidden(features.mean((2, 3)))
    expected = head.classes(hidden * torch.clamp(hidden + 3, 0, 6) / 6)
    torch.testing.assert_close(head(features)["class"], expected)
    assert head.train()(features)["class"].ne(expected).any()  # dropout


def test_the_program_is_exported() -> None:
    program = TorchProgram(Brightness(), BoxClassCodec(), BOXES, SPEC, flip_test=True)
    views = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export about itself
        graph = exported(program)
    one, other = program(views), graph(views)
    assert isinstance(other, Decoded)
    assert torch.equal(one.label, other.label)
    torch.testing.assert_close(one.box_score, other.box_score)


def test_each_box_is_read() -> None:
    found = reader()(page(), SQUARES)
    assert found.label.tolist() == [2, 0, 1]
    assert found.box_score.min() > 0.9
    assert found.xy.shape == (3, 0, 2)


class Finder:
    """Finds the three squares, the last one best."""

    skeleton, finds_boxes, card = BOXES, True, None

    def stream(self, frames, *, causal=False):
        for _ in frames:
            yield Instances(BOXES, np.zeros((3, 0, 2)), np.zeros((3, 0)), SQUARES, np.array([0.3, 0.5, 0.9]))


def test_of_two_stages_the_second_tells_the_class() -> None:
    both = TwoStageEstimator(Finder(), reader())  # type: ignore[arg-type]
    found = both(page())
    assert both.tells_classes
    assert found.label.tolist() == [1, 0, 2]  # best first
    alone = reader()(page(), SQUARES[::-1].copy())
    np.testing.assert_allclose(found.box_score, np.array([0.9, 0.5, 0.3]) * alone.box_score, rtol=1e-5)
    assert both(page(), SQUARES[:1]).label.tolist() == [2]


def labelled(images: int = 2, classes: tuple[str, ...] = ("dark", "grey", "bright"), **changes) -> LabelledImages:
    """Return squares whose classes are named in this order; each image is the page above."""
    numbers = np.array([classes.index(name) for name in ("bright", "dark", "grey")])
    extra = {"area": np.full(3, 39.0**2), "crowd": np.zeros(3, bool)}
    given = {"box_xyxy": SQUARES, "extra": extra} | changes
    squares = Instances(BOXES, np.zeros((3, 0, 2)), np.zeros((3, 0)), box_score=np.ones(3), label=numbers, **given)
    return LabelledImages(
        "squares", BOXES, (PAGE,) * images, (squares,) * images, tuple(range(images)), classes=classes
    )


@pytest.fixture(autouse=True)
def page_file(tmp_path, monkeypatch):
    write_image(tmp_path / "page.png", page())
    monkeypatch.setattr(sys.modules[__name__], "PAGE", tmp_path / "page.png")


PAGE = Path("page.png")


def test_every_box_is_an_example() -> None:
    crops = Crops(labelled(), SPEC)
    assert (len(crops), crops.kind, crops.notes) == (6, "objects", ())
    sample = crops[0, 1, 32, 32]
    assert sample.instances.label.tolist() == [0]
    assert sample.image.shape == (32, 32, 3)
    assert sample.image.mean() < 40  # the dark one
    crowd = {"area": np.ones(3), "crowd": np.array([True, False, False])}
    bad = np.where(np.arange(3)[:, None] == 2, np.nan, SQUARES).astype(np.float32)
    fewer = Crops(labelled(box_xyxy=bad, extra=crowd), SPEC)
    assert len(fewer) == 2
    assert fewer.notes == (
        "2 crowds excluded: crops are made of single objects.",
        "2 annotations without a box that has area excluded.",
    )
    with pytest.raises(ValueError, match="None of the 2 images has a box with area that is not a crowd's"):
        Crops(labelled(box_xyxy=np.full((3, 4), np.nan, np.float32)), SPEC)


def test_classes_are_compared_by_name() -> None:
    names = ("dark", "grey", "bright")
    found = evaluate(reader(), labelled(), [CenterF1()], classes=names)
    assert found.results["f1"] == 1.0
    other = evaluate(reader(), labelled(classes=("grey", "bright", "dark")), [CenterF1()], classes=names)
    assert other.results["f1"] == 1.0
    wrong = evaluate(reader(), labelled(classes=("grey", "bright", "dark")), [CenterF1()])
    assert wrong.results["f1"] == 0.0
    with pytest.raises(ValueError, match="no class has the same name"):
        evaluate(reader(), labelled(), [CenterF1()], classes=("cat", "dog"))


@pytest.mark.parametrize("codec", [BoxClassCodec(), CenterNetCodec(poses=False)])
def test_keypoints_that_would_never_be_learnt_are_refused(codec) -> None:
    check_poses(codec, BOXES)
    check_poses(CenterNetCodec(), LSP14)
    with pytest.raises(RecipeError, match=r"learns no keypoints .* the data have the 14 of 'lsp14'. Set boxes_only"):
        check_poses(codec, LSP14)


def told_by(classes: tuple[str, ...], seed: int) -> tuple[nn.Module, WeightCard]:
    torch.manual_seed(seed)
    table = {
        "name": "composed", "num_keypoints": 0, "backbone": {"name": "resnet18", "width": 8},
        "neck": {"name": "level", "level": -1}, "head": {"name": "box_class", "num_classes": len(classes)},
    }  # fmt: skip
    network = build(NETWORKS, "composed", **{key: value for key, value in table.items() if key != "name"})
    return network, WeightCard("reader", table, {"name": "box_class"}, BOXES, SPEC, classes=classes)


@pytest.mark.parametrize("ours", [("c", "new", "a", "b"), ("c", "a"), ("c", "a", "b")])
def test_classes_of_the_same_name_keep_their_weights(ours) -> None:
    old, card = told_by(("a", "b", "c"), 0)
    network, _ = told_by(ours, 1)
    initial = network.head.classes.bias.clone()
    state, said = to_other_classes(network, old.state_dict(), card, ours)
    network.load_state_dict(state)
    shared = [name for name in ours if name != "new"]
    assert said.startswith(f" {len(shared)} of {len(ours)} classes are in both and keep their weights, matched by name")
    assert ("new, from initial values: new." in said) == ("new" in ours)
    for place, name in enumerate(ours):
        same = old.head.classes.bias["abc".index(name)] if name in "abc" else initial[place]
        assert network.head.classes.bias[place] == same
    kept = old.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items() if "head" not in name)


def test_the_same_classes_need_nothing() -> None:
    old, card = told_by(("a", "b"), 0)
    state, said = to_other_classes(told_by(("a", "b"), 1)[0], old.state_dict(), card, ("a", "b"))
    assert said == ""
    assert torch.equal(state["head.classes.weight"], old.head.classes.weight)
    assert to_other_classes(old, old.state_dict(), replace(card, classes=()), ("a", "b"))[1] == ""


def test_classes_without_names_start_anew_if_there_are_others() -> None:
    old, card = told_by(("a", "b", "c"), 0)
    network, _ = told_by(("x", "y"), 1)
    initial = network.head.classes.bias.clone()
    state, said = to_other_classes(network, old.state_dict(), replace(card, classes=()), ("x", "y"))
    assert said.startswith(" The weights do not name their 3 classes, so that the layer that tells them has initial")
    network.load_state_dict(state)
    assert torch.equal(network.head.classes.bias, initial)
    kept = old.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items() if "classes" not in name)
    wider, _ = told_by(("x", "y"), 1)
    wider.head.classes = nn.Linear(32, 2)  # differs in more than the classes
    assert to_other_classes(wider, old.state_dict(), replace(card, classes=()), ("x", "y"))[1] == ""
