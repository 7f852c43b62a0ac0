from pathlib import Path

import numpy as np
import pytest

from poseglass.core.image import write_image
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17, LSP14, MPII16
from poseglass.readers import LabelledImages, mixed
from poseglass.readers.mixed import union


def dataset(name: str, skeleton: Skeleton, count: int, folder: Path = Path(), first: float = 0.0) -> LabelledImages:
    k = len(skeleton)
    labels = [
        Instances.from_keypoints(skeleton, np.arange(k * 2, dtype=np.float32).reshape(1, k, 2) + first + 100 * i)
        for i in range(count)
    ]
    paths = [folder / f"{name}{i}.png" for i in range(count)]
    return LabelledImages(name, skeleton, tuple(paths), labels, tuple(range(count)))


def test_lsp_and_coco_meet_in_twelve_names(tmp_path):
    both = mixed([dataset("lsp", LSP14, 2, tmp_path), dataset("coco", COCO17, 3, tmp_path)])
    assert len(both) == 5
    assert both.name == "lsp+coco"
    assert len(both.skeleton) == 19
    assert both.instances(0).known.sum() == 14
    assert both.instances(2).known.sum() == 17
    shared = both.instances(0).known[0] & both.instances(2).known[0]
    assert shared.sum() == 12
    wrist = both.skeleton.index("left_wrist")
    k = LSP14.index("left_wrist")
    np.testing.assert_array_equal(both.instances(1).xy[0, wrist], [2 * k + 100, 2 * k + 101])
    k = COCO17.index("left_wrist")
    np.testing.assert_array_equal(both.instances(-1).xy[0, wrist], [2 * k + 200, 2 * k + 201])
    assert both.skeleton.flip[wrist] == both.skeleton.index("right_wrist")
    assert len(both.skeleton.sigmas) == 19
    assert both.source(4).endswith("coco2.png")


def test_a_sample_has_the_common_skeleton(tmp_path):
    part = dataset("lsp", LSP14, 1, tmp_path)
    write_image(tmp_path / "lsp0.png", np.zeros((5, 8, 3), np.uint8))
    whole = mixed([part], skeleton=COCO17)
    sample = whole[0]
    assert sample.instances.skeleton == COCO17
    assert sample.instances.known.sum() == 12
    assert sample.size_wh == whole.size_wh(0) == (8, 5)
    assert whole.image(0).shape == (5, 8, 3)


def test_repeats_weigh_the_parts():
    a, b = dataset("a", LSP14, 4), dataset("b", COCO17, 10)
    whole = mixed([a, b], repeats=[2.5, 0.3])
    origins = [whole.origin(i) for i in range(len(whole))]
    assert [i for part, i in origins if part is a] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 2]
    assert [i for part, i in origins if part is b] == [0, 3, 6]
    for repeats in ([1], [1, 0], [1, float("nan")], [1, 1e9]):
        with pytest.raises(ValueError, match="repeats must be 2 numbers above 0"):
            mixed([a, b], repeats=repeats)


def test_the_same_skeleton_stays_itself():
    assert mixed([dataset("a", LSP14, 1), dataset("b", LSP14, 1)]).skeleton is LSP14


def test_union_keeps_bones_once_and_sigmas_if_all_are_known():
    both = union([LSP14, MPII16])
    assert both.keypoints[:14] == LSP14.keypoints
    assert set(both.keypoints[14:]) == {"pelvis", "thorax"}
    assert both.sigmas == ()
    ends = [frozenset(b) for b in both.bones]
    assert len(set(ends)) == len(ends)


def test_union_of_one_side_and_both():
    one = Skeleton("one", ("left_wrist", "nose"))
    assert union([one, COCO17]).flip[0] == union([one, COCO17]).index("right_wrist")
    own = Skeleton("own", ("nose", "left_wrist", "a", "b"), flip_pairs=(("a", "b"),))
    with pytest.raises(ValueError, match="flips 'left_wrist' to 'right_wrist', another one to 'left_wrist'"):
        union([own, COCO17])
    pair = Skeleton("pair", ("nose", "a", "b"), flip_pairs=(("a", "b"),))
    joined = union([pair, COCO17])
    assert joined.flip[joined.index("a")] == joined.index("b")
    assert joined.flip[joined.index("left_hip")] == joined.index("right_hip")


def test_parts_that_share_no_name_are_refused():
    with pytest.raises(
        ValueError, match=r"Dataset 1 \(b\) shares 0 of 14 .* 'lsp14', and 1 of its own would be dropped: tail;"
    ):
        mixed([dataset("a", LSP14, 1), dataset("b", Skeleton("x", ("tail",)), 1)], skeleton=LSP14)
    with pytest.raises(ValueError, match="needs at least one dataset"):
        mixed([])
    with pytest.raises(ValueError, match="needs at least one skeleton"):
        union([])
    with pytest.raises(IndexError, match="image 3 of 1"):
        mixed([dataset("a", LSP14, 1)]).instances(3)
