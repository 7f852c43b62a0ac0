"""Lifter: 2D keypoints in image pixels to 3D poses in millimetres, and the file that it is stored in."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import poseglass
from poseglass.core.shapes_only import shapes_only
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import counted, listed
from poseglass.estimators.load import SHIPPED_FOLDER, shipped
from poseglass.estimators.weights_file import LIFTER_KEY, CheckpointError, read_safetensors, write_safetensors
from poseglass.lifting.bodies import root_of
from poseglass.lifting.normalise import LEAST_KNOWN, by_axis, normalise
from poseglass.lifting.recipe import NetworkPart
from poseglass.lifting.repnet import RepNet, RepNetCritic, in_camera, nearer_to_real
from poseglass.lifting.residual_mlp import MartinezLifter, MaskedLifter

DEFAULT_LIFTER = "lift-people"
"""The lifter that ships."""

FARTHEST_PX = 1e7
"""Largest coordinate of a point, to either side; sentinels such as 1e30 are no pixels."""


@dataclass(frozen=True, slots=True)
class LifterCard:
    """What a file of a lifter says about it.

    Args:
        name: Name of the weights.
        network: The table ``network`` of its recipe.
        skeleton: Keypoints that it takes and returns, in full.
        limb_mm: Mean length of upper and lower arms and legs of the people it was trained on: every pose has about this
            size, since an image does not tell how large a person is.
        results: Measured results by name.
        data: What it was trained on.
        license: Terms of the weights.
        trained_on: Subjects of the motion capture that it was trained on.
        recipe: The recipe as TOML.
        commit: Commit of poseglass.
        notes: What a user should know.
        poseglass: Version that wrote the card.
    """

    name: str
    network: dict[str, Any]
    skeleton: Skeleton
    limb_mm: float
    results: dict[str, float] = field(default_factory=dict)
    data: str = ""
    license: str = ""
    trained_on: tuple[str, ...] = ()
    recipe: str = ""
    commit: str = ""
    notes: str = ""
    poseglass: str = ""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.limb_mm) and self.limb_mm > 0):
            raise ValueError(f"LifterCard.limb_mm must be a length above 0, got {self.limb_mm!r}.")
        object.__setattr__(self, "trained_on", tuple(self.trained_on))

    def to_json(self) -> str:
        """Return the card as JSON."""
        return json.dumps(asdict(self) | {"skeleton": self.skeleton.to_dict()})

    @classmethod
    def from_json(cls, text: str) -> "LifterCard":
        """Rebuild a card.

        Raises:
            ValueError: The text is not JSON, or a field is missing or has the wrong type.
        """
        try:
            data = json.loads(text)
            known: dict[str, Any] = {key: value for key, value in data.items() if key in cls.__slots__}
            for key, value in known.items():
                _check_type(key, value)
            known["skeleton"] = Skeleton.from_dict(data["skeleton"])
            return cls(**known)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"The card of this lifter cannot be read: {error!s}.") from error


_TEXTS = ("name", "data", "license", "recipe", "commit", "notes", "poseglass")
"""Fields of a card that are text."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_type(key: str, value: Any) -> None:
    """Raise unless a field of a card, as JSON has it, is of its type.

    Raises:
        ValueError: It is not.
    """
    if key in _TEXTS:
        right, expected = isinstance(value, str), "text"
    elif key == "limb_mm":
        right, expected = _is_number(value), "a number"
    elif key == "results":
        right, expected = isinstance(value, dict) and all(map(_is_number, value.values())), "a table of numbers"
    elif key == "trained_on":
        right, expected = isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of texts"
    else:
        right, expected = isinstance(value, dict), "a table"
    if not right:
        raise ValueError(f"{key!r} must be {expected}, got {str(value)[:60]!r}")


@dataclass(frozen=True, slots=True, eq=False)
class Lifted:
    """Poses in three dimensions, and how far to trust them.

    Args:
        xyz_mm: ``(N, K, 3)`` float32, camera frame (x right, y down, z away), relative to the pelvis, or to the middle
            of the hips where the skeleton has no pelvis.
        spread_mm: ``(N, K)`` float32, how far each keypoint is expected to be from the truth, as the network estimates
            it; None for networks that do not.
        residual: ``(N,)`` float32: distance between the given points and the pose as a weak perspective camera sees it,
            root mean square over the known points, as a share of the size of the person in the image (the root mean
            square distance of the known points from their middle). Points that no person of the training could have
            made leave a large one. NaN if all known points coincide: they fit any pose, so trust none.
        critic: ``(N,)`` float32, what RepNet's critic says of the poses, lower for poses like the real ones; None for
            lifters without a critic.
    """

    xyz_mm: np.ndarray
    spread_mm: np.ndarray | None
    residual: np.ndarray
    critic: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.xyz_mm)


