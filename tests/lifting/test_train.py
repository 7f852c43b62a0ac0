"""Training a lifter: it learns, resumes bit for bit, keeps subjects apart, and says what is wrong with a recipe."""

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.lifting.toy_motion import toy_clips

from poseglass.core.instances import Instances
from poseglass.core.lifting_pairs import view_poses
from poseglass.core.skeletons import COCO17, H36M17, LSP14, MPI3DHP17
from poseglass.estimators.weights_file import read_safetensors
from poseglass.lifting import load_lifter
from poseglass.lifting.bodies import aligned, seen_by_cameras
from poseglass.lifting.labelled import labelled_points
from poseglass.lifting.normalise import LEAST_KNOWN
from poseglass.lifting.recipe import (
    READ_BY,
    BodiesPart,
    LiftRecipe,
    NetworkPart,
    PointsPart,
    SplitPart,
    TrainPart,
    ViewsPart,
    read_lift_recipe,
    recipe_text,
    shipped_recipes,
)
from poseglass.lifting.repnet import REPNET16
from poseglass.lifting.train import (
    PairsTrainer,
    RepNetTrainer,
    bodies_of,
    draw_points,
    errors_of,
    halves,
    held_out_pairs,
    rate_at,
    train_lifter,
    training_part,
    weight_at,
)
from poseglass.metrics.mpjpe import Pose3dErrors

SMALL = {
    "masked": {"network": {"method": "masked", "width": 48, "blocks": 1}, "train": {"steps": 6, "batch": 8}},
    "martinez": {"network": {"method": "martinez", "width": 16, "blocks": 1}, "train": {"steps": 6, "batch": 8}},
    "repnet": {
        "network": {"method": "repnet", "width": 16, "critic_width": 10}, "train": {"steps": 6, "batch": 8}
    },
    "repnet-ours": {
        "network": {
            "method": "repnet", "width": 16, "critic_width": 10, "camera": "rotation", "start_from_mean": True,
            "unknown": True, "chain": False, "unit_m": 0.1, "mirror": True,
        },
        "train": {"steps": 6, "batch": 8},
    },
}  # fmt: skip


def recipe_of(method: str, **changes: object) -> LiftRecipe:
    tables = {"name": method, "split": {"test": ["dan"], "validation": ["cho"]}} | SMALL[method] | changes
    return LiftRecipe(**tables)  # type: ignore[arg-type]


def quiet(_line: str) -> None:
    return


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return read_safetensors(path)[0]


@pytest.mark.parametrize("method", list(SMALL))
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, method: str):
    clips = toy_clips(10)
    points = {"points": {"noise": 0.02, "habit": 0.02, "unknown": True}}
    recipe = recipe_of(method, **(points if method == "masked" else {}))
    whole = train_lifter(recipe, clips, tmp_path / "whole", seed=3, say=quiet)
    assert train_lifter(recipe, clips, tmp_path / "parts", seed=3, say=quiet, stop_after=4) is None
    parts = train_lifter(recipe, clips, tmp_path / "parts", seed=3, say=quiet, resume=True)
    other = train_lifter(recipe, clips, tmp_path / "other", seed=4, say=quiet)
    assert whole is not None
    assert parts is not None
    assert other is not None
    first, second, third = tensors(whole), tensors(parts), tensors(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], third[key]) for key in first)


