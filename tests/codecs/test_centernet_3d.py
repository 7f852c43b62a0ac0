"""Depth, dimensions and orientation in CenterNet's codec, head and losses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from poseglass.codecs.centernet import CenterNetCodec
from poseglass.codecs.centernet_3d import alpha_of, bins_of, depth_of, flipped_3d, metres_of, middles_of, rotation_of
from poseglass.codecs.conformance import as_output
from poseglass.core.affine import Affine
from poseglass.core.box_3d import corners_of, lift, observe, project
from poseglass.core.boxes import around
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeletons import BOXES
from poseglass.data.loader import collate
from poseglass.data.whole_images import WholeImages
from poseglass.heads.centernet import CenterNetHead
from poseglass.losses.centernet import orientation_at_pixels
from poseglass.synthetic.streets import streets
from poseglass.training.centernet import CenterNetCriterion
from poseglass.transforms import RandomAffine

SIZE_WH = (512, 160)
CAMERA = np.array([[300.0, 0, 250.0, 9000.0], [0, 300.0, 70.0, 0], [0, 0, 1, 2.0]])
CODEC = CenterNetCodec(poses=False, boxes_3d=True, middles_3d=True)


def sample(box_3d: list[list[float]], *, scaled: bool | None = None) -> PoseSample:
    """Return a view with boxes in space and the tight boxes around them."""
    box = np.array(box_3d)
    count = len(box)
    extra = {} if scaled is None else {"scaled": np.full(count, scaled)}
    people = Instances(
        BOXES, np.zeros((count, 0, 2)), np.zeros((count, 0)), around(project(corners_of(box), CAMERA)), np.ones(count),
        np.arange(count) % 3, box_3d=box, projection=np.broadcast_to(CAMERA, (count, 3, 4)), extra=extra,
    )  # fmt: skip
    image = np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8)
    return PoseSample(image, people, Affine.identity(), "x")


THREE = [
    [-3000.0, 600, 12000, 4100, 1500, 1700, 0.4], [2500.0, 700, 9000, 700, 1750, 600, -2.9],
    [6000.0, 300, 22000, 1700, 1700, 600, 1.6],
]  # fmt: skip


def perfect(codec: CenterNetCodec, target: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    out = as_output(codec, target)
    return out | {"center": out["center"].clamp(1e-6, 1 - 1e-6).logit()}


@pytest.mark.parametrize("bins", [2, 4, 12])
def test_every_angle_comes_back(bins: int):
    alpha = torch.linspace(-math.pi, math.pi, 100_001, dtype=torch.float64)[1:]
    back = alpha_of(rotation_of(alpha, bins))
    off = torch.remainder(back - alpha + math.pi, 2 * math.pi) - math.pi
    assert off.abs().max() < 1e-6
    assert (back > -math.pi).all()
    assert (back <= math.pi).all()
    count = bins_of(alpha, bins).sum(-1)
    assert set(count.tolist()) == {1, 2}  # each is in one bin or in two
    assert (count == 2).double().mean() == pytest.approx(1 / 3, abs=0.001)
    known = torch.tensor([0.0, math.pi / 2, -math.pi / 2, math.pi])
    assert bins_of(known).tolist() == [[True, True], [False, True], [True, False], [True, True]]


def test_depth_is_a_bounded_function_of_the_output():
    metres = torch.tensor([0.5, 1.0, 20.0, 80.0], dtype=torch.float64)
    torch.testing.assert_close(metres_of(depth_of(metres)).double(), metres, rtol=1e-5, atol=1e-5)
    assert metres_of(torch.tensor(0.0)) == pytest.approx(1.0, abs=1e-5)
    assert torch.isfinite(metres_of(torch.tensor([-1e4, 1e4]))).all()


@pytest.mark.parametrize(("focal_px", "bins"), [(0.0, 2), (444.0, 2), (444.0, 12)])
def test_boxes_in_space_come_back(focal_px, bins):
    codec = replace(CODEC, focal_px=focal_px, heading_bins=bins)
    one = sample(THREE)
    target = codec.encode(collate([one]).targets, SIZE_WH, num_classes=3)
    decoded = codec.decode(perfect(codec, target))
    rows = decoded.box_score[0] > 0.9
    seen = decoded.observed_3d[0][rows].double().numpy()
    assert set(seen[:, 3].tolist()) == {focal_px}
    found = lift(seen, CAMERA)
    order = [int(decoded.label[0][rows].tolist().index(k)) for k in range(3)]
    np.testing.assert_allclose(found[order][:, :6], np.array(THREE)[:, :6], rtol=1e-4, atol=2.0)
    np.testing.assert_allclose(found[order][:, 6], np.array(THREE)[:, 6], atol=1e-5)


def test_the_published_form_takes_the_centre_of_the_box_for_the_middle():
    codec = replace(CODEC, middles_3d=False)
    assert "middle_3d" not in codec.spec.outputs
    target = codec.encode(collate([sample(THREE)]).targets, SIZE_WH, num_classes=3)
    decoded = codec.decode(perfect(codec, target))
    first = decoded.observed_3d[0, decoded.label[0].tolist().index(0)]
    box = decoded.box_xyxy[0, decoded.label[0].tolist().index(0)]
    torch.testing.assert_close(first[:2], (box[:2] + box[2:]) / 2)


def test_outputs_are_in_the_published_units():
    target = CODEC.encode(collate([sample(THREE[:1])]).targets, SIZE_WH)
    place = int(target["index"][0, 0])
    at = {name: target[name][0].flatten(1)[:, place] for name in ("depth", "dimensions", "rotation")}
    assert float(metres_of(at["depth"])) == pytest.approx(12.002, rel=1e-4)  # z and the projection's last entry
    torch.testing.assert_close(at["dimensions"], torch.tensor([1.5, 1.7, 4.1]))  # height, width, length
    alpha = observe(np.array(THREE[:1]), CAMERA)[0, 7]
    rest = alpha - math.pi / 2
    torch.testing.assert_close(
        at["rotation"][4:], torch.tensor([0.0, 1.0, math.sin(rest), math.cos(rest)]), rtol=1e-5, atol=1e-5
    )


def gradients(codec: CenterNetCodec, *, scaled: bool) -> dict[str, float]:
    torch.manual_seed(0)
    batch = collate([sample(THREE, scaled=scaled), sample(THREE[:1], scaled=scaled)])
    target = codec.encode(batch.targets, SIZE_WH, num_classes=3)
    shapes = codec.spec.shapes(0, SIZE_WH, 3)
    out = {name: torch.randn(2, *shape, requires_grad=True) for name, shape in shapes.items()}
    terms = CenterNetCriterion()([out], target, None)
    sum(terms.values()).backward()
    return {name: float(value.grad.abs().sum()) for name, value in out.items()}


def test_a_masked_depth_gives_no_gradient():
    plain, scaled = gradients(CODEC, scaled=False), gradients(CODEC, scaled=True)
    assert all(value > 0 for value in plain.values())
    assert scaled["depth"] == scaled["dimensions"] == 0.0
    assert all(scaled[name] > 0 for name in ("rotation", "middle_3d", "size", "center", "center_offset"))
    ours = gradients(replace(CODEC, focal_px=300.0), scaled=True)
    assert all(value > 0 for value in ours.values())


def test_what_has_no_box_in_space_gives_no_gradient_either():
    one = sample(THREE)
    box = one.instances.box_3d.copy()
    box[:] = np.nan
    blank = PoseSample(one.image, replace(one.instances, box_3d=box), one.to_source, one.source)
    target = CODEC.encode(collate([blank]).targets, SIZE_WH, num_classes=3)
    assert float(target["rotation_weight"].sum()) == float(target["depth_weight"].sum()) == 0
    assert float(target["weight"].sum()) == 3


@pytest.mark.parametrize(("scale", "some"), [((1.0, 1.0), False), ((0.8, 1.2), True)])
def test_augmentation_tells_whether_it_scaled(scale, some):
    data = WholeImages(streets(3), InputSpec((384, 128)), (RandomAffine(scale=scale, degrees=0.0, shift=0.05),))
    targets = collate([data[(0, n, 384, 128)] for n in range(len(data))]).targets
    assert bool(targets.scaled[targets.valid].any()) == some
    assert torch.isfinite(targets.observed_3d[targets.valid]).all()


@pytest.mark.parametrize("bins", [2, 12])
def test_the_flip_test_mirrors_alpha(bins: int):
    """What a network says of the mirrored view, flipped back, is what it says of the view itself."""
    one, codec = sample(THREE), replace(CODEC, heading_bins=bins)
    straight = codec.encode(collate([one]).targets, SIZE_WH, num_classes=3)
    mirrored = codec.encode(collate([one.flipped()]).targets, SIZE_WH, num_classes=3)
    turned = codec.flip(perfect(codec, mirrored), BOXES)
    assert "middle_3d" not in turned  # of a pixel, as the offset
    columns = SIZE_WH[0] // CODEC.stride
    there = mirrored["index"][0]
    place = there - 2 * (there % columns) + columns - 1  # a centre may be on the other side of its pixel
    for name in ("depth", "dimensions"):
        found = turned[name][0].flatten(1)[:, place]
        torch.testing.assert_close(found, straight[name][0].flatten(1)[:, straight["index"][0]], rtol=1e-4, atol=1e-4)
    alpha = alpha_of(turned["rotation"][0].flatten(1)[:, place].T).numpy()
    np.testing.assert_allclose(alpha, observe(np.array(THREE), CAMERA)[:, 7], atol=1e-4)


@pytest.mark.parametrize("bins", [2, 12])
def test_the_loss_of_orientations_is_the_public_code_s(bins: int):
    """Written out as in the public code: 50 padded rows, masked logits that count, residuals of the rows of a bin."""
    torch.manual_seed(1)
    alpha = torch.tensor([0.1, -1.5, 2.9])
    index = torch.tensor([[3, 17, 40]])
    maps = torch.randn(1, 4 * bins, 6, 8)
    target = torch.zeros(1, 4 * bins, 48).index_copy(2, index[0], rotation_of(alpha, bins).T[None])
    target = target.unflatten(2, (6, 8))
    out = torch.zeros(50, 4 * bins)
    out[:3] = maps[0].flatten(1)[:, index[0]].T
    inside = torch.zeros(50, bins, dtype=torch.long)
    inside[:3] = bins_of(alpha, bins).long()
    expected = torch.zeros(())
    for n, middle in enumerate(middles_of(bins)):
        part = out[:, 4 * n : 4 * n + 4]
        expected = expected + torch.nn.functional.cross_entropy(part[:, :2], inside[:, n])
        rows = inside[:, n].bool()
        rest = alpha[rows[:3]] - middle
        for column, wanted in ((2, rest.sin()), (3, rest.cos())) if rows.any() else ():
            expected = expected + torch.nn.functional.smooth_l1_loss(part[rows, column], wanted)
    weight = torch.ones(1, 3)
    torch.testing.assert_close(orientation_at_pixels(maps, target, index, weight), expected)
    few = orientation_at_pixels(maps, target, index, weight, rows=0)
    assert float(few) > 0
    assert not torch.isclose(few, expected)
    none = orientation_at_pixels(maps, target, index, weight * 0, rows=0)
    assert float(none) == 0.0


@pytest.mark.parametrize("bins", [2, 4, 12])
def test_mirrored_headings_are_those_of_the_mirrored_angle(bins: int):
    alpha = torch.linspace(-math.pi, math.pi, 1001, dtype=torch.float64)[1:-1]
    maps = {
        "rotation": rotation_of(alpha, bins).T[None, :, None],
        "depth": torch.zeros(1),
        "dimensions": torch.zeros(1),
    }
    found = flipped_3d(maps)["rotation"][0, :, 0].T
    mirrored = math.pi - torch.remainder(alpha, 2 * math.pi)  # pi - alpha, in (-pi, pi]
    edge = (bins_of(alpha, bins) != bins_of(alpha + 1e-6, bins)) | (bins_of(alpha, bins) != bins_of(alpha - 1e-6, bins))
    inside = ~edge.any(-1)
    torch.testing.assert_close(found[inside], rotation_of(mirrored, bins)[inside])


def test_labels_without_boxes_in_space_are_refused():
    one = sample(THREE)
    plain = PoseSample(one.image, replace(one.instances, box_3d=None, projection=None), one.to_source, one.source)
    with pytest.raises(ValueError, match=r"boxes_3d needs labels with boxes in space .* kitti or streets"):
        CODEC.encode(collate([plain]).targets, SIZE_WH, num_classes=3)


def test_options_must_fit():
    with pytest.raises(ValueError, match=r"focal_px is of boxes in space, but boxes_3d is False"):
        CenterNetCodec(focal_px=300.0)
    with pytest.raises(ValueError, match=r"middles_3d is of boxes in space, but boxes_3d is False"):
        CenterNetCodec(middles_3d=True)
    with pytest.raises(ValueError, match=r"focal_px must be 0 or a focal length in pixels, got -1"):
        CenterNetCodec(boxes_3d=True, focal_px=-1)
    with pytest.raises(ValueError, match=r"middles_3d=True, which is of boxes in space, but boxes_3d=False"):
        CenterNetHead(8, 0, middles_3d=True)
    with pytest.raises(ValueError, match=r"heading_bins is of boxes in space, but boxes_3d is False"):
        CenterNetCodec(heading_bins=4)
    with pytest.raises(ValueError, match=r"heading_bins must be an even number from 2 on, .* got 3"):
        CenterNetCodec(boxes_3d=True, heading_bins=3)
    with pytest.raises(ValueError, match=r"CenterNetHead.heading_bins must be an even number from 2 on, got 3"):
        CenterNetHead(8, 0, boxes_3d=True, heading_bins=3)
    with pytest.raises(ValueError, match=r"heading_bins=4, which is of boxes in space, but boxes_3d=False"):
        CenterNetHead(8, 0, heading_bins=4)
    with pytest.raises(ValueError, match=r"rotation_rows must be 0 or more, got -1"):
        CenterNetCriterion(rotation_rows=-1)


def test_a_head_has_the_outputs_of_the_codec():
    head = CenterNetHead(8, 0, num_classes=3, boxes_3d=True, middles_3d=True)
    found = head(torch.zeros(2, 8, 40, 128))
    assert {name: tuple(value.shape[1:]) for name, value in found.items()} == CODEC.spec.shapes(0, SIZE_WH, 3)
    plain = CenterNetHead(8, 0, num_classes=3)
    target = CODEC.encode(collate([sample(THREE)]).targets, SIZE_WH, num_classes=3)
    with pytest.raises(ValueError, match=r"Build its head with boxes_3d=True"):
        CenterNetCriterion()([plain(torch.zeros(1, 8, 40, 128))], target, None)
    without = CenterNetHead(8, 0, num_classes=3, boxes_3d=True)
    with pytest.raises(ValueError, match=r"Build its head with middles_3d=True"):
        CenterNetCriterion()([without(torch.zeros(1, 8, 40, 128))], target, None)
    more = replace(CODEC, heading_bins=12).encode(collate([sample(THREE)]).targets, SIZE_WH, num_classes=3)
    with pytest.raises(ValueError, match=r"encodes headings in 12 bins, but the network returns 2"):
        CenterNetCriterion()([found], more, None)
