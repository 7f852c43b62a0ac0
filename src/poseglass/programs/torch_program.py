"""TorchProgram: a network run by PyTorch, and its conversion to one module for ``torch.export``."""

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
    """Return the plain forward of a network: evaluation mode, no gradients, on the network's device."""

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
        codec: Decodes instances from the last stage.
        skeleton: Names the keypoints.
        input: Size, padding, crop rule, normalisation.
        flip_test: Average with the flipped view: twice the computation, slightly more accurate.
        forward: Function that runs the network; ``torch_forward(network)`` by default. ``fast.fast_forward`` makes
            faster ones. It belongs to this network: if you replace the network, replace it too.

    Raises:
        ValueError: A flip test for keypoints whose left and right counterparts are not known; see
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
                f"There is no flip test for skeleton {self.skeleton.name!r}: {self.skeleton.mirroring_unknown}. "
                "Disable the flip test, or train with flip_pairs given for the data set; the weights' card stores them."
            )

    def __repr__(self) -> str:
        width, height = self.input.size_wh
        flip = ", flip test" if self.flip_test else ""
        return f"TorchProgram({type(self.network).__name__}, {type(self.codec).__name__}, {width} x {height} px{flip})"

    @property
    def spec(self) -> CodecSpec:
        """Spec of the codec."""
        return self.codec.spec

    def __call__(self, views: Tensor) -> Decoded:
        """Run views ``(B, H, W, 3)`` uint8 RGB; the result is on the network's device.

        Raises:
            TypeError: Views that are not uint8 ``(B, H, W, 3)``.
        """
        return self.codec.decode(self.predict(views))

    def predict(self, views: Tensor) -> Prediction:
        """Return what the codec decodes: the last stage, averaged by the flip test if it is enabled."""
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
    """A program as one module that can be traced."""

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
