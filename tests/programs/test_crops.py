"""Views read by matrix products are those that ``View.read`` reads."""

import numpy as np
import pytest
import torch

from poseglass.core.image import read_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.view import View
from poseglass.export.export import PHOTOGRAPH
from poseglass.programs.crops import crop_maps, letterbox_maps, read_views

BOXES_XYXY = np.array(
    [
        [-0.5, -0.5, 639.5, 426.5],  # the whole image, shrunk eight times
        [100, 50, 200, 300],
        [10.3, 20.7, 60, 90],  # enlarged
        [-40, -30, 300, 200],  # partly outside
        [300, 200, 730, 500],
        [600, 400, 900, 900],  # only a corner of the image
        [320, 210, 321, 211],
    ],
    np.float32,
)


@pytest.mark.parametrize("rule", ["edges", "msra", "udp"])
@pytest.mark.parametrize("size_wh", [(96, 128), (64, 64), (33, 47)])
def test_crops_are_those_of_view_read(rule, size_wh) -> None:
    image = read_image(PHOTOGRAPH)
    spec = InputSpec(size_wh, 1.25, crop=rule)
    scale, shift = crop_maps(torch.from_numpy(BOXES_XYXY), spec)
    seen = read_views(torch.from_numpy(image), scale, shift, size_wh)
    assert seen.dtype == torch.uint8
    assert seen.shape == (len(BOXES_XYXY), size_wh[1], size_wh[0], 3)
    for i, box in enumerate(BOXES_XYXY):
        view = View.crop(box, spec)
        matrix = np.array([[scale[i, 0], 0, shift[i, 0]], [0, scale[i, 1], shift[i, 1]]])
        np.testing.assert_allclose(matrix, view.to_view.matrix, rtol=1e-5, atol=2e-3)
        apart = np.abs(view.read(image).astype(float) - seen[i].numpy())
        # bilinear interpolation at a box of one pixel is 100 times as sensitive to where it starts
        assert apart.max() <= (2 if i == 6 else 1), box
        assert apart.mean() < 0.3


@pytest.mark.parametrize("size_wh", [(640, 427), (100, 333), (1, 1), (3, 500), (1111, 17)])
def test_letterboxes_are_those_of_view_read(size_wh) -> None:
    image = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    sides = [torch.tensor(float(side)) for side in (size_wh[1], size_wh[0])]
    scale, shift = letterbox_maps(sides[0], sides[1], (128, 96))
    view = View.letterbox(size_wh, (128, 96))
    seen = read_views(torch.from_numpy(image), scale, shift, (128, 96))[0].numpy()
    assert np.abs(view.read(image).astype(float) - seen).max() <= 1
