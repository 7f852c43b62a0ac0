"""RepNet (Wandt and Rosenhahn 2019, https://arxiv.org/abs/1902.09868): 3D poses from 2D points without pairs of them.

A generator lifts 2D points to a pose, and a second branch estimates the camera that looks at it. The pose must project
to the points again, the camera must be a weak perspective one, and a critic (WGAN with gradient penalty) must not be
able to tell generated poses from real ones, which were never paired with any points.

Numbers and layout follow the released code, which shares the first residual block between pose and camera where the
paper does not. In both, coordinates are grouped by axis: ``x_1 .. x_K, y_1 .. y_K``, then ``z`` for poses. Poses are in
metres, centred, and rotated to a common orientation; points are centred, and divided by their standard deviation.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from poseglass.core.skeleton import Skeleton
from poseglass.layers.kinematic_chain import KinematicChainSpace

REPNET16 = Skeleton(
    "repnet16",
    (
        "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine", "thorax", "neck",
        "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
    ),
    (
        ("right_hip", "right_knee"), ("right_knee", "right_ankle"), ("left_hip", "left_knee"),
        ("left_knee", "left_ankle"), ("spine", "thorax"), ("thorax", "neck"), ("neck", "head_top"),
        ("thorax", "left_shoulder"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
        ("thorax", "right_shoulder"), ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
        ("right_hip", "left_hip"), ("right_hip", "spine"),
    ),
)  # fmt: skip
"""The 16 keypoints of the released code, and its 15 bones in the order of the columns of C."""

JOINT_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.1, 0.1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""Weights of the keypoints in the reprojection loss of the released code: no spine, a tenth of neck and head."""

SLOPE = 0.3
"""Of LeakyReLU: the default of Keras, which the released code uses. PyTorch's is 0.01."""

PENALTY_WEIGHT = 10.0
"""Of the gradient penalty."""


class ResidualBlock(nn.Module):
    """Two fully connected layers whose result is added to the input; LeakyReLU after the first layer and the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, width)`` to the same shape."""
        inside = functional.leaky_relu(self.first(features), SLOPE)
        return functional.leaky_relu(features + self.second(inside), SLOPE)


