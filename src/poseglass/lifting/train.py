"""Train a lifter on motion capture: RepNet without pairs, in its own short loop, or others with pairs.

Cameras that the recipe chooses look at poses of motion capture, which gives the 2D. RepNet's 3D poses are drawn from
the same subjects, independently: no pair is shown to it, but 3D poses of the people whom it sees in 2D are. With
``train.apart`` the 2D is of one half of the training subjects, and the 3D of the other. Photographs with labels have no
3D at all.

A run writes ``last.pt`` (all that is needed to resume), ``curve.csv`` and, at the end, ``lifter.safetensors``. The
same recipe, files and seed give the same weights on the same machine, also if the run was interrupted and resumed.
"""

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from poseglass.core.files import write_bytes
from poseglass.core.lifting_pairs import LiftingPairs, view_poses
from poseglass.core.motion import RETARGETED, PoseClips
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import counted, listed
from poseglass.lifting.bodies import (
    CONVERT,
    aligned,
    flipped,
    limb_length,
    other_legs,
    other_limbs,
    root_of,
    seen_by_cameras,
    upright_to_camera,
)
from poseglass.lifting.lifter import Lifter, build_critic, build_lifter_network, new_card, save_lifter
from poseglass.lifting.normalise import LEAST_KNOWN, by_axis, normalise
from poseglass.lifting.recipe import LiftRecipe, SplitPart
from poseglass.lifting.repnet import (
    JOINT_WEIGHTS,
    REPNET16,
    RepNet,
    camera_loss,
    gradient_penalty,
    nearer_to_real,
    reproject,
    reprojection_loss,
)
from poseglass.lifting.residual_mlp import MaskedLifter
from poseglass.metrics.mpjpe import Pose3dErrors
from poseglass.training.checkpoint import load_checkpoint, save_checkpoint
from poseglass.training.signals import asked_to_stop

Say = Callable[[str], None]

MIRROR_FROM = 0.2
"""Share of the steps after which RepNet's critic chooses between poses and mirror images: before, it knows neither."""

_ANOTHER = {
    "recipe": "another recipe", "seed": "another seed", "poses": "another number of poses",
    "labelled": "another number of labelled people",
}  # fmt: skip
"""How a run in the folder may differ from the one that is asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Bodies:
    """Poses to train on, all of one size.

    Args:
        skeleton: Of the poses.
        world: ``(N, K, 3)`` float32 metres, y up, relative to the pelvis.
        limb_mm: Mean length of arms and legs that every pose was scaled to, the mean over people.
        subjects: Whose poses they are.
        subject: ``(N,)`` int64, whose each is: a number among the subjects.
    """

    skeleton: Skeleton
    world: Tensor
    limb_mm: float
    subjects: tuple[str, ...]
    subject: Tensor

    def rows_of(self, subjects: Sequence[str]) -> Tensor:
        """Return the rows of some subjects."""
        wanted = torch.tensor([name in subjects for name in self.subjects])
        return torch.nonzero(wanted[self.subject])[:, 0]


def bodies_of(clips: PoseClips) -> tuple[Bodies, int]:
    """Return poses of motion capture as training uses them, and how many were left out with unknown keypoints.

    Raises:
        ValueError: No pose is left.
    """
    whole = np.isfinite(clips.xyz_mm).all((1, 2))
    xyz_mm, subject = clips.xyz_mm[whole].astype(np.float64), clips.subject_of_pose[whole]
    if not len(xyz_mm):
        raise ValueError(
            f"No poses to train on: each has a keypoint that is unknown ({unknown_keypoints(clips)}). Give others, or "
            "read the recordings with the joints of these keypoints: to_h36m17(motion, names)."
        )
    limb_mm = limb_length(xyz_mm, clips.skeleton)
    names = tuple(sorted(set(subject.tolist())))
    mean_mm = float(np.mean([limb_mm[subject == name].mean() for name in names]))
    world = (xyz_mm - xyz_mm[:, [clips.skeleton.index("pelvis")]]) * (mean_mm / limb_mm)[:, None, None] / 1000
    number = torch.from_numpy(np.searchsorted(names, subject))
    bodies = Bodies(clips.skeleton, torch.from_numpy(world.astype(np.float32)), mean_mm, names, number)
    return bodies, int((~whole).sum())


def halves(bodies: Bodies) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the subjects in two groups with about as many poses: those seen in 2D, and those of the 3D poses.

    Retargeted subjects have one body, so they stay together.

    Raises:
        ValueError: There is one body only.
    """
    bodily: dict[str, list[str]] = {}
    for name in bodies.subjects:
        bodily.setdefault(RETARGETED if name.startswith(RETARGETED) else name, []).append(name)
    if len(bodily) < 2:
        raise ValueError(
            f"train.apart = true needs poses of at least two people, one for 2D and one for 3D, got {len(bodily)} "
            f"({listed(bodies.subjects)}; those that begin with {RETARGETED!r} are one). Give more, or omit it."
        )
    poses = {name: len(bodies.rows_of(group)) for name, group in bodily.items()}
    groups: tuple[list[str], list[str]] = ([], [])
    for name in sorted(bodily, key=lambda name: -poses[name]):  # the largest first, each to the smaller group
        sizes = [len(bodies.rows_of(group)) for group in groups]
        groups[int(sizes[1] < sizes[0])].extend(bodily[name])
    return tuple(sorted(groups[0])), tuple(sorted(groups[1]))


