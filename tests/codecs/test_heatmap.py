"""Arg-max, quarter offset, windows and targets, beside what the contract asks of every codec."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from poseglass.codecs import DarkCodec, HeatmapCodec
from poseglass.codecs.heatmap import argmax_2d, draw_gaussians, encode_heatmaps, quarter_offset, window
from poseglass.core.targets import Targets

Recorded = Callable[[str], dict[str, np.ndarray]]


@pytest.mark.parametrize("size_wh", [(48, 64), (64, 48), (7, 5), (1, 9), (300, 3), (37, 53)])
def test_the_peak_is_numpys_first_one(size_wh: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 50, (5, 4, size_wh[1], size_wh[0])).astype(np.float32) - 25  # small whole numbers: ties
    xy, peak = argmax_2d(torch.from_numpy(maps))
    y, x = np.unravel_index(maps.reshape(5, 4, -1).argmax(-1), maps.shape[2:])
    np.testing.assert_array_equal(xy.numpy(), np.stack([x, y], -1))
    np.testing.assert_array_equal(peak.numpy(), maps.max((-1, -2)))


def test_the_peak_of_equal_values_is_the_first_pixel() -> None:
    xy, peak = argmax_2d(torch.full((1, 2, 6, 4), -3.0))
    assert xy.tolist() == [[[0.0, 0.0], [0.0, 0.0]]]
    assert peak.tolist() == [[-3.0, -3.0]]


@pytest.mark.parametrize(
    ("right", "left", "below", "above", "moved"),
    [
        (0.5, 0.1, 0.0, 0.0, (0.25, 0.0)),
        (0.1, 0.5, 0.0, 0.0, (-0.25, 0.0)),
        (0.2, 0.2, 0.5, 0.1, (0.0, 0.25)),
        (0.3, 0.2, 0.1, 0.5, (0.25, -0.25)),
    ],
)
def test_a_quarter_towards_the_higher_neighbour(
    right: float, left: float, below: float, above: float, moved: tuple[float, float]
) -> None:
    maps = torch.zeros(1, 1, 5, 6)
    maps[0, 0, 2, 3], maps[0, 0, 2, 4], maps[0, 0, 2, 2] = 1.0, right, left
    maps[0, 0, 3, 3], maps[0, 0, 1, 3] = below, above
    xy, _ = argmax_2d(maps)
    assert xy.tolist() == [[[3.0, 2.0]]]
    assert (quarter_offset(maps, xy) - xy)[0, 0].tolist() == list(moved)


def test_on_a_border_only_the_other_axis_moves() -> None:
    maps = torch.zeros(1, 1, 4, 5)
    maps[0, 0, 0, 2], maps[0, 0, 0, 3], maps[0, 0, 1, 2] = 1.0, 0.5, 0.5
    xy, _ = argmax_2d(maps)
    assert quarter_offset(maps, xy).tolist() == [[[2.25, 0.0]]]


def test_maps_and_points_of_different_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"maps \(1, 2, 4, 4\) and xy \(1, 3, 2\) must share \(B, K\)"):
        quarter_offset(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 2))


def test_a_window_is_zero_outside() -> None:
    maps = torch.arange(1.0, 13.0).view(1, 1, 3, 4)
    cut = window(maps, torch.tensor([[[3.0, 0.0]]]), 1)
    assert cut[0, 0].tolist() == [[0, 0, 0], [3, 4, 0], [7, 8, 0]]


def test_gaussians_stand_at_exact_places() -> None:
    xy = torch.tensor([[5.25, 3.75], [2.0, 9.0]])
    maps = draw_gaussians(xy, (12, 14), 1.5)
    rows, columns = torch.meshgrid(torch.arange(14.0), torch.arange(12.0), indexing="ij")
    for i, (x, y) in enumerate(xy.tolist()):
        dx, dy = columns - x, rows - y
        expected = torch.exp(-(dx**2 + dy**2) / (2 * 1.5**2)) * ((dx.abs() <= 4.5) & (dy.abs() <= 4.5))
        torch.testing.assert_close(maps[i], expected)


@pytest.mark.parametrize("codec", [HeatmapCodec, DarkCodec])
def test_logits_are_decoded_as_their_softmax_would_be(codec: type) -> None:
    """Without making the softmax of the whole map, and whatever constant is added to the logits."""
    generator = torch.Generator().manual_seed(1)
    xy = 2 + 8 * torch.rand(30, 14, 2, generator=generator)
    logits = 30 * draw_gaussians(xy, (12, 16), 1.5) + torch.randn(30, 14, 16, 12, generator=generator)
    # multiples of 1/8, so that adding a large constant rounds nothing
    logits = (8 * logits).round() / 8 + 2**20
    probability = torch.softmax(logits.double().flatten(2), -1).view_as(logits)
    decoded = codec(sigma=1.5, activation="softmax").decode({"heatmap": logits})
    of_maps = codec(sigma=1.5).decode({"heatmap": probability.float()})
    torch.testing.assert_close(decoded.xy, of_maps.xy, atol=2e-3, rtol=0)
    peak, _ = argmax_2d(probability)
    share = window(probability.float(), peak, 3).sum((-1, -2))
    torch.testing.assert_close(decoded.score[:, 0], share, atol=1e-5, rtol=0)


def test_the_score_of_a_softmax_map_is_the_belief_around_its_peak() -> None:
    probability = torch.full((1, 1, 16, 16), 0.2 / 255)
    probability[0, 0, 8, 8] = 0.8
    score = HeatmapCodec(sigma=1.0, activation="softmax").decode({"heatmap": probability.log()}).score
    assert score.item() == pytest.approx(0.8 + 24 * 0.2 / 255, abs=1e-5)


def test_the_score_of_a_map_is_its_peak_cut_to_1() -> None:
    maps = torch.zeros(1, 3, 8, 8)
    maps[0, :, 4, 4] = torch.tensor([0.4, 1.3, -0.0])
    assert HeatmapCodec().decode({"heatmap": maps}).score[0, 0].tolist() == pytest.approx([0.4, 1.0, 0.0])


def test_decoding_is_mmposes_except_beside_the_border(recorded: Recorded) -> None:
    data = recorded("msra_sigma2")
    maps = torch.from_numpy(data["network_output"])
    decoded = HeatmapCodec(sigma=2.0, alignment="corner").decode({"heatmap": maps})
    difference = np.abs(decoded.xy[:, 0].numpy() - data["decoded_keypoints"])
    peak = argmax_2d(maps.float())[0].numpy()
    inner = ((peak > 1) & (peak < np.array([46, 62]))).all(-1)
    assert inner.mean() > 0.49
    assert difference[inner].max() == 0
    # beside it, mmpose holds peaks along an axis where ours move: a quarter heatmap pixel, and only there
    assert difference.max() == 1.0
    np.testing.assert_allclose(decoded.score[:, 0].numpy(), data["decoded_scores"].clip(0, 1), atol=1e-3)


def test_targets_at_whole_pixels_are_mmposes(recorded: Recorded) -> None:
    """Ours stand at exact places; mmpose's are rounded to whole heatmap pixels. Rounded likewise, they are equal."""
    data = recorded("msra_sigma2")
    count = len(data["encoded_heatmaps"])
    keypoints, visible = data["keypoints"][:count], data["visible"][:count]
    xy = np.floor(keypoints / 4 + 0.5)
    inside = ((xy >= 0) & (xy < [48, 64])).all(-1) & (visible > 0)
    ours = draw_gaussians(torch.from_numpy(xy), (48, 64), 2.0).numpy()
    assert inside.mean() > 0.39
    np.testing.assert_allclose(ours[inside], data["encoded_heatmaps"][inside], atol=1e-6)
    targets = Targets.of_keypoints(torch.from_numpy(keypoints), torch.from_numpy(visible))
    exact = encode_heatmaps(targets, (192, 256), stride=4, sigma=2.0, alignment="corner", unlabelled="ignore")
    # as trained on: every keypoint that ours trains, mmpose trains too; it adds those up to three sigma outside
    assert (data["encoded_keypoint_weights"][:, 0] >= exact["weight"].numpy()).all()
    assert np.abs(exact["heatmap"].numpy() - data["encoded_heatmaps"])[inside].max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["none", "softmax"])
@pytest.mark.parametrize("codec", [HeatmapCodec, DarkCodec])
def test_decoding_can_be_traced_and_exported(codec: type, activation: str) -> None:
    """What a runtime exports is torch alone: no NumPy constant is baked in."""
    reader = codec(activation=activation)

    class Decode(torch.nn.Module):
        def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            decoded = reader.decode({"heatmap": maps})
            return decoded.xy, decoded.score

    first, second = torch.rand(2, 1, 3, 16, 18, generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(Decode(), (first,)).module()
    for mine, theirs in zip(exported(second), Decode()(second), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)
