"""What every codec promises: it reads back what it drew, flips rightly, and bears whatever comes."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from poseglass.codecs import CODECS, Codec
from poseglass.codecs.conformance import as_output
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import build
from poseglass.core.targets import Targets

ROUND_TRIP_PX: dict[str, float] = {
    "heatmap": 1.0,
    "dark": 0.1,
    "udp": 0.01,
    "udp_combined": 0.01,
    "soft_argmax": 0.15,
    "simcc": 0.26,
}
"""Largest error of encode then decode at stride 4, input pixels, away from the border: a quarter heatmap pixel, and
what a fit leaves."""

TOY = Skeleton("toy4", ("nose", "left_eye", "right_eye", "chin"))
WIDTH, HEIGHT = 96, 128
CASES = [
    (name, {"stride": 4, "sigma": sigma, "alignment": alignment, "activation": activation})
    for name, (alignment, activation), sigma in product(
        ("heatmap", "dark"), product(("center", "corner"), ("none", "softmax")), (1.0, 2.0)
    )
]


def case_id(case: object) -> str:
    if isinstance(case, dict):
        return f"{case['alignment']}-{case['activation']}-sigma{case['sigma']:g}"
    return str(case)


codecs = pytest.mark.parametrize(("name", "numbers"), CASES, ids=case_id)


def targets_of(xy: Tensor, known: Tensor | None = None) -> tuple[Targets, tuple[int, int]]:
    """Put points ``(B, K, 2)`` in targets of one instance a view; and the size of the views."""
    return Targets.of_keypoints(xy, known), (WIDTH, HEIGHT)


def as_network_output(maps: Tensor, activation: str) -> Tensor:
    """Return what a perfectly trained network would give for these targets."""
    return maps if activation == "none" else maps.clamp_min(1e-6).log()


def points(count: int = 64, margin: float = 12.0) -> Tensor:
    """Sub-pixel places at least three heatmap pixels from the border, among them centres and middles of pixels."""
    generator = torch.Generator().manual_seed(0)
    xy = margin + torch.rand(count, 4, 2, generator=generator) * torch.tensor([WIDTH - 2 * margin, HEIGHT - 2 * margin])
    xy[::8] = xy[::8].round()
    xy[1::8] = (xy[1::8] / 4).round() * 4 + 1.5  # centres of heatmap pixels, where they are aligned by centre
    return xy


def round_trip(codec: Codec, xy: Tensor, activation: str, change: Callable[[Tensor], Tensor] = lambda m: m) -> Any:
    maps = as_network_output(codec.encode(*targets_of(xy))["heatmap"], activation)
    return codec.decode({"heatmap": change(maps)})


def test_every_codec_says_how_well_it_reads_back() -> None:
    specs = {name: build(CODECS, name).spec for name in CODECS}
    assert set(ROUND_TRIP_PX) == {name for name, spec in specs.items() if spec.instances == 1 and spec.keypoints}


every = pytest.mark.parametrize("name", ROUND_TRIP_PX)
"""What holds of any codec of one instance, with or without heatmaps; tests of ``codecs`` are of the two with all the
options. Codecs of several instances have tests of their own, in ``tests/codecs``."""


@every
def test_every_codec_reads_back_what_it_encoded(name: str) -> None:
    codec, xy = build(CODECS, name), points(margin=32.0)
    target = codec.encode(*targets_of(xy))
    assert target["weight"].tolist() == torch.ones(64, 4).tolist()
    decoded = codec.decode(as_output(codec, target))
    assert decoded.xy.shape == (64, 1, 4, 2)
    assert decoded.score.shape == (64, 1, 4)
    assert (decoded.xy[:, 0] - xy).abs().max() <= ROUND_TRIP_PX[name] + 1e-4
    assert 0.75 < decoded.score.min() <= decoded.score.max() <= 1


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_codec_reads_half_precision(name: str, dtype: torch.dtype) -> None:
    codec, xy = build(CODECS, name), points(margin=32.0)
    output = {key: value.to(dtype) for key, value in as_output(codec, codec.encode(*targets_of(xy))).items()}
    decoded = codec.decode(output)
    assert decoded.xy.dtype == decoded.score.dtype == torch.float32
    assert (decoded.xy[:, 0] - xy).abs().max() <= 2.2


@every
def test_every_codec_leaves_unknown_keypoints_empty_and_without_weight(name: str) -> None:
    xy = points(1)
    xy[0, 1] = torch.nan
    xy[0, 2] = 1e5
    target = build(CODECS, name).encode(*targets_of(xy, torch.tensor([[1.0, 0.0, 0.0, 0.0]])))
    assert target["weight"].tolist() == [[1.0, 0.0, 0.0, 0.0]]
    for key in set(target) - {"weight"}:
        assert target[key][0, 0].abs().max() > 0
        assert torch.equal(target[key][0, 1:], torch.zeros_like(target[key][0, 1:])), key


@every
@pytest.mark.parametrize("content", ["noise", "large", "zero", "nan", "infinite", "all -inf"])
def test_every_codec_bears_whatever_comes(name: str, content: str) -> None:
    codec = build(CODECS, name)
    generator = torch.Generator().manual_seed(0)
    output = {}
    for key, value in as_output(codec, codec.encode(*targets_of(points(2)))).items():
        noise = torch.randn(value.shape, generator=generator)
        output[key] = {
            "noise": noise,
            "large": noise * 1e4,
            "zero": noise * 0,
            "nan": noise.where(noise < 1, torch.nan),
            "infinite": noise.where(noise < 1, torch.inf),
            "all -inf": torch.full_like(noise, -torch.inf),
        }[content]
    decoded = codec.decode(output)
    assert ((decoded.score >= 0) & (decoded.score <= 1)).all()
    assert decoded.xy.isfinite().all()
    assert decoded.xy.min() >= -32
    assert (decoded.xy <= torch.tensor([WIDTH, HEIGHT]) + 32).all()


@every
def test_every_codec_turns_the_flipped_image_back(name: str) -> None:
    codec, xy = build(CODECS, name), points(margin=32.0)
    flipped_xy = xy.clone()
    flipped_xy[..., 0] = WIDTH - 1 - flipped_xy[..., 0]
    flipped_xy = flipped_xy[:, torch.as_tensor(TOY.flip)]
    straight = as_output(codec, codec.encode(*targets_of(xy)))
    back = codec.flip(as_output(codec, codec.encode(*targets_of(flipped_xy))), TOY)
    assert set(back) == set(straight)
    averaged = codec.decode({key: (straight[key] + back[key]) / 2 for key in back})
    assert (averaged.xy[:, 0] - xy).abs().max() <= ROUND_TRIP_PX[name] + 0.01


@every
def test_nobody_is_nobody_to_every_codec(name: str) -> None:
    codec = build(CODECS, name)
    output = as_output(codec, codec.encode(*targets_of(points(1))))
    decoded = codec.decode({key: value[:0] for key, value in output.items()})
    assert decoded.xy.shape == (0, 1, 4, 2)
    assert decoded.score.shape == (0, 1, 4)


@codecs
def test_decode_reads_back_what_encode_drew(name: str, numbers: dict[str, Any]) -> None:
    # a smoothing kernel of 11 reads seven heatmap pixels around a peak; nearer to the border zeros pull it inwards
    for margin, allowed_px in ((32.0, ROUND_TRIP_PX[name]), (12.0, 2.0)):
        xy = points(margin=margin)
        decoded = round_trip(build(CODECS, name, **numbers), xy, numbers["activation"])
        assert decoded.xy.shape == (64, 1, 4, 2)
        assert decoded.score.shape == (64, 1, 4)
        error = (decoded.xy[:, 0] - xy).abs().max()
        assert error <= allowed_px + 1e-4, f"{name}, {margin:g} px from the border: {error:.3f} px"
        assert decoded.score.min() > 0.75


@codecs
def test_targets_have_the_stated_shape_and_peak(name: str, numbers: dict[str, Any]) -> None:
    codec = build(CODECS, name, **numbers)
    encoded = codec.encode(*targets_of(points()))
    assert encoded["heatmap"].shape == (64, 4, HEIGHT // 4, WIDTH // 4)
    assert encoded["heatmap"].dtype == encoded["weight"].dtype == torch.float32
    assert encoded["weight"].shape == (64, 4)
    assert 0.75 < encoded["heatmap"].amax((-1, -2)).min() <= encoded["heatmap"].max() <= 1.0


@codecs
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_read(name: str, numbers: dict[str, Any], dtype: torch.dtype) -> None:
    xy = points()
    codec = build(CODECS, name, **numbers)
    decoded = round_trip(codec, xy, numbers["activation"], lambda maps: maps.to(dtype))
    assert decoded.xy.dtype == torch.float32
    # bfloat16 keeps 8 bits, so neighbours of a flat peak are equal: half a heatmap pixel, and a little of the fit
    assert (decoded.xy[:, 0] - xy).abs().max() <= 2.2


@codecs
def test_channels_last_maps_are_read_alike(name: str, numbers: dict[str, Any]) -> None:
    codec, xy = build(CODECS, name, **numbers), points(8)
    plain = round_trip(codec, xy, numbers["activation"])
    other = round_trip(codec, xy, numbers["activation"], lambda m: m.to(memory_format=torch.channels_last))
    assert torch.equal(plain.xy, other.xy)
    assert torch.equal(plain.score, other.score)


@codecs
def test_peaks_on_the_border_are_within_half_a_heatmap_pixel(name: str, numbers: dict[str, Any]) -> None:
    codec = build(CODECS, name, **numbers)
    edge = torch.tensor([0.0, WIDTH - 1.0]), torch.tensor([0.0, HEIGHT - 1.0])
    if numbers["alignment"] == "corner":  # the last heatmap pixel stands at stride * (w - 1) there
        edge = torch.tensor([0.0, WIDTH - 4.0]), torch.tensor([0.0, HEIGHT - 4.0])
    xy = torch.cartesian_prod(*edge)[None]
    decoded = round_trip(codec, xy, numbers["activation"])
    assert (decoded.xy[:, 0] - xy).abs().max() <= 2.0
    assert decoded.xy.isfinite().all()


@codecs
def test_unknown_and_outside_keypoints_have_no_weight_and_an_empty_map(name: str, numbers: dict[str, Any]) -> None:
    xy = points(1)
    xy[0, 1] = torch.nan
    xy[0, 2] = torch.tensor([-9.0, 30.0])
    xy[0, 3] = torch.tensor([30.0, HEIGHT + 5.0])
    encoded = build(CODECS, name, **numbers).encode(*targets_of(xy, torch.tensor([[1.0, 0.0, 1.0, 1.0]])))
    assert encoded["weight"].tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert encoded["heatmap"][0, 0].max() > 0.75
    assert torch.equal(encoded["heatmap"][0, 1:], torch.zeros_like(encoded["heatmap"][0, 1:]))


@pytest.mark.parametrize("name", ["heatmap", "dark"])
def test_an_unknown_keypoint_with_coordinates_is_not_drawn(name: str) -> None:
    encoded = build(CODECS, name).encode(*targets_of(points(1), torch.tensor([[0.0, 1.0, 1.0, 1.0]])))
    assert encoded["heatmap"][0, 0].abs().max() == 0


@pytest.mark.parametrize("name", ["heatmap", "dark"])
def test_background_gives_unknown_keypoints_an_empty_map_to_learn(name: str) -> None:
    codec = build(CODECS, name, unlabelled="background")
    encoded = codec.encode(*targets_of(points(1), torch.tensor([[0.0, 1.0, 1.0, 1.0]])))
    assert encoded["weight"].tolist() == [[1.0, 1.0, 1.0, 1.0]]
    assert encoded["heatmap"][0, 0].abs().max() == 0


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("heatmap", {"activation": "softmax", "placement": "rounded"}),
        ("dark", {"activation": "softmax", "placement": "whole"}),
        ("udp", {"activation": "softmax"}),
        ("simcc", {}),
    ],
)
def test_what_lies_outside_weighs_as_much_as_of_it_is_inside(name: str, numbers: dict[str, Any]) -> None:
    """A softmax's target sums to 1 whatever is left of it, so a rim of it would teach certainty at the border."""
    codec = build(CODECS, name, sigma=2.0, **numbers)
    at = torch.tensor([0.0, -4.0, 12.0, 0.0])  # heatmap pixels or bins: on the border, two sigma outside, inside
    xy = torch.stack([at * {"simcc": 0.5, "udp": 95 / 23}.get(name, 4.0), torch.full((4,), 64.0)], -1)
    target = codec.encode(*targets_of(xy[None], torch.tensor([[1.0, 1.0, 1.0, 0.0]])))
    if name == "simcc":
        drawn = target["x"].sum(-1) * target["y"].sum(-1)
    else:
        drawn = target["heatmap"].sum((-1, -2)) / (2 * torch.pi * 2.0**2)
    torch.testing.assert_close(target["weight"], drawn, atol=0.01, rtol=0)
    on_border, outside, inside, unknown = target["weight"][0].tolist()
    assert 0 == unknown < outside < 0.12 < 0.5 < on_border < 0.7 < inside <= 1


