"""Checks the input of a network: number of channels (mostly three, RGB), and sides divisible by its stride."""

from torch import Tensor


def check_input(images: Tensor, divisor: int, channels: int = 3) -> None:
    """Raise unless images are ``(B, channels, H, W)`` with sides divisible by ``divisor``.

    Raises:
        ValueError: They are not; the message suggests valid sizes.
    """
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(f"A network takes images of shape (B, {channels}, H, W), got {tuple(images.shape)}.")
    height, width = images.shape[-2:]
    if height % divisor or width % divisor or not height or not width:
        near = [f"{w} x {h}" for w, h in _sizes_near(width, height, divisor)]
        raise ValueError(
            f"Input of {width} x {height} pixels (w x h): both sides must be divisible by {divisor} for this network. "
            f"Nearest valid sizes: {' or '.join(near)}."
        )


def _sizes_near(width: int, height: int, divisor: int) -> list[tuple[int, int]]:
    down = tuple(max(side // divisor, 1) * divisor for side in (width, height))
    up = tuple(-(-max(side, 1) // divisor) * divisor for side in (width, height))
    return [(down[0], down[1])] if down == up else [(down[0], down[1]), (up[0], up[1])]
