import numpy as np

from poseglass.core.camera import Camera
from poseglass.synthetic.backdrop import paint_backdrop


def test_ground_lies_below_the_horizon_of_the_scenes_camera():
    level = Camera(80.0, (47.5, 31.5), np.diag([1.0, -1.0, -1.0]), np.array([0.0, 900.0, 4000.0]))
    with_ground = 0
    for seed in range(40):
        image, ground = paint_backdrop(np.random.default_rng(seed), (96, 64), level)
        assert image.shape == (64, 96, 3)
        assert np.isfinite(image).all()
        assert not ground[:31].any()
        with_ground += bool(ground.any())
    assert 15 < with_ground < 40


def test_backdrops_differ_and_repeat_by_their_seed():
    camera = Camera(80.0, (31.5, 31.5), np.diag([1.0, -1.0, -1.0]), np.array([0.0, 900.0, 4000.0]))
    a, b, again = (paint_backdrop(np.random.default_rng(s), (64, 64), camera)[0] for s in (1, 2, 1))
    assert (a == again).all()
    assert np.abs(a - b).mean() > 0.02
