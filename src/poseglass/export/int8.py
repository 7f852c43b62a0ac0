"""Which convolutions may compute in int8: measured by how far each one alone moves keypoints.

Post-training quantisation rounds the weights of a convolution to 255 values per output channel, and its input to 256
values. Most layers hardly notice; a few move keypoints, and which ones depends on the network and its training. Each
is therefore rounded alone, in PyTorch, on images of the user's, and the distance that keypoints move is measured. The
layers that move them most per multiply-add stay in float, up to a share of all multiply-adds.

A whole network's drift is then measured on the runtime itself; see ``export.parity``.

Source: the scheme of rounding is that of Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, with weights per channel as in Krishnamoorthi, "Quantizing deep
convolutional networks for efficient inference", 2018, section 3.
"""

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from poseglass.export.exportable import Exportable
from poseglass.programs.fast import fold_batch_norms
from poseglass.programs.graphs import Graph
from poseglass.programs.torch_program import ProgramModule

FLOAT_SHARES = (0.0, 0.02, 0.05, 0.1)
"""Shares of the multiply-adds that may stay in float, tried in this order until keypoints move little enough."""

LEAST_IMAGES = 8
"""Number of images without which the ranges of activations are not worth measuring."""

FARTHEST_PX = 4.0
"""A keypoint that moves farther counts as having moved this far, so that a few that jump do not decide alone."""

_MOST_VIEWS = 16
"""Number of views on which each layer is rounded alone."""


