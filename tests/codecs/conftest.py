"""What mmpose 1.3.2 encoded and decoded: a small recording that is committed, and the larger one in ../shared."""

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Recorded = Callable[[str], dict[str, np.ndarray]]


@pytest.fixture(params=["committed", pytest.param("shared", marks=pytest.mark.shared)])
def recorded(request: pytest.FixtureRequest) -> Recorded:
    """Return a recording by the name of its codec."""
    if request.param == "committed":
        return runpy.run_path(str(Path(__file__).parents[1] / "parity" / "fill.py"))["recorded_codec"]
    folder = request.getfixturevalue("shared") / "codecs"
    return lambda name: dict(np.load(folder / f"{name}.npz"))
