import dataclasses
from pathlib import Path

import numpy as np
import pytest

from poseglass.core.affine import Affine
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17, LSP14
from poseglass.drawing.palette import SIDE_RGB
from poseglass.drawing.pose import draw, draw_pair, resized

TOY = Skeleton("toy", ("left_a", "left_b", "right_a", "middle"), (("left_a", "left_b"),))


def grey(height: int = 100, width: int = 120, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def toy(xy=((20, 50), (100, 50), (60, 20), (60, 80)), **more) -> Instances:
    return Instances.from_keypoints(TOY, np.array([xy], np.float32), **more)


def near(drawing: np.ndarray, xy: tuple[int, int], rgb: tuple[int, int, int]) -> bool:
    return bool(np.abs(drawing[xy[1], xy[0]].astype(int) - rgb).max() <= 3)


def test_joints_and_bones_are_where_they_are_and_in_their_sides_colour():
    image = grey()
    drawing = draw(image, toy())
    assert near(drawing, (20, 50), SIDE_RGB["left"])
    assert near(drawing, (60, 50), SIDE_RGB["left"])  # the middle of the bone
    assert near(drawing, (60, 20), SIDE_RGB["right"])
    assert near(drawing, (60, 80), SIDE_RGB["middle"])
    assert (image == 128).all()
    assert np.array_equal(drawing[95:], image[95:])


def test_unknown_low_and_occluded_keypoints_are_not_drawn_nor_their_bones():
    cases = {
        "unknown": toy(((20, 50), (np.nan, np.nan), (60, 20), (60, 80))),
        "low": toy(score=np.array([[1, 0.05, 1, 1]])),
        "zero": toy(score=np.array([[1, 0.0, 1, 1]])),
        "occluded": toy(keypoint_extra={"occluded": np.array([[False, True, False, False]])}),
    }
    for name, people in cases.items():
        drawing = draw(grey(), people)
        assert near(drawing, (20, 50), SIDE_RGB["left"]), name
        assert (drawing[50, 40:110] == 128).all(), name
    shown = draw(grey(), cases["occluded"], occluded=True)
    assert not near(shown, (100, 50), SIDE_RGB["left"])  # a ring: dark inside
    assert shown[50, 100].max() < 100


def test_predicted_occluded_keypoints_are_rings_and_absent_ones_are_not_drawn():
    def seen(*flags: int) -> np.ndarray:
        return draw(grey(), dataclasses.replace(toy(), visibility=np.array([flags])))

    assert np.array_equal(seen(2, 2, 2, 2), draw(grey(), toy()))
    ring = seen(2, 1, 2, 2)
    assert near(ring, (20, 50), SIDE_RGB["left"])
    assert ring[50, 100].max() < 100  # dark inside
    assert (ring[50, 40:90] != 128).any(-1).all()  # with its bone
    assert np.abs(ring[47:54, 97:104].astype(int) - SIDE_RGB["left"]).max(-1).min() < 100  # and coloured around
    gone = seen(2, 0, 2, 2)
    assert near(gone, (20, 50), SIDE_RGB["left"])
    assert (gone[50, 40:110] == 128).all()


def test_score_is_opacity():
    away = [
        np.abs(draw(grey(), toy(score=np.full((1, 4), s)))[50, 60].astype(int) - 128).sum() for s in (0.2, 0.5, 0.8, 1)
    ]
    assert away == sorted(away)
    assert away[0] < 0.6 * away[-1]


def test_drawing_scales_with_the_person_and_the_image():
    touched = [
        (draw(grey(100 * s, 120 * s), toy().moved(Affine(np.array([[s, 0, 0], [0, s, 0]])))) != 128).any(-1).mean()
        for s in (4, 12)
    ]
    assert touched[1] == pytest.approx(touched[0], rel=0.1)


def test_lines_are_smooth_and_placed_between_pixels():
    people = [toy(((20, 50 + d), (100, 50 + d), (60, 20), (60, 80))) for d in (0.0, 0.3, 0.6, 1.0)]
    dark = np.stack([255 - draw(grey(value=255), p)[30:70, 60].astype(float).mean(-1) for p in people])
    center = (dark * np.arange(40)).sum(1) / dark.sum(1)
    assert np.diff(center) == pytest.approx([0.3, 0.3, 0.4], abs=0.06)
    assert len(np.unique(dark[1])) > 4


def test_anything_may_lie_outside_and_far_away():
    wild = ((-1e9, 50), (1e9, 50), (60, -1e30), (60, 1e6))
    drawing = draw(grey(), toy(wild), boxes=True, names=True)
    assert near(drawing, (60, 50), SIDE_RGB["left"])  # the bone crosses the image
    for size in (1, 2, 7):
        assert draw(grey(size, size), toy()).shape == (size, size, 3)


def test_empty_without_bones_and_without_points():
    image = grey()
    assert np.array_equal(draw(image, Instances.empty(COCO17), boxes=True, names=True), image)
    nobody = Instances.from_keypoints(TOY, np.full((1, 4, 2), np.nan))
    assert np.array_equal(draw(image, nobody, boxes=True, names=True), image)
    points = Instances.from_keypoints(Skeleton("dots", ("a", "b")), np.array([[[30.0, 30], [80, 60]]]))
    drawing = draw(image, points)
    assert (drawing[30, 30] != 128).any()
    assert (drawing[45, 55] == 128).all()


def test_dense_points_do_not_run_together():
    skeleton = Skeleton("face", tuple(f"p{i}" for i in range(64)))
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(1, 64, 2) * 12.0 + 8
    drawing = draw(grey(), Instances.from_keypoints(skeleton, grid))
    assert (drawing[14, 14] == 128).all()
    assert (drawing[8, 8] != 128).any()


def test_boxes_show_track_and_score():
    people = toy(box_xyxy=np.array([[10.0, 30, 110, 90]]))
    plain = draw(grey(), people)
    boxed = draw(grey(), people, boxes=True)
    assert (boxed[30, 60] > 200).all()
    assert not np.array_equal(plain, boxed)
    scored = Instances(TOY, people.xy, people.score, people.box_xyxy, np.array([0.5]), track_id=np.array([7]))
    assert not np.array_equal(draw(grey(), scored, boxes=True), boxed)


def test_names_have_the_size_of_the_person_not_of_the_box():
    points = np.array([[(x, y) for y in (550.0, 600.0, 650.0) for x in (550.0, 610.0)]])
    skeleton = Skeleton("six", tuple(f"point_{k}" for k in range(6)))
    image = np.zeros((1200, 1200, 3), np.uint8)
    widths = []
    for box in ((540, 540, 660, 660), (0, 0, 1199, 1199)):
        people = Instances.from_keypoints(skeleton, points, box_xyxy=np.array([box], float))
        written = (draw(image, people, names=True) != draw(image, people)).any(-1)
        widths.append(int(np.ptp(np.flatnonzero(written.any(0)))))
    assert widths[1] <= 1.5 * widths[0]


def test_names_are_written_inside_the_image():
    people = toy(((2, 2), (117, 97), (117, 2), (2, 97)))
    named, plain = draw(grey(), people, names=True), draw(grey(), people)
    assert (named != plain).any(-1).sum() > 200


def test_draw_refuses_what_is_no_image_and_no_thickness():
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8 RGB, got \(4, 4, 3\) float64"):
        draw(np.zeros((4, 4, 3)), toy())
    with pytest.raises(ValueError, match="thickness must be above 0"):
        draw(grey(), toy(), thickness=0)


def test_pair_shows_errors_as_lines():
    truth = toy(keypoint_extra={"occluded": np.array([[True, False, False, False]])})
    right = draw_pair(grey(), truth, toy(), titles=None)
    wrong = draw_pair(grey(), truth, toy(((20, 50), (100, 50), (60, 20), (100, 95))), titles=None)
    assert right.shape == wrong.shape == (100, 242, 3)
    assert np.array_equal(right[:, :120], wrong[:, :120])
    pink = (wrong[..., 0] > 200) & (wrong[..., 1] < 120) & (wrong[..., 2] > 120)
    assert pink[:, 122:].sum() > 20
    assert not pink[:, :120].any()
    absent = dataclasses.replace(toy(((20, 50), (100, 50), (60, 20), (100, 95))), visibility=np.array([[2, 2, 2, 0]]))
    without = draw_pair(grey(), truth, absent, titles=None)
    pink_without = (without[..., 0] > 200) & (without[..., 1] < 120) & (without[..., 2] > 120)
    assert pink_without.sum() < pink.sum() / 2  # no line to a keypoint that is not there


def test_pair_takes_other_skeletons_and_other_numbers():
    truth = Instances.from_keypoints(COCO17, np.random.default_rng(0).uniform(10, 90, (2, 17, 2)))
    for predicted in (truth.in_skeleton(LSP14), truth[0], Instances.empty(LSP14)):
        assert draw_pair(grey(), truth, predicted, tile_px=64).shape[0] == round(64 * 100 / 120)


def test_resized_maps_points_with_the_image():
    image = np.zeros((50, 100, 3), np.uint8)
    image[20:24, 60:64] = 255
    out, to_new = resized(image, 200)
    assert out.shape == (100, 200, 3)
    x, y = to_new(np.array([61.5, 21.5]))
    rows, columns = np.nonzero(out[..., 0] > 127)
    assert (columns.mean(), rows.mean()) == pytest.approx((x, y), abs=0.3)
    same, identity = resized(image, 100)
    assert same is image
    assert np.array_equal(identity.matrix, np.eye(2, 3))
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        resized(image, 0)


@pytest.mark.shared
def test_real_people_get_drawn():
    import json

    from poseglass.core.image import read_image

    root = Path(__file__).parents[2] / ".." / "shared" / "data" / "lspet"
    if not root.is_dir():
        pytest.skip("no ../shared/data/lspet")
    data = json.loads((root / "val.json").read_text())
    person, record = data["annotations"][0], data["images"][0]
    points = np.array(person["keypoints"]).reshape(1, 14, 3)
    people = Instances.from_keypoints(LSP14, np.where(points[..., 2:] > 0, points[..., :2], np.nan))
    image = read_image(root / "images" / record["file_name"])
    touched = (draw(image, people) != image).any(-1)
    x, y = people.xy[people.known].round().astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < image.shape[1]) & (y < image.shape[0])
    assert touched[y[inside], x[inside]].all()
    assert touched.mean() < 0.2


