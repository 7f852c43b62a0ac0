import json

import numpy as np
import pytest

from poseglass.core.sides import alone, canonical_name, name_pairs, side_of
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import SKELETONS

PAIRS = [
    ("left_wrist", "right_wrist"), ("wrist_left", "wrist_right"), ("LeftWrist", "RightWrist"),
    ("LEFT-EYE", "RIGHT-EYE"), ("l_knee", "r_knee"), ("knee.L", "knee.R"), ("L wrist", "R wrist"),
    ("kneeLeft", "kneeRight"), ("left_left", "right_right"), ("left", "right"), ("l", "r"), ("wristL", "wristR"),
    ("LWrist", "RWrist"), ("lWrist", "rWrist"), ("lt_ear", "rt_ear"), ("eye-left", "eye-right"), ("hand_L1", "hand_R1"),
    ("paw1_L", "paw1_R"), ("eyeLeftInner", "eyeRightInner"), ("Left wrist", "right_wrist"), ("LeftHip", "hip_r"),
    ("wrist (left)", "wrist (right)"), ("FL_paw", "FR_paw"), ("lh_hoof", "rh_hoof"), ("leftwrist", "rightwrist"),
    ("wristleft", "wristright"), ("gauche_main", "droite_main"), ("左手", "右手"),
]  # fmt: skip


def test_positions_of_names_none_of_which_may_be_missing() -> None:
    skeleton = Skeleton("s", ("a", "b", "c"))
    assert skeleton.all_indices_of(("c", "a"), needed_by="it", advice="Do.").tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"Skeleton 's' lacks d, e, which it needs\. Do\."):
        skeleton.all_indices_of(("d", "a", "e"), needed_by="it", advice="Do.")


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_names_of_two_sides_are_a_pair(left: str, right: str) -> None:
    pairs = name_pairs(["nose", right, "neck", left])
    assert pairs == ((3, 1),)
    assert alone(["nose", right, left]) == ()


@pytest.mark.parametrize(
    "name",
    ["nose", "upright", "bright_spot", "tail", "cleft_chin", "leftover", "hull_r2", "L5", "R", "", "lear", "relbow"],
)
def test_a_name_without_a_side_has_none(name: str) -> None:
    assert name_pairs([name, "nose" if name != "nose" else "tip"]) == ()
    assert side_of(name) == ("right" if name == "R" else None)


def test_attached_letters_count_where_two_pairs_are_written_so() -> None:
    assert name_pairs(["leg", "reg"]) == ()
    assert name_pairs(["lwri", "rwri", "lelb", "relb"]) == ((0, 1), (2, 3))
    assert name_pairs(["WRISTL", "WRISTR", "HIPL", "HIPR", "TAIL"]) == ((0, 1), (2, 3))
    assert name_pairs(["left_a", "Left a", "right_a"]) == ()  # which of the two?


@pytest.mark.parametrize(
    ("names", "lone"),
    [
        (("lhip", "rhip", "lknee", "rknee", "lankle"), "lankle"),
        (("leftwrist", "rightwrist", "leftelbow"), "leftelbow"),
        (("L1", "R1", "L2", "R2", "L3"), "L3"),
        (("fl_paw", "fr_paw", "hl_paw"), "hl_paw"),
        (("left_a", "right_a", "b_left"), "b_left"),
    ],
)
def test_a_side_that_is_left_over_makes_mirroring_unknown(names, lone):
    assert lone in Skeleton("s", names).mirroring_unknown
    assert not Skeleton("s", names).mirrors
    assert Skeleton("s", names[:2]).mirrors == (names[0] != "lhip")  # one pair of glued letters is none


def test_corners_of_plates_are_pairs():
    assert Skeleton("plate", ("TL", "TR", "BR", "BL")).flip.tolist() == [1, 0, 3, 2]
    assert Skeleton("plate", ("ul", "ur", "lr", "ll")).flip.tolist() == [1, 0, 3, 2]
    assert Skeleton("car", ("fl", "fr", "rl", "rr")).flip.tolist() == [1, 0, 3, 2]


def test_names_in_one_spelling() -> None:
    spellings = ["left_wrist", "Left Wrist", "wrist_l", "LWrist", "wristL", "LEFT-WRIST", "leftWrist", "lt_wrist"]
    assert {canonical_name(name) for name in spellings} == {"left_wrist"}
    assert canonical_name("Head top") == canonical_name("head_top") != canonical_name("head")


def test_whether_keypoints_can_be_flipped_is_known_or_not() -> None:
    assert Skeleton("s", ("left_a", "right_a", "mid")).mirrors
    assert Skeleton("s", ("a", "b"), flip_pairs=()).mirrors
    assert Skeleton("boxes", ()).mirrors
    assert "no two of the names differ by left and right (a, b)" in Skeleton("s", ("a", "b")).mirroring_unknown
    lone = Skeleton("s", ("left_a", "right_a", "left_b"))
    assert lone.mirroring_unknown == "the other side of left_b is not among the keypoints"
    assert lone.flip.tolist() == [1, 0, 2]


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
            "may be in one flip pair only",
        ),
        (lambda: Skeleton.from_dict({"name": "s"}), "must be a table with 'name' and 'keypoints'"),
        (lambda: Skeleton.from_dict([1]), "must be a table"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_skeleton_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
