"""The allocator's settings: taken by glibc, harmless elsewhere, and of use."""

import ctypes
import json
import subprocess
import sys

import pytest

from poseglass.core import allocator

FAULTS = """
import json, resource, sys
import numpy as np
from poseglass.core.allocator import keep_freed_memory

took = keep_freed_memory() if sys.argv[1] == "yes" else None
for i in range(12):
    if i == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(40 * 1024 * 1024, np.uint8)
print(json.dumps([took, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is a Linux matter")
def test_freed_memory_is_used_again_without_the_kernel() -> None:
    results = {}
    for keep in ("yes", "no"):
        run = subprocess.run([sys.executable, "-c", FAULTS, keep], capture_output=True, text=True, check=True)
        results[keep] = json.loads(run.stdout)
    took, faults = results["yes"]
    if not took:
        pytest.skip("the C library is not glibc")
    # 40 MiB are 20 huge pages or 10,240 small ones, each time
    assert faults < 20
    assert results["no"][1] >= 10 * 20


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert allocator.keep_freed_memory() is False


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ctypes.CDLL:
        raise OSError(name)

    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", missing)
    assert allocator.keep_freed_memory() is False
