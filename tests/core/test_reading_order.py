import tracemalloc
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from poseglass.core.reading_order import reading_order
from poseglass.synthetic.pages import pages

LATIN = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@pytest.mark.parametrize("seed", range(6))
def test_pages_are_read_as_they_were_written(seed):
    """Rendered characters come in the order in which they were written, on pages that are tilted by up to 3 degrees."""
    data = pages(1, seed=seed, fonts=[LATIN], characters="ABCDEFGHKMNOP", size_wh=(512, 512), size_px=(18, 30))
    box = data.instances(0).box_xyxy
    mixed = np.random.default_rng(seed).permutation(len(box))
    back = mixed[reading_order(box[mixed])]
    follows = np.diff(back) == 1
    assert follows.mean() > 0.97
    assert back[0] == 0


def test_a_gap_in_a_column_does_not_end_it():
    y = np.concatenate([np.arange(5) * 20, 200 + np.arange(5) * 20])
    right = np.stack([100 + 0 * y, y, 115 + 0 * y, y + 15], 1)
    left = right - np.array([40, 0, 40, 0])
    assert reading_order(np.concatenate([left, right])).tolist() == [*range(10, 20), *range(10)]


def test_a_scan_of_many_characters_does_not_take_all_pairs():
    corner = np.random.default_rng(0).uniform(0, 4000, (4000, 2))
    tracemalloc.start()
    order = reading_order(np.concatenate([corner, corner + 40], 1))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sorted(order) == list(range(4000))
    assert most < 30e6  # all pairs would be 128 MB for each of several arrays


def test_few_boxes():
    assert reading_order(np.zeros((0, 4))).tolist() == []
    assert reading_order(np.array([[1, 2, 3, 4]])).tolist() == [0]
