"""SimCC: two classifications per keypoint, one over the columns and one over the rows of a finer grid.

Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", ECCV 2022,
https://arxiv.org/abs/2107.03332, section 3. How this differs: a score is a probability mass, in [0, 1], instead of the
largest logit; and the flip maps bins to the positions of the flipped pixels, which shifts them by ``split - 1`` bins,
whereas public code only reverses the vectors and is off by half a pixel at a split of 2.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from poseglass.codecs.heatmap import share_inside
from poseglass.codecs.spec import CodecSpec, Output
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets, one_instance


@dataclass(frozen=True, slots=True)
class SimccCodec:
    """Logits over ``W * split`` bins of x and ``H * split`` bins of y.

    Args:
        split: Bins per input pixel; bin ``b`` is at input pixel ``b / split``.
        sigma: Standard deviation of the Gaussian that smooths the labels, bins.
        score: How the probabilities along x and y are combined. "min": the smaller one, as mmpose does with its logits.
            "mean": their mean, as others do; a single blurred axis then lowers the score less.

    Raises:
        ValueError: A number out of range, or an unknown option.
    """

    split: int = 2
    sigma: float = 6.0
    score: Literal["min", "mean"] = "min"

    def __post_init__(self) -> None:
        if self.split < 1 or not self.sigma > 0:
            raise ValueError(f"SimccCodec needs split >= 1 and sigma > 0, got split={self.split}, sigma={self.sigma}.")
        if self.score not in ("min", "mean"):
            raise ValueError(f"SimccCodec.score must be 'min' or 'mean', got {self.score!r}.")

    @property
    def spec(self) -> CodecSpec:
        """What the codec decodes and encodes."""
        outputs = {"x": Output(("K", "X"), "softmax"), "y": Output(("K", "Y"), "softmax")}
        return CodecSpec(outputs, alignment="corner", sigma=self.sigma, bins_per_px=self.split)

    def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
        """Return smoothed labels on the targets' device, including keypoints up to three sigma outside the view.

        Returns:
            ``"x"`` ``(B, K, W * split)`` and ``"y"`` ``(B, K, H * split)``, distributions around the nearest bin that
            sum to 1 inside; ``"weight"`` ``(B, K)``, multiplied by the share of the label that is inside. Unknown
            keypoints have empty labels.
        """
        xy, weight = one_instance(targets)
        bins = torch.tensor([size_wh[0] * self.split, size_wh[1] * self.split])
        at = (xy.float() * self.split).round()
        reach = 3 * self.sigma
        inside = ((at >= -reach) & (at <= bins.to(at.device) - 1 + reach)).all(-1)
        weight = weight * inside
        at = torch.where((weight > 0)[..., None], at, -1e6)
        weight = weight * share_inside(at, (int(bins[0]), int(bins[1])), self.sigma)
        x, y = (
            torch.exp((torch.arange(n, device=at.device) - at[..., axis, None]).square() * (-0.5 / self.sigma**2))
            for axis, n in enumerate(bins.tolist())
        )
        height = 1 / (self.sigma * math.sqrt(2 * math.pi))
        return {"x": x * height, "y": y * height, "weight": weight}

    def decode(self, prediction: Prediction) -> Decoded:
        """Decode ``"x"`` ``(B, K, W * split)`` and ``"y"`` ``(B, K, H * split)``, logits.

        Returns:
            Points in network-input pixels ``(B, 1, K, 2)``; scores are the probability mass within two sigma of the
            peaks.
        """
        (x, in_x), (y, in_y) = (peak_and_belief(prediction[axis], 2 * self.sigma) for axis in ("x", "y"))
        score = torch.minimum(in_x, in_y) if self.score == "min" else (in_x + in_y) / 2
        return Decoded.one_instance(torch.stack([x, y], -1) / self.split, score)

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        """Convert the prediction for a flipped image into one for the original image.

        The last ``split - 1`` bins of x lie beyond the flipped image's first pixel; they repeat the last valid bin.
        """
        order = torch.as_tensor(skeleton.flip, device=prediction["x"].device)
        x = prediction["x"].flip(-1).index_select(1, order)
        beyond = self.split - 1
        if beyond:
            x = torch.cat([x[..., beyond:], x[..., -1:].expand(*x.shape[:-1], beyond)], -1)
        return {"x": x, "y": prediction["y"].index_select(1, order)}


def peak_and_belief(logits: Tensor, reach_bins: float) -> tuple[Tensor, Tensor]:
    """Return the bin of the largest logit, and the probability mass within ``reach_bins`` bins of it.

    If adjacent bins share the largest logit, as happens in bfloat16, it is the middle of the first run of them: taking
    the first bin would bias the result to the left, or upwards.

    Args:
        logits: ``(B, K, n)``.
        reach_bins: Bins to each side, rounded up.

    Returns:
        ``(B, K)`` float32 each. If a logit is NaN or infinite, the probability mass is 0.
    """
    logits = logits.float()
    bins = torch.arange(logits.shape[-1], device=logits.device)
    first = logits.argmax(-1, keepdim=True)
    beyond = (bins > first) & (logits != logits.gather(-1, first))
    last = torch.where(beyond, bins, bins.numel()).amin(-1, keepdim=True) - 1
    at = (first + last) / 2
    near = (bins - at).abs() <= math.ceil(reach_bins)
    share = (torch.softmax(logits, -1) * near).sum(-1)
    return at.squeeze(-1), share.nan_to_num(0.0).clamp(0.0, 1.0)
