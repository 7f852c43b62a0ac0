import json

import numpy as np
import pytest

from poseglass.core.affine import Affine
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample, check_image
from poseglass.core.skeleton import Skeleton

HANDS = Skeleton("hands3", ("left_hand", "right_hand", "nose"))
NAN = np.nan


def three(n: int = 2) -> Instances:
    rng = np.random.default_rng(0)
    return Instances.from_keypoints(
        HANDS, rng.uniform(0, 50, (n, 3, 2)),
        extra={"area": np.arange(n) + 1.0, "head_px": np.full(n, 4.0), "occluded": np.eye(n, 3, dtype=bool),
               "annotation_id": np.arange(n)},
    )  # fmt: skip


def test_selecting_keeps_everything_together() -> None:
    people = three(4)
    for rows in (np.array([True, False, True, False]), [0, 2], slice(0, 4, 2), np.array([0, 2])):
        some = people[rows]
        assert len(some) == 2
        np.testing.assert_array_equal(some.xy, people.xy[[0, 2]])
        np.testing.assert_array_equal(some.extra["annotation_id"], [0, 2])
    assert len(people[3]) == len(people[np.int64(-1)]) == 1
    np.testing.assert_array_equal(people[3].xy[0], people.xy[3])
    assert len(people[[]]) == 0
    with pytest.raises(IndexError):
        people[4]


def test_known_needs_coordinates_and_a_score() -> None:
    people = Instances(
        HANDS, np.array([[(1, 2), (NAN, 2), (3, 4)]]), np.array([[1, 1, 0]]), np.zeros((1, 4)), np.ones(1)
    )
    assert people.known.tolist() == [[True, False, False]]


def test_mirroring_exchanges_left_and_right_everywhere() -> None:
    people = three()
    moved = people.moved(Affine.mirror(100))
    np.testing.assert_allclose(moved.xy[:, 0], [99, 0] + people.xy[:, 1] * [-1, 1], rtol=1e-6)
    np.testing.assert_array_equal(moved.extra["occluded"], people.extra["occluded"][:, [1, 0, 2]])
    np.testing.assert_array_equal(moved.extra["annotation_id"], people.extra["annotation_id"])
    again = moved.moved(Affine.mirror(100))
    np.testing.assert_allclose(again.xy, people.xy, atol=1e-4)
    np.testing.assert_allclose(again.box_xyxy, people.box_xyxy, atol=1e-4)


def test_lengths_and_areas_follow_the_scale() -> None:
    moved = three().moved(Affine.about((7, 7), scale=3, degrees=40))
    np.testing.assert_allclose(moved.extra["area"], [9, 18])
    np.testing.assert_allclose(moved.extra["head_px"], 12)


def test_depth_cannot_be_mirrored_in_the_image_alone() -> None:
    people = Instances(
        HANDS, np.zeros((1, 3, 2)), np.ones((1, 3)), np.zeros((1, 4)), np.ones(1), xyz_mm=np.zeros((1, 3, 3))
    )
    with pytest.raises(ValueError, match="xyz_mm cannot be mirrored"):
        people.moved(Affine.mirror(9))
    assert people.moved(Affine.identity()).xyz_mm is not None


def test_another_skeleton_by_name() -> None:
    other = Skeleton("other", ("nose", "tail", "left_hand"))
    people = three().in_skeleton(other)
    np.testing.assert_array_equal(people.xy[:, 0], three().xy[:, 2])
    np.testing.assert_array_equal(people.xy[:, 2], three().xy[:, 0])
    assert not people.known[:, 1].any()
    assert people.extra["occluded"].shape == (2, 3)
    np.testing.assert_array_equal(people.extra["occluded"][:, 2], three().extra["occluded"][:, 0])
    assert three().in_skeleton(HANDS).skeleton is HANDS
    with pytest.raises(ValueError, match=r"'hands3' and 'cat' share no keypoint name"):
        three().in_skeleton(Skeleton("cat", ("paw",)))


