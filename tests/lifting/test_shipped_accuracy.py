"""The lifter that ships, on motion capture of people that it was not trained on, seen from eight sides."""

from pathlib import Path

import numpy as np
import pytest

from poseglass.core.lifting_pairs import view_poses
from poseglass.core.skeletons import PEOPLE19
from poseglass.lifting import load_lifter
from poseglass.lifting.recipe import read_lift_recipe
from poseglass.metrics.mpjpe import Pose3dErrors
from poseglass.readers.poses_npz import read_poses


@pytest.mark.shared
@pytest.mark.slow
def test_errors_on_people_it_was_not_trained_on(shared: Path):
    lifter, split = load_lifter(), read_lift_recipe("lift_people").split
    clips = read_poses(shared / "data" / "mocap" / "poses.npz")
    _, test = clips.split_by_subject(split.test)
    assert not set(lifter.card.trained_on) & {*split.test, *split.validation}
    assert set(lifter.card.trained_on) | {*split.test, *split.validation} == set(clips.subjects)
    pairs = view_poses(test.xyz_mm[::4], clips.skeleton)
    some = np.isin(clips.skeleton.keypoints, PEOPLE19.keypoints)
    for points in (pairs.xy, 0.1 * pairs.xy - 900, np.where(some[:, None], pairs.xy, np.nan)):
        errors = Pose3dErrors(clips.skeleton)
        errors.update(lifter(points), pairs.xyz_mm)
        found = errors.compute()
        assert found["pa_mpjpe"] < 45
        assert found["mpjpe"] < 75
        assert found["missing"] == 0
