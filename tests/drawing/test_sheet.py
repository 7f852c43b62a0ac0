import numpy as np
import pytest

from poseglass.core.affine import Affine
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.drawing import sheet
from poseglass.drawing.palette import SIDE_RGB
from poseglass.drawing.sheet import contact_sheet

TOY = Skeleton("toy", ("left_a", "right_a"), (("left_a", "right_a"),))


def sample(name: str = "a.jpg", size_wh: tuple[int, int] = (80, 40), people: int = 1) -> PoseSample:
    xy = np.tile(np.array([[[10.0, 10], [60, 30]]]), (people, 1, 1))
    image = np.full((size_wh[1], size_wh[0], 3), 128, np.uint8)
    return PoseSample(image, Instances.from_keypoints(TOY, xy), Affine.identity(), name)


def test_sheet_lays_out_any_sizes_from_any_iterable():
    image = contact_sheet((sample(size_wh=s) for s in ((80, 40), (20, 300), (5, 5), (640, 480))), columns=3, tile_px=64)
    assert image.shape[1] == 3 * (64 + 6) + 6
    assert image.shape[0] > 2 * 64


def test_keypoints_are_drawn_at_their_place_in_the_tile():
    image = contact_sheet([sample()], tile_px=160)  # twice as large, centred below 40 rows of ground
    assert (image[6 + 40 + 20, 6 + 20] != 128).any()
    assert (image[6 + 40 + 70, 6 + 20] == 128).all()


def test_captions_are_names_or_the_callers():
    plain = contact_sheet([sample("folder/a.jpg")], tile_px=120)
    assert np.array_equal(plain, contact_sheet([sample("a.jpg")], tile_px=120))
    assert not np.array_equal(plain, contact_sheet([sample("b.jpg")], tile_px=120))
    assert not np.array_equal(plain, contact_sheet([sample("a.jpg", people=2)], tile_px=120))
    assert np.array_equal(plain, contact_sheet([sample("x")], captions=["a.jpg"], tile_px=120))
    contact_sheet([sample("снимок_日本\udcff.jpg")], tile_px=120)


def test_sheet_errors_name_what_is_needed(monkeypatch):
    with pytest.raises(ValueError, match="at least one sample, got none"):
        contact_sheet([])
    with pytest.raises(ValueError, match="a caption for each of 2 samples, got 1"):
        contact_sheet([sample(), sample()], captions=["one"])
    with pytest.raises(ValueError, match="columns of at least 1 and tile_px of at least 16, got 0 and 224"):
        contact_sheet([sample()], columns=0)
    monkeypatch.setattr(sheet, "MAX_PIXELS", 2 * 64**2)
    with pytest.raises(ValueError, match="more than 2 tiles of 64 px is too large"):
        contact_sheet([sample()] * 3, tile_px=64)


@pytest.mark.parametrize("columns", [1, 3])
def test_a_legend_says_what_the_marks_mean(monkeypatch, columns):
    from poseglass.drawing import sheet
    from poseglass.synthetic.people import synthetic_people

    data = synthetic_people(3, seed=0, size_wh=(64, 64))
    samples = [data[i] for i in range(3)]
    plain = contact_sheet(samples, columns=columns)
    words = []
    monkeypatch.setattr(sheet, "write_text", lambda image, text, xy, **more: words.append((text, xy)))
    explained = contact_sheet(samples, columns=columns, legend=True, boxes=True)
    assert explained.shape[1] == plain.shape[1]
    assert explained.shape[0] > plain.shape[0]
    assert [text for text, _ in words] == [
        "left (its own)", "right", "middle", "labelled, but hidden", "box", "no dot: not labelled, or outside",
    ]  # fmt: skip
    for color in (SIDE_RGB["left"], SIDE_RGB["right"], SIDE_RGB["middle"]):
        assert (explained[plain.shape[0] :] == color).all(-1).any()
