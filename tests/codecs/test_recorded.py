"""What mmpose 1.3.2 encodes and decodes, against ours; and the numbers that the newer codecs refuse."""

import math
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poseglass.codecs import (
    CODECS,
    Codec,
    DarkCodec,
    HeatmapCodec,
    SimccCodec,
    SoftArgmaxCodec,
    UdpCodec,
    UdpCombinedCodec,
)
from poseglass.codecs.simcc import peak_and_belief
from poseglass.codecs.udp import near_step
from poseglass.codecs.udp_combined import smoothed, whole_disc_peak
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import build
from poseglass.core.targets import Targets

RECORDED_AS = {
    "heatmap": "msra_sigma2",
    "dark": "dark_sigma2_blur11",
    "udp": "udp_gaussian_sigma2_blur11",
    "udp_combined": "udp_combined_radius",
    "soft_argmax": "integral",
    "simcc": "simcc_sigma6_split2",
}
"""What mmpose calls ours."""

Recorded = Callable[[str], dict[str, np.ndarray]]

MMPOSE_SCALE = np.array([192 / 191, 256 / 255])
"""mmpose goes back from UDP's maps by W / (w - 1), though it drew by (W - 1) / (w - 1)."""


def targets(codec: Codec, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    count = len(data["encoded_keypoint_weights"])
    xy, visible = (torch.from_numpy(data[key][:count]) for key in ("keypoints", "visible"))
    targets = Targets.of_keypoints(xy, visible)
    encoded = {key: value.numpy() for key, value in codec.encode(targets, (192, 256)).items()}
    if not isinstance(codec, SimccCodec):
        np.testing.assert_array_equal(encoded["weight"], data["encoded_keypoint_weights"][:, 0])
    return encoded


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("msra_sigma2", HeatmapCodec(sigma=2.0, alignment="corner", placement="rounded")),
        ("dark_sigma2_blur11", DarkCodec(sigma=2.0, alignment="corner", placement="whole")),
        ("udp_gaussian_sigma2_blur11", UdpCodec()),
    ],
)
def test_heatmaps_are_mmposes(recorded: Recorded, name: str, codec: Codec) -> None:
    data = recorded(name)
    np.testing.assert_allclose(targets(codec, data)["heatmap"], data["encoded_heatmaps"], atol=1e-5, rtol=0)


def test_udp_reads_as_mmpose_where_there_is_a_peak(recorded: Recorded) -> None:
    data = recorded("udp_gaussian_sigma2_blur11")
    decoded = UdpCodec().decode({"heatmap": torch.from_numpy(data["network_output"])})
    difference = np.abs(decoded.xy[:, 0].numpy() * MMPOSE_SCALE - data["decoded_keypoints"]).max(-1)
    peaks = data["decoded_scores"] > 0.2
    assert peaks.mean() > 0.7
    assert difference[peaks].max() < 0.05
    np.testing.assert_allclose(decoded.score[:, 0].numpy(), data["decoded_scores"].clip(0, 1), atol=1e-4)


def test_disc_and_offsets_are_mmposes(recorded: Recorded) -> None:
    data = recorded("udp_combined_radius")
    codec, maps = UdpCombinedCodec(), data["encoded_heatmaps"].reshape(-1, 17, 3, 64, 48)
    encoded = targets(codec, data)
    np.testing.assert_array_equal(encoded["heatmap"], maps[:, :, 0])
    np.testing.assert_allclose(encoded["offset"], maps[:, :, 1:], atol=1e-5, rtol=0)
    output = torch.from_numpy(data["network_output"]).view(-1, 17, 3, 64, 48)
    decoded = codec.decode({"heatmap": output[:, :, 0], "offset": output[:, :, 1:]})
    np.testing.assert_allclose(decoded.xy[:, 0].numpy() * MMPOSE_SCALE, data["decoded_keypoints"], atol=0.05, rtol=0)
    raw = smoothed(output[:, :, 0].float(), 23).amax((-1, -2))
    np.testing.assert_allclose(raw.numpy(), data["decoded_scores"], atol=1e-4)
    as_share = (raw / whole_disc_peak(3.5, 23)).clamp(0, 1)
    np.testing.assert_allclose(decoded.score[:, 0].numpy(), as_share.numpy(), atol=1e-4)


