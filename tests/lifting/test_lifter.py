"""A lifter and its file: what it promises for its input and output, and what it says of bad ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17, FLIC11, H36M17, LSP14, PEOPLE19
from poseglass.estimators.load import load
from poseglass.estimators.weights_file import LIFTER_KEY, CheckpointError, read_safetensors, write_safetensors
from poseglass.lifting import Lifter, LifterCard, lift_people, load_lifter, save_lifter
from poseglass.lifting.lifter import build_critic, build_lifter_network, shipped_lifters, weak_perspective_residual
from poseglass.lifting.normalise import LEAST_KNOWN
from poseglass.lifting.people import check_mappable
from poseglass.lifting.recipe import NetworkPart
from poseglass.lifting.repnet import REPNET16


def toy(method: str = "masked", skeleton: Skeleton = H36M17, **numbers: object) -> Lifter:
    """A lifter with random weights."""
    part = NetworkPart(method=method, width=16, critic_width=10, **numbers)  # type: ignore[arg-type]
    torch.manual_seed(1)
    card = LifterCard("toy", part.model_dump(), skeleton, 330.0)
    critic = build_critic(part, skeleton) if method == "repnet" else None
    return Lifter(card, build_lifter_network(part, len(skeleton)), critic)


def points_of(n: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 400, (n, k, 2))


@pytest.mark.parametrize(("method", "skeleton"), [("masked", H36M17), ("martinez", H36M17), ("repnet", REPNET16)])
def test_place_and_size_in_the_image_do_not_matter(method: str, skeleton: Skeleton):
    lifter = toy(method, skeleton)
    points = points_of(3, len(skeleton))
    poses = lifter(points)
    assert poses.shape == (3, len(skeleton), 3)
    assert poses.dtype == np.float32
    moved = lifter(points * 0.07 + [1e5, -300.0])
    assert np.abs(poses - moved).max() < 1.0
    assert np.abs(poses - lifter(points * [0.5, 1.0])).max() > 1.0
    root = [skeleton.index(n) for n in (["pelvis"] if "pelvis" in skeleton.keypoints else ["left_hip", "right_hip"])]
    assert np.abs(poses[:, root].mean(1)).max() < 1e-3


def test_unknown_keypoints_are_not_seen():
    lifter = toy()
    points = points_of(2, 17)
    points[1, [0, 3, 9]] = np.nan
    both = lifter.lift(points)
    assert np.isfinite(both.xyz_mm).all()
    assert np.isfinite(both.residual).all()
    assert both.spread_mm is not None
    assert (both.spread_mm > 0).all()
    half = points.copy()
    half[1, 0] = [5.0, np.nan]  # one coordinate alone is unknown too
    assert np.array_equal(lifter(half), both.xyz_mm)
    assert np.allclose(lifter(points[1:]), both.xyz_mm[1:], atol=1e-3)


def test_nobody():
    lifted = toy().lift(np.zeros((0, 17, 2)))
    assert lifted.xyz_mm.shape == (0, 17, 3)
    assert lifted.residual.shape == (0,)


@pytest.mark.parametrize("shape", [(17, 2), (1, 16, 2), (1, 17, 3), (0,)])
def test_points_of_another_shape(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"shape \(N, 17, 2\).*'h36m17', got \(.*in_skeleton\(lifter.skeleton\)"):
        toy()(np.zeros(shape))


def test_too_few_keypoints():
    points = points_of(3, 17)
    points[1, 4:] = np.nan
    with pytest.raises(ValueError, match=r"at least 5 known keypoints of a person; 1 person has fewer: row 1 has 4\."):
        toy()(points)
    points[1, 4] = 0.0
    toy()(points)


def test_published_lifters_need_every_keypoint():
    points = points_of(2, 16)
    points[0, 3] = np.nan
    with pytest.raises(ValueError, match=r"16 known keypoints .*trained with all of them.*row 0 has 15"):
        toy("repnet", REPNET16)(points)
    assert toy("repnet", REPNET16, unknown=True)(points).shape == (2, 16, 3)


def test_infinite_points():
    points = points_of(1, 17)
    points[0, 2, 1] = np.inf
    with pytest.raises(ValueError, match=r"at most 10,000,000, or NaN where unknown, got inf in row 0"):
        toy()(points)
    points[0, 2, 1] = -1e30
    with pytest.raises(ValueError, match=r"or NaN where unknown, got -1e\+30 in row 0. Set unknown points to NaN"):
        toy()(points)


@pytest.mark.parametrize("points", ["left_hip", [[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]], [None, "x"]])
def test_points_that_are_no_numbers(points: object):
    with pytest.raises(ValueError, match=r"an array of numbers of shape \(N, 17, 2\), and cannot be made one"):
        toy()(points)  # type: ignore[arg-type]


def test_residual_of_a_projection_is_zero():
    rng = np.random.default_rng(3)
    pose = torch.from_numpy(rng.normal(size=(4, 17, 3)))
    known = torch.from_numpy(rng.random((4, 17)) > 0.3)
    seen = torch.where(known[..., None], 3.0 * pose[..., :2] + 7.0, 0.0)
    assert float(weak_perspective_residual(pose, seen, known).max()) < 1e-9
    off = seen.clone()
    off[:, :8, 0] += 6.0 * known[:, :8]
    assert float(weak_perspective_residual(pose, off, known).min()) > 0.1


def test_residual_of_a_pose_upside_down_is_large():
    pose = torch.from_numpy(np.random.default_rng(3).normal(size=(4, 17, 3)))
    known = torch.ones(4, 17, dtype=torch.bool)
    assert weak_perspective_residual(pose, -3.0 * pose[..., :2], known).tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("half", [False, True])
def test_a_file_gives_the_same_again(tmp_path, half: bool):
    for lifter in (toy(), toy("repnet", REPNET16), toy("martinez")):
        save_lifter(tmp_path / "a.safetensors", lifter, half=half)
        again = load_lifter(tmp_path / "a.safetensors")
        assert again.card == lifter.card
        points = points_of(4, len(lifter.skeleton))
        assert np.abs(again(points) - lifter(points)).max() < (5.0 if half else 1e-3)
        critic, before = again.lift(points).critic, lifter.lift(points).critic
        assert (critic is None) == (before is None)
        if critic is not None and before is not None and not half:
            assert np.allclose(critic, before)


def test_files_that_hold_no_lifter(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no lifter.*train-lifter.*poseglass\.load"):
        load_lifter("src/poseglass/weights/people.safetensors")
    with pytest.raises(FileNotFoundError, match=r"No lifter 'nothing'.*a name that ships"):
        load_lifter("nothing")
    with pytest.raises(
        FileNotFoundError, match=r"'people-pose' finds keypoints in images.*open it with poseglass.load"
    ):
        load_lifter("people-pose")
    np.savez(tmp_path / "poses.npz", a=np.zeros(3))
    with pytest.raises(CheckpointError, match=r"poses.npz holds arrays .* and no lifter. Train one on them"):
        load_lifter(tmp_path / "poses.npz")
    (tmp_path / "run").mkdir()
    with pytest.raises(FileNotFoundError, match=r"nor a folder with lifter\.safetensors"):
        load_lifter(tmp_path / "run")
    (tmp_path / "text.safetensors").write_text("not tensors, but words that are long enough")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_lifter(tmp_path / "text.safetensors")


def test_weights_of_another_skeleton(tmp_path):
    lifter = toy()
    other = LifterCard("toy", lifter.card.network, LSP14, 330.0)
    path = tmp_path / "a.safetensors"
    write_safetensors(path, lifter.network.state_dict(), {LIFTER_KEY: other.to_json()}, "toy")
    with pytest.raises(CheckpointError, match=r"14 keypoints of 'lsp14': .* should be .*, and is .*different lifters"):
        load_lifter(path)


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"method": "other"}},
        {"network": 3},
        {"limb_mm": -1.0},
        {"skeleton": {"name": "x"}},
        {"limb_mm": "a"},
        {"limb_mm": True},
        {"trained_on": "abc"},
        {"trained_on": [1]},
        {"results": [1]},
        {"results": {"mpjpe": "a"}},
        {"name": 5},
        {"notes": None},
    ],
)
def test_cards_that_cannot_be_read(tmp_path, change: dict):
    lifter = toy()
    text = json.dumps(json.loads(lifter.card.to_json()) | change)
    path = tmp_path / "a.safetensors"
    write_safetensors(path, lifter.network.state_dict(), {LIFTER_KEY: text}, "toy")
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        load_lifter(path)


@pytest.mark.parametrize("critic", [False, True])
def test_a_card_that_does_not_match_its_file_costs_no_memory(tmp_path, monkeypatch, critic: bool):
    lifter = toy("repnet", REPNET16) if critic else toy()
    network = lifter.card.network | ({"critic_width": 8192} if critic else {"width": 8192, "blocks": 32})
    path = tmp_path / "a.safetensors"
    card = LifterCard("toy", network, lifter.skeleton, 330.0)
    save_lifter(path, Lifter(card, lifter.network, lifter.critic))
    devices: list[str] = []
    linear = torch.nn.Linear.__init__

    def noted(self, *args, **kwargs):
        linear(self, *args, **kwargs)
        devices.append(self.weight.device.type)

    monkeypatch.setattr(torch.nn.Linear, "__init__", noted)
    with pytest.raises(CheckpointError, match="different lifters"):
        load_lifter(path)
    assert set(devices) == {"meta"}


def test_a_critic_of_a_skeleton_without_bones(tmp_path):
    lifter = toy("repnet", REPNET16)
    card = LifterCard("toy", lifter.card.network, Skeleton("bare", REPNET16.keypoints), 330.0)
    save_lifter(tmp_path / "a.safetensors", Lifter(card, lifter.network, lifter.critic))
    with pytest.raises(CheckpointError, match=r"cannot be built \(A kinematic chain needs bones"):
        load_lifter(tmp_path / "a.safetensors")


def test_points_that_coincide_have_no_residual():
    points = points_of(2, 17)
    points[1] = [31.7, 1e4 + 0.1]
    lifted = toy().lift(points)
    assert np.isfinite(lifted.residual).tolist() == [True, False]
    assert np.isnan(lifted.residual[1])


def test_a_lifter_is_no_weights_of_a_pose_network(tmp_path):
    save_lifter(tmp_path / "a.safetensors", toy())
    with pytest.raises(CheckpointError, match=r"holds a lifter, which turns keypoints into 3D poses.*--lifter"):
        load(tmp_path / "a.safetensors")


def test_people_are_mapped_by_name():
    lifter = toy()
    xy = points_of(3, 19)
    people = Instances.from_keypoints(PEOPLE19, xy)
    found = lift_people(lifter, people)
    points = np.full((3, 17, 2), np.nan)
    for k, name in enumerate(H36M17.keypoints):
        if name in PEOPLE19.keypoints:
            points[:, k] = people.xy[:, PEOPLE19.index(name)]
    assert np.isnan(points[:, [H36M17.index(n) for n in ("pelvis", "spine", "thorax")]]).all()
    assert np.allclose(found.lifted.xyz_mm, lifter(points), atol=1e-3)
    assert found.row.tolist() == [0, 1, 2]


def test_people_with_few_keypoints_are_counted_and_left_out():
    xy = points_of(3, 17)
    score = np.ones((3, 17), np.float32)
    score[1] = 0.2
    people = Instances.from_keypoints(COCO17, xy, score=score)
    found = lift_people(toy(), people, min_score=0.3)
    assert found.row.tolist() == [0, 2]
    assert found.few == 1
    assert len(found) == len(found.lifted) == 2
    assert not found.guessed.any()
    assert len(lift_people(toy(), Instances.empty(COCO17))) == 0
    with pytest.raises(ValueError, match=r"min_score must be from 0 to 1, got 30"):
        lift_people(toy(), people, min_score=30)


def test_keypoints_that_are_guessed_are_told():
    """Those that the people's skeleton has; that it has no spine is no fault of the image."""
    score = np.ones((2, 17), np.float32)
    score[1, COCO17.index("left_wrist")] = 0.2
    found = lift_people(toy(), Instances.from_keypoints(COCO17, points_of(2, 17), score=score), min_score=0.3)
    assert [H36M17.keypoints[k] for k in np.flatnonzero(found.guessed[1])] == ["left_wrist"]
    assert not found.guessed[0].any()


