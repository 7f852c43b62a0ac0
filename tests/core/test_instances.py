import dataclasses
import json

import numpy as np
import pytest

from poseglass.core.affine import Affine
from poseglass.core.camera import Camera
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample, check_image
from poseglass.core.skeleton import Skeleton

HANDS = Skeleton("hands3", ("left_hand", "right_hand", "nose"))
NAN = np.nan


def three(n: int = 2) -> Instances:
    rng = np.random.default_rng(0)
    return Instances.from_keypoints(
        HANDS, rng.uniform(0, 50, (n, 3, 2)),
        extra={"area": np.arange(n) + 1.0, "head_px": np.full(n, 4.0), "annotation_id": np.arange(n)},
        keypoint_extra={"occluded": np.eye(n, 3, dtype=bool)},
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


def test_flipping_swaps_left_and_right_everywhere() -> None:
    people = three()
    moved = people.moved(Affine.flip(100))
    np.testing.assert_allclose(moved.xy[:, 0], [99, 0] + people.xy[:, 1] * [-1, 1], rtol=1e-6)
    np.testing.assert_array_equal(moved.keypoint_extra["occluded"], people.keypoint_extra["occluded"][:, [1, 0, 2]])
    np.testing.assert_array_equal(moved.extra["annotation_id"], people.extra["annotation_id"])
    again = moved.moved(Affine.flip(100))
    np.testing.assert_allclose(again.xy, people.xy, atol=1e-4)
    np.testing.assert_allclose(again.box_xyxy, people.box_xyxy, atol=1e-4)


def test_lengths_and_areas_follow_the_scale() -> None:
    moved = three().moved(Affine.about((7, 7), scale=3, degrees=40))
    np.testing.assert_allclose(moved.extra["area"], [9, 18])
    np.testing.assert_allclose(moved.extra["head_px"], 12)


def in_space() -> tuple[Camera, Instances]:
    """One person in space, and the camera that sees it in an image of 100 x 80 pixels."""
    camera = Camera(90.0, (49.5, 39.5), np.eye(3), np.zeros(3))
    xyz = np.array([[[100.0, -50.0, 900.0], [-300.0, 120.0, 1000.0], [250.0, 80.0, 1200.0]]])
    return camera, Instances(
        HANDS, camera.project(xyz), np.ones((1, 3)), np.array([[10.0, 10.0, 90.0, 70.0]]), np.ones(1), xyz_mm=xyz
    )


@pytest.mark.parametrize(
    "turn",
    [Affine.identity(), Affine.flip(100), Affine.about((49.5, 39.5), degrees=40.0),
     Affine.flip(100).then(Affine.about((49.5, 39.5), degrees=-110.0))],
    ids=["nothing", "flip", "rotation", "both"],
)  # fmt: skip
def test_what_moves_in_the_image_moves_in_space(turn: Affine) -> None:
    camera, people = in_space()
    moved = people.moved(turn)
    assert moved.xyz_mm is not None
    # seen by the same camera, the moved person is where the moved keypoints are, left and right exchanged alike
    np.testing.assert_allclose(camera.project(moved.xyz_mm), moved.xy, atol=1e-3)


def test_enlarging_an_image_keeps_the_person_s_size() -> None:
    _, people = in_space()
    larger = people.moved(Affine.about((3.0, 4.0), scale=2.5, shift_xy=(7.0, 1.0)))
    np.testing.assert_allclose(larger.xyz_mm, people.xyz_mm, atol=1e-3)


def test_a_stretched_image_has_no_depth() -> None:
    _, people = in_space()
    with pytest.raises(ValueError, match=r"stretches by 2 in one direction and 1 in another.*drop xyz_mm first"):
        people.moved(Affine(np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])))


@pytest.mark.parametrize("name", ["mask", "box_3d"])
def test_what_cannot_be_moved_is_not_left_behind(name: str) -> None:
    value = {"mask": np.zeros((2, 9, 9), bool), "box_3d": np.zeros((2, 7))}[name]
    people = dataclasses.replace(three(), **{name: value})
    with pytest.raises(ValueError, match=rf"Instances with {name} cannot be moved to another frame; drop them first"):
        people.moved(Affine.flip(9))
    assert getattr(people.moved(Affine.identity()), name) is not None


def test_an_array_per_keypoint_is_declared_and_not_guessed_from_its_shape() -> None:
    """With two keypoints, two numbers per instance look like one per keypoint."""
    pair = Skeleton("pair", ("left_hand", "right_hand"))
    size_wh = np.array([[30.0, 50.0]])
    people = Instances.from_keypoints(
        pair, np.array([[[1.0, 2.0], [3.0, 4.0]]]), extra={"size_wh": size_wh}, keypoint_extra={"seen": size_wh}
    )
    moved = people.moved(Affine.flip(9))
    assert moved.extra["size_wh"].tolist() == [[30.0, 50.0]]
    assert moved.keypoint_extra["seen"].tolist() == [[50.0, 30.0]]
    one = people.in_skeleton(Skeleton("one", ("right_hand",)))
    assert one.extra["size_wh"].tolist() == [[30.0, 50.0]]
    assert one.keypoint_extra["seen"].tolist() == [[50.0]]


