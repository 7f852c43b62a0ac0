"""OfProgram: what an estimator that runs one program tells of it."""

from dataclasses import replace
from typing import Any, Self

from torch import nn

from poseglass.codecs import Codec
from poseglass.core.calibration import Calibration
from poseglass.core.card import WeightCard
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import SKELETONS
from poseglass.core.table import lookup
from poseglass.programs.early_exit import EarlyExit
from poseglass.programs.program import Program
from poseglass.programs.several_scales import SeveralScales
from poseglass.programs.torch_program import TorchProgram


class OfProgram:
    """The program of an estimator, and its parts. Estimators that run one program derive from it, as dataclasses."""

    __slots__ = ()

    program: Program
    card: WeightCard | None

    @property
    def skeleton(self) -> Skeleton:
        """Names the keypoints; it has none if only boxes are detected."""
        return self.program.skeleton

    @property
    def network(self) -> nn.Module:
        """The network, if PyTorch runs the program."""
        return self.torch_program.network

    @property
    def codec(self) -> Codec:
        """The codec that decodes the network's output, if PyTorch runs the program."""
        return self.torch_program.codec

    @property
    def flip_test(self) -> bool:
        """Whether each view's prediction is averaged with that of its flipped image."""
        return self.program.flip_test

    @property
    def calibrated(self) -> bool:
        """Whether results have probabilities and radii."""
        return self.program.calibrated

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of scores as this estimator makes them, if there is one."""
        if isinstance(self.program, TorchProgram):
            return self.program.calibration
        given = self.card.calibrations if self.calibrated and self.card is not None else ()
        return next((one for one in given if one.flip_test == self.flip_test), None)

    @property
    def early_exit(self) -> EarlyExit | None:
        """What stops each view early, and how many views ended where; None if all stages run."""
        forward = self.program.forward if isinstance(self.program, TorchProgram) else None
        if isinstance(forward, SeveralScales):
            forward = forward.forward
        return forward if isinstance(forward, EarlyExit) else None

    @property
    def torch_program(self) -> TorchProgram:
        """The program, if PyTorch runs it.

        Raises:
            ValueError: Another runtime runs it, and network, maps and flip test are not accessible.
        """
        if not isinstance(self.program, TorchProgram):
            raise ValueError(
                f"This estimator runs a {type(self.program).__name__}, whose network, maps and flip test are not "
                "accessible. Load the weights file it was made from: poseglass.load(FILE.safetensors)."
            )
        return self.program

    def with_flip_test(self, flip_test: bool) -> Self:
        """Return the same estimator with the flip test on or off.

        Raises:
            ValueError: The program is not PyTorch's, and its flip test differs from what was requested.
        """
        if flip_test == self.flip_test:
            return self
        changed: Any = replace(self, program=replace(self.torch_program, flip_test=flip_test))  # type: ignore[type-var]
        return changed

    def in_skeleton(self, skeleton: Skeleton | str) -> Self:
        """Return the same estimator that returns the keypoints of another skeleton, by name.

        Args:
            skeleton: A skeleton, or the name of one of ``core.skeletons.SKELETONS``, such as "coco17".

        Raises:
            LookupError: No skeleton of that name.
            ValueError: The weights do not predict all of its keypoints.
        """
        chosen = lookup(SKELETONS, skeleton, kind="skeleton") if isinstance(skeleton, str) else skeleton
        program: Any = self.program  # TorchProgram and GraphProgram have the field; Program need not
        changed: Any = replace(self, program=replace(program, given_out=chosen))  # type: ignore[type-var]
        return changed

    def described(self, size_wh: tuple[int, int]) -> str:
        """Return program or weights, keypoints, size of the views and flip test, for ``repr``."""
        what = repr(self.program) if self.card is None else f"{self.card.name!r}: {self.card.network['name']}"
        keypoints = f"{len(self.skeleton)} keypoints of {self.skeleton.name!r}" if len(self.skeleton) else "boxes only"
        flip = ", flip test" if self.flip_test else ""
        return f"{type(self).__name__}({what}, {keypoints}, {size_wh[0]} x {size_wh[1]} px{flip})"
