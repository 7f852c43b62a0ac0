"""Multi-scale testing: a single scale changes nothing, and several give maps on the same grid."""

import numpy as np
import pytest
import torch

import poseglass as pg
from poseglass.codecs import CODECS
from poseglass.networks import NETWORKS
from poseglass.programs.several_scales import SeveralScales, resized, unscaled

GRIDS = ("center", "corner", "udp")


def codec_of(alignment: str):
    if alignment == "udp":
        return CODECS["udp"](stride=4, sigma=2.0)
    return CODECS["heatmap"](stride=4, sigma=2.0, alignment=alignment)


def position_of(pixel: float, scaled: int, side: int, alignment: str) -> float:
    """Return where a pixel of a view lies on the view resized, written out."""
    if alignment == "udp":
        return pixel * (scaled - 1) / (side - 1)
    return (pixel + 0.5) * scaled / side - 0.5


def on_map(pixel: float, cells: int, side: int, alignment: str) -> float:
    """Return where a pixel of a view lies on its map, written out from the three definitions."""
    stride = side / cells
    return {
        "center": (pixel + 0.5) / stride - 0.5, "corner": pixel / stride, "udp": pixel * (cells - 1) / (side - 1)
    }[alignment]  # fmt: skip


@pytest.mark.parametrize("alignment", GRIDS)
@pytest.mark.parametrize("scaled", [(48, 96), (80, 160), (64, 160)])
def test_a_map_of_a_resized_view_comes_back_to_the_grid_of_the_original(alignment, scaled):
    """A linear ramp over view pixels is kept exactly by linear interpolation, wherever it is inside the map."""
    size_wh = (64, 128)

    def ramp(view_wh):
        """The map of a view on which the value at original pixel (x, y) is x + 1000 y."""
        width, height = view_wh
        u = torch.linspace(0, size_wh[0] - 1, 20000, dtype=torch.float64)
        v = torch.linspace(0, size_wh[1] - 1, 20000, dtype=torch.float64)
        columns = torch.tensor(
            [on_map(position_of(float(p), width, size_wh[0], alignment), width // 4, width, alignment) for p in u]
        )
        rows = torch.tensor(
            [on_map(position_of(float(p), height, size_wh[1], alignment), height // 4, height, alignment) for p in v]
        )
        x = np.interp(np.arange(width // 4), columns, u)
        y = np.interp(np.arange(height // 4), rows, v)
        return torch.from_numpy(x[None, :] + 1000 * y[:, None])[None, None]

    back = unscaled(ramp(scaled), size_wh, scaled, 4, alignment)
    assert torch.allclose(back[..., 2:-2, 2:-2], ramp(size_wh)[..., 2:-2, 2:-2], atol=5.0)  # 1,000 is one pixel


@pytest.mark.parametrize("alignment", GRIDS)
def test_one_scale_gives_exactly_what_plain_testing_gives(alignment):
    codec, images = codec_of(alignment), torch.randn(2, 3, 64, 64)

    def forward(views):
        return {"heatmap": views[:, :, ::4, ::4]}

    assert torch.equal(SeveralScales(forward, codec, (1.0,), 32)(images)["heatmap"], forward(images)["heatmap"])


def test_the_mean_over_scales_is_that_of_the_maps():
    codec, images = codec_of("center"), torch.rand(2, 3, 64, 64)
    shown = []

    def forward(views):
        shown.append(tuple(views.shape[-2:]))
        return {"heatmap": torch.full((2, 1, views.shape[2] // 4, views.shape[3] // 4), float(views.shape[3]))}

    maps = SeveralScales(forward, codec, (0.5, 1.0, 1.5), 32)(images)["heatmap"]
    assert shown == [(32, 32), (64, 64), (96, 96)]
    assert maps.shape == (2, 1, 16, 16)
    assert torch.allclose(maps, torch.full_like(maps, 64.0))


def test_resizing_keeps_what_alignment_says():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert torch.allclose(resized(ramp, (15, 15), "udp")[0, 0, 0], torch.arange(15) / 2, atol=1e-6)
    images = torch.randn(2, 3, 24, 32)
    for size_wh in ((16, 24), (32, 24), (48, 40)):
        expected = torch.nn.functional.interpolate(images, size_wh[::-1], mode="bilinear", antialias=True)
        assert torch.allclose(resized(images, size_wh, "center"), expected, atol=1e-5)
        assert torch.allclose(resized(torch.ones_like(images), size_wh, "udp"), torch.ones(1), atol=1e-6)


def test_logits_are_averaged_as_the_probabilities_that_they_mean():
    codec = CODECS["heatmap"](stride=4, sigma=1.0, alignment="center", activation="softmax")
    peak = torch.full((1, 1, 16, 16), -8.0)
    peak[..., 5, 9] = 8.0

    def forward(views):  # sure of one place at the original size, and of nothing at the other
        return {"heatmap": peak if views.shape[-1] == 64 else torch.zeros(1, 1, 24, 24)}

    maps = SeveralScales(forward, codec, (1.0, 1.5), 32)(torch.rand(1, 3, 64, 64))["heatmap"]
    alone = peak.flatten(2).softmax(-1)
    assert torch.allclose(maps.flatten(2).softmax(-1), (alone + 1 / 256) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("scales", "codec", "message"),
    [
        ((), codec_of("center"), "Expected 1 to 16 scales"),
        ((1.0, 0.0), codec_of("center"), r"from 0\.2 to 4\.0, such as 0\.75 or 1\.25; got 0\.0"),
        ((1.0, float("nan")), codec_of("center"), "got nan"),
        ((1.0, 0.5, 1.0), codec_of("center"), "The scale 1 is given twice"),
        ((0.5, 1.0), CODECS["simcc"](), r"SimccCodec decodes x \(K, X\)"),
        ((0.5, 1.0), CODECS["centernet"](), "Use one scale"),
    ],
)
def test_what_cannot_be_averaged_is_said(scales, codec, message):
    with pytest.raises(ValueError, match=message):
        SeveralScales(lambda images: {}, codec, scales, 32)


def test_two_scales_of_the_same_size_are_refused_before_the_first_image():
    with pytest.raises(ValueError, match=r"The scales 1 and 1.05 both show views of 160 x 160 px at 160 x 160 px"):
        pg.load_top_down("hg2-light-lspet", crop_scales=(1.0, 1.05))


def test_scales_of_a_detector_are_not_those_of_crops():
    with pytest.raises(ValueError, match="Crop scales are for weights that find the keypoints in a box"):
        pg.load("people", crop_scales=(1.0, 0.5))


def test_an_estimator_shows_its_crops_at_several_scales():
    image = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
    plain, several = (pg.load_top_down(crop_scales=scales) for scales in ((1.0,), (0.8, 1.0)))
    assert several(image).xy.shape == plain(image).xy.shape
    assert not np.allclose(several(image).xy, plain(image).xy)


def test_shared_features_at_one_scale_are_the_plain_network():
    torch.manual_seed(0)
    plain = NETWORKS["stacked_hourglass"](3, num_stacks=2, width=8, depth=2).eval()
    shared = NETWORKS["stacked_hourglass"](3, num_stacks=2, width=8, depth=2, scales=[0.5, 1.0]).eval()
    shared.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        whole, both = plain(images), shared(images)
        stem = plain.stem(images)
        half = torch.nn.functional.interpolate(stem, (8, 8), mode="bilinear", antialias=True)
        state, maps = (half,), {}
        for number in range(2):
            maps, state = plain.stage(number, state)
    back = torch.nn.functional.interpolate(maps["heatmap"], (16, 16), mode="bilinear")
    assert torch.allclose(both[-1]["heatmap"], (back + whole[-1]["heatmap"]) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ([], "above 0 and at most 8"), ([0.0], "above 0 and at most 8"), ([1, 0.5, 1], "the scale 1 is given twice"),
    ],
)  # fmt: skip
def test_shared_scales_that_are_not_valid_are_refused(scales, message):
    with pytest.raises(ValueError, match=message):
        NETWORKS["stacked_hourglass"](3, num_stacks=1, width=8, depth=2, scales=scales)


def test_shared_scales_are_trained_in_bfloat16():
    network = NETWORKS["stacked_hourglass"](3, num_stacks=2, width=8, depth=2, scales=[0.5, 1.0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stages = network(torch.rand(1, 3, 64, 64))
    sum(stage["heatmap"].float().square().mean() for stage in stages).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


def test_shared_scales_that_give_the_same_features_are_refused():
    network = NETWORKS["stacked_hourglass"](3, num_stacks=1, width=8, depth=2, scales=[1.0, 1.1])
    with pytest.raises(ValueError, match=r"the scales 1 and 1\.1 both give features of 16 x 16"):
        network(torch.zeros(1, 3, 64, 64))


def test_probabilities_and_scales_are_told_apart(monkeypatch, capsys, tmp_path):
    import sys

    from poseglass import cli

    file = tmp_path / "a.png"
    pg.write_image(file, np.zeros((64, 48, 3), np.uint8))
    words = ["predict", file, "--whole-image", "--weights", "people-pose", "--crop-scales", "0.8,1"]
    monkeypatch.setattr(
        sys, "argv", ["poseglass", *map(str, words), "--min-probability", "0.5", "--out", str(tmp_path)]
    )
    with pytest.raises(SystemExit):
        cli.main()
    said = " ".join(capsys.readouterr().err.split())
    assert "with --crop-scales or --early-exit they mean something else" in said
