"""What of PyTorch's compiler has no public name: two settings and the version counter of a tensor.

Each may be gone or renamed in another PyTorch. What is lost then is speed, and it is said; results stay.
"""

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

RECOMPILE_LIMIT = 256
"""Of a piece of code that all compiled networks share; PyTorch gives it up at eight."""


@contextmanager
def compile_settings(*, freezing: bool) -> Iterator[None]:
    """Compile, inside, with weights taken as constants or not, and with room for many networks.

    Args:
        freezing: Take weights as constants.

    Raises:
        NotImplementedError: ``freezing``, and this PyTorch does not have it.
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
    """Return how often a tensor was changed in place; 0 of every tensor where PyTorch does not tell.

    It cannot be asked of a tensor that was made in inference mode.
    """
    return getattr(tensor, "_version", 0)


def _config(module: str, setting: str) -> Any:
    """Return a module of settings, None where it or the setting is missing."""
    try:
        config = importlib.import_module(module)  # when it is wanted: it takes a second
    except ImportError:
        return None
    return config if hasattr(config, setting) and hasattr(config, "patch") else None
