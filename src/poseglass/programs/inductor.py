"""Private parts of PyTorch's compiler: two settings and the version counter of a tensor.

Each may be missing or renamed in another PyTorch. Only speed is lost then, with a message; results stay the same.
"""

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

RECOMPILE_LIMIT = 256
"""Recompilation limit of a piece of code that all compiled networks share; PyTorch's default is eight."""


@contextmanager
def compile_settings(*, freezing: bool) -> Iterator[None]:
    """Compile, inside the context, with or without weights treated as constants, and with room for many networks.

    Args:
        freezing: Treat weights as constants.

    Raises:
        NotImplementedError: ``freezing`` is set, and this PyTorch does not have it.
    """
    inductor = _config("torch._inductor.config", "freezing")
    dynamo = _config("torch._dynamo.config", "recompile_limit")
    if freezing and inductor is None:
        raise NotImplementedError(f"PyTorch {torch.__version__} has no setting torch._inductor.config.freezing.")
    with ExitStack() as settings:
        if inductor is not None:
            settings.enter_context(inductor.patch(freezing=freezing))
        if dynamo is not None:
            settings.enter_context(dynamo.patch(recompile_limit=RECOMPILE_LIMIT))
        yield


def version(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place; 0 for every tensor if PyTorch does not tell.

    It does not work for a tensor that was made in inference mode.
    """
    return getattr(tensor, "_version", 0)


def _config(module: str, setting: str) -> Any:
    """Return a module of settings, or None if it or the setting is missing."""
    try:
        config = importlib.import_module(module)  # imported only when needed: it takes a second
    except ImportError:
        return None
    return config if hasattr(config, setting) and hasattr(config, "patch") else None
