"""Faster forward functions that compute the same maps as the network.

The steps, in this order: batch norm is folded into the convolution before it, memory is channels-last, arithmetic is
bfloat16 if requested, and ``torch.compile`` fuses the rest if requested. Each step works on a copy of the network and
is checked against the original network before it is used; a step that fails its check is skipped, with a warning.
Compiling treats weights as constants (inductor's ``freezing``), which arranges kernels in memory once instead of at
every call. In PyTorch 2.13 this folds a batch norm into a transposed convolution incorrectly: those are folded here
beforehand, and if the check still fails, the network is compiled again without freezing. Guards that would check at
every call whether the network is still the compiled one are skipped (2 ms of HRNet's 40), since nothing else uses the
copy.
"""

import copy
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from poseglass.core.precision import guarded_precision, has_bfloat16
from poseglass.core.prediction import Prediction
from poseglass.layers.depthwise import DepthwiseConv2d
from poseglass.programs.inductor import compile_settings, version
from poseglass.programs.program import Forward
from poseglass.programs.torch_program import TorchProgram, torch_forward

Precision = Literal["float32", "bfloat16"]

TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 0.1}
"""Tolerated difference from the original network's maps, relative to their largest value; see ``difference``."""

CHUNK = 8
"""A compiled network runs batches of 1 and of this size only, so it is compiled at most twice per input size."""

MOST_FORMS = 4
"""Maximum number of compiled variants: one per shape (B, 3, H, W), threads and autocast; others run uncompiled."""

_logger = logging.getLogger("poseglass")


def fast_forward(
    network: nn.Module,
    size_wh: tuple[int, int],
    *,
    precision: Precision = "float32",
    compiled: bool = False,
    on_warning: Callable[[str], None] = _logger.warning,
) -> Forward:
    """Return a forward over a folded, channels-last copy of a network.

    Args:
        network: Images to stages, on the device where it is to run. It is not changed, except to evaluation mode; later
            changes of its weights do not affect the copy.
        size_wh: Size of the images used to check the steps, pixels. Other sizes also work.
        precision: Precision of weights and arithmetic. Batch norm that could not be folded and the output convolutions
            stay float32, and maps are always float32.
        compiled: Compile with ``torch.compile`` (inductor), which needs a C++ compiler. This happens on the first batch
            and takes 3 to 90 s for batches of 1 and again for larger ones; the code is kept in PyTorch's cache for the
            next start.
        on_warning: Called with a sentence for each step that was skipped.

    Returns:
        Function from normalised float32 images ``(B, 3, H, W)`` to the last stage, float32.

    Raises:
        ValueError: An unknown precision, or a size that the network does not accept.
    """
    if precision not in TOLERANCE:
        raise ValueError(f"precision must be one of {', '.join(map(repr, TOLERANCE))}, got {precision!r}.")
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, size_wh[1], size_wh[0], generator=generator).to(device)
    expected = torch_forward(network)(images)

    def tried(make: Callable[[], nn.Module], dtype: torch.dtype, tolerance: float) -> "_Answer | str":
        """Return a replacement for the original network, or why there is none."""
        try:
            answer = _Answer(make().to(memory_format=torch.channels_last), dtype)  # type: ignore[call-overload]
            apart = difference(expected, answer.run(images))
        except Exception as error:  # a custom network may raise anything when it is changed
            return f"{type(error).__name__}: {_first_line(error)}"
        return answer if apart < tolerance else _too_far(apart, tolerance)

    answer = tried(lambda: fold_batch_norms(network, images), torch.float32, TOLERANCE["float32"])
    if isinstance(answer, str):
        on_warning(f"Batch norm is not folded into the convolutions of {type(network).__name__}: {answer}")
        answer = _Answer(copy.deepcopy(network).to(memory_format=torch.channels_last), torch.float32)  # type: ignore[call-overload]
    if precision == "bfloat16":
        folded, lower = answer.network, "this device has no native bfloat16 arithmetic and would be slower with it."
        if has_bfloat16(device):
            _, lower = guarded_precision(torch.bfloat16, network, [size_wh], device)
            lower = lower.removeprefix("float32 instead of bfloat16: ")
            if not lower:
                lower = tried(lambda: lowered(folded, images), torch.bfloat16, TOLERANCE["bfloat16"])
        if isinstance(lower, str):
            on_warning(f"float32 instead of bfloat16: {lower}")
            precision = "float32"
        else:
            answer = lower
    return _Compiled(answer, TOLERANCE[precision], on_warning) if compiled else answer.run


