"""Layer 4: programs: uint8 views in, decoded instances out, including normalisation, flip test and decoding."""

from poseglass.programs.normalise import model_input, normalise
from poseglass.programs.program import Program
from poseglass.programs.torch_program import TorchProgram

__all__ = ["Program", "TorchProgram", "model_input", "normalise"]
