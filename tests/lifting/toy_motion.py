"""A few people who wave and walk on the spot, as motion capture."""

import numpy as np

from poseglass.core.motion import PoseClips
from poseglass.core.skeletons import H36M17


def toy_clips(poses: int = 40, subjects: tuple[str, ...] = ("ann", "bob", "cho", "dan"), seed: int = 0) -> PoseClips:
    """Return ``poses`` poses of each subject, of different size, who face different ways; millimetres, y up."""
    rng = np.random.default_rng(seed)
    out, clip = [], []
    for number, _ in enumerate(subjects):
        size = 0.9 + 0.07 * number
        for _ in range(poses):
            at: dict[str, np.ndarray] = {"pelvis": np.zeros(3), "spine": np.array([0, 120, 0.0])}
            at["thorax"] = np.array([0, 360, 20 * rng.normal()])
            at["neck"], at["head_top"] = at["thorax"] + [0, 90, 10], at["thorax"] + [0, 280, 20]
            for sign, side in ((1, "left"), (-1, "right")):
                swing, bend = rng.uniform(-0.8, 0.8), rng.uniform(0, 1.2)
                hip = np.array([sign * 100, -60, 0.0])
                knee = hip + 420 * np.array([0, -np.cos(swing), np.sin(swing)])
                ankle = knee + 420 * np.array([0, -np.cos(swing - bend), np.sin(swing - bend)])
                at[f"{side}_hip"], at[f"{side}_knee"], at[f"{side}_ankle"] = hip, knee, ankle
                shoulder = at["thorax"] + [sign * 180, -20, 0]
                lift, out_of = rng.uniform(-0.5, 2.5), rng.uniform(0, 1)
                along = np.array([sign * np.sin(out_of), -np.cos(lift) * np.cos(out_of), np.sin(lift) * np.cos(out_of)])
                elbow = shoulder + 280 * along
                at[f"{side}_shoulder"], at[f"{side}_elbow"] = shoulder, elbow
                at[f"{side}_wrist"] = elbow + 250 * np.array([0, -np.cos(lift + 0.6), np.sin(lift + 0.6)])
            pose = size * np.array([at[name] for name in H36M17.keypoints])
            turn = rng.uniform(0, 2 * np.pi)
            c, s = np.cos(turn), np.sin(turn)
            out.append(pose @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) + [0, 950, 0])
            clip.append(number)
    names = tuple(f"{name}_walk" for name in subjects)
    return PoseClips(H36M17, np.array(out, np.float32), np.array(clip), names, subjects, 15.0)
