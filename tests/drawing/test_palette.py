import numpy as np

from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17, LSP14, MPII16
from poseglass.drawing.palette import SIDE_RGB, joint_colors, pose_colors, sides


def test_sides_follow_the_names_however_they_are_written():
    skeleton = Skeleton("x", ("LeftKnee", "RightKnee", "hip.L", "hip.R", "lever_right", "upright", "l_eye"))
    assert sides(skeleton) == ("left", "right", "left", "right", "right", "middle", "left")


def test_flip_pair_without_side_words_has_its_first_on_the_left():
    skeleton = Skeleton("x", ("a", "b", "c"), flip_pairs=(("b", "a"),))
    assert sides(skeleton) == ("right", "left", "middle")


def test_joint_colors_are_distinct():
    for skeleton in (COCO17, LSP14, MPII16, Skeleton("hand", tuple(f"p{i}" for i in range(21)))):
        colors = joint_colors(skeleton)
        assert colors.dtype == np.uint8
        assert len(np.unique(colors, axis=0)) == len(skeleton)


def test_bones_between_sides_are_in_the_middle_and_those_to_the_middle_keep_their_side():
    _, bones = pose_colors(LSP14)
    by_bone = {frozenset(b): tuple(c) for b, c in zip(LSP14.bones, bones.tolist(), strict=True)}
    assert by_bone[frozenset(("right_hip", "left_hip"))] == SIDE_RGB["middle"]
    assert by_bone[frozenset(("left_shoulder", "neck"))] == SIDE_RGB["left"]
    assert by_bone[frozenset(("right_knee", "right_hip"))] == SIDE_RGB["right"]


def test_skeleton_without_sides_takes_a_colour_per_joint():
    skeleton = Skeleton("hand", ("wrist", "thumb", "index"), (("wrist", "thumb"), ("wrist", "index")))
    joints, bones = pose_colors(skeleton)
    assert np.array_equal(joints, joint_colors(skeleton))
    assert np.array_equal(bones, joints[1:])
