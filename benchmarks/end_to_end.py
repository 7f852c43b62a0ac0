"""From a folder of photographs to keypoints in a file, against the networks alone.

"end to end" is what ``poseglass predict FOLDER --no-images`` does after its start: it reads and decodes the files,
finds people, cuts crops, finds keypoints, decodes them and writes the JSON files. "networks" runs the two programs on
the very same batches of views and crops, prepared in memory. Both run interleaved in one process, with two threads; the
result is the ratio of medians.

    python benchmarks/end_to_end.py [--data data] [--images 60] [--repeats 5]
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, interleave, write_rows
from rich.console import Console

from poseglass.cli.given_boxes import images_without_boxes
from poseglass.cli.images import read_images
from poseglass.cli.write_poses import write_poses
from poseglass.core.prediction import Decoded
from poseglass.estimators.load import DEFAULT, load_detector, load_top_down
from poseglass.estimators.twostage import TwoStageEstimator
from poseglass.programs.torch_program import TorchProgram


@dataclass
class Recorded:
    """A program that keeps its inputs."""

    program: TorchProgram
    batches: list[torch.Tensor] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.program, name)

    def __call__(self, views: torch.Tensor) -> Decoded:
        self.batches.append(views.clone())
        return self.program(views)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--detector", default="people")
    parser.add_argument("--poses", default=DEFAULT)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "end-to-end.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    paths = sorted((arguments.data / "coco_more" / "images").glob("*.jpg"))[: arguments.images]
    given, _ = images_without_boxes(paths, None)
    finder, poses = load_detector(arguments.detector), load_top_down(arguments.poses)
    quiet = Console(quiet=True)
    people = 0

    def run(estimator: TwoStageEstimator) -> None:
        with tempfile.TemporaryDirectory() as folder:
            failed = write_poses(estimator, read_images(given), Path(folder), quiet, images=False)
            assert not failed, failed

    estimator = TwoStageEstimator(finder, poses)
    seen, cut = Recorded(finder.torch_program), Recorded(poses.torch_program)
    run(TwoStageEstimator(replace(finder, program=seen), replace(poses, program=cut)))
    people = sum(len(batch) for batch in cut.batches)

    def networks() -> None:
        for batch in seen.batches:
            finder.program(batch)
        for batch in cut.batches:
            poses.program(batch)

    def decoding() -> None:
        for _ in read_images(given):
            pass

    runs: dict[str, Callable[[], Any]] = {
        "end to end": lambda: run(estimator), "networks": networks, "reading the files": decoding,
    }  # fmt: skip
    seconds = interleave(runs, arguments.repeats)
    rows = [
        {
            "what": name, "images": len(paths), "people": people, "seconds": f"{took:.2f}",
            "images/s": f"{len(paths) / took:.1f}", "speed against the networks": f"{seconds['networks'] / took:.3f}",
            "detector": arguments.detector, "poses": arguments.poses,
        }
        for name, took in seconds.items()
    ]  # fmt: skip
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    write_rows(arguments.output, rows, "cli", "estimators", "core")


if __name__ == "__main__":
    main()
