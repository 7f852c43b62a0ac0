"""CenterNet's codec: closed forms of encoding and decoding, the radius, masks, snapping, and the flip."""

import pytest
import torch
from torch import Tensor

from poseglass.codecs.centernet import CenterNetCodec, gaussian_radius, peaks
from poseglass.core.prediction import Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets
from poseglass.losses.centernet import penalty_reduced_focal

TOY = Skeleton("toy3", ("nose", "left_eye", "right_eye"))
SIZE_WH = (256, 192)


def targets(
    box_xyxy: Tensor, *, xy: Tensor | None = None, known: Tensor | None = None, label: Tensor | None = None,
    crowd: Tensor | None = None,
) -> Targets:  # fmt: skip
    """Return targets of one view with N boxes ``(N, 4)``."""
    n = len(box_xyxy)
    xy = torch.zeros(n, 0, 2) if xy is None else xy
    flat = torch.zeros(1, n)
    return Targets(
        xy[None], (torch.ones(xy.shape[:2]) if known is None else known)[None].float(), flat == 0,
        flat.long() if label is None else label[None], box_xyxy[None].float(),
        flat > 0 if crowd is None else crowd[None],
    )  # fmt: skip


def as_logits(target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the output of a perfect network: a logit of infinity at a centre gives a score of exactly 1."""
    return target | {name: target[name].logit() for name in ("center", "heatmap") if name in target}


def random_boxes(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return boxes inside the view whose centres fall on distinct map pixels at least 2 apart; and their labels."""
    places = torch.cartesian_prod(torch.arange(6, 58, 3), torch.arange(6, 42, 3))
    chosen = places[torch.randperm(len(places), generator=generator)[:count]]
    middle = (chosen + torch.rand(count, 2, generator=generator)) * 4 + 1.5  # view pixels of the map's pixel
    half = 4 + 18 * torch.rand(count, 2, generator=generator)
    return torch.cat([middle - half, middle + half], 1), torch.randint(0, 5, (count,), generator=generator)


@pytest.mark.parametrize("alignment", ["center", "corner"])
@pytest.mark.parametrize("radius", ["public", "exact"])
@pytest.mark.parametrize("count", [1, 7, 60])
def test_every_box_is_read_back_exactly_with_score_1(count: int, radius: str, alignment: str) -> None:
    box, label = random_boxes(count, torch.Generator().manual_seed(count))
    if alignment == "corner":
        box = box - 1.5
    codec = CenterNetCodec(poses=False, radius=radius, alignment=alignment)  # type: ignore[arg-type]
    found = codec.decode(as_logits(codec.encode(targets(box, label=label), SIZE_WH, num_classes=5)))
    assert found.box_xyxy is not None
    assert torch.equal(found.box_score[0, :count], torch.ones(count))
    assert (found.box_score[0, count:] < 1).all()
    order = [int((found.box_xyxy[0, :count] - one).abs().sum(1).argmin()) for one in box]
    assert sorted(order) == list(range(count))
    torch.testing.assert_close(found.box_xyxy[0, order], box, atol=2e-4, rtol=0)
    assert torch.equal(found.label[0, order], label)
    assert found.xy.shape == (1, 100, 0, 2)


def test_boxes_without_objects_are_not_valid() -> None:
    codec = CenterNetCodec(poses=False)
    empty = codec.encode(targets(torch.zeros(0, 4)), SIZE_WH)
    assert not codec.decode(as_logits(empty)).valid.any()


def test_keypoints_are_read_back_and_unlabelled_ones_cost_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    box, _ = random_boxes(9, generator)
    share = 0.1 + 0.8 * torch.rand(9, 3, 2, generator=generator)
    xy = box[:, None, :2] + share * (box[:, None, 2:] - box[:, None, :2])
    known = torch.ones(9, 3)
    known[2, 1] = 0
    known[5] = 0
    codec = CenterNetCodec()
    target = codec.encode(targets(box, xy=xy, known=known), SIZE_WH)
    found = codec.decode(as_logits(target))
    assert found.box_xyxy is not None
    order = [int((found.box_xyxy[0, :9] - one).abs().sum(1).argmin()) for one in box]
    # all kinds of keypoints share the map of offsets, so of several in one pixel the last one's offset is kept
    _, pixel, times = target["keypoint_index"][0].unique(return_inverse=True, return_counts=True)
    alone = (times[pixel] == 1) & (known > 0)
    assert alone.sum() > 15
    error = (found.xy[0, order] - xy).abs().amax(-1)
    assert error[alone].max() < 1e-3
    assert error[known > 0].max() < 4
    assert torch.equal(target["keypoint_weight"][0], known)
    assert target["weight"][0].tolist() == [1.0] * 9  # a person without keypoints is detected like others
    x, y = ((box[5, :2] + box[5, 2:]) / 2 / 4).long()
    assert target["heatmap_weight"][0, :, y, x].max() == 0
    assert target["heatmap_weight"][0, 1].min() == 0
    assert CenterNetCodec(unposed="ignore").encode(targets(box, xy=xy, known=known), SIZE_WH)["weight"][0, 5] == 0


def test_a_person_who_is_ignored_is_neither_a_centre_nor_background() -> None:
    box = torch.tensor([[40.0, 40.0, 100.0, 140.0]])
    target = CenterNetCodec(unposed="ignore").encode(
        targets(box, xy=torch.zeros(1, 3, 2), known=torch.zeros(1, 3)), SIZE_WH
    )
    assert target["center"].max() == pytest.approx(0.9999)


def test_crowds_are_left_out_but_not_the_people_in_them() -> None:
    box = torch.tensor([[20.0, 20.0, 180.0, 160.0], [60.0, 60.0, 100.0, 120.0]])
    target = CenterNetCodec(poses=False).encode(targets(box, crowd=torch.tensor([True, False])), SIZE_WH)
    assert target["weight"].tolist() == [[0.0, 1.0]]
    center = target["center"][0, 0]
    assert center[10, 10] == pytest.approx(0.9999)
    assert center[2, 2] == 0
    assert center[22, 19] == 1
    assert 0 < center[22, 20] < 0.99
    assert target["center_weight"].min() == 1


def learnt_of(target: Prediction) -> Tensor:
    """Return at which pixels of the maps ``(C, h, w)`` a network that finds everything everywhere learns."""
    maps = torch.full_like(target["center"], 3.0, requires_grad=True)
    penalty_reduced_focal(maps, target["center"], target["center_weight"]).backward()
    assert maps.grad is not None
    return maps.grad[0].abs() > 1e-10


def test_a_crowd_of_a_class_is_left_out_of_the_map_of_that_class_alone() -> None:
    box = torch.tensor([[20.0, 20.0, 180.0, 160.0], [60.0, 60.0, 100.0, 120.0], [200.0, 20.0, 240.0, 60.0]])
    crowd = torch.tensor([True, False, False])
    codec = CenterNetCodec(poses=False)
    target = codec.encode(targets(box, label=torch.tensor([1, 0, 2]), crowd=crowd), SIZE_WH)
    learnt = learnt_of(target)
    assert learnt[[0, 2]].all()
    assert learnt[1, 2, 2]
    assert not learnt[1, 6:40, 6:44].any()  # the instance in it is of another class
    anywhere = codec.encode(targets(box, label=torch.tensor([-1, 0, 2]), crowd=crowd), SIZE_WH)
    learnt = learnt_of(anywhere)
    assert not learnt[:, 10, 10].any()
    assert learnt[:, 22, 19].all()
    assert learnt[:, 2, 2].all()
    assert anywhere["center_weight"].shape == target["center_weight"].shape == (1, 1, 48, 64)


def test_a_crowd_is_left_out_of_the_one_map_of_many_classes() -> None:
    box = torch.tensor([[20.0, 20.0, 180.0, 160.0], [60.0, 60.0, 100.0, 120.0]])
    for label in (7, -1):
        many = targets(box, label=torch.tensor([label, 4000]), crowd=torch.tensor([True, False]))
        target = CenterNetCodec(poses=False, features=4).encode(many, SIZE_WH)
        assert target["center"].shape == (1, 1, 48, 64)
        assert target["label"].min() >= 0
        learnt = learnt_of(target)
        assert not learnt[0, 10, 10]
        assert learnt[0, 22, 19]
        assert learnt[0, 2, 2]


def test_keypoints_in_a_crowd_are_learnt_with_their_surroundings() -> None:
    box = torch.tensor([[0.0, 0.0, 255.0, 191.0], [60.0, 60.0, 130.0, 150.0]])
    xy = torch.tensor([[[0.0, 0.0]], [[95.0, 100.0]]])
    target = CenterNetCodec().encode(
        targets(box, xy=xy, known=torch.tensor([[0.0], [1.0]]), crowd=torch.tensor([True, False])), SIZE_WH
    )
    taught, drawn = target["heatmap_weight"][0, 0] > 0, target["heatmap"][0, 0] > 0
    assert drawn.sum() > 9
    assert taught.equal(drawn)


def test_boxes_are_clipped_and_those_outside_are_skipped() -> None:
    box = torch.tensor([[-80.5, 20.0, 79.5, 60.0], [300.0, 10.0, 340.0, 50.0], [50.0, 50.0, 50.0, 90.0]])
    codec = CenterNetCodec(poses=False)
    target = codec.encode(targets(box), SIZE_WH)
    assert target["weight"].tolist() == [[1.0, 0.0, 0.0]]
    found = codec.decode(as_logits(target))
    assert found.box_xyxy is not None
    torch.testing.assert_close(found.box_xyxy[0, 0], torch.tensor([-0.5, 20.0, 79.5, 60.0]))


@pytest.mark.parametrize(
    ("size", "public", "exact"), [((10, 10), 2.733, 0.817), ((32, 32), 8.746, 2.613), ((64, 32), 11.769, 3.448),
                                  ((100, 60), 20.605, 6.088)],
)  # fmt: skip
def test_the_radius_of_both_formulas(size: tuple[int, int], public: float, exact: float) -> None:
    side = torch.tensor(size, dtype=torch.float32)
    assert float(gaussian_radius(side)) == pytest.approx(public, abs=1e-3)
    assert float(gaussian_radius(side, formula="exact")) == pytest.approx(exact, abs=1e-3)


def test_the_exact_radius_keeps_the_overlap() -> None:
    side = torch.tensor([60.0, 60.0])
    off = float(gaussian_radius(side, formula="exact"))
    boxes = ((off, off, 60 + off, 60 + off), (off, off, 60 - off, 60 - off), (-off, -off, 60 + off, 60 + off))
    worst = 1.0
    for x0, y0, x1, y1 in boxes:
        inside = (min(x1, 60) - max(x0, 0)) * (min(y1, 60) - max(y0, 0))
        worst = min(worst, inside / ((x1 - x0) * (y1 - y0) + 3600 - inside))
    assert worst == pytest.approx(0.7, abs=1e-4)


def test_keypoints_snap_to_peaks_inside_the_box_only() -> None:
    codec = CenterNetCodec(most=5)
    box = torch.tensor([[20.0, 20.0, 100.0, 120.0]])
    xy = torch.tensor([[[50.0, 60.0], [60.0, 100.0], [70.0, 30.0]]])
    target = codec.encode(targets(box, xy=xy), SIZE_WH)
    moved = dict(target)
    moved["keypoints"] = target["keypoints"] + 2.0  # the regressed place is 8 px off, the peak is right
    moved["heatmap"] = target["heatmap"].clone()
    moved["heatmap"][:, 2] = 0.05  # too low to snap to
    found = codec.decode(as_logits(moved))
    torch.testing.assert_close(found.xy[0, 0, :2], xy[0, :2], atol=1e-3, rtol=0)
    torch.testing.assert_close(found.xy[0, 0, 2], xy[0, 2] + 8, atol=1e-3, rtol=0)
    assert found.score[0, 0].tolist() == pytest.approx([1.0, 1.0, 0.05])


def test_a_flipped_image_is_flipped_back_up_to_a_pixel() -> None:
    codec = CenterNetCodec()
    box = torch.tensor([[19.5, 23.5, 107.5, 119.5]])
    xy = torch.tensor([[[53.5, 61.5], [61.5, 101.5], [73.5, 33.5]]])
    flipped_box = torch.stack([255 - box[:, 2], box[:, 1], 255 - box[:, 0], box[:, 3]], 1)
    flipped_xy = torch.stack([255 - xy[..., 0], xy[..., 1]], -1)[:, torch.as_tensor(TOY.flip)]
    straight = codec.encode(targets(box, xy=xy), SIZE_WH)
    other = codec.encode(targets(flipped_box, xy=flipped_xy), SIZE_WH)
    back = codec.flip(other, TOY)
    assert set(back) == {"center", "size", "keypoints", "heatmap"}
    for name in ("center", "heatmap"):
        a, b = straight[name].flatten(-2).argmax(-1), back[name].flatten(-2).argmax(-1)
        assert ((a - b).abs() <= 1).all(), name  # the whole pixel of a place between two may be either
    twice = codec.flip(straight | codec.flip(straight, TOY), TOY)
    for name, maps in twice.items():
        assert torch.equal(maps, straight[name])


@pytest.mark.parametrize("content", [torch.nan, torch.inf, -torch.inf, 1e6])
def test_whatever_comes_is_decoded_to_finite_numbers(content: float) -> None:
    codec = CenterNetCodec()
    shapes = codec.spec.shapes(3, SIZE_WH, 2)
    noise = {key: torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)) for key, shape in shapes.items()}
    found = codec.decode({key: value.where(value < 1, content) for key, value in noise.items()})
    assert found.box_xyxy is not None
    for values in (found.xy, found.score, found.box_xyxy, found.box_score):
        assert values.isfinite().all()
    assert 0 <= found.score.min() <= found.score.max() <= 1


def test_peaks_are_the_largest_of_nine() -> None:
    maps = torch.tensor([[[[0.1, 0.9, 0.2], [0.3, 0.4, 0.1], [0.5, 0.1, 0.6]]]])
    assert torch.equal(peaks(maps), maps.where(maps >= 0.5, -torch.inf))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"stride": 0}, "stride and most of at least 1"),
        ({"min_overlap": 1.0}, "min_overlap between 0 and 1"),
        ({"radius": "official"}, "radius must be 'public' or 'exact', got 'official'"),
        ({"unposed": "skip"}, "unposed must be 'detect' or 'ignore', got 'skip'"),
    ],
)
def test_invalid_options_are_named(numbers: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CenterNetCodec(**numbers)


def test_a_label_beyond_the_classes_is_named() -> None:
    box = torch.tensor([[20.0, 20.0, 100.0, 120.0]])
    with pytest.raises(ValueError, match="label 4, but there are 3 classes"):
        CenterNetCodec(poses=False).encode(targets(box, label=torch.tensor([4])), SIZE_WH, num_classes=3)
