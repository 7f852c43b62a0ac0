import json

import numpy as np
import pytest

from poseglass.core.skeleton import Skeleton, flipped_name
from poseglass.core.skeletons import SKELETONS


@pytest.mark.parametrize(
    ("name", "flipped"),
    [
        ("left_wrist", "right_wrist"), ("wrist_left", "wrist_right"), ("LeftWrist", "RightWrist"),
        ("LEFT-EYE", "RIGHT-EYE"), ("l_knee", "r_knee"), ("knee.R", "knee.L"), ("L wrist", "R wrist"),
        ("kneeLeft", "kneeRight"), ("left_left", "right_right"), ("right", "left"), ("r", "l"),
        ("nose", "nose"), ("upright", "upright"), ("bright_spot", "bright_spot"), ("tail", "tail"),
        ("cleft_chin", "cleft_chin"), ("leftover", "leftover"), ("hull_r2", "hull_r2"), ("", ""),
    ],
)  # fmt: skip
def test_names_of_the_other_side(name: str, flipped: str) -> None:
    assert flipped_name(name) == flipped
    assert flipped_name(flipped) == name


@pytest.mark.parametrize("name", SKELETONS)
def test_known_skeletons(name: str) -> None:
    skeleton = SKELETONS[name]
    np.testing.assert_array_equal(skeleton.flip[skeleton.flip], np.arange(len(skeleton)))
    for i, j in enumerate(skeleton.flip):
        a, b = skeleton.keypoints[i], skeleton.keypoints[j]
        assert (a == b) == ("left" not in a and "right" not in a)  # who has a side has a partner
    assert len({frozenset(b) for b in skeleton.bones}) == len(skeleton.bones)
    assert all(a != b for a, b in skeleton.bones)
    if skeleton.sigmas:
        assert [skeleton.sigmas[i] for i in skeleton.flip] == list(skeleton.sigmas)
    again = Skeleton.from_dict(json.loads(json.dumps(skeleton.to_dict())))
    assert again == skeleton


def test_flip_pairs_follow_names_or_are_given() -> None:
    assert Skeleton("s", ("left_a", "mid", "right_a")).flip.tolist() == [2, 1, 0]
    assert Skeleton("s", ("left_a", "mid")).flip.tolist() == [0, 1]  # the other side is not there
    assert Skeleton("s", ("left_a", "right_a"), flip_pairs=()).flip.tolist() == [0, 1]
    assert Skeleton("s", ("port", "bow", "starboard"), flip_pairs=(("port", "starboard"),)).flip.tolist() == [2, 1, 0]


def test_lookup_by_name() -> None:
    skeleton = Skeleton("s", ("a", "b"), (("b", "a"),))
    assert skeleton.index("b") == 1
    assert skeleton.indices_of(["b", "x", "a"]).tolist() == [1, -1, 0]
    assert skeleton.bone_indices.tolist() == [[1, 0]]
    assert Skeleton("s", ("a",)).bone_indices.shape == (0, 2)
    with pytest.raises(
        LookupError, match=r"'s' has no keypoint 'left_rist'\. Did you mean 'left_wrist'\? Known: left_wrist"
    ):
        Skeleton("s", ("left_wrist",)).index("left_rist")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Skeleton("s", ("a", "b", "a")), "names must be unique, repeated: a"),
        (lambda: Skeleton("s", ("a", "b"), (("a", "c"),)), r"bone \('a', 'c'\) names unknown keypoint 'c'"),
        (lambda: Skeleton("s", ("wrist", "b"), flip_pairs=(("b", "wirst"),)), "flip pair .* Did you mean 'wrist'"),
        (lambda: Skeleton("s", ("a", "b"), sigmas=(0.1,)), r"expected 2 sigmas \(one per keypoint\) or none, got 1"),
        (lambda: Skeleton("s", ("a",), sigmas=(0.0,)), "sigmas must be positive and finite"),
        (lambda: Skeleton("s", ("a",), sigmas=(float("nan"),)), "sigmas must be positive and finite"),
        (
            lambda: Skeleton("s", ("a", "b", "c"), flip_pairs=(("a", "b"), ("b", "c"))),
            "may stand in one flip pair only",
        ),
        (lambda: Skeleton.from_dict({"name": "s"}), "must be a table with 'name' and 'keypoints'"),
        (lambda: Skeleton.from_dict([1]), "must be a table"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_skeleton_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