def test_simcc_is_mmposes_but_for_the_score(recorded: Recorded) -> None:
    data = recorded("simcc_sigma6_split2")
    codec = SimccCodec()
    encoded = targets(codec, data)
    for axis in ("x", "y"):
        np.testing.assert_allclose(encoded[axis], data[f"encoded_keypoint_{axis}_labels"][:, 0], atol=1e-5, rtol=0)
    # a label that is partly outside is less than 1 in sum; that share stands in our weight
    inside = (data[f"encoded_keypoint_{axis}_labels"][:, 0].sum(-1) for axis in ("x", "y"))
    expected = data["encoded_keypoint_weights"][:, 0] * math.prod(inside)
    np.testing.assert_allclose(encoded["weight"], expected, atol=1e-3)
    output = {axis: torch.from_numpy(data[f"network_output_{axis}"]) for axis in ("x", "y")}
    decoded = codec.decode(output)
    np.testing.assert_allclose(decoded.xy[:, 0].numpy(), data["decoded_keypoints"], atol=0.01)
    # mmpose's score is the lesser of the two largest values as they are; ours is a share of the softmax's belief
    raw = torch.minimum(output["x"].amax(-1), output["y"].amax(-1))
    np.testing.assert_allclose(raw.float().numpy(), data["decoded_scores"], atol=1e-4)
    assert decoded.score.max() < 0.1  # what was recorded is not logits: as such it is next to nothing


def test_integral_regression_is_mmposes() -> None:
    """Of the committed recording alone; mmpose's place of heatmap pixel i is i / w of the input: corner alignment."""
    formula = runpy.run_path(str(Path(__file__).parents[1] / "parity" / "fill.py"))
    with np.load(Path(__file__).parents[1] / "parity" / "codecs" / "integral.npz") as file:
        data = dict(file)
    codec = SoftArgmaxCodec(alignment="corner")
    decoded = codec.decode({"heatmap": torch.from_numpy(formula["integral_maps"]())})
    np.testing.assert_allclose(decoded.xy[:, 0].numpy(), data["decoded_keypoints"], atol=1e-3, rtol=0)
    target = codec.encode(Targets.of_keypoints(torch.from_numpy(data["keypoints"])), (192, 256))
    trained = target["weight"].numpy() > 0
    assert 0.7 < trained.mean() < 1
    np.testing.assert_allclose(
        (target["xy"].numpy() / [48, 64])[trained], data["encoded_labels"][trained], atol=1e-6, rtol=0
    )
    center = SoftArgmaxCodec(alignment="center").decode({"heatmap": torch.from_numpy(formula["integral_maps"]())})
    assert np.abs(center.xy[:, 0].numpy() - data["decoded_keypoints"]).min() > 1  # half a heatmap pixel is seen


def test_every_codec_is_recorded() -> None:
    files = {path.stem for path in (Path(__file__).parents[1] / "parity" / "codecs").iterdir()}
    assert files == set(RECORDED_AS.values())
    # mmpose has no CenterNet; its decoding is held against closed forms in test_centernet.py and its neighbour
    assert RECORDED_AS.keys() == CODECS.keys() - {"centernet", "centernet_levels", "box_class"}


def test_a_score_of_simcc_is_the_lesser_or_the_mean_of_two_beliefs() -> None:
    x, y = torch.full((1, 1, 200), -20.0), torch.zeros(1, 1, 100)
    x[..., 50] = y[..., 30] = 20.0
    y[..., 90] = 20.0  # half of the belief is far away
    for score, expected in (("min", 0.5), ("mean", 0.75)):
        decoded = SimccCodec(score=score).decode({"x": x, "y": y})
        assert decoded.xy[0, 0, 0].tolist() == [25.0, 15.0]
        assert decoded.score.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("height", [24, 32, 48, 64, 96, 128])