class RepNet(nn.Module):
    """The generator and the camera network, which share their first block.

    Args:
        num_keypoints: K, 16 as published.
        width: Of every layer, 1000 as published.
        camera: "free" predicts the six numbers of the camera, as published, and ``camera_loss`` makes them a weak
            perspective one. "rotation" (ours) makes two orthogonal rows of equal length of them, for which that loss
            is 0.
        mask: Ours: K further inputs tell which keypoints are known, so that unknown ones (0, 0) can be told from known
            ones in the middle.
        mirror: Ours: the critic chooses between poses and their mirror images (``nearer_to_real``); ``template`` is the
            mean of the real poses, which training sets.

    Example:
        >>> net = RepNet()
        >>> sum(p.numel() for p in net.parameters())
        11098054
    """

    template: Tensor

    def __init__(
        self,
        num_keypoints: int = 16,
        width: int = 1000,
        *,
        camera: Literal["free", "rotation"] = "free",
        mask: bool = False,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        if camera not in ("free", "rotation"):
            raise ValueError(f"camera must be 'free' (as published) or 'rotation', got {camera!r}.")
        if mirror and camera != "rotation":
            raise ValueError(
                f"mirror needs camera 'rotation', got {camera!r}: only where the rows of a camera are orthogonal do a "
                "pose and its mirror image project alike."
            )
        self.num_keypoints, self.camera_form, self.mask, self.mirror = num_keypoints, camera, mask, mirror
        if mirror:
            self.register_buffer("template", torch.zeros(3, num_keypoints))
        self.enter = nn.Linear((3 if mask else 2) * num_keypoints, width)
        self.shared = ResidualBlock(width)
        self.pose_blocks = nn.Sequential(ResidualBlock(width), ResidualBlock(width))
        self.pose_last = nn.Linear(width, width)
        self.pose = nn.Linear(width, 3 * num_keypoints)
        self.camera_blocks = nn.Sequential(ResidualBlock(width), ResidualBlock(width))
        self.camera = nn.Linear(width, 6)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # as Keras starts its layers
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Lift points.

        Args:
            points: ``(B, 2K)``, x then y, centred and scaled; with ``mask`` ``(B, 3K)``, then 1 for known and 0.

        Returns:
            Poses ``(B, 3K)``, x then y then z, and cameras ``(B, 2, 3)``.
        """
        features = self.shared(functional.leaky_relu(self.enter(points), SLOPE))
        of_pose = functional.leaky_relu(self.pose_last(self.pose_blocks(features)), SLOPE)
        camera = self.camera(self.camera_blocks(features)).view(-1, 2, 3)
        return self.pose(of_pose), camera if self.camera_form == "free" else orthogonal(camera)

    def generator_parameters(self) -> int:
        """Return the number of parameters on the way from points to pose, 7,088,048 as published."""
        parts = (self.enter, self.shared, self.pose_blocks, self.pose_last, self.pose)
        return sum(p.numel() for part in parts for p in part.parameters())


class RepNetCritic(nn.Module):
    """The critic: a path that sees the pose, and one that sees its kinematic chain space.

    Args:
        skeleton: Keypoints and bones of the poses.
        width: Of the path of the chain, 1000 as published.
        pose_width: Of the path of the pose, and of the layer where both meet; 100 as published.
        chain: Whether there is the path of the chain. Without it this is the critic of the paper's ablation.
        unit_m: Unit of the poses in metres, 1 as published. The chain space, a square, is multiplied by it, so that it
            stays of the order of 1.

    Example:
        >>> sum(p.numel() for p in RepNetCritic().parameters())
        2373401
    """

    def __init__(
        self,
        skeleton: Skeleton = REPNET16,
        width: int = 1000,
        pose_width: int = 100,
        *,
        chain: bool = True,
        unit_m: float = 1.0,
    ) -> None:
        super().__init__()
        self.unit_m = unit_m
        self.num_keypoints, bones = len(skeleton), [(int(a), int(b)) for a, b in skeleton.bone_indices]
        self.pose_first = nn.Linear(3 * len(skeleton), pose_width)
        self.pose_second = nn.Linear(pose_width, pose_width)
        self.pose_third = nn.Linear(pose_width, pose_width)
        self.pose_last = nn.Linear(pose_width, pose_width)
        self.chain = KinematicChainSpace(len(skeleton), bones) if chain else None
        if chain:
            self.chain_first = nn.Linear(len(bones) ** 2, width)
            self.chain_second = nn.Linear(width, width)
            self.chain_third = nn.Linear(width, width)
        self.together = nn.Linear(pose_width + (width if chain else 0), pose_width)
        self.last = nn.Linear(pose_width, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, poses: Tensor) -> Tensor:
        """Return a number for each pose ``(B, 3K)``, x then y then z: ``(B,)``, lower for poses like the real ones."""
        first = functional.leaky_relu(self.pose_first(poses), SLOPE)
        second = functional.leaky_relu(self.pose_second(first), SLOPE)
        third = functional.leaky_relu(first + self.pose_third(second), SLOPE)
        seen = self.pose_last(third)
        if self.chain is not None:
            psi = self.unit_m * self.chain(poses.view(-1, 3, self.num_keypoints)).flatten(1)
            start = functional.leaky_relu(self.chain_first(psi), SLOPE)
            inside = functional.leaky_relu(self.chain_second(start), SLOPE)
            seen = torch.cat([seen, start + self.chain_third(inside)], 1)
        return self.last(functional.leaky_relu(self.together(seen), SLOPE))[:, 0]


def orthogonal(camera: Tensor) -> Tensor:
    """Return the cameras ``(B, 2, 3)`` with rows that are orthogonal and of the same length (Gram-Schmidt)."""
    first, second = camera.unbind(1)
    length = first.norm(dim=1, keepdim=True).clamp_min(1e-6)
    along = first / length
    rest = functional.normalize(second - (second * along).sum(1, keepdim=True) * along, dim=1, eps=1e-6)
    return torch.stack([first, length * rest], 1)


def reproject(poses: Tensor, camera: Tensor) -> Tensor:
    """Project poses with weak perspective cameras, ``W' = K X``.

    Args:
        poses: ``(B, 3K)``, x then y then z.
        camera: ``(B, 2, 3)``.

    Returns:
        ``(B, 2K)``, x then y.
    """
    return (camera @ poses.view(len(poses), 3, -1)).flatten(1)


def reprojection_loss(points: Tensor, projected: Tensor, weights: Tensor) -> Tensor:
    """Return the loss of the released code: weighted absolute differences, summed and divided by 2K, mean over poses.

    Args:
        points: ``(B, 2K)``, x then y.
        projected: As ``points``.
        weights: ``(K,)`` for all poses or ``(B, K)``; 0 ignores a keypoint. ``JOINT_WEIGHTS`` are the published ones.
    """
    both = weights.repeat(*[1] * (weights.ndim - 1), 2)
    return (both * (points - projected).abs()).sum(1).div(points.shape[1]).mean()


def reprojection_norm(points: Tensor, projected: Tensor) -> Tensor:
    """Return the loss of the paper, the Frobenius norm of ``W - K X``, mean over poses."""
    return (points - projected).norm(dim=1).mean()


def _camera_difference(camera: Tensor) -> Tensor:
    square = camera @ camera.mT
    trace = square.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    return 2 / trace * square - torch.eye(2, dtype=camera.dtype, device=camera.device)


def camera_loss(camera: Tensor) -> Tensor:
    """Return the loss of the released code that makes cameras ``(B, 2, 3)`` weak perspective: absolute values, summed.

    It is 0 where the rows are orthogonal and of the same length, whatever that is.
    """
    return _camera_difference(camera).abs().sum((1, 2)).mean()


def camera_norm(camera: Tensor) -> Tensor:
    """Return the paper's form of ``camera_loss``, with the Frobenius norm."""
    return _camera_difference(camera).flatten(1).norm(dim=1).mean()


def gradient_penalty(critic: nn.Module, real: Tensor, generated: Tensor, mix: Tensor) -> Tensor:
    """Return the penalty of gradients whose length is not 1, between real and generated poses.

    Args:
        critic: Maps ``(B, 3K)`` to ``(B,)``.
        real: ``(B, 3K)``.
        generated: ``(B, 3K)``.
        mix: ``(B, 1)`` in [0, 1], the share of the real pose in each mixture.

    Source:
        Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028, equation 3, with weight 10.
    """
    between = (mix * real + (1 - mix) * generated).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return PENALTY_WEIGHT * (gradient.norm(dim=1) - 1).square().mean()


def in_camera(poses: Tensor, camera: Tensor) -> Tensor:
    """Rotate generated poses into the frame of their cameras: x right, y down, z away.

    The rows of a camera give two axes; the third is orthogonal to both. The unit stays that of the poses.

    Args:
        poses: ``(B, 3K)``, x then y then z.
        camera: ``(B, 2, 3)``.

    Returns:
        ``(B, K, 3)``.
    """
    rows = functional.normalize(orthogonal(camera), dim=2)
    rotation = torch.stack([rows[:, 0], rows[:, 1], torch.linalg.cross(rows[:, 0], rows[:, 1])], 1)
    return (rotation @ poses.view(len(poses), 3, -1)).mT


def mirrored(poses: Tensor, camera: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
    """Return the poses and cameras that project alike: mirrored in depth, with left and right as they were.

    A weak perspective camera cannot tell a pose from its mirror image at the plane of the image. The image is rotated
    to be as near to a template as it can, so that it stands in RepNet's common orientation; no gradient flows through
    that rotation.

    Args:
        poses: ``(B, 3K)``, x then y then z.
        camera: ``(B, 2, 3)``, whose rows are orthogonal and of the same length.
        template: ``(3, K)``, the mean of the real poses, centred.

    Returns:
        Poses ``(B, 3K)`` and cameras ``(B, 2, 3)``; ``reproject`` gives the same points of them.
    """
    image = in_camera(poses, camera).mT * poses.new_tensor([1.0, 1.0, -1.0])[:, None]
    with torch.no_grad():
        u, _, vt = torch.linalg.svd(template @ image.mT)  # of a centred template: where the image is does not matter
        sign = torch.ones(len(u), 3, dtype=poses.dtype, device=poses.device)
        sign[:, 2] = torch.linalg.det(u @ vt)  # rotations only: a reflection would undo the mirror
        turn = (u * sign[:, None]) @ vt
    scale = camera.norm(dim=2, keepdim=True)
    return (turn @ image).flatten(1), scale * turn.mT[:, :2]


def nearer_to_real(critic: nn.Module, poses: Tensor, camera: Tensor, template: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, of each pose and its mirror image, the one that the critic prefers.

    Ours. The kinematic chain space is the same for both, and a generator seldom finds the way from one to the other,
    which leads through flat poses; but the critic sees which way knees bend.

    Args:
        critic: Maps ``(B, 3K)`` to ``(B,)``, lower for poses like the real ones.
        poses: ``(B, 3K)``, x then y then z.
        camera: As ``mirrored`` takes it.
        template: As ``mirrored`` takes it.

    Returns:
        Poses ``(B, 3K)``, their cameras ``(B, 2, 3)``, and what the critic says ``(B,)``.
    """
    image, other_camera = mirrored(poses, camera, template)
    said, of_image = critic(poses), critic(image)
    better = of_image < said
    return (
        torch.where(better[:, None], image, poses),
        torch.where(better[:, None, None], other_camera, camera),
        torch.minimum(said, of_image),
    )
