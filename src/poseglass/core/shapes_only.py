"""Building a network for its shapes alone: on the meta device, without memory, and without initial values."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_FILLS = frozenset(function for name, function in vars(nn.init).items() if name.endswith("_") and callable(function))


class _Unfilled(TorchFunctionMode):
    """Leaves out the functions of ``torch.nn.init``.

    A tensor on the meta device has no values, and filling one imports PyTorch's compiler for it, which takes a second.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in _FILLS:
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Build modules on the meta device: they have names, shapes and types, but no values."""
    with torch.device("meta"), _Unfilled():
        yield