def test_what_a_run_leaves(tmp_path):
    lines: list[str] = []
    recipe = recipe_of("repnet", train={"steps": 4, "batch": 8, "save_every": 2})
    file = train_lifter(recipe, toy_clips(8), tmp_path / "run", say=lines.append, recipe_text="name = 'x'")
    lifter = load_lifter(tmp_path / "run")
    assert file == tmp_path / "run" / "lifter.safetensors"
    assert lifter.skeleton == REPNET16
    assert lifter.critic is not None
    assert lifter.card.trained_on == ("ann", "bob")
    assert lifter.card.recipe == "name = 'x'"
    rows = list(csv.DictReader((tmp_path / "run" / "curve.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert {"pa_mpjpe", "symmetry_error", "penalty", "reprojection", "camera"} <= rows[0].keys()
    assert lines[0].startswith("repnet: 16 poses of 2 subjects, 16 views for validation, 4 steps")


def test_a_run_is_not_overwritten_or_mixed(tmp_path):
    clips, recipe = toy_clips(6), recipe_of("masked")
    train_lifter(recipe, clips, tmp_path, say=quiet)
    with pytest.raises(ValueError, match=r"holds a run already\. Continue it with --resume"):
        train_lifter(recipe, clips, tmp_path, say=quiet)
    with pytest.raises(ValueError, match="a run with another seed, which cannot be continued"):
        train_lifter(recipe, clips, tmp_path, say=quiet, seed=9, resume=True)
    with pytest.raises(ValueError, match="a run with another number of poses, which cannot"):
        train_lifter(recipe, toy_clips(5), tmp_path, say=quiet, resume=True)


def test_subjects_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="No poses of subject 'eve'"):
        train_lifter(recipe_of("masked", split={"test": ["eve"]}), toy_clips(4), tmp_path, say=quiet)


def test_labels_are_for_repnet(tmp_path):
    with pytest.raises(ValueError, match="of use to RepNet alone; 'masked' learns from pairs"):
        train_lifter(recipe_of("masked"), toy_clips(4), tmp_path, say=quiet, labelled=np.zeros((3, 16, 2)))
    points = np.random.default_rng(0).uniform(0, 99, (5, 16, 2))
    with_labels = train_lifter(recipe_of("repnet"), toy_clips(4), tmp_path / "a", say=quiet, labelled=points)
    without = train_lifter(recipe_of("repnet"), toy_clips(4), tmp_path / "b", say=quiet)
    assert with_labels is not None
    assert without is not None
    assert any(
        not torch.equal(a, b) for a, b in zip(tensors(with_labels).values(), tensors(without).values(), strict=True)
    )


def test_divergence_is_an_error(tmp_path):
    recipe = recipe_of("masked", train={"steps": 40, "batch": 8, "learning_rate": 1e30, "save_every": 40})
    with pytest.raises(ValueError, match=r"diverged before step 40.*Lower train\.learning_rate and start in another"):
        train_lifter(recipe, toy_clips(4), tmp_path, say=quiet)


def test_an_interrupted_run_keeps_a_checkpoint_that_can_be_continued(tmp_path, monkeypatch):
    """Ctrl-C after the weights became NaN does not replace the last good ones."""
    recipe = recipe_of("masked", train={"steps": 6, "batch": 8, "save_every": 2})
    step = PairsTrainer.step

    def broken(self, generator, done=0.0):
        losses = step(self, generator, done)
        if done >= 0.5:  # the fourth: the losses are those of before the step, and finite
            with torch.no_grad():
                next(self.net.parameters()).fill_(torch.nan)
        return losses

    monkeypatch.setattr(PairsTrainer, "step", broken)
    assert train_lifter(recipe, toy_clips(4), tmp_path, say=quiet, stop_after=3) is None
    good = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(ValueError, match=r"step 4: .*not finite\. .*last\.pt is of an earlier step\. Lower"):
        train_lifter(recipe, toy_clips(4), tmp_path, say=quiet, resume=True)
    recipe = recipe_of("masked", train={"steps": 6, "batch": 8, "save_every": 5})
    assert train_lifter(recipe, toy_clips(4), tmp_path / "b", say=quiet, stop_after=3) is None
    with pytest.raises(ValueError, match="diverged before step 4"):
        train_lifter(recipe, toy_clips(4), tmp_path / "b", say=quiet, resume=True, stop_after=4)
    assert (tmp_path / "last.pt").read_bytes() == good


def test_keypoints_that_are_missing_are_not_replaced_by_the_last(tmp_path):
    """MPI-INF-3DHP's skeleton has no thorax and no head top of these names."""
    other = replace(toy_clips(4), skeleton=MPI3DHP17)
    pairs = view_poses(other.xyz_mm, MPI3DHP17)
    lacks = r"'mpi3dhp17' lacks .*thorax.*, which {} needs\. Convert .* as_h36m17, .* to_h36m17"
    for skeleton in (H36M17, REPNET16):
        with pytest.raises(ValueError, match=lacks.format("the lifter")):
            errors_of(SimpleNamespace(skeleton=skeleton), pairs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=lacks.format("RepNet")):
        train_lifter(recipe_of("repnet"), other, tmp_path, say=quiet)
    people = Instances.from_keypoints(LSP14, np.random.default_rng(0).uniform(0, 100, (3, 14, 2)))
    with pytest.raises(ValueError, match=lacks.format("RepNet")):
        labelled_points(people, other.xyz_mm, MPI3DHP17)


def test_training_part():
    clips = toy_clips(3)
    assert training_part(clips, SplitPart()) is clips
    part = training_part(clips, SplitPart(test=("dan",), validation=("ann",)))
    assert sorted(set(part.subject_of_pose.tolist())) == ["bob", "cho"]


@pytest.mark.parametrize(
    ("points", "match"),
    [
        (np.zeros((0, 16, 2)), "Nobody in the labels has all keypoints that RepNet needs: arms, legs, neck"),
        (np.zeros((3, 17, 2)), r"shape \(M, 16, 2\).*'repnet16', got \(3, 17, 2\)"),
        (np.zeros((16, 2)), r"got \(16, 2\)"),
        (np.full((3, 16, 2), np.nan), "NaN or infinity in 3 of 3 people"),
    ],
)
def test_labelled_points_that_cannot_be_used(tmp_path, points: np.ndarray, match: str):
    with pytest.raises(ValueError, match=match):
        train_lifter(recipe_of("repnet"), toy_clips(4), tmp_path, say=quiet, labelled=points)


def test_labels_of_coco_have_no_neck():
    people = Instances.from_keypoints(COCO17, np.zeros((1, 17, 2)))
    with pytest.raises(ValueError, match=r"have no head_top, neck, which RepNet needs.*those of COCO itself"):
        labelled_points(people, toy_clips(2).xyz_mm, H36M17)


@pytest.mark.parametrize(
    ("method", "table", "key", "value"),
    [
        ("martinez", "network", "unknown", True),
        ("martinez", "network", "camera", "rotation"),
        ("martinez", "points", "noise", 0.1),
        ("martinez", "train", "apart", True),
        ("masked", "train", "reprojection", 5.0),
        ("repnet", "bodies", "flip", True),
        ("repnet", "points", "unknown", True),
        ("repnet", "network", "blocks", 2),
    ],
)
def test_keys_that_a_method_never_reads(method: str, table: str, key: str, value: object):
    tables: dict[str, dict[str, object]] = {"network": {"method": method}, "train": {"steps": 3}}
    LiftRecipe(name="a", **tables)  # type: ignore[arg-type]
    tables[table] = tables.get(table, {}) | {key: value}
    with pytest.raises(ValueError, match=rf"{table}\.{key} is of .*, and network\.method is '{method}'; omit it"):
        LiftRecipe(name="a", **tables)  # type: ignore[arg-type]


def test_misspelt_keys_are_named(tmp_path):
    text = "name = 'a'\n[network]\nmethod = 'repnet'\nmirrors = true\n[train]\nsteps = 3\n"
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ValueError, match=r"a.toml: unknown key 'network.mirrors'. Did you mean 'mirror'\? Known here:"):
        read_lift_recipe(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text(text.replace("mirrors = true", "mirror = true"))
    with pytest.raises(ValueError, match=r"mirror = true needs camera = 'rotation', got 'free'"):
        read_lift_recipe(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("trains = 3\n" + text.replace("mirrors = true", ""))
    with pytest.raises(ValueError, match=r"unknown key 'trains'. Did you mean 'train'\?"):
        read_lift_recipe(tmp_path / "a.toml")


def test_every_key_of_a_method_is_one_of_a_recipe():
    parts = {"network": NetworkPart, "train": TrainPart, "bodies": BodiesPart, "points": PointsPart}
    for key in READ_BY:
        table, _, field = key.partition(".")
        assert field in parts[table].model_fields


def test_default_widths_are_the_published_ones():
    widths = {method: NetworkPart(method=method).width for method in ("repnet", "martinez", "masked")}
    assert widths == {"repnet": 1000, "martinez": 1024, "masked": 512}


def test_a_level_camera_can_be_stated():
    views = ViewsPart(elevation_degrees=(0, 0), distance_m=(4, 4), roll_degrees=0).views()
    world = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]).expand(5, 2, 3)
    points, camera = seen_by_cameras(world, views, torch.Generator().manual_seed(0))
    assert torch.allclose(camera[:, 1], torch.tensor([0.0, -1.0, 0.0]), atol=1e-6)
    assert torch.allclose(points[:, 1], torch.tensor([0.0, -0.25]), atol=1e-6)


def test_bodies_have_one_size_and_unknown_poses_are_counted():
    clips = toy_clips(10)
    clips.xyz_mm[3, 2] = np.nan
    bodies, dropped = bodies_of(clips)
    assert dropped == 1
    assert len(bodies.world) == 39
    ends = [H36M17.index(n) for n in ("left_hip", "left_knee")]
    thighs = (bodies.world[:, ends[0]] - bodies.world[:, ends[1]]).norm(dim=1)
    assert float(thighs.std()) < 1e-3
    assert bodies.world[:, 0].abs().max() == 0
    assert bodies.subjects == ("ann", "bob", "cho", "dan")
    clips.xyz_mm[:] = np.nan
    with pytest.raises(
        ValueError,
        match=r"No poses to train on: .*pelvis in 40 poses of ann_walk, .*; 13 other keypoints\).*to_h36m17\(",
    ):
        bodies_of(clips)


def test_keypoints_that_cost_poses_are_named(tmp_path):
    clips = toy_clips(10)
    clips.xyz_mm[:10, H36M17.index("left_elbow")] = np.nan
    clips.xyz_mm[[0, 12], H36M17.index("spine")] = np.nan
    lines: list[str] = []
    train_lifter(recipe_of("masked"), clips, tmp_path, say=lines.append, stop_after=1)
    assert lines[0] == (
        "11 poses with unknown keypoints left out: left_elbow in 10 poses of ann_walk; spine in 2 poses of ann_walk, "
        "bob_walk."
    )


def test_drawn_points():
    points = torch.randn(400, 17, 2, generator=torch.Generator().manual_seed(1))
    plain, known = draw_points(points, H36M17, recipe_of("masked"), torch.Generator().manual_seed(2))
    assert torch.equal(plain, points)
    assert known.all()
    recipe = recipe_of("masked", points={"noise": 0.05, "unknown": True})
    drawn, known = draw_points(points, H36M17, recipe, torch.Generator().manual_seed(2))
    error = (drawn - points).std()
    assert 0.02 < float(error) < 0.1
    assert int(known.sum(1).min()) >= LEAST_KNOWN
    shares = known.float().mean(0)
    assert float(shares[H36M17.index("spine")]) < 0.5 < float(shares[H36M17.index("left_wrist")])
    assert (known.sum(1) == 17).any()


def test_repnet_is_trained_with_as_many_known_keypoints_as_are_lifted():
    """The pelvis, which RepNet does not have, does not count among them."""
    changed = recipe_of("repnet-ours", train={"steps": 1, "batch": 20000})
    trainer = RepNetTrainer(changed, bodies_of(toy_clips(4))[0])
    inputs, _, _ = trainer._batch(torch.Generator().manual_seed(0))
    known = inputs[:, 2 * len(REPNET16) :].sum(1)
    assert (int(known.min()), int(known.max())) == (LEAST_KNOWN, len(REPNET16))


def test_points_and_poses_of_repnet_can_be_of_different_people(tmp_path):
    """Retargeted subjects are one body, and stay together."""
    clips = toy_clips(6, ("ann", "bob", "cho", "ic_1", "ic_2"))
    bodies, _ = bodies_of(clips)
    assert halves(bodies) == (("cho", "ic_1", "ic_2"), ("ann", "bob"))
    apart = recipe_of("repnet", train={"steps": 1, "batch": 8, "apart": True}, split={})
    whole = RepNetTrainer(recipe_of("repnet"), bodies)
    trainer = RepNetTrainer(apart, bodies)
    of_2d, of_3d = (bodies.rows_of(names) for names in halves(bodies))
    assert torch.equal(trainer.seen, bodies.world[of_2d])
    assert (len(of_2d), len(of_3d), len(trainer.real)) == (18, 12, 12)
    assert sorted([*of_2d.tolist(), *of_3d.tolist()]) == list(range(30))
    assert (len(whole.seen), len(whole.real)) == (30, 30)
    lines: list[str] = []
    train_lifter(apart, clips, tmp_path / "a", say=lines.append)
    assert "2D of cho, ic_1, ic_2; 3D of ann, bob" in lines
    one = recipe_of("repnet", train={"steps": 1, "batch": 8, "apart": True}, split={"test": ["ann", "bob", "cho"]})
    with pytest.raises(
        ValueError, match=r"train\.apart = true needs poses of at least two people, .* got 1 \(ic_1, ic"
    ):
        train_lifter(one, clips, tmp_path / "b", say=quiet)


def test_rates():
    recipe = recipe_of("repnet", train={"steps": 100, "learning_rate": 1.0})
    assert [rate_at(recipe, step) for step in (0, 24, 25, 50, 99)] == pytest.approx([1, 1, 0.1, 0.01, 0.001])
    recipe = recipe_of("repnet", train={"steps": 100, "learning_rate": 1.0, "schedule": "cosine"})
    assert [rate_at(recipe, step) for step in (0, 50)] == pytest.approx([1, 0.5])


def test_weights_of_the_reprojection():
    recipe = recipe_of("repnet", train={"steps": 100, "reprojection": 4.0, "reprojection_end": 64.0})
    assert [weight_at(recipe, done) for done in (0.0, 0.5, 1.0)] == pytest.approx([4, 16, 64])
    assert weight_at(recipe_of("repnet"), 0.7) == 1.0


def test_errors_of_a_perfect_lifter_are_zero():
    """Errors are taken over a lifter's own keypoints, relative to the pelvis or the middle of the hips."""
    clips = toy_clips(6)
    pairs = view_poses(clips.xyz_mm, clips.skeleton)

    class Perfect:
        def __init__(self, skeleton):
            self.skeleton = skeleton

        def __call__(self, points):
            found = pairs.xyz_mm[:, H36M17.indices_of(self.skeleton.keypoints)]
            return found * np.float32(0.8) + np.float32(100.0)

    for skeleton in (H36M17, REPNET16):
        found = errors_of(Perfect(skeleton), pairs)  # type: ignore[arg-type]
        assert isinstance(found, Pose3dErrors)
        assert found.compute()["pa_mpjpe"] < 0.01
        assert found.compute()["n_mpjpe"] < 0.01
        assert found.compute()["mpjpe"] > 20


def test_held_out_pairs():
    pairs = held_out_pairs(toy_clips(8), ["dan"], every=4)
    assert pairs is not None
    assert len(pairs) == 16
    assert held_out_pairs(toy_clips(8), []) is None


@pytest.mark.slow
def test_pairs_beat_the_mean_pose(tmp_path):
    clips = toy_clips(150)
    recipe = recipe_of(
        "masked", train={"steps": 400, "batch": 64, "learning_rate": 2e-3, "schedule": "cosine", "save_every": 400}
    )
    file = train_lifter(recipe, clips, tmp_path, say=quiet)
    assert file is not None
    pairs = held_out_pairs(clips, ["dan"])
    assert pairs is not None
    found = errors_of(load_lifter(file), pairs).compute()["pa_mpjpe"]
    bodies, _ = bodies_of(clips)
    mean = Pose3dErrors(H36M17)
    mean.update(
        np.repeat(1000 * aligned(bodies.world.numpy() * [1.0, -1, -1]).mean(0)[None], len(pairs), 0), pairs.xyz_mm
    )
    assert found < 0.75 * mean.compute()["pa_mpjpe"]


@pytest.mark.parametrize("name", list(shipped_recipes()))
def test_recipes_that_ship(name: str):
    recipe = read_lift_recipe(name)
    assert recipe_text(name)
    assert recipe.split.test
    assert recipe.name.replace("-", "_") == name
    if name == "repnet":
        assert (recipe.network.width, recipe.network.critic_width, recipe.network.camera) == (1000, 1000, "free")
        assert (recipe.train.batch, recipe.train.learning_rate, recipe.train.reprojection) == (32, 1e-4, 1.0)
    if name == "martinez":
        assert (recipe.network.width, recipe.network.blocks, recipe.train.batch) == (1024, 2, 64)


def test_recipes_of_other_names_or_keys(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No recipe 'repne' of a lifter. Did you mean 'repnet'\?"):
        read_lift_recipe("repne")
    path = tmp_path / "a.toml"
    text = 'name = "a"\n[network]\nmethod = "masked"\n[train]\nsteps = 3\n'
    for wrong, match in (
        ("[train]\nstep = 3", "train.steps|train.step"),
        ("[views]\nelevation_degrees = [3, 1]\n", "views.elevation_degrees: .*low end and one that is not lower"),
        ("[views]\ndistance_m = [-1, 1]\n", "views.distance_m: .*above 0"),
        ('[split]\ntest = ["a"]\nvalidation = ["a"]\n', "split.validation: .*in test and in validation"),
        ("[points]\nnoise = 3\n", "points.noise"),
        ("[points]\nnoise = 0.1\n[bodies]\nflip = true\n[network2]\n", "network2"),
        ("name", "is not TOML"),
    ):
        path.write_text(text.replace("[train]\nsteps = 3\n", "") + wrong if "[train]" in wrong else text + wrong)
        with pytest.raises(ValueError, match=match):
            read_lift_recipe(path)
    path.write_text(text.replace("masked", "martinez") + "reprojection = 5\n")
    with pytest.raises(ValueError, match=r"a\.toml: train\.reprojection is of repnet, .* omit it\. Fix that line"):
        read_lift_recipe(path)
    path.write_text(text)
    assert read_lift_recipe(path).train.steps == 3