@dataclass(frozen=True, slots=True)
class ConvCall:
    """One call of a convolution; a layer that is used twice has two.

    Args:
        name: Name of the module in the network.
        macs: Multiply-adds for one view.
        weight_shape: Shape of its kernel.
        low: Smallest value of its input on the images.
        high: Largest value.
    """

    name: str
    macs: int
    weight_shape: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How far keypoints move when one call of a convolution is rounded.

    Args:
        calls: In the order of the computation.
        moved_px: For each call, the mean distance in view pixels, with ``FARTHEST_PX`` as the most of each keypoint.
    """

    calls: tuple[ConvCall, ...]
    moved_px: tuple[float, ...]

    def in_float(self, share: float) -> tuple[int, ...]:
        """Return the numbers of the calls that stay in float: those that move keypoints most per multiply-add.

        Args:
            share: Largest share of all multiply-adds that they may have.
        """
        total = sum(call.macs for call in self.calls)
        order = sorted(range(len(self.calls)), key=lambda i: -self.moved_px[i] / max(self.calls[i].macs, 1))
        kept: list[int] = []
        left = share * total
        for i in order:
            if self.calls[i].macs <= left:
                kept.append(i)
                left -= self.calls[i].macs
        return tuple(sorted(kept))

    def int8_share(self, in_float: Sequence[int]) -> float:
        """Return the share of the multiply-adds in int8, in [0, 1], if these calls stay in float."""
        total = sum(call.macs for call in self.calls)
        return 1 - sum(self.calls[i].macs for i in in_float) / max(total, 1)


@dataclass(frozen=True, slots=True)
class Int8Plan:
    """What is quantised, and on what.

    Args:
        inputs: Inputs of the graph to measure the ranges of activations on.
        calls: The network's calls of convolutions, in order.
        in_float: Numbers of those that stay in float.
        bias_shifts: For each call, what is added to its bias ``(out_channels,)``; see ``bias_shifts``.
    """

    inputs: Sequence[dict[str, np.ndarray]]
    calls: Sequence[ConvCall]
    in_float: Sequence[int]
    bias_shifts: Sequence[np.ndarray]


def check_images(images: Sequence[np.ndarray]) -> None:
    """Raise unless images can tell the ranges of activations.

    Raises:
        ValueError: There are too few, or each is of one colour.
    """
    if len(images) < LEAST_IMAGES:
        raise ValueError(
            f"int8 needs at least {LEAST_IMAGES} images to measure the ranges of activations on, better 200 like those "
            f"the network will see; got {len(images)}. Give a larger dataset with --data."
        )
    if all(int(image.max()) - int(image.min()) < 8 for image in images):
        raise ValueError(
            f"int8 measures the ranges of activations on the images of --data, but each of these {len(images)} is of "
            "one colour. Give images like those the network will see."
        )


class Rounding:
    """A network whose convolutions can be rounded one by one, with views to measure on.

    Batch norm is folded into the convolutions, as runtimes do, since it is the folded kernels that are rounded.

    Args:
        work: The graph, with maps.
        inputs: Inputs of the graph.

    Raises:
        ValueError: A graph of two networks.
    """

    def __init__(self, work: Exportable, inputs: Sequence[dict[str, np.ndarray]]) -> None:
        if not isinstance(work.reference, Graph):
            raise ValueError(
                "A detector and poses in one file cannot be quantised together. Export the two as files of their own, "
                "with --precision int8 each."
            )
        graph = copy.copy(work.reference)
        width, height = graph.spec.size_wh
        network = fold_batch_norms(graph.core.network, torch.zeros(1, 3, height, width))
        self.core = ProgramModule(replace(graph.core.program, network=network)).eval()
        self.network = network
        with torch.inference_mode():
            spread = np.linspace(0, len(inputs) - 1, min(_MOST_VIEWS, len(inputs))).round().astype(int)
            some = [inputs[i] for i in spread]
            self.views = torch.cat(
                [graph.pixels(*(torch.from_numpy(one[n]) for n in work.card.inputs)) for one in some]
            )
            self.calls = tuple(self._calls())

    def sensitivity(self, on_call: Callable[[int, int], None] | None = None) -> Sensitivity:
        """Measure how far keypoints move when each convolution alone is rounded.

        Args:
            on_call: Called after each call of a convolution with its number and the number of all.
        """
        moved = []
        with torch.inference_mode():
            plain = _points(self.core, self.views)
            for number in range(len(self.calls)):
                with self._rounded({number}):
                    apart = (_points(self.core, self.views) - plain).norm(dim=-1)
                away = apart.nan_to_num(FARTHEST_PX).clamp(max=FARTHEST_PX)
                moved.append(float(away.mean()) if away.numel() else 0.0)
                if on_call is not None:
                    on_call(number + 1, len(self.calls))
        return Sensitivity(self.calls, tuple(moved))

    def bias_shifts(self, in_float: Sequence[int]) -> list[np.ndarray]:
        """Return what to add to the bias of each call so that rounding moves no channel's mean.

        Each is measured after those before it are rounded and corrected, so that it also makes up for what they leave.

        Args:
            in_float: Numbers of the calls that stay in float; theirs are 0.

        Source:
            Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section
            4.2, with the means measured on images.
        """
        means: list[Tensor] = []
        shifts: list[Tensor] = []

        def keep(number: int, output: Tensor) -> Tensor:
            means.append(output.mean((0, 2, 3)))
            return output

        def correct(number: int, output: Tensor) -> Tensor:
            off = means[number] - output.mean((0, 2, 3))
            shifts.append(torch.zeros_like(off) if number in kept else off)
            return output + shifts[-1][:, None, None]

        kept = set(in_float)
        with torch.inference_mode():
            with self._rounded(set(), keep):
                self.core.prediction(self.views)
            with self._rounded(set(range(len(self.calls))) - kept, correct):
                self.core.prediction(self.views)
        return [shift.numpy() for shift in shifts]

    def _calls(self) -> Iterator[ConvCall]:
        """Yield the calls of convolutions in order, with the ranges of their inputs."""
        names = convolutions(self.network)
        calls: list[ConvCall] = []

        def seen(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
            low, high = given[0].aminmax()
            grid = given[0] if isinstance(module, nn.ConvTranspose2d) else output
            # a kernel is applied at every output pixel, or, if transposed, at every input pixel
            macs = module.weight.numel() * grid.shape[-1] * grid.shape[-2]
            calls.append(ConvCall(names[module], macs, tuple(module.weight.shape), float(low), float(high)))

        hooks = [module.register_forward_hook(seen) for module in names]
        try:
            self.core.prediction(self.views)
        finally:
            for hook in hooks:
                hook.remove()
        yield from calls

    @contextmanager
    def _rounded(
        self, numbers: Collection[int], on_output: Callable[[int, Tensor], Tensor] | None = None
    ) -> Iterator[None]:
        """Inside the context, calls of these numbers compute with rounded weights and inputs.

        Args:
            numbers: Numbers of calls.
            on_output: Called with the number and the output of every call; what it returns takes the output's place.
        """
        modules = convolutions(self.network)
        whole = {module: module.weight.data for module in modules}
        rounded = {module: _rounded_weight(module) for module in modules} if numbers else {}
        count = -1

        def before(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            nonlocal count
            count += 1
            assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
            if count not in numbers:
                module.weight.data = whole[module]
                return None
            module.weight.data = rounded[module]
            return (_rounded_input(given[0], self.calls[count].low, self.calls[count].high),)

        def after(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return None if on_output is None else on_output(count, output)

        hooks = [module.register_forward_pre_hook(before) for module in modules]
        hooks += [module.register_forward_hook(after) for module in modules]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for module, weight in whole.items():
                module.weight.data = weight


def convolutions(network: nn.Module) -> dict[nn.Conv2d | nn.ConvTranspose2d, str]:
    """Return the convolutions of a network, with their names."""
    return {m: name for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}


def _points(core: ProgramModule, views: Tensor) -> Tensor:
    """Return the points that a program decodes, view pixels; of several instances, those of the best one."""
    decoded = core.decoded(core.prediction(views))
    if decoded.xy.shape[2]:
        return decoded.xy[:, 0]
    assert decoded.box_xyxy is not None
    return decoded.box_xyxy[:, 0].unflatten(-1, (2, 2))


def _rounded_weight(module: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """Return a kernel rounded to 255 values per output channel, symmetric about 0."""
    weight = module.weight.data
    axis = 1 if isinstance(module, nn.ConvTranspose2d) and module.groups == 1 else 0
    others = [i for i in range(weight.ndim) if i != axis]
    step = weight.abs().amax(others, keepdim=True).clamp(min=1e-12) / 127
    return (weight / step).round() * step


def _rounded_input(values: Tensor, low: float, high: float) -> Tensor:
    """Return values rounded to 256 between the ends of their range, which includes 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max(high - low, 1e-12) / 255
    zero = round(-low / step)
    return ((values / step).round().add(zero).clamp(0, 255) - zero) * step
