"""Two batches are two types, and whoever takes one says so when given the other."""

import pytest
import torch
from torch.utils import _pytree as pytree

from poseglass.codecs import CODECS
from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Decoded
from poseglass.core.table import build
from poseglass.core.targets import ModelInput, RawBatch, Targets
from poseglass.programs import model_input, normalise


def targets(count: int = 2) -> Targets:
    return Targets.of_keypoints(torch.rand(count, 3, 2) * 30)


def raw(count: int = 2) -> RawBatch:
    return RawBatch(
        torch.zeros(count, 32, 24, 3, dtype=torch.uint8), targets(count), torch.zeros(count, 2, 3), [""] * count
    )


def test_a_raw_batch_becomes_a_model_input_once() -> None:
    batch = raw()
    taken = model_input(batch, InputSpec((24, 32)))
    assert taken.images.shape == (2, 3, 32, 24)
    assert batch.size_wh == taken.size_wh == (24, 32)
    assert taken.targets is batch.targets
    assert len(taken) == len(batch) == 2
    with pytest.raises(TypeError, match=r"model_input takes a RawBatch, whose images are uint8 .*, got ModelInput"):
        model_input(taken, InputSpec((24, 32)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Views must be uint8 \(B, H, W, 3\) RGB, got float32 \(2, 3, 32, 24\)"):
        normalise(taken.images, InputSpec((24, 32)))


def test_neither_batch_takes_the_others_images() -> None:
    with pytest.raises(TypeError, match=r"RawBatch.images must be uint8 .*, got float32 \(1, 3, 4, 4\).*a ModelInput"):
        RawBatch(torch.zeros(1, 3, 4, 4), targets(1), torch.zeros(1, 2, 3), [""])
    with pytest.raises(
        TypeError, match=r"ModelInput.images must be floating point .*, got uint8 \(1, 4, 4, 3\).*model_"
    ):
        ModelInput(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), targets(1))


@pytest.mark.parametrize("name", CODECS)
def test_encoding_a_batch_in_the_place_of_its_targets_is_an_error(name: str) -> None:
    codec, batch = build(CODECS, name), raw()
    for wrong in (batch, model_input(batch, InputSpec((24, 32)))):
        what = type(wrong).__name__
        with pytest.raises(
            TypeError, match=rf"encode takes Targets .* got {what}. Pass batch.targets and batch.size_wh"
        ):
            codec.encode(wrong, (24, 32))  # type: ignore[arg-type]
    two = Targets(*(getattr(targets(), f).expand(2, 2, *getattr(targets(), f).shape[2:]) for f in
                    ("xy", "known", "valid", "label", "box_xyxy", "crowd")))  # fmt: skip
    if codec.spec.instances > 1:
        assert codec.encode(two, (32, 64))["weight"].shape == (2, 2)
        return
    with pytest.raises(ValueError, match="encodes one instance per view, but the targets have 2"):
        codec.encode(two, (24, 32))


def test_targets_of_keypoints_have_boxes_around_what_is_known() -> None:
    xy = torch.tensor([[[1.0, 2.0], [5.0, 9.0], [70.0, 0.0]], [[1.0, 2.0], [5.0, 9.0], [7.0, 0.0]]])
    made = Targets.of_keypoints(xy, torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert made.box_xyxy[:, 0].tolist() == [[1.0, 2.0, 5.0, 9.0], [0.0, 0.0, 0.0, 0.0]]
    assert made.valid.tolist() == [[True], [True]]
    assert made.label.tolist() == [[0], [0]]
    assert not made.crowd.any()
    moved = made.to("cpu")
    assert torch.equal(moved.xy, made.xy)
    assert moved.occluded is None


def test_decoded_is_a_tree_of_tensors() -> None:
    decoded = Decoded.one_instance(torch.rand(4, 3, 2), torch.rand(4, 3))
    leaves, spec = pytree.tree_flatten(decoded)
    assert len(leaves) == 5
    again = pytree.tree_unflatten(leaves, spec)
    assert isinstance(again, Decoded)
    assert torch.equal(again.xy, decoded.xy)
    assert again.box_xyxy is None
    assert (decoded.valid.shape, decoded.label.dtype) == ((4, 1), torch.int64)
    assert torch.equal(decoded.cpu().score, decoded.score)


def test_a_view_without_an_instance_trains_nothing() -> None:
    made = targets()
    made.valid[0] = False
    weight = build(CODECS, "heatmap").encode(made, (32, 32))["weight"]
    assert weight[0].tolist() == [0.0, 0.0, 0.0]
    assert weight[1].max() > 0


@pytest.mark.parametrize("name", ["known", "valid", "box_xyxy"])
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    made = targets()
    parts = {f: getattr(made, f) for f in ("xy", "known", "valid", "label", "box_xyxy", "crowd")}
    with pytest.raises(ValueError, match=rf"Targets.{name} must have shape \(2, 1.*got \(1, 1"):
        Targets(**parts | {name: parts[name][:1]})
