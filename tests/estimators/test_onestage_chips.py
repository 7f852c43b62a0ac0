"""Chips of an image that is read in parts, in memory that does not grow with the image."""

import tracemalloc

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from poseglass.codecs.centernet import CenterNetCodec
from poseglass.core.input_spec import InputSpec
from poseglass.core.large_image import LargeImage
from poseglass.core.skeletons import BOXES
from poseglass.estimators.chips import Chips
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.programs.torch_program import TorchProgram


class Bright(nn.Module):
    """A network made by hand: bright pixels are objects of 16 x 16 pixels."""

    divisor = 32

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        gray = nn.functional.max_pool2d(images.mean(1, keepdim=True), 4)
        flat = torch.zeros_like(gray)
        return [{
            "center": 8 * gray - 4,
            "size": torch.cat([flat + 4, flat + 4], 1),
            "center_offset": torch.cat([flat, flat], 1),
        }]  # fmt: skip


def finder() -> OneStageEstimator:
    codec = CenterNetCodec(poses=False, most=20)
    spec = InputSpec((128, 128), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return OneStageEstimator(TorchProgram(Bright(), codec, BOXES, spec), 0.3, chips=Chips())


def test_a_large_file_is_done_in_memory_that_does_not_grow_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("poseglass.core.large_image.KEPT_BYTES", 300_000)
    monkeypatch.setattr("poseglass.core.large_image._BAND_PX", 30_000)
    image = np.zeros((1300, 1000, 3), np.uint8)
    places = [(60, 90), (900, 400), (930, 1250), (400, 700)]
    for x, y in places:
        image[y - 2 : y + 2, x - 2 : x + 2] = 255
    path = tmp_path / "scan.tif"
    Image.fromarray(image).save(path, tiffinfo={278: 16})  # rows of a strip
    estimate = finder()
    estimate(LargeImage(path))  # what is imported and built once does not count
    tracemalloc.start()
    found = estimate(LargeImage(path))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2e6  # the image has 3.9 MB
    for everything in (found, estimate(image)):
        middles = (everything.box_xyxy[:, :2] + everything.box_xyxy[:, 2:]) / 2
        assert all(np.abs(middles - place).max(-1).min() < 8 for place in places)
