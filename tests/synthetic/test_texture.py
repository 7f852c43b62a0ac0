import numpy as np
import pytest

from poseglass.synthetic.body_figure import FACE, HAIR, MATERIALS, Figure, sample_outfit
from poseglass.synthetic.texture import PATTERNS, SIZE, noise, paint


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_every_pattern_paints_a_whole_texture(pattern):
    rng = np.random.default_rng(0)
    color, second = np.array([0.2, 0.5, 0.3]), np.array([0.9, 0.8, 0.1])
    image = PATTERNS[pattern](rng, color, second)
    assert image.shape == (SIZE, SIZE, 3)
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() < 1.3
    if pattern not in ("plain", "skin", "strands"):
        assert np.ptp(image.reshape(-1, 3), axis=0).max() > 0.1


def test_noise_has_mean_about_zero_and_its_range():
    field = noise(np.random.default_rng(0), (80, 50), (20,), (0.5,))
    assert field.shape == (50, 80)
    assert abs(field.mean()) < 0.05
    assert 0.35 < np.abs(field).max() <= 0.5


def test_periodic_noise_continues_at_the_other_edge():
    field = noise(np.random.default_rng(0), (64, 64), (8,), (0.5,), periodic=True)
    inner = np.abs(np.diff(field, axis=1)).max()
    assert np.abs(field[:, 0] - field[:, -1]).max() <= inner * 1.01


def test_hair_is_behind_the_face():
    rng = np.random.default_rng(1)
    outfit = next(o for o in (sample_outfit(rng, Figure(1700.0, bust=0.5)) for _ in range(50)) if o.hair == "long")
    textures = paint(rng, outfit)
    assert textures.shape == (len(MATERIALS), SIZE, SIZE, 3)
    back, front = textures[FACE, SIZE // 3, 2], textures[FACE, SIZE // 3 + 20, SIZE // 2]
    near = lambda a, b: np.abs(a - b).mean()  # noqa: E731
    assert near(back, outfit.colors[HAIR]) < 0.25
    assert near(front, outfit.colors[FACE]) < 0.3
