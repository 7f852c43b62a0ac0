"""RepNet: counts, losses and penalty as published (systems: counts of the released code; Wandt and Rosenhahn 2019)."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from poseglass.core.instances import Instances
from poseglass.core.skeletons import COCO17, H36M17, LSP14
from poseglass.lifting.labelled import labelled_points
from poseglass.lifting.repnet import (
    JOINT_WEIGHTS,
    REPNET16,
    SLOPE,
    RepNet,
    RepNetCritic,
    camera_loss,
    camera_norm,
    gradient_penalty,
    in_camera,
    mirrored,
    nearer_to_real,
    orthogonal,
    reproject,
    reprojection_loss,
    reprojection_norm,
)
from poseglass.lifting.residual_mlp import MartinezLifter, MaskedLifter


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_counts_of_the_released_code():
    net = RepNet()
    assert net.generator_parameters() == 7_088_048
    of_camera = count(net.enter) + count(net.shared) + count(net.camera_blocks) + count(net.camera)
    assert of_camera == 6_045_006
    assert count(net) == 11_098_054
    assert count(RepNetCritic()) == 2_373_401
    assert count(MartinezLifter()) == 4_291_632


def test_bones_are_those_of_the_released_code():
    """C of the released code, column by column: start +1, end -1."""
    expected = [
        (0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (7, 10), (10, 11), (11, 12), (7, 13), (13, 14),
        (14, 15), (0, 3), (0, 6),
    ]  # fmt: skip
    assert [tuple(bone) for bone in REPNET16.bone_indices.tolist()] == expected
    chain = RepNetCritic().chain
    assert chain is not None
    assert chain.chain.shape == (16, 15)
    assert chain.chain.sum(0).abs().max() == 0
    assert chain.chain[:, 13].tolist() == [1.0, 0, 0, -1.0] + [0.0] * 12


def test_slope_and_linear_outputs():
    assert SLOPE == 0.3
    net = RepNet(width=8)
    assert not any(isinstance(m, nn.BatchNorm1d | nn.Dropout) for m in net.modules())
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.constant_(module.bias, -1.0)
    pose, camera = net(torch.zeros(2, 32))
    assert (pose == -1).all()
    assert (camera == -1).all()
    # enter: -0.3; block: inside -0.3, then leaky(-0.3 - 1) = -0.39
    features = net.shared(nn.functional.leaky_relu(net.enter(torch.zeros(1, 32)), SLOPE))
    assert features[0].tolist() == pytest.approx([-0.39] * 8)


def test_reprojection_is_zero_for_its_own_projection():
    rng = torch.Generator().manual_seed(3)
    poses, camera = torch.randn(9, 48, generator=rng), torch.randn(9, 2, 3, generator=rng)
    seen = reproject(poses, camera)
    by_hand = torch.einsum("bij,bjk->bik", camera, poses.view(9, 3, 16)).reshape(9, 32)
    assert torch.allclose(seen, by_hand)
    weights = torch.tensor(JOINT_WEIGHTS)
    assert reprojection_loss(seen, reproject(poses, camera), weights) == 0
    assert reprojection_norm(seen, reproject(poses, camera)) == 0


def test_reprojection_loss_weighs_joints_in_both_axes():
    weights = torch.tensor(JOINT_WEIGHTS)
    for joint, expected in ((0, 1.0), (6, 0.0), (8, 0.1), (9, 0.1), (15, 1.0)):
        for axis in (0, 16):
            points = torch.zeros(1, 32)
            points[0, axis + joint] = 3.2
            assert float(reprojection_loss(points, torch.zeros(1, 32), weights)) == pytest.approx(0.1 * expected)
    unknown = torch.ones(2, 16)
    unknown[1] = 0
    points = torch.ones(2, 32)
    assert float(reprojection_loss(points, torch.zeros(2, 32), unknown)) == pytest.approx(0.5)
    assert float(reprojection_norm(points, torch.zeros(2, 32))) == pytest.approx(32**0.5)


@pytest.mark.parametrize("loss", [camera_loss, camera_norm])
@pytest.mark.parametrize("scale", [0.01, 1.0, 70.0])
def test_camera_loss_is_zero_for_scaled_rotations(loss, scale: float):
    rows = torch.from_numpy(Rotation.random(20, rng=np.random.default_rng(4)).as_matrix()[:, :2])
    assert float(loss(scale * rows)) < 1e-12
    skewed = rows.clone()
    skewed[:, 1] = skewed[:, 1] + 0.2 * skewed[:, 0]
    assert float(loss(scale * skewed)) > 0.05
    assert float(loss(scale * skewed)) == pytest.approx(float(loss(skewed)))
    longer = rows.clone()
    longer[:, 1] *= 1.3
    assert float(loss(longer)) > 0.05


def test_forms_of_the_camera_loss():
    camera = torch.tensor([[[1.0, 0, 0], [0, 0, 0]]])  # 2 / 1 * diag(1, 0) - I = diag(1, -1)
    assert float(camera_loss(camera)) == pytest.approx(2.0)
    assert float(camera_norm(camera)) == pytest.approx(2**0.5)


def test_penalty_of_a_linear_critic():
    weight = torch.randn(48, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    class Linear(nn.Module):
        def forward(self, poses: torch.Tensor) -> torch.Tensor:
            return poses @ weight

    real, fake = torch.randn(7, 48, dtype=torch.float64), torch.randn(7, 48, dtype=torch.float64)
    penalty = gradient_penalty(Linear(), real, fake, torch.rand(7, 1, dtype=torch.float64))
    assert float(penalty) == pytest.approx(10 * (float(weight.norm()) - 1) ** 2, rel=1e-12)


def test_penalty_is_taken_between_real_and_generated():
    class Squared(nn.Module):
        def forward(self, poses: torch.Tensor) -> torch.Tensor:
            return poses.square().sum(1) / 2  # the gradient is the pose

    real, fake = torch.full((1, 4), 1.0), torch.full((1, 4), 3.0)
    at = float(gradient_penalty(Squared(), real, fake, torch.tensor([[0.25]])).detach())
    assert at == pytest.approx(10 * (2 * 2.5 - 1) ** 2)  # 0.25 * 1 + 0.75 * 3 = 2.5 in four axes


def test_penalty_trains_the_critic():
    critic = RepNetCritic(width=16, pose_width=8)
    gradient_penalty(critic, torch.randn(4, 48), torch.randn(4, 48), torch.rand(4, 1)).backward()
    for name, parameter in critic.named_parameters():
        if name.endswith("weight"):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_in_camera_turns_and_keeps_shape():
    rotation = torch.from_numpy(Rotation.random(6, rng=np.random.default_rng(6)).as_matrix()).float()
    poses = torch.randn(6, 48, generator=torch.Generator().manual_seed(6))
    found = in_camera(poses, 2.5 * rotation[:, :2])
    expected = (rotation @ poses.view(6, 3, 16)).mT
    assert torch.allclose(found, expected, atol=1e-5)


def turned(count: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix()).float()


def test_a_mirror_image_projects_alike_and_stands_as_the_template():
    template = torch.randn(3, 16, generator=torch.Generator().manual_seed(8))
    template -= template.mean(1, keepdim=True)
    poses = template.flatten() + 0.05 * torch.randn(6, 48, generator=torch.Generator().manual_seed(9))
    camera = 2.5 * turned(6, 8)[:, :2]
    image, other = mirrored(poses, camera, template)
    assert torch.allclose(reproject(image, other), reproject(poses, camera), atol=1e-4)
    assert float(camera_loss(other)) < 1e-5
    one, two = in_camera(poses, camera), in_camera(image, other)
    assert torch.allclose(one * torch.tensor([1.0, 1.0, -1.0]), two, atol=1e-4)
    # no rotation brings it nearer to the template
    centred = image.view(6, 3, 16) - image.view(6, 3, 16).mean(2, keepdim=True)
    apart = (centred - template).square().sum((1, 2))
    for seed in range(20):
        small = torch.from_numpy(
            Rotation.from_rotvec(0.1 * np.random.default_rng(seed).normal(size=(6, 3))).as_matrix()
        )
        assert ((small.float() @ centred - template).square().sum((1, 2)) >= apart - 1e-3).all()
    back, again = mirrored(image, other, template)
    assert torch.allclose(in_camera(back, again), one, atol=1e-4)
    # of the image, the image: the pose again, turned as near to the template as it can be
    bones = poses.view(6, 3, 16)[..., 1:] - poses.view(6, 3, 16)[..., :1]
    bones_back = back.view(6, 3, 16)[..., 1:] - back.view(6, 3, 16)[..., :1]
    assert torch.allclose(torch.linalg.det(bones[..., :3]), torch.linalg.det(bones_back[..., :3]), atol=1e-3)


def test_the_critic_chooses_between_a_pose_and_its_mirror_image():
    """A critic that likes one handedness gets it, whichever of both the generator gave; gradients reach the pose."""
    template = torch.randn(3, 16, generator=torch.Generator().manual_seed(8))
    template -= template.mean(1, keepdim=True)

    def hand(poses: torch.Tensor) -> torch.Tensor:
        bones = poses.view(-1, 3, 16)[..., 1:4] - poses.view(-1, 3, 16)[..., :1]
        return torch.linalg.det(bones)

    critic = type("Hand", (nn.Module,), {"forward": lambda _self, poses: hand(poses)})()
    poses = torch.randn(8, 48, generator=torch.Generator().manual_seed(10), requires_grad=True)
    camera = turned(8, 9)[:, :2]
    assert (hand(poses) > 0).any()
    assert (hand(poses) < 0).any()
    chosen, cameras, said = nearer_to_real(critic, poses, camera, template)
    assert (said < 0).all()
    assert torch.allclose(hand(chosen), said, atol=1e-4)
    assert torch.allclose(reproject(chosen, cameras), reproject(poses, camera), atol=1e-4)
    said.sum().backward()
    assert poses.grad is not None
    assert (poses.grad.abs().sum(1) > 0).all()
    with pytest.raises(ValueError, match=r"mirror needs camera 'rotation', got 'free'"):
        RepNet(width=8, mirror=True)


def test_orthogonal_cameras():
    camera = orthogonal(torch.randn(30, 2, 3, generator=torch.Generator().manual_seed(7)))
    assert float(camera_loss(camera)) < 1e-5
    rotation = RepNet(width=8, camera="rotation")(torch.randn(5, 32))[1].detach()
    assert float(camera_loss(rotation)) < 1e-5


def test_camera_of_another_form():
    with pytest.raises(ValueError, match=r"camera must be 'free' \(as published\) or 'rotation', got 'fixed'"):
        RepNet(width=8, camera="fixed")  # type: ignore[arg-type]


def test_critic_without_the_chain_sees_the_pose_alone():
    with_chain, without = RepNetCritic(width=16, pose_width=8), RepNetCritic(width=16, pose_width=8, chain=False)
    assert count(without) < count(with_chain)
    assert without(torch.randn(3, 48)).shape == (3,)
    nn.init.zeros_(with_chain.together.weight[:, 8:])
    poses = torch.randn(3, 48)
    changed = torch.cat([poses[:, :16], poses[:, 16:32], poses[:, 32:]], 1)
    assert torch.equal(with_chain(poses), with_chain(changed))


def test_masked_lifter_does_not_see_unknown_points():
    net = MaskedLifter(17, width=32, blocks=1).eval()
    points, known = torch.randn(2, 17, 2), torch.rand(2, 17) > 0.4
    other = torch.where(known[..., None], points, 1e3)
    assert torch.equal(net(points, known)[0], net(other, known)[0])
    assert not torch.equal(net(points, known)[0], net(points, torch.ones_like(known))[0])
    assert (net(points, known)[1] > 0).all()


def test_labels_without_a_spine_get_one_where_projections_have_it():
    rng = np.random.default_rng(8)
    world = rng.normal(size=(40, 17, 3))
    spine, hips = H36M17.index("spine"), [H36M17.index("left_hip"), H36M17.index("right_hip")]
    neck = H36M17.index("neck")
    world[:, spine] = 0.6 * world[:, neck] + 0.4 * world[:, hips].mean(1)
    seen = 40 * world[..., :2] + [300.0, 200.0]
    lsp = seen[:, H36M17.indices_of(LSP14.keypoints)]
    lsp[3, 0] = np.nan
    points = labelled_points(Instances.from_keypoints(LSP14, lsp), world, H36M17)
    assert points.shape == (39, 16, 2)
    kept = np.delete(np.arange(40), 3)
    order = H36M17.indices_of(REPNET16.keypoints)
    known = [k for k, name in enumerate(REPNET16.keypoints) if name != "thorax"]
    assert np.abs(points[:, known] - seen[kept][:, order[known]]).max() < 0.01


def test_labels_without_a_neck():
    people = Instances.from_keypoints(COCO17, np.zeros((1, 17, 2)))
    with pytest.raises(ValueError, match=r"'coco17' have no head_top, neck, which RepNet needs. Give labels with"):
        labelled_points(people, np.zeros((2, 17, 3)), H36M17)
