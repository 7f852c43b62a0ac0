"""Pages are rendered in Latin letters of the font that every installation has; Japanese ones where a font is there."""

import pickle
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from poseglass.core.sample import boxes_complete, classes_of
from poseglass.data import DATASETS
from poseglass.runs.build import make
from poseglass.synthetic.pages import HANDS, Pages, _font, frequencies, kana, kanji, pages

LATIN = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def latin(count: int = 4, **options) -> Pages:
    given = {"fonts": [LATIN], "characters": "ABCDEFGH", "size_wh": (200, 160), "size_px": (18, 26)}
    return pages(count, **(given | options))


def test_a_page_depends_on_seed_and_index_only():
    data, again = latin(), latin(9)
    forward = [data.image(i) for i in range(4)]
    copied = pickle.loads(pickle.dumps(data))
    for i in reversed(range(4)):
        np.testing.assert_array_equal(forward[i], again.image(i))
        np.testing.assert_array_equal(forward[i], copied.image(i))
        np.testing.assert_array_equal(data.instances(i).box_xyxy, again.instances(i).box_xyxy)
    assert not np.array_equal(forward[0], forward[1])
    assert not np.array_equal(forward[0], latin(seed=1).image(0))


def test_is_a_dataset():
    table = {"name": "pages", "count": 3, "fonts": [LATIN], "characters": "ABC", "size_wh": [128, 96]}
    data = make(DATASETS, table, "dataset")
    sample = data[2]
    assert sample.image.shape == data.image(2, reduce=4).shape == (96, 128, 3)
    assert sample.source == data.source(-1) == "pages-0-2"
    assert classes_of(data) == ("U+0041", "U+0042", "U+0043")
    assert boxes_complete(data, 0)
    assert len(data.skeleton) == 0
    with pytest.raises(IndexError, match="Pages has 3 pages, 0 to 2; got index 3"):
        data.image(3)
    with pytest.raises(ValueError, match="reduce must be 1, 2, 4 or 8, got 3"):
        data.image(0, reduce=3)


def test_all_characters_may_be_one_class():
    plain, one = latin(), latin(one_class=True)
    assert classes_of(one) == ("character",)
    assert set(one.instances(0).label.tolist()) == {0} != set(plain.instances(0).label.tolist())
    np.testing.assert_array_equal(plain.image(0), one.image(0))


def test_boxes_are_those_of_the_ink():
    data = latin(6, worn=False, size_px=(30, 34))
    checked = 0
    for index in range(6):
        ink = data._ink(data._writing(index))  # pyright: ignore[reportPrivateUsage]
        boxes = data.instances(index).box_xyxy
        inside = np.zeros(ink.shape, bool)
        for x0, y0, x1, y1 in boxes:
            inside[max(int(y0 - 0.5), 0) : int(y1 + 1.5), max(int(x0 - 0.5), 0) : int(x1 + 1.5)] = True
        assert not (ink > 0.3)[~inside].any(), "ink outside every box"
        for box in boxes:
            # a box of which no other box is near is filled to its edges
            others = boxes[np.abs(boxes - box).max(1) > 0]
            near = (others[:, 0] < box[2] + 3) & (others[:, 2] > box[0] - 3)
            near &= (others[:, 1] < box[3] + 3) & (others[:, 3] > box[1] - 3)
            if near.any():
                continue
            x0, y0, x1, y1 = (int(v) for v in (box[0] - 2.5, box[1] - 2.5, box[2] + 3.5, box[3] + 3.5))
            part = ink[max(y0, 0) : y1, max(x0, 0) : x1] > 0.25
            rows, columns = np.flatnonzero(part.any(1)) + max(y0, 0), np.flatnonzero(part.any(0)) + max(x0, 0)
            bounds = [columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5]
            np.testing.assert_allclose(bounds, box, atol=1.6)
            checked += 1
    assert checked > 5


def test_columns_run_from_right_to_left_and_down():
    writing = latin(worn=False)._writing(0)  # pyright: ignore[reportPrivateUsage]
    middles = np.array([one.to_page(np.array([63.5, 63.5])) for one in writing])
    steps = np.diff(middles, axis=0)
    turns = steps[:, 0] < -10
    assert turns.any()
    assert (steps[~turns, 1] > 0).all()  # down, unless a new column begins
    assert (steps[turns, 0] < 0).all()  # to the left


def test_frequencies_have_a_long_tail():
    assert frequencies(389).sum() == pytest.approx(1)
    assert frequencies(389)[0] / frequencies(389)[-1] > 50
    data = latin(30)
    counts = np.bincount(np.concatenate([data.instances(i).label for i in range(30)]), minlength=8)
    np.testing.assert_allclose(counts / counts.sum(), frequencies(8), atol=0.03)


def test_the_tables_of_characters():
    assert len(kana()) == len(set(kana())) == 189
    assert len(kanji()) == len(set(kanji())) == 6355
    assert kanji()[:3] == kanji()[:3]
    assert not set(kana()) & set(kanji())


def test_japanese_pages():
    try:
        data = pages(2, num_kana=189, num_kanji=200)
    except FileNotFoundError:
        pytest.skip("the fonts of fonts-kouzan-mouhitsu and fonts-aoyagi-soseki are not installed")
    assert len(data.classes) == 389
    assert [file.name for file in data.fonts] == list(HANDS)
    assert len(data.instances(0)) > 20
    assert data.image(0).shape == (512, 512, 3)


@pytest.mark.parametrize(("options", "says"), [
    ({"count": 0}, "count of 1 or more and seed of 0 or more, got 0 and 0"),
    ({"size_wh": (20, 100)}, "size_wh must be"),
    ({"size_px": (3, 9)}, "size_px must go from at least 6 up to half of the shorter side, 80 px"),
    ({"num_kana": 400}, "up to 189 kana and 6,355 kanji, at least one of them, got 400 and 200"),
    ({"characters": "AA"}, "characters must be different ones, at least one, got 'AA'"),
    ({"characters": "Aは"}, "DejaVuSans.ttf lacks 1 of 2 characters: は"),
    ({"fonts": []}, "fonts must name at least one font"),
    ({"fonts": [__file__]}, "cannot be read as a font"),
])  # fmt: skip
def test_what_is_invalid_is_said(options, says):
    with pytest.raises(ValueError, match=says):
        latin(**options)


def test_a_font_that_is_not_installed():
    with pytest.raises(
        FileNotFoundError, match=r"The font none.ttf is not installed. In Debian .* fonts-kouzan-mouhitsu"
    ):
        _font("none.ttf")
