"""Numbers of people on images and contact sheets."""

from dataclasses import replace

import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeletons import COCO17, LSP14
from poseglass.drawing import pose
from poseglass.drawing.pose import draw
from poseglass.drawing.sheet import contact_sheet
from poseglass.drawing.text import text_size


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


def test_labels_cover_neither_each_other_nor_joints(monkeypatch):
    """Three people in one place and one whose head is where the label of another would be."""
    box = np.array([[60, 60, 120, 160]] * 3 + [[60, 10, 120, 100]], float)
    xy = np.full((4, 14, 2), np.nan)
    xy[:, :, 0], xy[:, :, 1] = np.linspace(70, 110, 14), np.linspace(70, 150, 14)
    xy[3, :, 1] = np.linspace(20, 90, 14)
    xy[3, LSP14.index("head_top")] = 68, 53
    people = replace(Instances.from_keypoints(LSP14, xy), box_xyxy=box.astype(np.float32))
    written: list[tuple[float, float, float, float]] = []

    def record(_image: np.ndarray, text: str, left_top: tuple[float, float], *, size_px: int, ground: object) -> None:
        wide, high = text_size(text, size_px)
        written.append((*left_top, left_top[0] + wide, left_top[1] + high))

    monkeypatch.setattr(pose, "write_text", record)
    draw(np.zeros((240, 240, 3), np.uint8), people, numbers=True)
    assert len(written) == 4
    for i, (a, b, c, d) in enumerate(written):
        assert all(a >= g or c <= e or b >= h or d <= f for e, f, g, h in written[:i])
        inside = (xy[..., 0] > a) & (xy[..., 0] < c) & (xy[..., 1] > b) & (xy[..., 1] < d)
        assert not inside.any()
