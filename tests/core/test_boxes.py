import numpy as np
import pytest

from poseglass.core.boxes import area, around, fit_aspect, iou, whole_image, xywh_to_xyxy, xyxy_to_xywh

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

corner = st.floats(-1000, 1000)
size = st.floats(0.5, 1000)
boxes = st.builds(lambda x, y, w, h: np.array([x, y, x + w, y + h]), corner, corner, size, size)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(box=boxes)
def test_layouts_round_trip(box: np.ndarray) -> None:
    np.testing.assert_allclose(xywh_to_xyxy(xyxy_to_xywh(box)), box, atol=1e-9)
    width, height = box[2:] - box[:2]
    assert area(box) == pytest.approx(width * height)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(a=boxes, b=boxes)
def test_overlap_is_symmetric_and_within_bounds(a: np.ndarray, b: np.ndarray) -> None:
    both = iou(np.stack([a, b]), np.stack([a, b]))
    np.testing.assert_allclose(np.diag(both), 1)
    np.testing.assert_allclose(both, both.T)
    assert ((both >= 0) & (both <= 1 + 1e-12)).all()


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0),  # touching
        ((0, 0, 4, 4), (1, 1, 3, 3), 0.25),  # inside
        ((0, 0, 0, 0), (0, 0, 0, 0), 0),  # nothing at all
        ((0, 0, -2, -2), (-3, -3, 1, 1), 0),  # the wrong way round has no area
    ],
)
def test_known_overlaps(a: tuple, b: tuple, expected: float) -> None:
    assert iou(np.array([a], float), np.array([b], float)).item() == pytest.approx(expected)
    assert iou(np.zeros((0, 4)), np.array([b], float)).shape == (0, 1)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(box=boxes, aspect=st.floats(0.2, 5), padding=st.floats(1, 2))
def test_fitting_grows_about_the_middle(box: np.ndarray, aspect: float, padding: float) -> None:
    fitted = fit_aspect(box, aspect, padding=padding)
    width, height = fitted[2:] - fitted[:2]
    assert width / height == pytest.approx(aspect)
    np.testing.assert_allclose((fitted[:2] + fitted[2:]) / 2, (box[:2] + box[2:]) / 2, atol=1e-6)
    assert (fitted[:2] <= box[:2] + 1e-6).all()
    assert (fitted[2:] >= box[2:] - 1e-6).all()
    old = (box[2:] - box[:2]) * padding
    assert width == pytest.approx(old[0]) or height == pytest.approx(old[1])  # one side sets the size
    assert fit_aspect(box.astype(np.float32), aspect).dtype == np.float32


def test_around_known_points() -> None:
    xy = np.array([[(3, 4), (np.nan, 9), (1, 8)], [(np.nan,) * 2] * 3])
    np.testing.assert_array_equal(around(xy), [[1, 4, 3, 8], [np.nan] * 4])


def test_a_whole_image_is_edge_to_edge() -> None:
    assert whole_image((4, 3)).tolist() == [-0.5, -0.5, 3.5, 2.5]
    assert area(whole_image((4, 3))) == 12