def build_lifter_network(part: NetworkPart, num_keypoints: int) -> nn.Module:
    """Return the network that a recipe's table describes, with fresh weights."""
    if part.method == "repnet":
        return RepNet(num_keypoints, part.width, camera=part.camera, mask=part.unknown, mirror=part.mirror)
    if part.method == "martinez":
        return MartinezLifter(num_keypoints, part.width, part.blocks)
    return MaskedLifter(num_keypoints, part.width, part.blocks)


def build_critic(part: NetworkPart, skeleton: Skeleton) -> RepNetCritic:
    """Return RepNet's critic as a recipe's table describes it, with fresh weights."""
    return RepNetCritic(
        skeleton, part.critic_width, part.critic_pose_width, chain=part.chain, unit_m=part.unit_m
    )  # fmt: skip


class Lifter:
    """Lifts 2D keypoints to 3D poses.

    Place and size of a person in the image do not matter. Where a person is in space, and how large it is, an image
    does not tell: poses are relative to the pelvis, and have the mean size of the people in the training data.

    Args:
        card: Describes the network.
        network: Its network, ready to run.
        critic: RepNet's critic, for the score of poses, and for the choice between mirror images.

    Raises:
        ValueError: The network needs a critic for that choice, and there is none.

    Example:
        >>> lifter = load_lifter()
        >>> points = np.full((1, 17, 2), np.nan)
        >>> for name, at in {"head_top": (50, 0), "left_hip": (58, 90), "right_hip": (42, 90), "left_ankle": (58, 180),
        ...                  "right_ankle": (42, 180), "left_shoulder": (68, 30), "right_shoulder": (32, 30)}.items():
        ...     points[0, lifter.skeleton.index(name)] = at
        >>> lifter(points).shape
        (1, 17, 3)
    """

    def __init__(self, card: LifterCard, network: nn.Module, critic: RepNetCritic | None = None) -> None:
        if critic is None and getattr(network, "mirror", False):
            raise ValueError(
                f"{card.name!r} chooses between poses and mirror images by the critic it was trained with, got none. "
                "Give it as critic."
            )
        self.card, self.network, self.critic = card, network.eval(), None if critic is None else critic.eval()
        self._takes_unknown = isinstance(network, MaskedLifter) or bool(getattr(network, "mask", False))

    def __repr__(self) -> str:
        return f"Lifter({self.card.name!r}: {self.card.network.get('method')}, {len(self.skeleton)} keypoints)"

    @property
    def skeleton(self) -> Skeleton:
        """Keypoints that it takes and returns."""
        return self.card.skeleton

    @property
    def least_known(self) -> int:
        """Number of keypoints of a person that must be known."""
        return LEAST_KNOWN if self._takes_unknown else len(self.skeleton)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return the poses of ``lift``: ``(N, K, 3)`` float32, millimetres.

        Raises:
            ValueError: As ``lift``.
        """
        return self.lift(points).xyz_mm

    def lift(self, points: np.ndarray) -> Lifted:
        """Lift people.

        Args:
            points: ``(N, K, 2)`` image pixels, x right and y down, in the order of ``skeleton``; NaN = unknown.

        Raises:
            ValueError: No numbers, another shape, a coordinate beyond ``FARTHEST_PX``, or a person with too few known
                keypoints.
        """
        k = len(self.skeleton)
        try:
            points = np.asarray(points, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Points must be an array of numbers of shape (N, {k}, 2), and cannot be made one ({error})."
            ) from error
        if points.ndim != 3 or points.shape[1:] != (k, 2):
            raise ValueError(
                f"Points must have shape (N, {k}, 2), x and y of the {k} keypoints of {self.skeleton.name!r}, got "
                f"{points.shape}. Poses of another skeleton: instances.in_skeleton(lifter.skeleton).xy."
            )
        far = np.abs(points) > FARTHEST_PX
        if far.any():
            row = int(np.argwhere(far)[0][0])
            raise ValueError(
                f"Points must be pixels of at most {FARTHEST_PX:,.0f}, or NaN where unknown, got "
                f"{points[far][0]:g} in row {row}. Set unknown points to NaN."
            )
        known: np.ndarray = np.asarray(np.isfinite(points).all(-1))
        few = np.flatnonzero(known.sum(1) < self.least_known)
        if len(few):
            why = "" if self._takes_unknown else ", since it was trained with all of them"
            raise ValueError(
                f"{self.card.name!r} needs at least {counted(self.least_known, 'known keypoint')} of a person{why}; "
                f"{counted(len(few), 'person').replace('persons', 'people')} "
                f"{'has' if len(few) == 1 else 'have'} fewer: "
                f"{listed([f'row {row} has {known[row].sum()}' for row in few])}. Leave these out."
            )
        if not len(points):
            empty = np.zeros((0, k), np.float32)
            return Lifted(np.zeros((0, k, 3), np.float32), empty, empty[:, 0])
        # far from the origin float32 would lose the person's own size
        middle = np.nanmean(np.where(known[..., None], points, np.nan), axis=1, keepdims=True)
        there = torch.from_numpy(known)
        values = torch.from_numpy(np.where(known[..., None], points - middle, 0.0).astype(np.float32))
        with torch.inference_mode():
            normal, _, _ = normalise(values, there)
            pose, spread, critic = self._run(normal, there)
            residual = weak_perspective_residual(pose, normal, there)
        pose = pose - pose[:, root_of(self.skeleton)].mean(1, keepdim=True)
        return Lifted(
            pose.numpy() * np.float32(1000),
            None if spread is None else spread.numpy() * np.float32(1000),
            residual.numpy(),
            None if critic is None else critic.numpy(),
        )

    def _run(self, normal: Tensor, known: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return poses ``(N, K, 3)`` in metres in the camera frame, their spread, and what the critic says."""
        if isinstance(self.network, MaskedLifter):
            pose, spread = self.network(normal, known)
            return pose, spread, None
        values = by_axis(normal)
        if isinstance(self.network, MartinezLifter):
            return self.network(values).view(len(values), 3, -1).mT, None, None
        if self._takes_unknown:
            values = torch.cat([values, known.to(values.dtype)], 1)
        pose, camera = self.network(values)
        unit_m, critic = float(self.card.network.get("unit_m", 1.0)), None
        if self.critic is not None and isinstance(self.network, RepNet) and self.network.mirror:
            pose, camera, critic = nearer_to_real(self.critic, pose, camera, self.network.template)
        elif self.critic is not None:
            critic = self.critic(pose)
        return unit_m * in_camera(pose, camera), None, critic


