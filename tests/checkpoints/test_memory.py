"""How much memory an import takes."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts.py"))))

MEASURE = """
import resource, sys
from pathlib import Path
from poseglass.cli.import_weights import import_weights
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import_weights(Path(sys.argv[1]), Path(sys.argv[2]))
print("peak", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux alone")
def test_an_import_peaks_under_three_times_the_file(tmp_path: Path) -> None:
    checkpoint, to = tmp_path / "large.pth", tmp_path / "ours.safetensors"
    torch.save(layouts.bearpaw(num_stacks=8, width=256, depth=4), checkpoint)
    size = checkpoint.stat().st_size
    assert size > 100e6
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(checkpoint), str(to)], capture_output=True, text=True, check=True
    )
    peak = int(done.stdout.rpartition("peak ")[2])
    assert peak < 3 * size, f"{peak / size:.2f} times"
