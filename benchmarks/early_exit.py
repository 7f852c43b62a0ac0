"""Early exit: PCK against what is computed, over distances within which two successive stacks must agree.

Every distance is a row: PCK@0.2 on people of lspet/val, the difference to running all stacks with the 95 % interval of
2,000 draws of people with replacement, the mean number of stacks and of multiply-adds a crop, and the time for one crop
at a time (one thread, the distances in turns over the same crops) as a ratio to all stacks. Rows "stack N alone" stop
everybody at the same stack.

    poseglass train recipes/lspet/hg4_narrow.toml --data data --run runs/hg4
    python benchmarks/early_exit.py runs/hg4 --data data
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, interleave, write_rows
from torch import Tensor, nn

import poseglass as pg
from poseglass.evaluation.evaluate import evaluate
from poseglass.metrics import Pck
from poseglass.networks.cost import multiply_adds
from poseglass.programs.early_exit import StageByStage
from poseglass.readers.coco import coco

DISTANCES_PX = (1.0, 2.0, 4.0, 6.0, 9.0, 14.0, 20.0)
DRAWS = 2000


class UpTo(nn.Module):
    """The first stages of a network."""

    def __init__(self, network: nn.Module, stages: int) -> None:
        super().__init__()
        self.network, self.stages = network, stages

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return the stages."""
        assert isinstance(self.network, StageByStage)
        state, stages = self.network.begin(images), []
        for number in range(self.stages):
            prediction, state = self.network.stage(number, state)
            stages.append(prediction)
        return stages


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", help="A training run or weights of at least three stacks.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="Folder with lspet.")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = coco(arguments.data / "lspet/val.json")
    plain = pg.load_top_down(arguments.weights)
    network = plain.network
    assert isinstance(network, StageByStage)
    size_wh = plain.input.size_wh
    costs = [multiply_adds(UpTo(network, stages + 1), size_wh) for stages in range(network.num_stages)]
    crops = [i for i in range(len(dataset)) if len(dataset.instances(i))][:: max(len(dataset) // 60, 1)]
    shown = [(dataset.image(i), dataset.instances(i).box_xyxy[:1]) for i in crops]
    estimators: dict[str, Any] = {"all stacks": plain}
    for stages in range(1, network.num_stages):
        program = replace(plain.torch_program, forward=_alone(network, stages))
        estimators[f"stack {stages} alone"] = replace(plain, program=program)
    for distance in DISTANCES_PX:
        estimators[f"within {distance:g} px"] = pg.load_top_down(arguments.weights, early_exit_px=distance)
    times = interleave(
        {name: lambda one=one: [one(image, boxes) for image, boxes in shown] for name, one in estimators.items()},
        arguments.repeats,
        clock=time.process_time,
    )
    rows: list[dict[str, object]] = []
    whole: np.ndarray | None = None
    for name, estimator in estimators.items():
        if estimator.early_exit is not None:
            estimator.early_exit.exits[:] = [0] * network.num_stages
        metric = Pck()
        evaluate(estimator, dataset, [metric])
        distance = metric.distance
        exits = [0] * network.num_stages
        if estimator.early_exit is not None:
            exits = estimator.early_exit.exits
        elif name == "all stacks":
            exits[-1] = 1
        else:
            exits[int(name.split()[1]) - 1] = 1
        share = np.asarray(exits) / sum(exits)
        whole = distance if whole is None else whole
        low, high = _interval(distance, whole)
        rows.append(
            {
                "rule": name,
                "PCK@0.2": f"{metric.compute()['pck@0.2']:.4f}",
                "difference": f"{_share(distance) - _share(whole):+.4f}",
                "interval": f"{low:+.4f} to {high:+.4f}",
                "mean stacks": f"{float(share @ np.arange(1, len(share) + 1)):.2f}",
                "M multiply-adds": f"{float(share @ np.asarray(costs)) / 1e6:.0f}",
                "time ratio": f"{times[name] / times['all stacks']:.2f}",
                "ms a crop": f"{1e3 * times[name] / len(shown):.1f}",
                "ended after": " ".join(f"{s:.2f}" for s in share),
                "people": metric.people,
            }
        )
        print("  ".join(str(value) for value in rows[-1].values()), flush=True)
    write_rows(RESULTS / "early-exit.csv", rows, "programs", "networks")
    curve(rows)


def curve(rows: list[dict[str, Any]]) -> None:
    """Draw PCK against multiply-adds: everybody at the same stack, and each crop at its own."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), dpi=110)
    alone = [row for row in rows if "alone" in row["rule"]] + [rows[0]]
    early = sorted((row for row in rows if "within" in row["rule"]), key=lambda row: float(row["M multiply-adds"]))
    for some, label, where in (
        (alone, "every crop stops at the same stack", (-6, 5)), (early, "early exit within", (7, -10)),
    ):  # fmt: skip
        points = [(float(row["M multiply-adds"]), float(row["PCK@0.2"])) for row in some]
        axes.plot(*zip(*points, strict=True), "o-", label=label, markersize=4)
        for row, point in zip(some, points, strict=True):
            if row["rule"] == "within 1 px":  # where all stacks run
                continue
            axes.annotate(
                row["rule"].removesuffix(" alone").removeprefix("within "), point, textcoords="offset points",
                xytext=where, fontsize=7, ha="right" if where[0] < 0 else "left",
            )  # fmt: skip
    axes.margins(0.1)
    axes.set_xlabel("multiply-adds a crop, millions, mean")
    axes.set_ylabel("PCK@0.2 on lspet/val")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(Path(__file__).parents[1] / "docs/images/early-exit.png")


def _alone(network: nn.Module, stages: int) -> Any:
    part = UpTo(network, stages).eval()

    def run(images: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            return part(images)[-1]

    return run


def _share(distance: np.ndarray) -> float:
    counts = ~np.isnan(distance)
    return float((distance[counts] <= 0.2).mean())


def _interval(distance: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the difference in PCK@0.2, people drawn alike for both."""
    right = np.stack([(one <= 0.2).sum(1) for one in (distance, other)])
    labelled = (~np.isnan(distance)).sum(1)
    drawn = np.random.default_rng(0).integers(0, len(labelled), (DRAWS, len(labelled)))
    shares = right[:, drawn].sum(2) / labelled[drawn].sum(1)
    low, high = np.quantile(shares[0] - shares[1], [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