def unknown_keypoints(clips: PoseClips) -> str:
    """Return which keypoints are unknown, in how many poses of which recordings.

    Such as "left_elbow in 40 poses of walk, run".
    """
    unknown = ~np.isfinite(clips.xyz_mm.sum(2))
    said = []
    for k in np.argsort(-unknown.sum(0), kind="stable"):
        if unknown[:, k].any():
            names = [clips.clip_names[clip] for clip in np.unique(clips.clip[unknown[:, k]])]
            said.append(
                f"{clips.skeleton.keypoints[k]} in {counted(int(unknown[:, k].sum()), 'pose')} of {listed(names)}"
            )
    more = f"; {counted(len(said) - 4, 'other keypoint')}" if len(said) > 4 else ""
    return "; ".join(said[:4]) + more


def draw_points(
    points: Tensor, skeleton: Skeleton, recipe: LiftRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return points as a pose network would give them, and which of them are known: ``(B, K, 2)``, ``(B, K)``."""
    part, count, k = recipe.points, *points.shape[:2]
    known = torch.ones(count, k, dtype=torch.bool)
    _, _, scale = normalise(points, known)
    if part.habit > 0:
        # a labeller's head top is above where the head of a marker model ends
        top, neck = skeleton.index("head_top"), skeleton.index("neck")
        stretch = torch.where(
            torch.rand(count, 1, generator=generator) < 0.5, 0.7 * torch.rand(count, 1, generator=generator) - 0.1, 0.0
        )
        points = points.clone()
        points[:, top] += stretch * (points[:, top] - points[:, neck])
    error = torch.zeros_like(points)
    for share in (part.noise, part.habit):
        if share > 0:
            # some people are found well and some badly
            width = share * 2 * torch.rand(count, 1, 1, generator=generator)
            error = error + width * torch.randn(points.shape, generator=generator)
    points = points + error * scale[:, None, None]
    if part.unknown:
        known = _known(count, skeleton, generator)
    return points, known


def _known(count: int, skeleton: Skeleton, generator: torch.Generator) -> Tensor:
    """Return which keypoints are known: as a pose network's skeleton has them, and as they are seen in an image."""
    known = torch.ones(count, len(skeleton), dtype=torch.bool)

    def without(names: tuple[str, ...], share: float) -> None:
        rows = torch.rand(count, generator=generator) < share
        columns = [skeleton.index(name) for name in names if name in skeleton.keypoints]
        known[:, columns] &= ~rows[:, None]

    without(("pelvis", "spine", "thorax"), 0.6)
    without(("neck", "head_top"), 0.2)
    without(("left_ankle", "right_ankle"), 0.1)
    without(("left_ankle", "right_ankle", "left_knee", "right_knee"), 0.1)
    rate = torch.rand(count, 1, generator=generator).square() * 0.6
    rate = torch.where(torch.rand(count, 1, generator=generator) < 0.5, rate, 0.0)
    kept = known & (torch.rand(known.shape, generator=generator) >= rate)
    enough = kept.sum(1, keepdim=True) >= LEAST_KNOWN
    return torch.where(enough, kept, torch.where(known.sum(1, keepdim=True) >= LEAST_KNOWN, known, True))


class Trainer(Protocol):
    """What the loop needs of a method."""

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]

    def step(self, generator: torch.Generator, done: float = 0.0) -> dict[str, float]:
        """Make a step, of which a share of ``done`` of all was made before, and return its losses."""
        ...

    def lifter_parts(self) -> tuple[nn.Module, Any]:
        """Return the network, and its critic or None."""
        ...


