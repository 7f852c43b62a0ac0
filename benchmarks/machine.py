"""What the benchmarks share: interleaved timing; machine, versions and commit that are stored with each result."""

import csv
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def interleave(
    functions: Mapping[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return each function's median seconds; they run interleaved, after one pass that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(repeats + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if i:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> str:
    """Return the processor and its number of cores, as part of a file name."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text() if info.is_file() else "")
    model = names[0] if names else platform.processor() or platform.machine()
    plain = re.sub(r"\((r|tm)\)", "", model.lower())
    return f"{re.sub(r'[^a-z0-9]+', '-', plain).strip('-')}-{max(len(names), 1)}cores"


def commit(*packages: str) -> str:
    """Return the commit of the code, with a plus where the named packages or files of poseglass differ from it."""
    root = Path(__file__).parents[1]
    git = ["git", "-C", str(root)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
        paths = [f"src/poseglass/{package}" for package in packages]
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *paths], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.strip() + ("+" if changed else "")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], *packages: str) -> None:
    """Write rows as CSV, each with machine, torch, Python and the commit of ``packages``."""
    about = {
        "machine": machine(),
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
        "commit": commit(*packages),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *about], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **about} for row in rows)
    print(path)
