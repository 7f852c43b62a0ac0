"""Numbers of people on images and contact sheets."""

import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeletons import COCO17
from poseglass.drawing.pose import draw
from poseglass.drawing.sheet import contact_sheet


def person(box: list[float]) -> Instances:
    people = Instances.from_keypoints(COCO17, np.full((1, 17, 2), np.nan), box_xyxy=np.array([box], np.float32))
    return people


def test_a_number_is_written_at_its_box_and_within_the_image():
    image = np.full((80, 120, 3), 128, np.uint8)
    for box in ([40, 40, 80, 70], [-30, -30, 20, 20], [100, 60, 140, 200], [0, 0, 119.5, 79.5], [119, 79, 119.5, 79.5]):
        changed = (draw(image, person(box), numbers=True) != 128).any(2)
        assert changed.sum() > 60
        rows, columns = np.nonzero(changed)
        assert abs(columns.min() - np.clip(box[0], 0, 119)) < 20
        assert abs(rows.min() - np.clip(box[1], 0, 79)) < 30
    assert (draw(image, person([40, 40, 80, 70])) == 128).all()
    assert (draw(image, person([np.nan] * 4), numbers=True) == 128).all()
    assert draw(image[:1, :1], person([0, 0, 1, 1]), numbers=True, boxes=True).shape == (1, 1, 3)


def test_a_sheet_shows_numbers_and_hides_low_scores():
    image = np.full((80, 120, 3), 128, np.uint8)
    xy = np.random.default_rng(0).uniform(10, 70, (1, 17, 2))
    people = Instances.from_keypoints(COCO17, xy, score=np.full((1, 17), 0.2), box_xyxy=np.full((1, 4), np.nan))
    sample = PoseSample(image, people, Affine.identity(), "a.png")
    plain = contact_sheet([PoseSample(image, people[:0], Affine.identity(), "a.png")], captions=[""])
    assert (contact_sheet([sample], captions=[""], min_score=0.3, numbers=True) == plain).all()
    assert (contact_sheet([sample], captions=[""]) != plain).any()
    boxed = PoseSample(image, person([20, 20, 90, 70]), Affine.identity(), "a.png")
    assert (contact_sheet([boxed], captions=[""], numbers=True) != plain).any()
