import numpy as np
import pytest

from poseglass.core.skeleton import Skeleton
from poseglass.drawing.heatmap import heatmap_grid, overlay_heatmaps, tiled
from poseglass.drawing.palette import joint_colors

TOY = Skeleton("toy", ("left_a", "right_a", "middle"))
CROP = np.full((64, 64, 3), 90, np.uint8)


def maps() -> np.ndarray:
    out = np.zeros((3, 16, 16), np.float32)
    out[0, 4, 4], out[1, 4, 12], out[2, 12, 8] = 1.0, 1.0, 0.5
    return out


def test_overlay_has_each_peak_in_its_joints_colour():
    before = CROP.copy()
    image = overlay_heatmaps(CROP, maps(), TOY)
    colors = joint_colors(TOY).astype(int)
    for k, (x, y) in enumerate(((18, 18), (50, 18))):
        assert np.argmin(np.abs(colors - image[y, x]).sum(1)) == k
    assert (image[60, 60] == image[60, 0]).all()
    assert np.array_equal(CROP, before)


def test_overlay_clips_values_above_one():
    assert np.array_equal(overlay_heatmaps(CROP, maps() * 40, TOY)[18, 18], joint_colors(TOY)[0])
    assert np.array_equal(overlay_heatmaps(CROP, maps() * -1, TOY), overlay_heatmaps(CROP, maps() * 0, TOY))


def test_grid_has_a_tile_per_joint_and_marks_its_peak():
    image = heatmap_grid(CROP, maps(), TOY, columns=3, tile_px=128)
    assert image.shape[1] == 3 * (128 + 6) + 6
    tile = image[6 : 6 + 128, 6 : 6 + 128].astype(int)
    warm = tile[..., 0] - tile[..., 2]
    y, x = np.unravel_index(warm.argmax(), warm.shape)
    assert abs(x - 35.5) < 8
    assert abs(y - 35.5) < 8
    other = heatmap_grid(CROP, maps() * 0.3, TOY, columns=3, tile_px=128)
    assert not np.array_equal(image[136:], other[136:])  # the peaks' figures


def test_maps_must_fit_the_skeleton_and_be_finite():
    with pytest.raises(ValueError, match=r"heatmaps must be \(K, h, w\) with K=3 of 'toy', got \(1, 3, 16, 16\)"):
        overlay_heatmaps(CROP, maps()[None], TOY)
    broken = maps()
    broken[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="heatmaps must be finite"):
        heatmap_grid(CROP, broken, TOY)


def test_tiles_need_something_to_lay_out():
    with pytest.raises(ValueError, match="at least one tile, got none"):
        tiled([], [], columns=2, tile_wh=(10, 10))
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        tiled([CROP], [("a", "")], columns=0, tile_wh=(64, 64))


def test_grid_writes_the_scores_that_it_is_given():
    given = heatmap_grid(CROP, maps(), TOY, scores=np.array([1.0, 1.0, 0.5]))
    assert np.array_equal(given, heatmap_grid(CROP, maps(), TOY))  # those of the peaks
    assert not np.array_equal(given, heatmap_grid(CROP, maps(), TOY, scores=np.array([0.9, 1.0, 0.5])))