def test_skeletons_that_cannot_be_mapped():
    hand = Skeleton("hand", ("wrist", "thumb"))
    with pytest.raises(ValueError, match=r"at least 5 of the keypoints pelvis, .* and 'hand' predicts none of them"):
        lift_people(toy(), Instances.empty(hand))
    with pytest.raises(ValueError, match=r"and 'few' predicts only left_hip, neck of them"):
        check_mappable(toy(), Skeleton("few", ("neck", "left_hip", "nose")), "few")
    check_mappable(toy(), FLIC11, "flic")
    with pytest.raises(
        ValueError,
        match=r"its 16 keypoints known, and 'coco' does not predict spine, thorax, neck, head_top.",
    ):
        check_mappable(toy("repnet", REPNET16), COCO17, "coco")


needs_shipped = pytest.mark.skipif(not shipped_lifters(), reason="no lifter ships")


@needs_shipped
def test_the_shipped_lifter():
    """A pose whose depth is clear: someone who faces the camera, and the same from behind."""
    path = shipped_lifters()["lift-people"]
    assert path.stat().st_size <= 5_000_000
    lifter = load_lifter()
    assert lifter.skeleton.keypoints == H36M17.keypoints
    assert lifter.least_known == LEAST_KNOWN
    assert lifter.card.trained_on
    assert lifter.card.license
    assert lifter.card.results
    front = {
        "left_hip": (110, 200), "right_hip": (90, 200), "left_knee": (112, 285), "right_knee": (88, 285),
        "left_ankle": (112, 370), "right_ankle": (88, 370), "neck": (100, 85), "head_top": (100, 40),
        "left_shoulder": (120, 95), "right_shoulder": (80, 95), "left_elbow": (128, 150), "right_elbow": (72, 150),
        "left_wrist": (130, 195), "right_wrist": (70, 195),
    }  # fmt: skip
    points = np.full((1, 17, 2), np.nan)
    for name, at in front.items():
        points[0, H36M17.index(name)] = at
    lifted = lifter.lift(points)
    pose = lifted.xyz_mm[0]
    assert pose[H36M17.index("head_top"), 1] < pose[H36M17.index("pelvis"), 1] < pose[H36M17.index("left_ankle"), 1]
    assert pose[H36M17.index("left_shoulder"), 0] > pose[H36M17.index("right_shoulder"), 0]
    height = pose[H36M17.index("left_ankle"), 1] - pose[H36M17.index("head_top"), 1]
    assert 1200 < height < 1800
    assert lifted.residual[0] < 0.1