class RepNetTrainer:
    """RepNet's two players, each updated once per step as in the released code.

    Args:
        recipe: Of a RepNet.
        bodies: Whose poses the cameras see, and, drawn independently, the critic; half of the subjects each with
            ``train.apart``.
        labelled: Further 2D points ``(M, 16, 2)`` without any 3D, such as labels of photographs: they are half of each
            batch then. None for none.

    Raises:
        ValueError: The skeleton lacks keypoints, or there is one person only and ``train.apart`` needs two.
    """

    def __init__(self, recipe: LiftRecipe, bodies: Bodies, labelled: Tensor | None = None) -> None:
        self.recipe, self.bodies, self.labelled = recipe, bodies, labelled
        part = recipe.network
        self.net = RepNet(len(REPNET16), part.width, camera=part.camera, mask=part.unknown, mirror=part.mirror)
        self.critic = build_critic(part, REPNET16)
        self.order = torch.from_numpy(
            bodies.skeleton.all_indices_of(REPNET16.keypoints, needed_by="RepNet", advice=CONVERT)
        )
        of_2d, of_3d = halves(bodies) if recipe.train.apart else (bodies.subjects, bodies.subjects)
        self.seen = bodies.world[bodies.rows_of(of_2d)]
        poses = aligned(upright_to_camera(bodies.world[bodies.rows_of(of_3d)][:, self.order].double()).numpy())
        self.real = by_axis(torch.from_numpy((poses / part.unit_m).astype(np.float32)))
        if part.mirror:
            self.net.template.copy_(self.real.mean(0).view(3, -1))
        if part.start_from_mean:
            with torch.no_grad():
                self.net.pose.weight.mul_(0.1)
                self.net.pose.bias.copy_(self.real.mean(0))
        self.weights = torch.tensor(JOINT_WEIGHTS)
        rate = recipe.train.learning_rate
        self.modules: dict[str, nn.Module] = {"network": self.net, "critic": self.critic}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(module.parameters(), rate, betas=(0.5, 0.9), fused=True)
            for name, module in self.modules.items()
        }

    def _batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs, points ``(B, 32)`` and the weights of their keypoints ``(B, 16)``."""
        count = self.recipe.train.batch
        from_images = count // 2 if self.labelled is not None else 0
        rows = torch.randint(len(self.seen), (count - from_images,), generator=generator)
        points, _ = seen_by_cameras(self.seen[rows], self.recipe.views.views(), generator)
        points = points[:, self.order]
        if self.labelled is not None:
            more = torch.randint(len(self.labelled), (from_images,), generator=generator)
            points = torch.cat([points, self.labelled[more]])
        known = torch.ones(points.shape[:2], dtype=torch.bool)
        if self.recipe.network.unknown:
            known = _known(count, REPNET16, generator)
        normal, _, _ = normalise(points, known)
        values = by_axis(normal)
        inputs = torch.cat([values, known.to(values.dtype)], 1) if self.recipe.network.unknown else values
        return inputs, values, self.weights * known

    def step(self, generator: torch.Generator, done: float = 0.0) -> dict[str, float]:
        """Update the critic, then generator and camera network, on one batch."""
        inputs, points, weights = self._batch(generator)
        real = self.real[torch.randint(len(self.real), (len(inputs),), generator=generator)]
        mix = torch.rand(len(inputs), 1, generator=generator)
        choose = self.recipe.network.mirror and done >= MIRROR_FROM
        with torch.no_grad():
            fake, camera = self.net(inputs)
            if choose:
                fake, _, _ = nearer_to_real(self.critic, fake, camera, self.net.template)
        # what the critic says of real poses counts +1, of generated ones -1: it learns low numbers for the real
        said = self.critic(torch.cat([real, fake]))
        distance = said[len(real) :].mean() - said[: len(real)].mean()
        penalty = gradient_penalty(self.critic, real, fake, mix)
        self.optimizers["critic"].zero_grad()
        (penalty - distance).backward()
        self.optimizers["critic"].step()

        self.critic.requires_grad_(False)
        fake, camera = self.net(inputs)
        said = nearer_to_real(self.critic, fake, camera, self.net.template)[2] if choose else self.critic(fake)
        adversarial = said.mean()
        reprojection = reprojection_loss(points, reproject(fake, camera), weights)
        of_camera = camera_loss(camera)
        self.optimizers["network"].zero_grad()
        (adversarial + weight_at(self.recipe, done) * reprojection + of_camera).backward()
        self.optimizers["network"].step()
        self.critic.requires_grad_(True)
        losses = torch.stack([distance, penalty, reprojection, of_camera]).tolist()
        return dict(zip(("distance", "penalty", "reprojection", "camera"), losses, strict=True))

    def lifter_parts(self) -> tuple[nn.Module, Any]:
        """Return the network and the critic."""
        return self.net, self.critic


class PairsTrainer:
    """Training with pairs: cameras see poses, and the network must give the poses back.

    Args:
        recipe: Of a method with pairs.
        bodies: The poses.
    """

    def __init__(self, recipe: LiftRecipe, bodies: Bodies) -> None:
        self.recipe, self.bodies = recipe, bodies
        self.net = build_lifter_network(recipe.network, len(bodies.skeleton))
        self.modules: dict[str, nn.Module] = {"network": self.net}
        optimizer = torch.optim.AdamW(
            self.net.parameters(), recipe.train.learning_rate,
            weight_decay=1e-4 if isinstance(self.net, MaskedLifter) else 0.0, fused=True,
        )  # fmt: skip
        self.optimizers: dict[str, torch.optim.Optimizer] = {"network": optimizer}

    def step(self, generator: torch.Generator, done: float = 0.0) -> dict[str, float]:
        """Make one step on one batch."""
        world, skeleton, part = self.bodies.world, self.bodies.skeleton, self.recipe.bodies
        count = self.recipe.train.batch
        poses = world[torch.randint(len(world), (count,), generator=generator)]
        if part.other_legs > 0:
            other = world[torch.randint(len(world), (count,), generator=generator)]
            rows = torch.rand(count, generator=generator) < part.other_legs
            poses = torch.where(rows[:, None, None], other_legs(poses, other, skeleton), poses)
        if part.limb_spread > 0:
            poses = other_limbs(poses, skeleton, part.limb_spread, generator)
        if part.flip:
            rows = torch.rand(count, generator=generator) < 0.5
            poses = torch.where(rows[:, None, None], flipped(poses, skeleton), poses)
        points, truth = seen_by_cameras(poses, self.recipe.views.views(), generator)
        self.optimizers["network"].zero_grad()
        losses: dict[str, Tensor]
        if isinstance(self.net, MaskedLifter):
            points, known = draw_points(points, skeleton, self.recipe, generator)
            normal, _, _ = normalise(points, known)
            pose, spread = self.net(normal, known)
            error = (pose - truth).norm(dim=-1)
            # the spread learns the mean of the error, and the pose does not learn to be unsure
            doubt = (error.detach() / spread + spread.log()).mean()
            losses = {"error_m": error.mean(), "doubt": doubt}
            (error.mean() + 0.02 * doubt).backward()
        else:
            normal, _, _ = normalise(points, torch.ones(points.shape[:2], dtype=torch.bool))
            pose = self.net(by_axis(normal)).view(count, 3, -1).mT
            losses = {"squared_error": (pose - truth).square().mean()}
            losses["squared_error"].backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizers["network"].step()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def lifter_parts(self) -> tuple[nn.Module, Any]:
        """Return the network, and that there is no critic."""
        return self.net, None


def rate_at(recipe: LiftRecipe, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    done = step / recipe.train.steps
    if recipe.train.schedule == "tenths":
        return recipe.train.learning_rate * 10.0 ** -math.floor(4 * done)
    return recipe.train.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def weight_at(recipe: LiftRecipe, done: float) -> float:
    """Return the weight of the reprojection loss when a share of ``done`` of the steps was made."""
    start, end = recipe.train.reprojection, recipe.train.reprojection_end
    return start if end is None else start * (end / start) ** done


def errors_of(lifter: Lifter, pairs: LiftingPairs) -> Pose3dErrors:
    """Return the errors of a lifter on pairs, over its own keypoints.

    Poses are scaled to millimetres of the training people, so the errors without alignment contain the difference in
    size.

    Raises:
        ValueError: The pairs lack keypoints of the lifter.
    """
    skeleton = lifter.skeleton
    order = pairs.skeleton.all_indices_of(skeleton.keypoints, needed_by="the lifter", advice=CONVERT)
    truth = pairs.xyz_mm[:, order].astype(np.float64)
    predicted = lifter(pairs.xy[:, order]).astype(np.float64)
    root = root_of(skeleton)
    if len(root) == 1:
        errors = Pose3dErrors(skeleton, root=skeleton.keypoints[root[0]])
    else:  # of RepNet's keypoints none is a root: both are moved to the middle of the hips
        truth, predicted = (xyz - xyz[:, root].mean(1, keepdims=True) for xyz in (truth, predicted))
        errors = Pose3dErrors(skeleton, root=None)
    errors.update(predicted, truth)
    return errors


def training_part(clips: PoseClips, split: SplitPart) -> PoseClips:
    """Return the motion capture of everybody whom a split does not hold out: all of it without a split.

    Raises:
        ValueError: The split names a subject that is not there, or holds out everybody.
    """
    held_out = [*split.test, *split.validation]
    return clips.split_by_subject(held_out)[0] if held_out else clips


def train_lifter(
    recipe: LiftRecipe,
    clips: PoseClips,
    run: Path,
    *,
    seed: int = 0,
    labelled: np.ndarray | None = None,
    resume: bool = False,
    recipe_text: str = "",
    say: Say = print,
    stop_after: int | None = None,
) -> Path | None:
    """Train a lifter.

    Args:
        recipe: What to train.
        clips: Motion capture in ``H36M17``'s keypoints; the split of the recipe is applied to it.
        run: Folder of the run; made if it is not there.
        seed: Of all random numbers.
        labelled: 2D points ``(M, 16, 2)`` of ``REPNET16`` without 3D, for RepNet; see ``labelled_points``.
        resume: Continue the run in the folder.
        recipe_text: The recipe as written, for the card.
        say: Takes lines about the progress.
        stop_after: Stop after this many steps in all, as if interrupted; for tests.

    Returns:
        The file of the lifter, or None if the run was interrupted, in which case ``resume`` continues it.

    Raises:
        ValueError: The folder holds a run and ``resume`` was not asked for, or one of another recipe, or the split
            names subjects that are not there, or the motion capture lacks keypoints, or the labelled points have
            another shape, or there are none, or training diverged.
    """
    rest = training_part(clips, recipe.split)
    if rest is not clips:
        for note in rest.notes:
            say(note)
    bodies, dropped = bodies_of(rest)
    if dropped:
        say(f"{counted(dropped, 'pose')} with unknown keypoints left out: {unknown_keypoints(rest)}.")
    pairs = held_out_pairs(clips, recipe.split.validation, every=4)
    torch.manual_seed(seed)
    trainer = _trainer(recipe, bodies, labelled)
    generator = torch.Generator().manual_seed(seed)
    run.mkdir(parents=True, exist_ok=True)
    checkpoint, curve, step, seconds = run / "last.pt", [], 0, 0.0
    about = {"recipe": recipe.model_dump_json(), "seed": seed, "poses": len(bodies.world)}
    about["labelled"] = 0 if labelled is None else len(labelled)
    if checkpoint.is_file():
        if not resume:
            raise ValueError(f"{run} holds a run already. Continue it with --resume, or give another folder.")
        state = load_checkpoint(checkpoint)
        changed = [name for name in about if state["about"].get(name) != about[name]]
        if changed:
            raise ValueError(
                f"{run} holds a run with {' and '.join(_ANOTHER[name] for name in changed)}, which cannot be continued "
                "with this one. Give another folder."
            )
        step, seconds, curve = state["step"], state["seconds"], state["curve"]
        for name, module in trainer.modules.items():
            module.load_state_dict(state["modules"][name])
            trainer.optimizers[name].load_state_dict(state["optimizers"][name])
        generator.set_state(state["generator"])
        torch.set_rng_state(state["dropout"])
        say(f"resumed at step {step:,} of {recipe.train.steps:,}")
    elif resume:
        say(f"--resume: {run} holds no checkpoint, so the run starts from the beginning.")
    say(
        f"{recipe.name}: {len(bodies.world):,} poses of {counted(len(bodies.subjects), 'subject')}, "
        f"{0 if pairs is None else len(pairs):,} views for validation, {recipe.train.steps:,} steps of "
        f"{recipe.train.batch}"
    )
    if recipe.train.apart:
        of_2d, of_3d = halves(bodies)
        say(f"2D of {listed(of_2d)}; 3D of {listed(of_3d)}")

    def check_not_diverged(losses: Mapping[str, float]) -> None:
        parts = [tensor for module in trainer.modules.values() for tensor in module.state_dict().values()]
        broken = any(not bool(torch.isfinite(tensor).all()) for tensor in parts)
        if broken or not all(math.isfinite(value) for value in losses.values()):
            kept = f" {checkpoint} is of an earlier step." if checkpoint.is_file() else ""
            raise ValueError(
                f"Training diverged before step {step:,}: losses {dict(losses)}"
                f"{', and weights that are not finite' * broken}.{kept} Lower train.learning_rate and start in another "
                "folder."
            )

    def save() -> None:
        state = {
            "about": about, "step": step, "seconds": seconds, "curve": curve, "generator": generator.get_state(),
            "dropout": torch.get_rng_state(),
            "modules": {name: module.state_dict() for name, module in trainer.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in trainer.optimizers.items()},
        }  # fmt: skip
        save_checkpoint(checkpoint, state)
        _write_curve(run / "curve.csv", curve)

    last, losses = min(recipe.train.steps, stop_after or recipe.train.steps), {}
    with asked_to_stop() as stop:
        start = time.monotonic() - seconds
        while step < last and not stop():
            for name, optimizer in trainer.optimizers.items():
                for group in optimizer.param_groups:
                    group["lr"] = rate_at(recipe, step) * (recipe.train.critic_rate if name == "critic" else 1.0)
            losses = trainer.step(generator, step / recipe.train.steps)
            step += 1
            if step % recipe.train.save_every == 0 or step == recipe.train.steps:
                check_not_diverged(losses)
                seconds = time.monotonic() - start
                row = {"step": step, "seconds": round(seconds, 1)} | {k: round(v, 6) for k, v in losses.items()}
                lifter = _lifter(recipe, bodies, trainer, recipe_text)
                if pairs is not None:
                    found = errors_of(lifter, pairs).compute()
                    row |= {
                        name: round(found[name], 2)
                        for name in ("pa_mpjpe", "pa_mpjpe_reflected", "mpjpe", "symmetry_error")
                    }
                curve.append(row)
                save()
                say(", ".join(f"{name} {value:g}" for name, value in row.items()))
        seconds = time.monotonic() - start
    if step < recipe.train.steps:
        check_not_diverged(losses)
        save()
        say(f"Interrupted at step {step:,}. The same command with --resume continues.")
        return None
    to = run / "lifter.safetensors"
    save_lifter(to, _lifter(recipe, bodies, trainer, recipe_text))
    say(f"written: {to}")
    return to


def _trainer(recipe: LiftRecipe, bodies: Bodies, labelled: np.ndarray | None) -> Trainer:
    if recipe.network.method != "repnet":
        if labelled is not None:
            raise ValueError(
                f"Labels without 3D are of use to RepNet alone; {recipe.network.method!r} learns from pairs. Omit them."
            )
        return PairsTrainer(recipe, bodies)
    return RepNetTrainer(recipe, bodies, None if labelled is None else _checked(labelled))


def _checked(labelled: np.ndarray) -> Tensor:
    """Return labelled points as a tensor.

    Raises:
        ValueError: Another shape, nobody, or a coordinate that is not finite.
    """
    points, k = np.asarray(labelled, np.float32), len(REPNET16)
    if points.ndim != 3 or points.shape[1:] != (k, 2):
        raise ValueError(
            f"Labelled points must have shape (M, {k}, 2), x and y of the keypoints of {REPNET16.name!r}, got "
            f"{points.shape}. Make them with labelled_points."
        )
    if not len(points):
        raise ValueError(
            "Nobody in the labels has all keypoints that RepNet needs: arms, legs, neck and head top. Give labels of "
            "people who are seen whole, or none."
        )
    if not np.isfinite(points).all():
        raise ValueError(
            f"Labelled points must be finite, got NaN or infinity in {int((~np.isfinite(points)).any((1, 2)).sum()):,} "
            f"of {len(points):,} people. Leave these out, as labelled_points does."
        )
    return torch.from_numpy(points)


def _lifter(recipe: LiftRecipe, bodies: Bodies, trainer: Trainer, text: str) -> Lifter:
    """Return a lifter of the network as it is now, which shares its weights; training continues with the network."""
    network, critic = trainer.lifter_parts()
    skeleton = REPNET16 if recipe.network.method == "repnet" else bodies.skeleton
    card = new_card(recipe.name, recipe.network, skeleton, bodies.limb_mm, bodies.subjects, text)
    lifter = Lifter(card, network, critic)
    network.train()
    return lifter


def held_out_pairs(clips: PoseClips, subjects: Sequence[str], *, every: int = 1) -> LiftingPairs | None:
    """Return what cameras on eight sides see of subjects, or None where there are none.

    Args:
        clips: Motion capture.
        subjects: Who is seen.
        every: Every how many of their poses.

    Raises:
        ValueError: A name that is no subject.
    """
    if not subjects:
        return None
    _, held = clips.split_by_subject(subjects)
    whole = held.xyz_mm[np.isfinite(held.xyz_mm).all((1, 2))][::every]
    return view_poses(whole, clips.skeleton)


def _write_curve(path: Path, rows: list[dict[str, float]]) -> None:
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
