"""The environment to record with a result: machine, versions, commit."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import poseglass


def environment() -> dict[str, str]:
    """Return machine, versions and commit as text."""
    threads = torch.get_num_threads()
    return {
        "poseglass": poseglass.__version__,
        "commit": source_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": f"{cpu_model()}, {threads} thread{'s' * (threads != 1)}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def cpu_model() -> str:
    """Return the name of the processor as the system reports it."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return cpu
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)


def source_commit() -> str:
    """Return the commit of the source tree this runs from, with "+changes" if it was edited, or "" outside one."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        if not git("ls-files", "--error-unmatch", Path(__file__).name):
            return ""
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def made_with(device: torch.device, processes: int = 1, precision: torch.dtype = torch.float32) -> dict[str, str | int]:
    """Return what must be unchanged for a resumed run to continue bit for bit."""
    return {
        "torch": str(torch.__version__),
        "opencv": cv2.__version__,  # warps the crops
        "numpy": np.__version__,  # samples the augmentation
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": cpu_model(),
        "precision": str(precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "processes": processes,
    }


def changed_circumstances(before: Any, now: dict[str, str | int]) -> str:
    """Return a sentence if a run is resumed in another environment than it was saved in, else an empty string."""
    if not isinstance(before, dict):
        return ""
    changed = [f"{k} {before[k]} before, {now[k]} now" for k in now if before.get(k, now[k]) != now[k]]
    if not changed:
        return ""
    return f"Resuming in a different environment ({'; '.join(changed)}): results will agree, but not bit for bit."
