"""The device that a program runs on."""

import torch


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """Return the device to run on; "auto" uses CUDA if available.

    Args:
        wanted: "auto", "cpu", "cuda", "cuda:0", ...
        local_rank: Number of the process on this machine: of several, each gets a GPU.

    Raises:
        ValueError: The device is unknown or not available.
    """
    here = torch.cuda.is_available()
    if wanted == "auto":
        wanted = "cuda" if here else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu, cuda, cuda:0, ..., got {wanted!r}.") from None
    if device.type == "cuda":
        if not here:
            raise ValueError(
                f"device {wanted!r} is not available: this PyTorch ({torch.__version__}) sees no GPU. Use --device cpu."
            )
        if device.index is None:
            device = torch.device("cuda", local_rank)
        if device.index >= torch.cuda.device_count():
            raise ValueError(
                f"device 'cuda:{device.index}' is not available: there are {torch.cuda.device_count()} GPUs, counted "
                "from 0."
            )
        return device
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {wanted!r} is not available: {str(error).splitlines()[0]}") from None
    return device