def written_names(monkeypatch, people, image, **more):
    """The names that are written and the rectangle of each, x0 y0 x1 y1."""
    from poseglass.drawing import pose
    from poseglass.drawing.text import text_size

    seen = []

    def watched(image, text, xy, *, size_px=14, **rest):
        wide, high = text_size(text, size_px)
        seen.append((text, (xy[0], xy[1], xy[0] + wide, xy[1] + high)))

    monkeypatch.setattr(pose, "write_text", watched)
    draw(image, people, names=True, **more)
    return seen


def test_no_name_overlaps_another(monkeypatch):
    rng = np.random.default_rng(0)
    crowd = Instances.from_keypoints(COCO17, rng.uniform(0, 300, (4, 17, 2)) * 0.4 + rng.uniform(0, 180, (4, 1, 2)))
    image = np.zeros((300, 300, 3), np.uint8)
    seen = written_names(monkeypatch, crowd, image)
    names = [(text, place) for text, place in seen if not text.startswith("+")]
    assert len(names) > 20
    for i, (_, (x0, y0, x1, y1)) in enumerate(names):
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= 300
        assert y1 <= 300
        for _, (u0, v0, u1, v1) in names[:i]:
            assert x0 >= u1 or x1 <= u0 or y0 >= v1 or y1 <= v0
    (rest,) = [text for text, _ in seen if text.startswith("+")]
    inside = int(((crowd.xy >= 0) & (crowd.xy < 300)).all(-1).sum())
    assert len(names) + int(rest.split()[0]) == inside


def test_where_there_is_room_every_name_is_written(monkeypatch):
    spread = Instances.from_keypoints(COCO17, np.random.default_rng(1).uniform(100, 900, (1, 17, 2)))
    seen = written_names(monkeypatch, spread, np.zeros((1000, 1000, 3), np.uint8))
    assert sorted(text for text, _ in seen) == sorted(COCO17.keypoints)
