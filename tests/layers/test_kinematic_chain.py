"""Kinematic chain space: bone lengths, inner products, and no change when a pose is rotated and moved."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from poseglass.layers.kinematic_chain import KinematicChainSpace

BONES = ((0, 1), (1, 2), (0, 3), (3, 4))


def test_diagonal_is_squared_bone_lengths():
    pose = torch.randn(7, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    psi = KinematicChainSpace(5, BONES)(pose)
    lengths = torch.stack([(pose[:, :, a] - pose[:, :, b]).square().sum(1) for a, b in BONES], 1)
    assert float((psi.diagonal(dim1=1, dim2=2) - lengths).abs().max()) < 1e-12
    assert torch.equal(psi, psi.mT)
    assert (torch.linalg.matrix_rank(psi, rtol=1e-9) == 3).all()


def test_unchanged_by_rotation_and_translation():
    rng = np.random.default_rng(2)
    pose = rng.normal(size=(50, 3, 5))
    moved = Rotation.random(50, rng=rng).as_matrix() @ pose + rng.normal(size=(50, 3, 1))
    chain = KinematicChainSpace(5, BONES)
    difference = (chain(torch.from_numpy(pose)) - chain(torch.from_numpy(moved))).abs().max()
    assert float(difference) < 1e-12
    assert float((chain(torch.from_numpy(pose)) - chain(torch.from_numpy(pose * 1.1))).abs().max()) > 0.1


def test_columns_of_the_chain_sum_to_zero_and_it_is_not_stored():
    chain = KinematicChainSpace(5, BONES)
    assert chain.chain.sum(0).abs().max() == 0
    assert not chain.state_dict()
    assert not list(chain.parameters())


@pytest.mark.parametrize("bones", [((0, 5),), ((-1, 0),), ((2, 2),)])
def test_bones_of_other_keypoints(bones: tuple[tuple[int, int], ...]):
    with pytest.raises(ValueError, match=r"joins two different keypoints of 0 to 4, got .*Give pairs of indices"):
        KinematicChainSpace(5, bones)


def test_no_bones():
    with pytest.raises(ValueError, match="needs bones, got none"):
        KinematicChainSpace(5, ())


def test_poses_of_another_shape():
    with pytest.raises(ValueError, match=r"\(B, 3, 5\).*got \(2, 5, 3\).*poses\.mT"):
        KinematicChainSpace(5, BONES)(torch.zeros(2, 5, 3))
