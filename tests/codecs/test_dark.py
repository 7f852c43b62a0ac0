"""DARK's smoothing and Newton step, beside what the contract asks of every codec."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from poseglass.codecs import DarkCodec
from poseglass.codecs.dark import newton_step, smoothed_window
from poseglass.codecs.heatmap import argmax_2d, draw_gaussians

Recorded = Callable[[str], dict[str, np.ndarray]]


@pytest.mark.parametrize("blur_kernel", [1, 3, 11, 17])
def test_the_window_is_that_of_the_blurred_map(blur_kernel: int) -> None:
    """OpenCV's Gaussian blur of the whole map, zero outside it, read two pixels around the peak."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 2, 12, 9, generator=generator)
    xy = torch.tensor([[[2.0, 2.0], [6.0, 9.0]], [[4.0, 5.0], [2.0, 9.0]], [[6.0, 2.0], [3.0, 7.0]]])
    got = smoothed_window(maps, xy, blur_kernel)
    for b in range(3):
        for k in range(2):
            padded = cv2.copyMakeBorder(maps[b, k].numpy(), 20, 20, 20, 20, cv2.BORDER_CONSTANT, value=0)
            blurred = cv2.GaussianBlur(padded, (blur_kernel, blur_kernel), 0)
            x, y = (int(v) + 20 for v in xy[b, k])
            np.testing.assert_allclose(got[b, k].numpy(), blurred[y - 2 : y + 3, x - 2 : x + 3], atol=1e-5)


def test_the_step_finds_the_centre_of_a_gaussian_exactly() -> None:
    """The logarithm of a Gaussian is a parabola, so one Newton step from anywhere ends at its top."""
    centre = torch.tensor([[[10.3, 8.6], [9.8, 8.45]]])
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(20.0), indexing="ij")
    dx, dy = columns - centre[..., 0, None, None], rows - centre[..., 1, None, None]
    maps = torch.exp(-(dx**2 + dy**2 + 0.6 * dx * dy) / 8)  # and turned, so that the mixed derivative counts
    xy, _ = argmax_2d(maps)
    step = newton_step(smoothed_window(maps, xy, 1), xy, (20, 16))
    torch.testing.assert_close(xy + step, centre, atol=1e-3, rtol=0)


@pytest.mark.parametrize("place", [(0, 5), (1, 5), (18, 5), (19, 5), (5, 1), (5, 14)])
def test_peaks_beside_the_border_stay(place: tuple[int, int]) -> None:
    xy = torch.tensor([[place]], dtype=torch.float32)
    maps = draw_gaussians(xy + 0.3, (20, 16), 2.0)
    assert newton_step(smoothed_window(maps, xy, 11), xy, (20, 16)).abs().max() == 0


def test_a_map_without_a_top_gives_no_step() -> None:
    xy = torch.tensor([[[5.0, 5.0]]])
    valley = 0.1 + 0.01 * ((torch.arange(11.0)[:, None] - 5.3) ** 2 + (torch.arange(11.0) - 5.3) ** 2)
    for around in (valley[3:8, 3:8], torch.zeros(5, 5), torch.ones(5, 5), torch.full((5, 5), torch.nan)):
        assert newton_step(around[None, None], xy, (11, 11)).abs().max() == 0


def test_a_long_step_is_cut() -> None:
    around = torch.ones(5, 5)
    around[2] = torch.tensor([0.2, 0.5, 1.0, 1.9, 1.7])
    around = around * torch.tensor([0.5, 0.8, 1.0, 0.8, 0.5])[:, None]
    step = newton_step(around[None, None], torch.tensor([[[5.0, 5.0]]]), (11, 11))
    assert step.abs().max() <= 1.5


@pytest.mark.parametrize("blur_kernel", [0, 4, -3])
def test_an_even_kernel_is_refused(blur_kernel: int) -> None:
    with pytest.raises(ValueError, match=f"blur_kernel must be odd and at least 1, got {blur_kernel}"):
        DarkCodec(blur_kernel=blur_kernel)


def test_decoding_is_mmposes_where_there_is_a_peak(recorded: Recorded) -> None:
    data = recorded("dark_sigma2_blur11")
    decoded = DarkCodec(alignment="corner").decode({"heatmap": torch.from_numpy(data["network_output"])})
    difference = np.abs(decoded.xy[:, 0].numpy() - data["decoded_keypoints"]).max(-1)
    peaks = data["decoded_scores"] > 0.2
    assert peaks.mean() > 0.5
    assert difference[peaks].max() < 0.02
    # maps of noise alone: mmpose's step runs off, hundreds of pixels at times; ours stays within 1.5 heatmap pixels
    assert difference[~peaks].max() > 20
    np.testing.assert_allclose(decoded.score[:, 0].numpy(), data["decoded_scores"].clip(0, 1), atol=1e-3)
