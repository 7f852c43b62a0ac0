"""TorchProgram: a network run by PyTorch, and its conversion to one module for ``torch.export``."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from poseglass.codecs import Codec, CodecSpec
from poseglass.core.calibration import Calibration, read_curves
from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.programs.normalise import normalise
from poseglass.programs.part import check_part, in_part
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
        network_skeleton: Names the keypoints that the network predicts.
        input: Size, padding, crop rule, normalisation.
        flip_test: Average with the flipped view: twice the computation, slightly more accurate.
        forward: Function that runs the network; ``torch_forward(network)`` by default. ``fast.fast_forward`` makes
            faster ones. It belongs to this network: if you replace the network, replace it too.
        calibrations: What scores mean with and without flip test; the one that fits ``flip_test`` fills probability and
            radius. Without one they are None.
        given_out: Skeleton of the result, with some or all of the network's keypoints, by name. None keeps all.

    Raises:
        ValueError: A flip test for keypoints whose left and right counterparts are not known, see
            ``Skeleton.mirroring_unknown``; or keypoints to return that the network does not predict.
    """

    network: nn.Module
    codec: Codec
    network_skeleton: Skeleton
    input: InputSpec
    flip_test: bool = field(default=False, kw_only=True)
    forward: Forward | None = field(default=None, kw_only=True)
    calibrations: tuple[Calibration, ...] = field(default=(), kw_only=True)
    given_out: Skeleton | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.network.eval()
        skeleton = self.network_skeleton
        if self.flip_test and not skeleton.mirrors:
            raise ValueError(
                f"There is no flip test for skeleton {skeleton.name!r}: {skeleton.mirroring_unknown}. "
                "Disable the flip test, or train with flip_pairs given for the data set; the weights' card stores them."
            )
        if self.given_out is not None:
            check_part(self.given_out, skeleton)

    def __repr__(self) -> str:
        width, height = self.input.size_wh
        flip = ", flip test" if self.flip_test else ""
        return f"TorchProgram({type(self.network).__name__}, {type(self.codec).__name__}, {width} x {height} px{flip})"

    @property
    def skeleton(self) -> Skeleton:
        """Names the keypoints of the result."""
        return self.network_skeleton if self.given_out is None else self.given_out

    @property
    def spec(self) -> CodecSpec:
        """Spec of the codec."""
        return self.codec.spec

    def __call__(self, views: Tensor) -> Decoded:
        """Run views ``(B, H, W, 3)`` uint8 RGB; the result is on the network's device.

        Raises:
            TypeError: Views that are not uint8 ``(B, H, W, 3)``.
        """
        return finish(self, self.codec.decode(self.predict(views)))

    def predict(self, views: Tensor) -> Prediction:
        """Return what the codec decodes: the last stage, averaged by the flip test if it is enabled."""
        forward = self.forward or torch_forward(self.network)
        if self.flip_test:
            forward = with_flip_test(forward, self.codec, self.network_skeleton)
        return forward(normalise(views, self.input))

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of scores as this program makes them, if there is one."""
        return next((one for one in self.calibrations if one.flip_test == self.flip_test), None)

    @property
    def calibrated(self) -> bool:
        """Whether results have probabilities and radii."""
        return self.calibration is not None

    def module(self) -> "ProgramModule":
        """Return the whole program as one module in evaluation mode, for ``torch.export``, without a faster forward.

        Its ``forward`` takes views ``(B, H, W, 3)`` uint8 on the network's device and returns ``Decoded``.
        """
        return ProgramModule(self).eval()


def finish(program: TorchProgram, decoded: Decoded) -> Decoded:
    """Return what a program's codec decoded, with the calibration and in the skeleton that it gives out."""
    if program.calibration is not None:
        decoded = calibrated(decoded, program.calibration, program.input.size_wh)
    return in_part(decoded, program.network_skeleton, program.given_out)


def calibrated(decoded: Decoded, calibration: Calibration, size_wh: tuple[int, int]) -> Decoded:
    """Return decoded instances with probabilities, and with radii in pixels of views of ``size_wh``."""
    more: dict[str, Tensor] = {}
    if len(calibration.probability):
        more["probability"] = read_curves(calibration.probability, decoded.score)
    if calibration.radius_share is not None:
        side: Tensor | float = max(size_wh)
        if decoded.box_xyxy is not None:
            side = (decoded.box_xyxy[..., 2:] - decoded.box_xyxy[..., :2]).amax(-1)[..., None]
        more["radius_px"] = read_curves(calibration.radius_share, decoded.score) * side
    if calibration.box_probability is not None:
        more["box_probability"] = read_curves(calibration.box_probability, decoded.box_score)
    return replace(decoded, **more)


class ProgramModule(nn.Module):
    """A program as one module that can be traced; see ``TorchProgram.module``."""

    def __init__(self, program: TorchProgram) -> None:
        super().__init__()
        self.network, self.program = program.network, program

    def forward(self, views: Tensor) -> Decoded:
        """Run views ``(B, H, W, 3)`` uint8 RGB."""
        return self.decoded(self.prediction(views))

    def prediction(self, views: Tensor) -> Prediction:
        """Return what the codec decodes, as ``TorchProgram.predict``."""
        program = self.program

        def last_stage(images: Tensor) -> Prediction:
            return self.network(images)[-1]

        run = with_flip_test(last_stage, program.codec, program.network_skeleton) if program.flip_test else last_stage
        return run(normalise(views, program.input))

    def decoded(self, prediction: Prediction) -> Decoded:
        """Return the decoded instances, calibrated and in the skeleton that the program gives out."""
        return finish(self.program, self.program.codec.decode(prediction))
