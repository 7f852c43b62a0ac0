"""TorchProgram: a network run by PyTorch, and the same as one module that ``torch.export`` takes."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from poseglass.codecs import Codec, CodecSpec
from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.programs.normalise import normalise
from poseglass.programs.program import Forward, with_flip_test


def torch_forward(network: nn.Module) -> Forward:
    """Return the plain way to run a network: evaluation mode, no gradients, on the network's device."""

    def run(images: Tensor) -> Prediction:
        if network.training:
            network.eval()
        device = next(network.parameters()).device
        with torch.inference_mode():
            return network(images.to(device))[-1]

    return run


@dataclass(frozen=True, slots=True, eq=False)
class TorchProgram:
    """A network with normalisation, flip test and decoding.

    Args:
        network: Images to stages.
        codec: Reads instances out of the last stage.
        skeleton: Names the keypoints.
        input: Size, padding, crop rule, normalisation.
        flip_test: Average with the flipped view: twice the work, a little more accurate.
        forward: What runs the network; ``torch_forward(network)`` unless given. ``fast.fast_forward`` makes faster
            ones. It is of this network: whoever replaces the network replaces it too.

    Raises:
        ValueError: A flip test of keypoints of which it is not known what a mirrored image looks like; see
            ``Skeleton.mirroring_unknown``.
    """

    network: nn.Module
    codec: Codec
    skeleton: Skeleton
    input: InputSpec
    flip_test: bool = field(default=False, kw_only=True)
    forward: Forward | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.network.eval()
        if self.flip_test and not self.skeleton.mirrors:
            raise ValueError(
                f"There is no flip test for skeleton {self.skeleton.name!r}: {self.skeleton.mirroring_unknown}. Leave "
                "the flip test out, or train with flip_pairs given for the data set, which go into the weights' card."
            )

    def __repr__(self) -> str:
        width, height = self.input.size_wh
        flip = ", flip test" if self.flip_test else ""
        return f"TorchProgram({type(self.network).__name__}, {type(self.codec).__name__}, {width} x {height} px{flip})"

    @property
    def spec(self) -> CodecSpec:
        """Of the codec."""
        return self.codec.spec

    def __call__(self, views: Tensor) -> Decoded:
        """Run views ``(B, H, W, 3)`` uint8 RGB; the answer lies where the network does.

        Raises:
            TypeError: Views that are not uint8 ``(B, H, W, 3)``.
        """
        return self.codec.decode(self.predict(views))

    def predict(self, views: Tensor) -> Prediction:
        """Return what the codec reads: the last stage, averaged over the flip test where that is on."""
        forward = self.forward or torch_forward(self.network)
        if self.flip_test:
            forward = with_flip_test(forward, self.codec, self.skeleton)
        return forward(normalise(views, self.input))

    def module(self) -> nn.Module:
        """Return the whole program as one module in evaluation mode, for ``torch.export``, without a faster forward.

        Its ``forward`` takes views ``(B, H, W, 3)`` uint8 on the network's device and returns ``Decoded``.
        """
        return _ProgramModule(self).eval()


class _ProgramModule(nn.Module):
    """A program with nothing left to Python but its own arithmetic."""

    def __init__(self, program: TorchProgram) -> None:
        super().__init__()
        self.network = program.network
        self.codec, self.skeleton, self.input = program.codec, program.skeleton, program.input
        self.flip_test = program.flip_test

    def forward(self, views: Tensor) -> Decoded:
        def last_stage(images: Tensor) -> Prediction:
            return self.network(images)[-1]

        run = with_flip_test(last_stage, self.codec, self.skeleton) if self.flip_test else last_stage
        return self.codec.decode(run(normalise(views, self.input)))