@needs_shipped
def test_the_shipped_file_is_in_half_precision():
    state, metadata = read_safetensors(shipped_lifters()["lift-people"])
    assert LIFTER_KEY in metadata
    assert sum(t.numel() for t in state.values()) * 2 < shipped_lifters()["lift-people"].stat().st_size < 5_000_000


def test_a_lifter_that_chooses_between_mirror_images(tmp_path):
    """It gives the pose that its critic takes for a real one, and is nothing without the critic."""
    torch.manual_seed(0)
    part = NetworkPart(method="repnet", width=16, critic_width=10, camera="rotation", mirror=True)
    network = build_lifter_network(part, len(REPNET16))
    network.template.copy_(torch.randn(3, 16))
    network.template.sub_(network.template.mean(1, keepdim=True))
    card = LifterCard("mirror", part.model_dump(), REPNET16, 330.0)
    lifter = Lifter(card, network, build_critic(part, REPNET16))
    save_lifter(tmp_path / "a.safetensors", lifter)
    again, points = load_lifter(tmp_path / "a.safetensors"), points_of(40, 16)
    lifted = again.lift(points)
    assert np.abs(lifted.xyz_mm - lifter(points)).max() < 1e-3
    plain = NetworkPart(method="repnet", width=16, critic_width=10, camera="rotation")
    alone = build_lifter_network(plain, len(REPNET16))
    alone.load_state_dict({key: value for key, value in network.state_dict().items() if key != "template"})
    first = Lifter(replace(card, network=plain.model_dump()), alone, lifter.critic).lift(points)
    same = np.abs(lifted.xyz_mm - first.xyz_mm).max((1, 2)) < 1e-2
    assert 0 < same.sum() < 40
    assert (lifted.critic[~same] < first.critic[~same]).all()
    assert np.allclose(lifted.xyz_mm[~same] * [1, 1, -1], first.xyz_mm[~same], atol=0.1)
    assert np.allclose(lifted.residual, first.residual, atol=1e-4)
    with pytest.raises(ValueError, match=r"by the critic it was trained with, got none. Give it as critic"):
        Lifter(card, network)
    own = {key: tensor for key, tensor in network.state_dict().items()}
    write_safetensors(tmp_path / "b.safetensors", own, {LIFTER_KEY: card.to_json()}, "mirror")
    with pytest.raises(CheckpointError, match="the critic that chooses between poses and mirror images is missing"):
        load_lifter(tmp_path / "b.safetensors")