@pytest.mark.parametrize("name", ["heatmap", "dark"])
def test_a_weight_between_stays(name: str) -> None:
    encoded = build(CODECS, name).encode(*targets_of(points(1), torch.tensor([[0.25, 1.0, 2.0, 0.0]])))
    assert encoded["weight"].tolist() == [[0.25, 1.0, 2.0, 0.0]]
    assert encoded["heatmap"].amax((-1, -2))[0, 0] > 0.75


@codecs
@pytest.mark.parametrize("content", ["noise", "large", "zero", "negative", "nan", "infinite", "-inf", "all -inf"])
def test_scores_are_in_0_1_and_points_inside_whatever_comes(name: str, numbers: dict[str, Any], content: str) -> None:
    codec = build(CODECS, name, **numbers)
    maps = torch.randn(2, 4, 16, 12, generator=torch.Generator().manual_seed(0))
    maps = {
        "noise": maps,
        "large": maps * 1e4,
        "zero": maps * 0,
        "negative": -1 - maps.abs(),
        "nan": maps.where(maps < 1, torch.nan),
        "infinite": maps.where(maps < 1, torch.inf),
        "-inf": maps.where(maps > 0, -torch.inf),
        "all -inf": torch.full_like(maps, -torch.inf),
    }[content]
    decoded = codec.decode({"heatmap": maps})
    assert ((decoded.score >= 0) & (decoded.score <= 1)).all()
    assert decoded.xy.isfinite().all()
    low, high = torch.tensor([-0.5, -0.5]) - 6, torch.tensor([12 * 4 - 0.5, 16 * 4 - 0.5]) + 6
    assert ((decoded.xy >= low) & (decoded.xy <= high)).all()
    if content in ("zero", "negative") and numbers["activation"] == "none":
        assert decoded.score.max() == 0