def test_boxes_alone_have_a_skeleton_of_none() -> None:
    boxes = np.array([[0.0, 0.0, 4.0, 8.0], [2.0, 2.0, 5.0, 5.0]])
    found = Instances(
        Skeleton("car", ()), np.zeros((2, 0, 2)), np.zeros((2, 0)), boxes, np.array([0.9, 0.4]), np.array([3, 1])
    )
    assert len(found[found.box_score > 0.5]) == 1
    assert found[1].label.tolist() == [1]
    assert found.moved(Affine.flip(10)).box_xyxy[0].tolist() == [5.0, 0.0, 9.0, 8.0]
    assert [row["score"] for row in found.to_coco()] == pytest.approx([0.9, 0.4])
    assert "2 of 'car' (0 keypoints)" in repr(found)
    assert len(Instances.concatenate([found, found])) == 4


def test_another_skeleton_by_name() -> None:
    other = Skeleton("other", ("nose", "tail", "left_hand"))
    people = three().in_skeleton(other)
    np.testing.assert_array_equal(people.xy[:, 0], three().xy[:, 2])
    np.testing.assert_array_equal(people.xy[:, 2], three().xy[:, 0])
    assert not people.known[:, 1].any()
    assert people.keypoint_extra["occluded"].shape == (2, 3)
    np.testing.assert_array_equal(people.keypoint_extra["occluded"][:, 2], three().keypoint_extra["occluded"][:, 0])
    assert three().in_skeleton(HANDS).skeleton is HANDS
    with pytest.raises(ValueError, match=r"'hands3' and 'cat' share no keypoint name"):
        three().in_skeleton(Skeleton("cat", ("paw",)))


def test_joining() -> None:
    both = Instances.concatenate([three(2), three(1)])
    assert len(both) == 3
    assert set(both.extra) == {"area", "head_px", "annotation_id"}
    assert set(both.keypoint_extra) == {"occluded"}
    plain = Instances.from_keypoints(HANDS, np.zeros((1, 3, 2)))
    assert Instances.concatenate([three(2), plain]).extra == {}
    with pytest.raises(ValueError, match="needs at least one part"):
        Instances.concatenate([])
    with pytest.raises(ValueError, match="Cannot join instances of 'hands3' and 'cat'"):
        Instances.concatenate([three(), Instances.empty(Skeleton("cat", ("paw",)))])


def test_json_of_coco_and_of_people() -> None:
    people = Instances(
        HANDS,
        np.array([[(1.5, 2), (NAN, NAN), (3, 4)]]),
        np.array([[0.5, 0, 1]]),
        np.array([[0, 1, 10, 21]]),
        np.ones(1),
    )
    row = people.to_coco(image_id=7)[0]
    assert row["keypoints"] == [1.5, 2.0, 2, 0.0, 0.0, 0, 3.0, 4.0, 2]
    assert row["keypoint_scores"] == [0.5, 0.0, 1.0]
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
        ({"track_id": np.zeros(3)}, r"Instances\.track_id must have shape \(2,\) or be None"),
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


def test_one_keypoint_by_its_name() -> None:
    people = Instances.from_keypoints(HANDS, np.arange(12, dtype=float).reshape(2, 3, 2))
    first = HANDS.keypoints[0]
    np.testing.assert_array_equal(people.keypoint(first), [[0, 1, 1], [6, 7, 1]])
    with pytest.raises(LookupError, match=rf"has no keypoint '{first}s'. Did you mean '{first}'"):
        people.keypoint(f"{first}s")
    with pytest.raises(TypeError, match=rf"selected by index or mask, got '{first}'. .*instances.keypoint"):
        people[first]


def test_an_absent_keypoint_is_marked_and_keeps_its_coordinates_and_its_score() -> None:
    xy = np.array([[[4.0, 5.0], [6.0, 7.0], [8.0, 9.0]], [[1.0, 2.0], [NAN, NAN], [3.0, 4.0]]], np.float32)
    score = np.array([[0.9, 0.02, 0.5], [0.8, 0.0, 0.7]])
    people = dataclasses.replace(
        Instances.from_keypoints(HANDS, xy, score=score), visibility=np.array([[2, 0, 1], [0, 0, 2]])
    )
    assert people.visibility_words == [["visible", "absent", "occluded"], ["absent", None, "visible"]]
    first, second = people.to_coco()
    assert first["keypoints"] == [4.0, 5.0, 2, 6.0, 7.0, 0, 8.0, 9.0, 1]
    assert first["keypoint_scores"] == [0.9, 0.02, 0.5]
    assert second["keypoints"] == [1.0, 2.0, 0, 0.0, 0.0, 0, 3.0, 4.0, 2]
    assert set(first) == set(three().to_coco()[0])  # COCO's format has no more
    read = json.loads(people.to_json())["instances"][0]["keypoints"]
    assert read["right_hand"] == {"x": 6.0, "y": 7.0, "score": 0.02, "visibility": "absent"}
    assert "visibility" not in three().to_json()
    assert three().visibility_words == [[None] * 3] * 2
    swapped = people.in_skeleton(Skeleton("two", ("nose", "left_hand")))
    assert swapped.visibility_words == [["occluded", "visible"], ["visible", "absent"]]
