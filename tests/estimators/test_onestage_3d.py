"""Boxes in space from views of other sizes than the image: a perfect prediction comes home as the truth."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poseglass.codecs.centernet import CenterNetCodec
from poseglass.core.affine import Affine
from poseglass.core.box_3d import moved_projection, observe
from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Decoded
from poseglass.core.skeletons import BOXES
from poseglass.core.view import View
from poseglass.estimators.chips import Chips
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.programs.graphs import _mapped
from poseglass.programs.torch_program import TorchProgram

PROJECTION = np.array([[700.0, 0, 624, 0], [0, 700, 192, 0], [0, 0, 1, 0]])
BOX = np.array([[1000.0, 500.0, 20000.0, 4000.0, 1500.0, 1700.0, 0.5]])
IMAGE = np.zeros((384, 1248, 3), np.uint8)


def seen(view: View, focal_px: float) -> Tensor:
    """What a perfect network tells of the box in a view, at a focal length or (0) as it is."""
    away = Affine(np.linalg.inv(np.vstack([view.home.matrix, [0, 0, 1]]))[:2])
    observed = observe(BOX, moved_projection(PROJECTION[None], away.matrix))
    if focal_px:
        observed[:, 2] *= focal_px / observed[:, 3]
    observed[:, 3] = focal_px
    return torch.from_numpy(observed).float()[None]


class Anything(nn.Module):
    """A network that is not run."""

    divisor = 32

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class Perfect(TorchProgram):
    """A program that knows the box, in letterboxed views of any size."""

    def __call__(self, views: Tensor) -> Decoded:
        view = View.letterbox((1248, 384), (views.shape[2], views.shape[1]))
        observed = seen(view, self.codec.focal_px).expand(len(views), -1, -1)  # type: ignore[attr-defined]
        x, y = observed[..., 0], observed[..., 1]
        box = torch.stack([x - 9, y - 9, x + 9, y + 9], -1)
        one = torch.ones(len(views), 1)
        empty = torch.zeros(len(views), 1, 0, 2)
        return Decoded(empty, empty[..., 0], one.bool(), one.long() * 0, one, box, observed_3d=observed)


def finder(size_wh: tuple[int, int], focal_px: float) -> OneStageEstimator:
    codec = CenterNetCodec(poses=False, boxes_3d=True, middles_3d=True, focal_px=focal_px)
    return OneStageEstimator(Perfect(Anything(), codec, BOXES, InputSpec(size_wh)), 0.0)


@pytest.mark.parametrize("size_wh", [(1248, 384), (640, 192), (1280, 384), (320, 320)])
def test_a_box_comes_home_from_views_of_any_scale(size_wh: tuple[int, int]) -> None:
    found = finder(size_wh, 260.0)(IMAGE, projection=PROJECTION)
    assert found.box_3d is not None
    np.testing.assert_allclose(found.box_3d, BOX, rtol=1e-3)


def test_a_box_comes_home_from_several_scales() -> None:
    estimator = dataclasses.replace(finder((640, 192), 260.0), scales=(0.5, 1.0))
    found = estimator(IMAGE, projection=PROJECTION)
    assert found.box_3d is not None
    np.testing.assert_allclose(found.box_3d[:1], BOX, rtol=1e-3)


@pytest.mark.parametrize("change", [{"scales": (0.5, 1.0)}, {"chips": Chips()}])
def test_depths_without_a_focal_length_are_refused_at_several_scales(change: dict) -> None:
    estimator = dataclasses.replace(finder((640, 192), 0.0), **change)
    with pytest.raises(ValueError, match="tell depths at the scale of whole images only"):
        estimator(IMAGE, projection=PROJECTION)


def test_a_graph_of_whole_images_moves_the_focal_length_too() -> None:
    empty = torch.zeros(1, 1, 0, 2)
    one = torch.ones(1, 1)
    view = View.letterbox((1248, 384), (624, 192))
    decoded = Decoded(empty, empty[..., 0], one.bool(), one.long(), one, observed_3d=seen(view, 260.0))
    scale = torch.full((1, 1, 1, 2), view.home.scale)
    moved = _mapped(decoded, scale, torch.zeros(1, 1, 1, 2), boxes=False).observed_3d
    assert moved is not None
    assert float(moved[0, 0, 3]) == pytest.approx(520.0)
    assert float(moved[0, 0, 2]) == float(seen(view, 260.0)[0, 0, 2])