def test_joining() -> None:
    both = Instances.concatenate([three(2), three(1)])
    assert len(both) == 3
    assert set(both.extra) == {"area", "head_px", "occluded", "annotation_id"}
    plain = Instances.from_keypoints(HANDS, np.zeros((1, 3, 2)))
    assert Instances.concatenate([three(2), plain]).extra == {}
    with pytest.raises(ValueError, match="needs at least one part"):
        Instances.concatenate([])
    with pytest.raises(ValueError, match="Cannot join instances of 'hands3' and 'cat'"):
        Instances.concatenate([three(), Instances.empty(Skeleton("cat", ("paw",)))])


def test_unknown_boxes_become_the_whole_image() -> None:
    box = np.array([(1, 2, 3, 4), (NAN,) * 4, (5, 5, 5, 9)])
    people = Instances(HANDS, np.zeros((3, 3, 2)), np.ones((3, 3)), box, np.ones(3))
    assert people.boxes_or_whole((10, 8)).tolist() == [[1, 2, 3, 4], [-0.5, -0.5, 9.5, 7.5], [-0.5, -0.5, 9.5, 7.5]]


def test_json_of_coco_and_of_people() -> None:
    people = Instances(
        HANDS,
        np.array([[(1.5, 2), (NAN, NAN), (3, 4)]]),
        np.array([[0.5, 0, 1]]),
        np.array([[0, 1, 10, 21]]),
        np.ones(1),
    )
    row = people.to_coco(image_id=7)[0]
    assert row["keypoints"] == [1.5, 2.0, 0.5, 0.0, 0.0, 0.0, 3.0, 4.0, 1.0]
    assert row["bbox"] == [0.0, 1.0, 10.0, 20.0]
    assert row["score"] == 0.5
    assert json.loads(json.dumps(row))["image_id"] == 7
    named = json.loads(people.to_json())["instances"][0]["keypoints"]
    assert set(named) == {"left_hand", "nose"}  # what is unknown is left out
    assert named["left_hand"] == {"x": 1.5, "y": 2.0, "score": 0.5}
    assert Instances.empty(HANDS).to_coco() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xy": np.zeros((2, 4, 2))}, r"Instances\.xy must have shape \(2, 3, 2\) \(N=2, K=3 of 'hands3'\), got"),
        ({"score": np.zeros((2, 2))}, r"Instances\.score must have shape \(2, 3\)"),
        ({"box_xyxy": np.zeros((1, 4))}, r"Instances\.box_xyxy must have shape \(2, 4\)"),
        ({"box_score": np.zeros(3)}, r"Instances\.box_score must have shape \(2,\)"),
        ({"track": np.zeros(3)}, r"Instances\.track must have shape \(2,\) or be None"),
        ({"xyz_mm": np.zeros((2, 3, 2))}, r"Instances\.xyz_mm must have shape \(2, 3, 3\) or be None"),
        ({"extra": {"area": np.zeros(3)}}, r"Instances\.extra\['area'\] must have 2 rows \(one per instance\), got 3"),
    ],
)  # fmt: skip
def test_shapes_are_checked(changes: dict, message: str) -> None:
    fields = {
        "xy": np.zeros((2, 3, 2)),
        "score": np.ones((2, 3)),
        "box_xyxy": np.zeros((2, 4)),
        "box_score": np.ones(2),
    }
    with pytest.raises(ValueError, match=message):
        Instances(HANDS, **(fields | changes))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4)), r"must be \(H, W, 3\) uint8 RGB, got \(4, 4\) float64"),
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4, 4), np.uint8), r"got \(4, 4, 4\) uint8"),
        ([[1, 2, 3]], "got None list"),
        (np.zeros((0, 4, 3), np.uint8), "must have at least one pixel"),
    ],
)
def test_images_are_checked(image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_image(image)
    with pytest.raises(ValueError, match=message):
        PoseSample(image, Instances.empty(HANDS), Affine.identity(), "s")
