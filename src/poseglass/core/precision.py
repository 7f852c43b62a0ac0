"""Which devices multiply bfloat16 themselves."""

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16; elsewhere it is emulated, several times slower than float32.

    On a CPU that is AVX-512 BF16 or AMX, through oneDNN. oneDNN's own question is also true for AVX-512 without these,
    where bfloat16 is emulated.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    asked = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    answers = [bool(ask()) for ask in asked if ask is not None]
    return any(answers) if answers else True
