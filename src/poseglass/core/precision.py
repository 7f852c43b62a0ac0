"""Which devices compute in bfloat16 natively, and where the result cannot be trusted."""

import copy
import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 natively; elsewhere it is emulated, far slower than float32.

    On a CPU this requires AVX-512 BF16 or AMX, through oneDNN. oneDNN's own check also accepts AVX-512 without these,
    where bfloat16 is emulated.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    runs = torch.backends.mkldnn.is_available() and _answer(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
    if runs is False:
        return False
    asked = [_answer(torch.cpu, name) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(asked) if any(answer is not None for answer in asked) else runs is True


NO_INT8 = (
    "This processor has no instructions for int8 (VNNI on x86): it would be no faster, and sums of products could "
    "overflow. Use float32 here, and int8 on a processor that has them."
)
"""What to say where int8 is requested and ``has_int8`` is False."""


def has_int8() -> bool:
    """Return whether the processor multiplies int8 natively; of a processor that does not tell, it is assumed.

    Without VNNI, x86 processors add pairs of products in 16 bits, which overflows.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), None)
    return flags is None or bool({"avx512_vnni", "avx_vnni", "amx_int8"} & set(flags))


def narrow_convolution_fault(device: torch.device) -> bool:
    """Return whether bfloat16 convolutions with an output one pixel wide may be wrong on a device.

    On a processor with AMX, oneDNN as of PyTorch 2.13 computes a bfloat16 convolution of a batch with stride 2, a
    kernel of 3 or more and an output one pixel wide from uninitialised memory: NaN, or numbers that differ in every
    call. Other shapes are correct, and so is everything where ``ONEDNN_MAX_CPU_ISA`` keeps oneDNN from using AMX. If
    PyTorch does not report whether there is AMX, the answer is yes.
    """
    if device.type != "cpu":
        return False
    highest = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    capped = bool(highest) and highest not in ("ALL", "DEFAULT") and "AMX" not in highest
    return _answer(torch.cpu, "_is_amx_tile_supported") is not False and not capped


def _answer(owner: Any, name: str) -> bool | None:
    """Return what PyTorch reports about the processor, None if it no longer does: these functions are private to it."""
    try:
        return bool(getattr(owner, name)())
    except AttributeError:
        return None


def narrow_convolutions(network: nn.Module, size_wh: tuple[int, int]) -> list[str]:
    """Return the names of a network's convolutions that ``narrow_convolution_fault`` affects, for an input size.

    The network is run once on the meta device, without values; one that needs values is run on one grey image.

    Args:
        network: Takes images ``(B, 3, H, W)``.
        size_wh: Size of its input, pixels.
    """
    found: dict[str, None] = {}

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, _inputs: object, output: object) -> None:
            assert isinstance(module, nn.Conv2d)
            strided, wide = max(module.stride) > 1, max(module.kernel_size) > 2
            if strided and wide and isinstance(output, Tensor) and output.shape[-1] == 1:
                found[name] = None

        return hook

    def run(subject: nn.Module, device: torch.device | str) -> None:
        hooks = [m.register_forward_hook(note(n)) for n, m in subject.named_modules() if isinstance(m, nn.Conv2d)]
        try:
            with torch.no_grad():
                subject(torch.zeros(1, 3, size_wh[1], size_wh[0], device=device))
        finally:
            for hook in hooks:
                hook.remove()

    hollow = copy.deepcopy(network).eval()
    own = next((p.device for p in network.parameters()), torch.device("cpu"))
    try:
        run(copy.deepcopy(hollow).to("meta"), "meta")
    except (RuntimeError, NotImplementedError):
        run(hollow, own)
    return list(found)


def guarded_precision(
    wanted: torch.dtype, network: nn.Module, sizes_wh: Iterable[tuple[int, int]], device: torch.device
) -> tuple[torch.dtype, str]:
    """Return the precision in which to compute a network on a device, and a sentence if it is not the requested one.

    Args:
        wanted: bfloat16 is replaced by float32 where ``narrow_convolution_fault`` affects this network.
        network: Takes images ``(B, 3, H, W)``.
        sizes_wh: Sizes of its inputs, pixels.
        device: Where it runs.
    """
    if wanted != torch.bfloat16 or not narrow_convolution_fault(device):
        return wanted, ""
    for width, height in dict.fromkeys(sizes_wh):
        names = narrow_convolutions(network, (width, height))
        if names:
            return torch.float32, (
                f"float32 instead of bfloat16: at {width} x {height} px {len(names)} convolutions ({names[0]} first) "
                "give maps one pixel wide, which PyTorch computes wrongly in bfloat16 on a processor with AMX. A wider "
                "input is not affected."
            )
    return wanted, ""


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in: "auto" takes bfloat16 where the processor supports it natively.

    Otherwise bfloat16 is emulated and several times slower than float32.
    """
    if wanted == "float32":
        return torch.float32
    if wanted == "bfloat16":
        return torch.bfloat16
    return torch.bfloat16 if has_bfloat16(device) else torch.float32