def weak_perspective_residual(pose: Tensor, points: Tensor, known: Tensor) -> Tensor:
    """Return how far points are from a pose as the best weak perspective camera sees it; see ``Lifted.residual``.

    Args:
        pose: ``(N, K, 3)`` in the camera frame.
        points: ``(N, K, 2)``, 0 where unknown.
        known: ``(N, K)`` bool.
    """
    weight = known.to(pose.dtype)[..., None]
    count = weight.sum(1, keepdim=True)
    flat = (pose[..., :2] - (pose[..., :2] * weight).sum(1, keepdim=True) / count) * weight
    seen = (points - (points * weight).sum(1, keepdim=True) / count) * weight
    # a camera of negative scale would see the pose turned by 180 degrees
    scale = ((flat * seen).sum((1, 2)) / flat.square().sum((1, 2)).clamp_min(1e-12)).clamp_min(0.0)
    rest, size = (seen - scale[:, None, None] * flat).square().sum((1, 2)), seen.square().sum((1, 2))
    # of points that coincide, rounding alone is left of the size
    return torch.where(size > 1e-12, (rest / size.clamp_min(1e-12)).sqrt(), torch.nan)


_CRITIC = "critic."
"""Before the names of the critic's tensors in a file."""


def save_lifter(path: str | Path, lifter: Lifter, *, half: bool = False) -> None:
    """Write a lifter, atomically.

    Args:
        path: Path of the ``.safetensors`` to write.
        lifter: With its critic, if it has one.
        half: Store the kernels as float16.

    Raises:
        CheckpointError: A weight is NaN or infinite.
        OSError: The folder is missing, full or not writable.
    """
    state: dict[str, Tensor] = dict(lifter.network.state_dict())
    if lifter.critic is not None:
        state |= {_CRITIC + key: tensor for key, tensor in lifter.critic.state_dict().items()}
    write_safetensors(path, state, {LIFTER_KEY: lifter.card.to_json()}, lifter.card.name, half=half)


