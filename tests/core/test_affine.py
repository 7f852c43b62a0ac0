import numpy as np
import pytest

from poseglass.core.affine import Affine, CropRule

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

numbers = st.floats(-50, 50)
maps = st.builds(
    lambda x, y, scale, degrees, sx, sy, mirror: (Affine.flip(64) if mirror else Affine.identity()).then(
        Affine.about((x, y), scale=scale, degrees=degrees, shift_xy=(sx, sy))
    ),
    numbers, numbers, st.floats(0.05, 20), st.floats(-360, 360), numbers, numbers, st.booleans(),
)  # fmt: skip
POINTS = np.random.default_rng(0).uniform(-100, 100, (7, 2))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(one=maps, two=maps)
def test_algebra(one: Affine, two: Affine) -> None:
    np.testing.assert_allclose(one.inverse()(one(POINTS)), POINTS, atol=1e-6)
    np.testing.assert_allclose(one.then(two)(POINTS), two(one(POINTS)), atol=1e-6, rtol=1e-9)
    np.testing.assert_allclose(
        one.then(two).inverse().matrix, two.inverse().then(one.inverse()).matrix, atol=1e-5, rtol=1e-6
    )
    assert one.then(two).scale == pytest.approx(one.scale * two.scale)
    assert one.then(two).flips == (one.flips != two.flips)
    assert one.scale == pytest.approx(np.sqrt(abs(np.linalg.det(one.matrix[:, :2]))))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(move=maps)
def test_boxes_hold_the_moved_corners_and_no_more(move: Affine) -> None:
    low = POINTS[:5]
    box = np.concatenate([low, low + np.abs(POINTS[2:])], -1)
    corners = np.stack([box[:, [0, 1]], box[:, [0, 3]], box[:, [2, 1]], box[:, [2, 3]]], 1)
    moved = move(corners)
    np.testing.assert_allclose(move.box(box), np.concatenate([moved.min(1), moved.max(1)], -1), atol=1e-6)
    assert move.box(box.astype(np.float32)).dtype == np.float32
    assert move.box(box[0]).shape == (4,)


def test_a_rotated_box_keeps_its_corners_in_order() -> None:
    """Corners given the wrong way round still give low before high."""
    box = Affine.flip(10).box(np.array([0.0, 0.0, 4.0, 4.0]))
    assert box.tolist() == [5.0, 0.0, 9.0, 4.0]
    assert Affine.identity().box(np.array([4.0, 4.0, 0.0, 0.0])).tolist() == [0.0, 0.0, 4.0, 4.0]
    assert np.isnan(Affine.identity().box(np.full(4, np.nan))).all()


def test_crop_takes_edges_to_edges() -> None:
    to_crop = Affine.crop(np.array([10.0, 20.0, 50.0, 100.0]), (20, 40))
    np.testing.assert_allclose(to_crop(np.array([[10.0, 20.0], [50.0, 100.0]])), [[-0.5, -0.5], [19.5, 39.5]])
    # a whole image onto itself is the identity
    np.testing.assert_allclose(Affine.crop(np.array([-0.5, -0.5, 63.5, 47.5]), (64, 48)).matrix, np.eye(2, 3))
    assert Affine.crop(np.array([0.0, 0.0, 10.0, 40.0]), (20, 20)).scale == pytest.approx(1.0)  # 2 by 0.5


@pytest.mark.parametrize(
    ("rule", "corner", "centre", "far"),
    [
        ("edges", (-0.5, -0.5), (9.5, 19.5), (19.5, 39.5)),
        ("msra", (0.0, 0.0), (10.0, 20.0), (20.0, 40.0)),
        ("udp", (0.0, 0.0), (9.5, 19.5), (19.0, 39.0)),
    ],
)
def test_where_the_rules_put_a_box(rule: CropRule, corner: tuple, centre: tuple, far: tuple) -> None:
    to_crop = Affine.crop(np.array([10.0, 20.0, 50.0, 100.0]), (20, 40), rule)
    np.testing.assert_allclose(to_crop(np.array([[10.0, 20.0], [30, 60], [50, 100]])), [corner, centre, far])


def test_positive_degrees_rotate_clockwise_on_the_screen() -> None:
    turned = Affine.about((0, 0), degrees=90)(np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(turned, [[0.0, 1.0]], atol=1e-12)  # from right to down
    np.testing.assert_allclose(Affine.about((3, 4), scale=2, degrees=70)(np.array([[3.0, 4.0]])), [[3, 4]])
    np.testing.assert_allclose(Affine.about((3, 4), scale=2, shift_xy=(1, -1))(np.array([[4.0, 4.0]])), [[6, 3]])


def test_flip_maps_the_first_column_to_the_last() -> None:
    np.testing.assert_array_equal(Affine.flip(10)(np.array([[0.0, 3.0], [9.0, 3.0]])), [[9, 3], [0, 3]])
    assert Affine.flip(10).flips
    assert not Affine.identity().flips


def test_unknown_points_stay_unknown_and_dtypes_stay() -> None:
    points = np.array([[1.0, np.nan], [2.0, 3.0]], np.float32)
    moved = Affine.about((0, 0), scale=2)(points)
    assert moved.dtype == np.float32
    assert np.isnan(moved[0]).all() or np.isnan(moved[0, 1])
    assert moved[1].tolist() == [4.0, 6.0]
    assert Affine.identity()(np.array([[1, 2]])).dtype == np.float64
    assert Affine.identity()(np.zeros((0, 2))).shape == (0, 2)
    assert Affine.identity()(np.zeros((3, 4, 2))).shape == (3, 4, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Affine(np.eye(3)), r"Affine\.matrix must be \(2, 3\), got \(3, 3\)"),
        (lambda: Affine(np.full((2, 3), np.nan)), "must be finite"),
        (lambda: Affine(np.zeros((2, 3))).inverse(), "cannot be inverted: its matrix is singular"),
        (lambda: Affine(np.array([[1.0, 2, 0], [2, 4, 0]])).inverse(), "singular"),
        (lambda: Affine.crop(np.array([5.0, 0, 5, 9]), (8, 8)), r"box with area.*got \[5\.0, 0\.0, 5\.0, 9\.0\]"),
        (lambda: Affine.crop(np.array([0.0, np.nan, 5, 9]), (8, 8)), "box with area"),
        (
            lambda: Affine.crop(np.array([0.0, 0, 5, 9]), (8, 8), "centre"),  # type: ignore[arg-type]
            r"rule must be one of edges, msra, udp, got 'centre'",
        ),
        (
            lambda: Affine.crop(np.array([0.0, 0, 5, 9]), (8, 1), "udp"),
            r"rule 'udp' needs sides of at least 2 pixels, got \(8, 1\)",
        ),
    ],
)
def test_what_makes_no_map_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