@codecs
def test_nobody_is_decoded_to_nobody(name: str, numbers: dict[str, Any]) -> None:
    decoded = build(CODECS, name, **numbers).decode({"heatmap": torch.zeros(0, 4, 16, 12)})
    assert decoded.xy.shape == (0, 1, 4, 2)
    assert decoded.score.shape == (0, 1, 4)


@codecs
def test_the_flipped_image_gives_the_same_maps(name: str, numbers: dict[str, Any]) -> None:
    codec, xy = build(CODECS, name, **numbers), points()
    flipped_xy = xy.clone()
    flipped_xy[..., 0] = WIDTH - 1 - flipped_xy[..., 0]
    flipped_xy = flipped_xy[:, torch.as_tensor(TOY.flip)]
    maps = codec.encode(*targets_of(xy))["heatmap"]
    back = codec.flip({"heatmap": codec.encode(*targets_of(flipped_xy))["heatmap"]}, TOY)["heatmap"]
    if numbers["alignment"] == "center":
        torch.testing.assert_close(back, maps, atol=2e-4, rtol=0)
    else:  # the public code's shift by a heatmap pixel leaves 1 / stride of one: the maps of points one pixel right
        shifted = codec.encode(*targets_of(xy + torch.tensor([1.0, 0.0])))["heatmap"]
        torch.testing.assert_close(back[..., 1:], shifted[..., 1:], atol=2e-4, rtol=0)


