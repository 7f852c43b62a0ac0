"""Objects that are not symmetric, sets too small to teach a critic, and skeletons of any number of keypoints."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.audit.test_audit import coco as document_of
from tests.audit.test_audit import stick_people

from poseglass.audit.audit import audit
from poseglass.audit.few import MIN_FEW, judge_few
from poseglass.audit.labels import Labels, read_coco_leniently
from poseglass.audit.pose import check_flip
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import LSP14

HOUSE = Skeleton("house", ("left_base", "right_base", "left_eave", "right_eave", "ridge", "chimney"))
CORNERS = np.array([[-1, 1], [1, 1], [-1, 0], [1, 0], [0, -0.7], [0.5, -0.6]], float)


def houses(count: int, *, chimney_sides: tuple[float, ...] = (1.0,), seed: int = 1) -> np.ndarray:
    """Return houses seen from in front, with the chimney on one side or on either: ``(N, 6, 2)`` pixels."""
    rng = np.random.default_rng(seed)
    xy = np.tile(CORNERS, (count, 1, 1))
    xy[:, 5, 0] *= rng.choice(chimney_sides, count)
    xy[..., 0] *= rng.uniform(0.8, 1.3, (count, 1))
    xy += rng.normal(0, 0.04, xy.shape)
    angle = rng.uniform(-0.2, 0.2, count)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    return xy @ turn * 60 + 150


def labels(tmp_path: Path, xy: np.ndarray, skeleton: Skeleton, **category) -> Labels:
    data = document_of(xy, skeleton=skeleton)
    data["categories"][0].update(name=skeleton.name, **category)
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(data))
    return read_coco_leniently(path)


@pytest.mark.slow
def test_an_object_that_is_not_symmetric_is_one_finding_and_its_labels_are_judged_all_the_same(tmp_path):
    xy = houses(200)
    swapped = [3, 50, 120]
    xy[swapped] = xy[swapped][:, HOUSE.flip]
    result = audit(labels(tmp_path, xy, HOUSE), read_images=False)
    found = [f for f in result.findings if f.kind == "not-symmetric"]
    assert len(found) == 1
    assert found[0].count == 1
    for words in ("flip_probability = 0.0", "flip_test = false", "may well be right"):
        assert words in found[0].text
    assert not [f for f in result.findings if f.kind == "flip-pair"]
    sides = {f.annotation for f in result.findings if f.kind.startswith("swapped")}
    assert {i + 1 for i in swapped} <= sides
    assert len(sides) < 10


def test_an_object_that_may_be_either_way_round_is_symmetric(tmp_path):
    result = audit(labels(tmp_path, houses(120, chimney_sides=(1.0, -1.0)), HOUSE), read_images=False)
    assert not [f for f in result.findings if f.kind in ("not-symmetric", "flip-pair")]


def test_wrong_flip_pairs_of_a_symmetric_object_are_still_wrong_flip_pairs(tmp_path):
    xy = houses(120, chimney_sides=(1.0, -1.0))
    pairs = [["left_base", "left_eave"], ["right_base", "right_eave"]]
    result = audit(labels(tmp_path, xy, HOUSE, flip_pairs=pairs), read_images=False)
    kinds = [f.kind for f in result.findings]
    assert "flip-pair" in kinds
    assert "not-symmetric" not in kinds


def test_few_objects_that_look_alike_are_judged_with_their_power(tmp_path):
    xy = houses(60, chimney_sides=(1.0, -1.0))
    xy[7] = xy[7][HOUSE.flip]
    result = audit(labels(tmp_path, xy, HOUSE), read_images=False)
    assert result.power["swapped-body"] > 0.9
    assert [f.annotation for f in result.findings if f.kind.startswith("swapped")] == [8]
    assert result.unjudged == ("house",)
    assert any("60 annotations are too few for the critic" in note for note in result.notes)


def test_few_people_in_any_pose_show_little_and_the_power_says_so():
    verdict = judge_few(LSP14, stick_people(60, seed=3)[:, :14])
    assert verdict is not None
    assert set(verdict.power) >= {"swapped-body"}
    assert all(0 <= power <= 1 for power in verdict.power.values())
    assert ((1 - verdict.probability[:, 0]) >= 0.5).mean() < 0.15
    np.testing.assert_allclose(verdict.probability.sum(1), 1.0)


def test_too_few_or_nothing_to_exchange_is_no_verdict():
    assert judge_few(HOUSE, houses(MIN_FEW - 1)) is None
    assert judge_few(Skeleton("s", ("a", "b", "c", "d", "e", "f")), houses(60)) is None
    assert judge_few(HOUSE, np.full((60, 6, 2), np.nan)) is None


@pytest.mark.parametrize("k", [1, 2, 3, 4, 30])
@pytest.mark.parametrize("count", [0, 1, 3, 45])
def test_any_number_of_keypoints_and_people(tmp_path, k, count):
    rng = np.random.default_rng(k)
    names = tuple(f"{side}_{i}" for i in range((k + 1) // 2) for side in ("left", "right"))[:k]
    xy = rng.uniform(20, 300, (count, k, 2))
    result = audit(labels(tmp_path, xy, Skeleton("s", names)), read_images=False)
    assert bool(result.unjudged) == (count > 0 and k > 1)
    kinds = {f.kind for f in result.findings}
    assert ("nothing-labelled" in kinds) == (count == 0)


def test_a_set_without_a_side_has_nothing_unjudged(tmp_path):
    result = audit(labels(tmp_path, houses(5), Skeleton("s", tuple("abcdef"))), read_images=False)
    assert result.unjudged == ()


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_of_poses_are_no_lack_of_symmetry_and_hide_no_wrong_pairs(tmp_path, copies):
    xy = np.tile(houses(100, chimney_sides=(1.0, -1.0)), (copies, 1, 1))
    assert not check_flip(labels(tmp_path, xy, HOUSE), 0)
    pairs = [["left_base", "left_eave"], ["right_base", "right_eave"]]
    assert {f.kind for f in check_flip(labels(tmp_path, xy, HOUSE, flip_pairs=pairs), 0)} == {"flip-pair"}


def test_frames_of_a_film_are_no_lack_of_symmetry(tmp_path):
    rng = np.random.default_rng(0)
    xy = np.repeat(stick_people(80, seed=3)[:, :14], 6, axis=0)
    people = read_few(tmp_path, xy + rng.normal(0, 1.0, xy.shape))
    assert not [f for f in check_flip(people, 0) if f.kind == "not-symmetric"]


def read_few(tmp_path: Path, xy: np.ndarray) -> Labels:
    from poseglass.core.skeletons import COCO17

    names = COCO17.keypoints[:14]
    return labels(tmp_path, xy, Skeleton("person", names, flip_pairs=pairs_within(names)))


def pairs_within(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    from poseglass.core.sides import name_pairs

    return tuple((names[i], names[j]) for i, j in name_pairs(names))


def test_many_poses_of_few_keypoints_are_judged_within_bounds():
    xy = houses(5000, chimney_sides=(1.0, -1.0))[:, :4]
    square = Skeleton("square", HOUSE.keypoints[:4])
    xy[17] = xy[17][square.flip]
    verdict = judge_few(square, xy)
    assert verdict is not None
    assert 17 in verdict.rows[verdict.probability[:, 0] < 0.5]