def load_lifter(weights: str | Path = DEFAULT_LIFTER) -> Lifter:
    """Open a lifter.

    Args:
        weights: A name that ships, the path of a file, or the folder of a run of ``poseglass train-lifter``.

    Raises:
        FileNotFoundError: Neither.
        CheckpointError: Not a lifter, or a damaged one.
    """
    path = find_lifter(weights)
    if path.suffix == ".npz":
        raise CheckpointError(
            f"{path} holds arrays such as poses of motion capture, and no lifter. Train one on them: poseglass "
            f"train-lifter RECIPE --poses {path}."
        )
    state, metadata = read_safetensors(path)
    card = _card(metadata, path)
    try:
        part = NetworkPart(**card.network)
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: the card's network cannot be built ({first}). Fetch the file again.") from error
    own = {key: tensor for key, tensor in state.items() if not key.startswith(_CRITIC)}
    of_critic = {key.removeprefix(_CRITIC): value for key, value in state.items() if key.startswith(_CRITIC)}
    if part.mirror and not of_critic:
        raise CheckpointError(
            f"{path}: the critic that chooses between poses and mirror images is missing. Fetch the file again, or "
            "save the lifter with its critic."
        )

    def build() -> tuple[nn.Module, RepNetCritic | None]:
        network = build_lifter_network(part, len(card.skeleton))
        return network, build_critic(part, card.skeleton) if of_critic else None

    try:
        # first on the meta device, so that a card that does not match its file costs no memory
        with shapes_only():
            hollow, hollow_critic = build()
        _check_fit(hollow, own, path, card)
        if hollow_critic is not None:
            _check_fit(hollow_critic, of_critic, path, card)
        network, critic = build()
    except ValueError as error:  # such as a critic of a skeleton without bones
        raise CheckpointError(f"{path}: the card's network cannot be built ({error}). Fetch the file again.") from error
    network.load_state_dict(own)
    if critic is not None:
        critic.load_state_dict(of_critic)
    return Lifter(card, network, critic)


def read_lifter_card(path: str | Path) -> LifterCard:
    """Read the card of a lifter's file.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not a lifter, or a damaged one.
    """
    return _card(read_safetensors(path)[1], Path(path))


def _card(metadata: Mapping[str, str], path: Path) -> LifterCard:
    if LIFTER_KEY not in metadata:
        raise CheckpointError(
            f"{path} holds no lifter. Lifters turn 2D keypoints into 3D poses; one is written by poseglass "
            f"train-lifter, and {DEFAULT_LIFTER!r} ships. Weights that find keypoints are opened with poseglass.load."
        )
    try:
        return LifterCard.from_json(metadata[LIFTER_KEY])
    except ValueError as error:
        raise CheckpointError(f"{path}: {error} Fetch the file again, or ask its author.") from error


def _check_fit(module: nn.Module, state: Mapping[str, Tensor], path: Path, card: LifterCard) -> None:
    """Raise unless a state has the names and shapes of a module, which may be on the meta device.

    Raises:
        CheckpointError: The tensors are not those of the card's network and skeleton.
    """
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if expected != found:
        odd = sorted(key for key in {*expected, *found} if expected.get(key) != found.get(key))
        first = odd[0]
        raise CheckpointError(
            f"{path}: the tensors are not those of {card.network.get('method')!r} for the {len(card.skeleton)} "
            f"keypoints of {card.skeleton.name!r}: {first} should be {expected.get(first, 'absent')}, and is "
            f"{found.get(first, 'absent')} ({counted(len(odd), 'tensor')} differ). The card and the weights are of "
            "different lifters; save it again with save_lifter."
        )


def find_lifter(weights: str | Path) -> Path:
    """Return the path of a lifter that ships, is at this path, or is the result of a run in this folder.

    Raises:
        FileNotFoundError: None of them.
    """
    name, path = str(weights), Path(weights)
    if name in shipped_lifters():
        return shipped_lifters()[name]
    if path.is_file():
        return path
    if (path / "lifter.safetensors").is_file():
        return path / "lifter.safetensors"
    if name in shipped():
        raise FileNotFoundError(
            f"{name!r} finds keypoints in images, and lifts none to 3D: open it with poseglass.load. Lifters that "
            f"ship: {', '.join(shipped_lifters())}."
        )
    raise FileNotFoundError(
        f"No lifter {name!r}: neither a name that ships ({', '.join(shipped_lifters()) or 'none'}), nor a file, nor a "
        "folder with lifter.safetensors, which poseglass train-lifter writes."
    )


def shipped_lifters() -> dict[str, Path]:
    """Return the lifters that ship, by name."""
    return {path.stem: path for path in sorted((SHIPPED_FOLDER / "lifters").glob("*.safetensors"))}


def new_card(
    name: str, part: NetworkPart, skeleton: Skeleton, limb_mm: float, trained_on: tuple[str, ...], recipe: str
) -> LifterCard:
    """Return the card of a lifter that was just trained on motion capture."""
    from poseglass.core.environment import source_commit

    return LifterCard(
        name, part.model_dump(mode="json"), skeleton, round(limb_mm, 2), trained_on=trained_on, recipe=recipe,
        commit=source_commit(), poseglass=poseglass.__version__,
    )  # fmt: skip