@codecs
def test_flipping_twice_is_the_identity(name: str, numbers: dict[str, Any]) -> None:
    codec = build(CODECS, name, **numbers)
    maps = torch.rand(2, 4, 16, 12, generator=torch.Generator().manual_seed(0))
    kept = maps.clone()
    twice = codec.flip(codec.flip({"heatmap": maps}, TOY), TOY)["heatmap"]
    first = 0 if numbers["alignment"] == "center" else 1  # the shift drops a border column, as documented
    assert torch.equal(twice[..., first:], maps[..., first:])
    assert torch.equal(maps, kept)


@pytest.mark.parametrize("name", ["heatmap", "dark"])
def test_left_and_right_change_places_and_the_others_stay(name: str) -> None:
    maps = torch.zeros(1, 4, 8, 8)
    for k in range(4):
        maps[0, k] = k
    flipped = build(CODECS, name).flip({"heatmap": maps}, TOY)["heatmap"]
    assert flipped.amax((-1, -2)).tolist() == [[0.0, 2.0, 1.0, 3.0]]


@pytest.mark.parametrize("name", ["heatmap", "dark"])
@pytest.mark.parametrize("size_wh", [(3, 2), (1, 1), (2, 40), (13, 7), (31, 17)])
def test_maps_of_any_size_are_read(name: str, size_wh: tuple[int, int]) -> None:
    maps = torch.zeros(1, 1, size_wh[1], size_wh[0])
    x, y = size_wh[0] - 1, size_wh[1] // 2
    maps[0, 0, y, x] = 1.0
    decoded = build(CODECS, name, stride=1).decode({"heatmap": maps})
    assert (decoded.xy[0, 0, 0] - torch.tensor([float(x), float(y)])).abs().max() <= 0.25


@pytest.mark.parametrize("name", ["heatmap", "dark"])
@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"stride": 0}, "stride >= 1 and sigma > 0, got stride=0"),
        ({"sigma": 0.0}, "stride >= 1 and sigma > 0, got .* sigma=0"),
        ({"sigma": float("nan")}, "sigma=nan"),
        ({"alignment": "centre"}, "alignment must be 'center' or 'corner', got 'centre'"),
        ({"activation": "relu"}, "activation must be 'none' or 'softmax', got 'relu'"),
        ({"placement": "round"}, "placement must be 'exact' or 'rounded' or 'whole', got 'round'"),
        ({"unlabelled": "drop"}, "unlabelled must be 'ignore' or 'background', got 'drop'"),
        (
            {"activation": "softmax", "unlabelled": "background"},
            "activation='softmax' cannot have unlabelled='background'",
        ),
    ],
)
def test_numbers_that_make_no_codec(name: str, numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(CODECS, name, **numbers)