def fold_batch_norms(network: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy, in evaluation mode, in which batch norms directly after a convolution are folded into it.

    These are found by running the network once: a ``Conv2d`` or ``ConvTranspose2d`` whose output is, unchanged, the
    input of a ``BatchNorm2d``, both used once. Where no convolution comes before, as at the start of a pre-activation
    residual, batch norm stays.

    A convolution whose output is also used elsewhere cannot be recognised in this way, and would be folded incorrectly:
    compare the copy with the network before using it, as ``fast_forward`` does.

    Args:
        network: Images to stages.
        images: ``(B, 3, H, W)`` that the network accepts; their content does not matter.
    """
    folded = copy.deepcopy(network).eval()
    part_of: set[nn.Module] = set()
    for conv, norm in _convolutions_before_norms(folded, images):
        fused = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
        conv.weight, conv.bias = fused.weight, fused.bias
        part_of.add(norm)
    for name, module in list(folded.named_modules(remove_duplicate=False)):
        if module in part_of:
            _replace(folded, name, nn.Identity())
    return folded


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def _convolutions_before_norms(
    network: nn.Module, images: Tensor
) -> list[tuple[nn.Conv2d | nn.ConvTranspose2d, nn.BatchNorm2d]]:
    # outputs are kept, so that no other tensor gets the same id; the version reveals in-place changes, as by a ReLU
    outputs: dict[int, tuple[nn.Conv2d | nn.ConvTranspose2d, Tensor, int]] = {}
    calls: Counter[nn.Module] = Counter()
    found: list[tuple[nn.Conv2d | nn.ConvTranspose2d, nn.BatchNorm2d]] = []

    def made(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        calls[module] += 1
        outputs[id(output)] = (module, output, version(output))

    def taken(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        calls[module] += 1
        conv, _, then = outputs.get(id(inputs[0]), (None, None, -1))
        if conv is not None and version(inputs[0]) == then:
            found.append((conv, module))

    hooks = []
    for module in network.modules():
        # exact types: a parametrised convolution recomputes its weight
        if type(module) in (nn.Conv2d, DepthwiseConv2d) or (type(module) is nn.ConvTranspose2d and module.groups == 1):
            hooks.append(module.register_forward_hook(made))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(taken))
    try:
        # tensors made in inference mode, which the caller may be in, have no versions
        with torch.inference_mode(False), torch.no_grad():
            network(images.clone())
    finally:
        for hook in hooks:
            hook.remove()
    uses = Counter(conv for conv, _ in found)
    return [(conv, norm) for conv, norm in found if calls[conv] == calls[norm] == uses[conv] == 1]


def lowered(network: nn.Module, images: Tensor, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """Return a copy in half precision; batch norm and the layers that output the last stage stay float32.

    bfloat16 has eight bits of precision: maps rounded to it have many equal values around a peak, and their argmax is
    whichever comes first. In float32 the last layer costs little and resolves them.

    Args:
        network: In evaluation mode.
        images: ``(B, 3, H, W)`` that the network accepts.
        dtype: ``torch.bfloat16`` or ``torch.float16``; the copy takes images of it.
    """
    lower = copy.deepcopy(network)
    outputs: list[tuple[nn.Module, Tensor]] = []

    def made(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append((module, output))

    hooks = [
        m.register_forward_hook(made) for m in lower.modules() if type(m) in (nn.Conv2d, DepthwiseConv2d, nn.Linear)
    ]
    try:
        with torch.inference_mode():
            answers = lower(images)[-1].values()
    finally:
        for hook in hooks:
            hook.remove()
    kept = {module for module, output in outputs if any(output is answer for answer in answers)}
    for module in lower.modules():
        if module in kept or isinstance(module, nn.BatchNorm2d):
            continue
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
    for name, module in list(lower.named_modules(remove_duplicate=False)):
        if module in kept:
            _replace(lower, name, _InFloat32(module))
    return lower


def difference(expected: Prediction, got: Prediction) -> float:
    """Return how much two predictions differ: over all maps, the largest ``max|a - b| / max|a|``; NaN stays NaN.

    Raises:
        ValueError: They have different names or shapes.
    """
    if {name: maps.shape for name, maps in expected.items()} != {name: maps.shape for name, maps in got.items()}:
        raise ValueError(f"expected {_shapes(expected)}, got {_shapes(got)}.")
    apart = [
        (maps - got[name]).abs().max() / maps.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
        for name, maps in expected.items()
    ]
    return float(torch.stack(apart).max())


def _shapes(prediction: Prediction) -> str:
    return ", ".join(f"{name} {tuple(maps.shape)}" for name, maps in prediction.items())


def _too_far(apart: float, tolerance: float) -> str:
    return f"maps differ by {apart:.2g} of the largest value from the original network's, more than {tolerance:g}."


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


class _InFloat32(nn.Module):
    """A layer in float32 inside a network in bfloat16."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(features.float())


class _Answer(nn.Module):
    """Images to the last stage, with float32 input and output around a network in another dtype."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype
        self.device = next(network.parameters()).device

    def forward(self, images: Tensor) -> Prediction:
        return {name: maps.float() for name, maps in self.network(images.to(self.dtype))[-1].items()}

    def run(self, images: Tensor) -> Prediction:
        """Run without compiling."""
        with torch.inference_mode():
            return self(images.to(self.device).contiguous(memory_format=torch.channels_last))


class _Compiled:
    """Runs chunks of 1 and ``CHUNK`` images through compiled code; the first of each shape also runs uncompiled."""

    def __init__(self, answer: _Answer, tolerance: float, on_warning: Callable[[str], None]) -> None:
        self._answer = answer
        self._tolerance = tolerance
        self._on_warning = on_warning
        self._made: dict[torch.Size, Callable[[Tensor], Prediction]] = {}
        self._ways: tuple[bool, ...] = (True, False)  # whether weights are treated as constants: the ways to try
        self._forms = 0
        self._failed: set[torch.Size] = set()
        self._hopeless = False  # whether the first shape already failed
        self._full = False

    def __call__(self, images: Tensor) -> Prediction:
        pieces: list[Prediction] = []
        start = 0
        while start < len(images):
            # up to half a chunk is run one by one; more is padded with grey
            count = CHUNK if len(images) - start > CHUNK // 2 else 1
            piece = images[start : start + count].to(self._answer.device)
            filled = piece
            if len(piece) < count:
                filled = torch.cat([piece, piece.new_zeros(count - len(piece), *piece.shape[1:])])
            with torch.inference_mode():
                # always copy: PyTorch would compile another variant for tensors made elsewhere
                maps = self._run(filled.clone(memory_format=torch.channels_last))
            pieces.append({name: value[: len(piece)] for name, value in maps.items()})
            start += count
        if len(pieces) == 1:
            return pieces[0]
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _run(self, images: Tensor) -> Prediction:
        shape = images.shape
        if self._hopeless or shape in self._failed:
            return self._answer(images)
        if shape in self._made:
            try:
                with torch.compiler.set_stance("fail_on_recompile"):
                    return self._made[shape](images)
            except RuntimeError:  # what the code was compiled for has changed: the number of threads, autocast
                del self._made[shape]
        if self._forms == MOST_FORMS:
            if not self._full:
                self._on_warning(
                    f"{MOST_FORMS} variants were compiled, for image shapes or settings of PyTorch; others, such as "
                    f"{tuple(shape)} now, run uncompiled."
                )
                self._full = True
            return self._answer(images)
        return self._first(images)

    def _first(self, images: Tensor) -> Prediction:
        expected = self._answer(images)
        problems: list[str] = []
        for fixed in self._ways:
            problem = self._wrong(images, expected, fixed)
            if not problem:
                break
            problems.append(problem)
        if len(problems) == len(self._ways):
            self._failed.add(images.shape)
            self._hopeless = not self._forms
            what = "Running" if self._hopeless else f"Images {tuple(images.shape)} run"
            self._on_warning(f"{what} without torch.compile{problems[-1]}")
        else:
            self._forms += 1
            if problems:  # it would fail in the same way for every shape
                self._ways = (False,)
                self._on_warning(f"Compiled without treating weights as constants{problems[0]}")
        return expected

    def _wrong(self, images: Tensor, expected: Prediction, fixed: bool) -> str:
        """Compile for images of this shape and run them; return what is wrong with the maps, or an empty string."""
        call = _own_code(self._answer)
        try:
            if fixed:  # as one graph: code of a part could be mistaken for that of another network
                options: dict[str, Any] = {"guard_filter_fn": _of_images}
                compiled = torch.compile(call, dynamic=False, fullgraph=True, options=options)
            else:
                compiled = torch.compile(call, dynamic=False)
            # if it is not one graph, PyTorch counts compilations of a part over all networks, and stops at eight
            with compile_settings(freezing=fixed):
                apart = difference(expected, compiled(images))
        except NotImplementedError as error:
            return f": {error}"
        except Exception as error:  # from inductor, the compiler or the file system; the uncompiled way still works
            return f", which needs a working C++ compiler: {type(error).__name__}: {_first_line(error)}"
        if apart < self._tolerance:
            self._made[images.shape] = compiled
            return ""
        return f": {_too_far(apart, self._tolerance)}"


def _own_code(answer: _Answer) -> Callable[[Tensor], Prediction]:
    """Return a function that calls ``answer`` and has its own code object, where PyTorch keeps compiled code."""

    def run(images: Tensor) -> Prediction:
        return answer(images)

    run.__code__ = run.__code__.replace()
    return run


def _of_images(guards: Sequence[Any]) -> list[bool]:
    """Return which of PyTorch's guards to keep: those on the images and on global settings."""
    return ["answer" not in guard.name for guard in guards]


def fast_program(
    program: TorchProgram,
    *,
    precision: Precision = "float32",
    compiled: bool = False,
    on_warning: Callable[[str], None] = _logger.warning,
) -> TorchProgram:
    """Return the same program, run by ``fast_forward``; arguments as there."""
    forward = fast_forward(
        program.network, program.input.size_wh, precision=precision, compiled=compiled, on_warning=on_warning
    )
    return replace(program, forward=forward)
