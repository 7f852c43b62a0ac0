"""CenterNet on several levels: closed forms of encoding and decoding, the rule of levels, masks, and duplicates."""

import pytest
import torch
from torch import Tensor

from poseglass.codecs.centernet import CenterNetCodec
from poseglass.codecs.centernet_levels import CenterNetLevelsCodec
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets

SIZE_WH = (768, 640)
STRIDES = (8, 16, 32)
PAIR = Skeleton("pair", ("left_end", "right_end"))


def targets(
    box_xyxy: Tensor, *, xy: Tensor | None = None, label: Tensor | None = None, crowd: Tensor | None = None
) -> Targets:
    """Return targets of one view with N boxes ``(N, 4)``."""
    n = len(box_xyxy)
    xy = torch.zeros(n, 0, 2) if xy is None else xy
    flat = torch.zeros(1, n)
    return Targets(
        xy[None], torch.ones(1, *xy.shape[:2]), flat == 0, flat.long() if label is None else label[None],
        box_xyxy[None].float(), flat > 0 if crowd is None else crowd[None],
    )  # fmt: skip


def as_logits(target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the output of a perfect network: a logit of infinity at a centre gives a score of exactly 1."""
    heatmaps = [f"{name}_{stride}" for name in ("center", "heatmap") for stride in STRIDES]
    return target | {name: target[name].logit() for name in heatmaps if name in target}


def random_boxes(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes from 4 to 390 px inside the view, their labels, and the level of each.

    On their level's map centres fall on distinct pixels at least 2 apart; different levels have different classes.
    """
    boxes, levels = [], []
    shares = [count - count // 2, count // 2 - count // 8, count // 8]
    for number, (low, high) in enumerate(((4.0, 128.0), (128.5, 256.0), (256.5, 390.0))):
        stride = STRIDES[number]
        first = int(high / 2 / stride) + 1
        columns, rows = (torch.arange(first, side // stride - first, 2) for side in SIZE_WH)
        places = torch.cartesian_prod(columns, rows)
        chosen = places[torch.randperm(len(places), generator=generator)[: shares[number]]]
        assert len(chosen) == shares[number]
        middle = (chosen + torch.rand(len(chosen), 2, generator=generator)) * stride + stride / 2 - 0.5
        side = low + (high - low) * torch.rand(len(chosen), 2, generator=generator)
        side[:, 1] *= 0.3 + 0.7 * torch.rand(len(chosen), generator=generator)  # the first side is often the longer
        boxes.append(torch.cat([middle - side / 2, middle + side / 2], 1))
        levels += [number] * len(chosen)
    level = torch.tensor(levels)
    return torch.cat(boxes), level + 3 * torch.randint(0, 2, (count,), generator=generator), level


@pytest.mark.parametrize("radius", ["public", "exact"])
@pytest.mark.parametrize("count", [1, 7, 60])
def test_every_box_of_very_different_sizes_is_read_back_exactly_with_score_1(count: int, radius: str) -> None:
    box, label, level = random_boxes(count, torch.Generator().manual_seed(count))
    codec = CenterNetLevelsCodec(poses=False, radius=radius)  # type: ignore[arg-type]
    assert torch.equal(codec.level_of(box), level)
    found = codec.decode(as_logits(codec.encode(targets(box, label=label), SIZE_WH, num_classes=6)))
    assert found.box_xyxy is not None
    assert found.valid[0, :count].all()
    assert torch.equal(found.box_score[0, :count], torch.ones(count))
    assert (found.box_score[0, count:] < 1).all()
    order = [int((found.box_xyxy[0, :count] - one).abs().sum(1).argmin()) for one in box]
    assert sorted(order) == list(range(count))
    torch.testing.assert_close(found.box_xyxy[0, order], box, atol=1e-3, rtol=0)
    assert torch.equal(found.label[0, order], label)
    assert found.xy.shape == (1, 100, 0, 2)


def test_every_object_is_on_exactly_one_level() -> None:
    box, label, level = random_boxes(60, torch.Generator().manual_seed(0))
    target = CenterNetLevelsCodec(poses=False).encode(targets(box, label=label), SIZE_WH)
    weights = torch.stack([target[f"weight_{stride}"][0] for stride in STRIDES])
    assert torch.equal(weights, (level == torch.arange(3)[:, None]).float())
    assert torch.equal(target["weight"], torch.ones(1, 60))
    centers = [int((target[f"center_{stride}"] == 1).sum()) for stride in STRIDES]
    assert centers == level.bincount().tolist()
    sizes = [int((target[f"size_{stride}"].amax(1) > 0).sum()) for stride in STRIDES]
    assert sizes == centers


@pytest.mark.parametrize(
    ("side", "reach", "level"),
    [
        (1.0, 8.0, 0), (128.0, 8.0, 0), (128.01, 8.0, 1), (256.0, 8.0, 1), (256.01, 8.0, 2), (4000.0, 8.0, 2),
        (64.0, 4.0, 0), (64.01, 4.0, 1), (128.01, 4.0, 2),
    ],
)  # fmt: skip
def test_the_longer_side_decides_and_a_bound_belongs_to_the_finer_level(side: float, reach: float, level: int) -> None:
    codec = CenterNetLevelsCodec(reach=reach)
    boxes = torch.tensor([[10.0, 10, 10 + side, 10.5], [10.0, 10, 10.5, 10 + side]])
    boxes = boxes - 10  # so that the side is exact in float32
    assert codec.level_of(boxes).tolist() == [level, level]


def test_the_part_in_the_view_decides() -> None:
    box = torch.tensor([[-400.5, 20.0, 99.5, 60.0], [900.0, 10.0, 940.0, 50.0]])
    target = CenterNetLevelsCodec(poses=False).encode(targets(box), SIZE_WH)
    assert target["weight_8"].tolist() == [[1.0, 0.0]]
    assert target["weight"].tolist() == [[1.0, 0.0]]
    assert target["size_8"].flatten(2).amax(2).tolist() == [[12.5, 5.0]]


def test_crowds_are_masked_on_every_level_and_an_object_in_them_counts_on_its_own() -> None:
    box = torch.tensor([[64.0, 64.0, 448.0, 448.0], [150.0, 150.0, 300.0, 300.0]])
    codec = CenterNetLevelsCodec(poses=False)
    target = codec.encode(targets(box, crowd=torch.tensor([True, False])), SIZE_WH)
    assert target["weight"].tolist() == [[0.0, 1.0]]
    for stride in STRIDES:
        center = target[f"center_{stride}"][0, 0]
        ignored = pytest.approx(0.9999)
        assert center[96 // stride, 96 // stride] == ignored
        assert center[0, 0] == center[-1, -1] == 0
        at = int(225.5 / stride - 0.5)
        assert center[at, at] == (1 if stride == 16 else ignored)  # 150 px: the centre is trained on its level
        assert target[f"center_weight_{stride}"].min() == 1


def test_on_one_level_it_is_the_codec_of_one_level() -> None:
    box, label, _ = random_boxes(20, torch.Generator().manual_seed(3))
    xy = (box[:, None, :2] + box[:, None, 2:]) / 2 + torch.tensor([[-3.0, 1.0], [5.0, 2.0]])
    data = targets(box, xy=xy, label=label)
    many, one = CenterNetLevelsCodec((8,)), CenterNetCodec(8)
    drawn, expected = many.encode(data, SIZE_WH), one.encode(data, SIZE_WH)
    assert {key.removesuffix("_8") for key in drawn} == set(expected)
    assert all(torch.equal(drawn[f"{key}_8"], value) for key, value in expected.items())
    found, alone = many.decode(drawn), one.decode(expected)
    for name in ("xy", "score", "valid", "label", "box_score", "box_xyxy"):
        assert torch.equal(getattr(found, name), getattr(alone, name)), name
    flipped, other = many.flip(drawn, PAIR), one.flip(expected, PAIR)
    assert set(flipped) == {f"{key}_8" for key in other}
    assert all(torch.equal(flipped[f"{key}_8"], value) for key, value in other.items())


def test_keypoints_are_read_back_from_their_level() -> None:
    box = torch.tensor([[40.0, 40.0, 100.0, 140.0], [300.0, 100.0, 500.0, 300.0], [120.0, 150.0, 520.0, 500.0]])
    xy = box[:, None, :2] + torch.tensor([[0.2, 0.3], [0.8, 0.6]]) * (box[:, None, 2:] - box[:, None, :2])
    codec = CenterNetLevelsCodec()
    found = codec.decode(as_logits(codec.encode(targets(box, xy=xy), SIZE_WH)))
    assert found.box_xyxy is not None
    order = [int((found.box_xyxy[0, :3] - one).abs().sum(1).argmin()) for one in box]
    torch.testing.assert_close(found.xy[0, order], xy, atol=1e-3, rtol=0)


def maps_with(*objects: tuple[int, float, tuple[float, float, float, float], int]) -> dict[str, Tensor]:
    """Return maps of 3 classes with objects: stride of the level, logit, box in view pixels, class."""
    maps = {}
    for stride in STRIDES:
        width, height = (side // stride for side in SIZE_WH)
        maps[f"center_{stride}"] = torch.full((1, 3, height, width), -torch.inf)
        maps[f"size_{stride}"] = torch.zeros(1, 2, height, width)
        maps[f"center_offset_{stride}"] = torch.zeros(1, 2, height, width)
    for stride, logit, (x0, y0, x1, y1), label in objects:
        middle = ((torch.tensor([x0 + x1, y0 + y1]) / 2) + 0.5) / stride - 0.5
        x, y = middle.floor().long().tolist()
        maps[f"center_{stride}"][0, label, y, x] = logit
        maps[f"size_{stride}"][0, :, y, x] = torch.tensor([x1 - x0, y1 - y0]) / stride
        maps[f"center_offset_{stride}"][0, :, y, x] = middle - middle.floor()
    return maps


def test_of_duplicates_on_different_levels_the_better_one_stays() -> None:
    wide, near = (100.0, 100.0, 230.0, 200.0), (102.0, 100.0, 232.0, 204.0)
    codec = CenterNetLevelsCodec(poses=False)
    found = codec.decode(maps_with((8, 1.0, wide, 0), (16, 2.0, near, 0), (16, 0.5, wide, 1)))
    assert found.box_xyxy is not None
    kept = found.valid[0]
    assert found.box_score[0, kept].tolist() == pytest.approx(torch.tensor([2.0, 0.5]).sigmoid().tolist())
    assert found.label[0, kept].tolist() == [0, 1]  # another class is no duplicate
    torch.testing.assert_close(found.box_xyxy[0, 0], torch.tensor(near), atol=1e-4, rtol=0)
    everything = CenterNetLevelsCodec(poses=False, overlap=1.0).decode(
        maps_with((8, 1.0, wide, 0), (16, 2.0, near, 0), (16, 0.5, wide, 1))
    )
    assert everything.valid.sum() == 3


def test_boxes_of_one_level_and_those_that_overlap_less_are_kept() -> None:
    one, beside, half = (100.0, 100.0, 200.0, 200.0), (116.0, 100.0, 216.0, 200.0), (100.0, 100.0, 200.0, 159.0)
    codec = CenterNetLevelsCodec(poses=False)
    assert codec.decode(maps_with((8, 2.0, one, 0), (8, 1.0, beside, 0))).valid.sum() == 2
    assert codec.decode(maps_with((8, 2.0, one, 0), (16, 1.0, half, 0))).valid.sum() == 2  # an IoU of 0.59


def test_the_best_of_all_levels_are_kept_together() -> None:
    box, label, _ = random_boxes(60, torch.Generator().manual_seed(5))
    codec = CenterNetLevelsCodec(poses=False, most=10)
    found = codec.decode(as_logits(codec.encode(targets(box, label=label), SIZE_WH)))
    assert found.box_score.tolist() == [[1.0] * 10]
    empty = codec.encode(targets(torch.zeros(0, 4)), SIZE_WH)
    assert not codec.decode(as_logits(empty)).valid.any()


@pytest.mark.parametrize("content", [torch.nan, torch.inf, -torch.inf, 1e6])
def test_whatever_comes_is_decoded_to_finite_numbers(content: float) -> None:
    codec = CenterNetLevelsCodec()
    shapes = codec.spec.shapes(3, (256, 192), 2)
    noise = {key: torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)) for key, shape in shapes.items()}
    found = codec.decode({key: value.where(value < 1, content) for key, value in noise.items()})
    assert found.box_xyxy is not None
    for values in (found.xy, found.score, found.box_xyxy, found.box_score):
        assert values.isfinite().all()
    assert 0 <= found.score.min() <= found.score.max() <= 1


def test_outputs_have_the_stride_of_their_level() -> None:
    spec = CenterNetLevelsCodec(poses=False).spec
    assert spec.stride == 8
    assert spec.shapes(0, (256, 128), 5) == {
        f"{key}_{stride}": (channels, 128 // stride, 256 // stride)
        for stride in STRIDES
        for key, channels in (("center", 5), ("size", 2), ("center_offset", 2))
    }
    assert spec.stride_of("size_32") == 32
    with pytest.raises(LookupError):
        spec.stride_of("size")


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"strides": ()}, r"at least one whole number from 1 on, ascending .* got \(\)"),
        ({"strides": (16, 8)}, r"ascending and each once, such as \(8, 16, 32\); got \(16, 8\)"),
        ({"strides": [8, 8]}, r"got \(8, 8\)"),
        ({"reach": 0.0}, "a reach above 0 and an overlap in .* got reach=0.0"),
        ({"overlap": 1.5}, r"overlap in \(0, 1\], got reach=8.0, overlap=1.5"),
        ({"radius": "official"}, "radius must be 'public' or 'exact', got 'official'"),
        ({"most": 0}, "most of at least 1"),
    ],
)
def test_invalid_options_are_named(numbers: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CenterNetLevelsCodec(**numbers)


def test_a_label_beyond_the_classes_and_a_view_without_a_coarse_pixel_are_named() -> None:
    box = torch.tensor([[20.0, 20.0, 100.0, 120.0], [20.0, 20.0, 400.0, 420.0]])
    codec = CenterNetLevelsCodec(poses=False)
    with pytest.raises(ValueError, match="label 4, but there are 3 classes"):
        codec.encode(targets(box, label=torch.tensor([1, 4])), SIZE_WH, num_classes=3)
    with pytest.raises(ValueError, match="A view of 64 x 24 pixels has no map of stride 32"):
        codec.encode(targets(box), (64, 24))