def test_a_whole_disc_scores_about_one_whatever_the_size_of_the_map(height: int) -> None:
    generator = torch.Generator().manual_seed(0)
    xy = height + torch.rand(1, 1, 64, 2, generator=generator) * 2 * height  # at stride 4: the middle half of the map
    images = torch.zeros(1, 3, 4 * height, 4 * height)
    codec = UdpCombinedCodec()
    target = codec.encode(Targets.of_keypoints(xy[:, 0]), (images.shape[-1], images.shape[-2]))
    decoded = codec.decode(target)
    assert (decoded.xy - xy).abs().max() < 0.01
    assert decoded.score.min() > (0.85 if height >= 32 else 0.7)
    half = codec.decode(target | {"heatmap": target["heatmap"] / 2})
    torch.testing.assert_close(half.score.mean(), decoded.score.mean() / 2, atol=0.1, rtol=0)


def test_simcc_takes_the_middle_of_equal_bins() -> None:
    logits = torch.zeros(1, 4, 9)
    logits[0, 0, 3:6] = 2.0
    logits[0, 1, 5:] = 2.0  # up to the last
    logits[0, 2, 2:4] = logits[0, 2, 7] = 2.0  # the first run, not the last bin
    logits[0, 3, 6] = torch.nan
    assert peak_and_belief(logits, 1.0)[0].tolist() == [[4.0, 6.5, 2.5, 6.0]]
    xy = 64 + torch.rand(1, 1, 64, 2, generator=torch.Generator().manual_seed(0)) * 64
    target = SimccCodec().encode(Targets.of_keypoints(xy[:, 0]), (192, 192))
    decoded = SimccCodec().decode({axis: target[axis].log().bfloat16() for axis in ("x", "y")})
    assert (decoded.xy - xy).mean().abs() < 0.05
    assert (decoded.xy - xy).abs().max() <= 0.26


def test_udp_steps_outwards_from_the_border_also_where_the_fit_has_no_top() -> None:
    place = torch.arange(-2.0, 3.0)
    saddle = torch.exp(0.1 * place.square() + 0.05 * place - 0.2 * place[:, None].square()).expand(1, 3, 5, 5)
    xy = torch.tensor([[[4.0, 4.0], [0.0, 4.0], [8.0, 4.0]]])
    torch.testing.assert_close(near_step(saddle, xy, (9, 9)), torch.tensor([[[0.0, 0.0], [-0.5, 0.0], [0.5, 0.0]]]))


@pytest.mark.parametrize("split", [1, 2, 3])
def test_simccs_flip_puts_every_bin_on_its_mirror_image(split: int) -> None:
    x = torch.zeros(1, 1, 8 * split)
    x[..., 2 * split] = 1.0  # input pixel 2 of 8, flipped pixel 5
    flipped = SimccCodec(split=split).flip({"x": x, "y": x}, Skeleton("one", ("nose",)))
    assert flipped["x"].argmax().item() == 5 * split
    assert torch.equal(flipped["y"], x)


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("udp", {"blur_kernel": 4}, "UdpCodec.blur_kernel must be odd and at least 1, got 4"),
        ("udp", {"sigma": 0.0}, "stride >= 1 and sigma > 0"),
        ("udp_combined", {"radius_factor": 0.0}, "needs stride >= 1 and radius_factor > 0, got .* radius_factor=0"),
        ("udp_combined", {"blur_kernel": 4}, "UdpCombinedCodec.blur_kernel must be odd and at least 1, got 4"),
        ("soft_argmax", {"reach_px": -1}, r"reach_px must be 0 \(the whole map\) or more, got -1"),
        ("simcc", {"split": 0}, "needs split >= 1 and sigma > 0, got split=0"),
        ("simcc", {"score": "max"}, "score must be 'min' or 'mean', got 'max'"),
    ],
)
def test_numbers_that_make_no_codec(name: str, numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(CODECS, name, **numbers)
