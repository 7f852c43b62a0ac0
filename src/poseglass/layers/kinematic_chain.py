"""Kinematic chain space (Wandt, Ackermann and Rosenhahn 2018): a pose as the inner products of its bones."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class KinematicChainSpace(nn.Module):
    """Map poses to ``Psi = B^T B``, where the columns of ``B = X C`` are the bones.

    ``Psi`` has the squared bone lengths on its diagonal and the inner products of bones, so the angles between them,
    beside it. It does not change when the pose is rotated or moved. It has no parameters.

    Args:
        num_keypoints: K.
        bones: M pairs ``(start, end)`` of keypoint indices; a bone is start minus end.

    Raises:
        ValueError: There are no bones, or one names an index that is not there, or joins a keypoint with itself.

    Source:
        Wandt and Rosenhahn 2019, section 3.2, https://arxiv.org/abs/1902.09868.

    Example:
        >>> chain = KinematicChainSpace(3, ((0, 1), (1, 2)))
        >>> pose = torch.tensor([[[0.0, 3.0, 3.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]]])  # x, y and z of three keypoints
        >>> chain(pose).tolist()
        [[[9.0, 0.0], [0.0, 16.0]]]
    """

    chain: Tensor

    def __init__(self, num_keypoints: int, bones: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        if not bones:
            raise ValueError("A kinematic chain needs bones, got none. Give pairs of keypoint indices.")
        chain = torch.zeros(num_keypoints, len(bones))
        for column, (start, end) in enumerate(bones):
            if not (0 <= start < num_keypoints and 0 <= end < num_keypoints) or start == end:
                raise ValueError(
                    f"A bone joins two different keypoints of 0 to {num_keypoints - 1}, got ({start}, {end}). Give "
                    "pairs of indices of the skeleton's keypoints."
                )
            chain[start, column], chain[end, column] = 1.0, -1.0
        self.register_buffer("chain", chain, persistent=False)

    def forward(self, xyz: Tensor) -> Tensor:
        """Map poses ``(B, 3, K)``, axes before keypoints, in any unit, to ``(B, M, M)`` in that unit squared.

        Raises:
            ValueError: They have another shape.
        """
        if xyz.ndim != 3 or xyz.shape[1:] != (3, len(self.chain)):
            raise ValueError(
                f"Expected poses of shape (B, 3, {len(self.chain)}), axes before keypoints, got {tuple(xyz.shape)}. "
                "Transpose (B, K, 3) with poses.mT."
            )
        bones = xyz @ self.chain.to(xyz.dtype)
        return bones.mT @ bones
