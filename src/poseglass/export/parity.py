"""Parity: how far an exported graph is from PyTorch's, in maps and in keypoint pixels, on the same inputs.

Distances of keypoints are in view pixels, the network's own, so that they do not depend on how large an image is: an
image pixel of a person 1,600 pixels tall is a tenth of a pixel in a view of 160.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from poseglass.core.boxes import iou
from poseglass.core.view import View
from poseglass.export.exportable import Exportable
from poseglass.programs.graph_card import Precision
from poseglass.programs.graph_program import Run
from poseglass.programs.graphs import MAPS, BoxesGraph, ViewsGraph

MAX_DRIFT: dict[Precision, tuple[str, float]] = {
    "float32": ("largest", 0.1), "float16": ("median", 0.1), "bfloat16": ("median", 0.3), "int8": ("median", 0.3),
}  # fmt: skip
"""Which distance of keypoints is limited, by default, and to how many view pixels."""

MAX_UNMATCHED = 0.05
"""Share of the instances that only one of PyTorch and an exported graph in lower precision may find."""

ROUNDING = 1e-4
"""Difference of maps, relative to their largest value, that sums in another order explain in float32."""

SAME_PX = 0.1
"""View pixels within which two decodings of the same maps must agree."""

BATCH = 8
"""Number of views that are compared at once."""


class DriftError(ValueError):
    """Raised for an export that is too far from PyTorch's results to be kept."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far an exported graph is from PyTorch's in float32.

    Args:
        keypoints: Number of points compared: keypoints, and, where boxes are found, their corners.
        undecided: Number of further keypoints that rounding decides: their maps agree to ``ROUNDING``, and PyTorch
            decodes the exported graph's maps to the same place, but its own maps to another one. That happens where two
            places of a map are equally high. They are in none of the other figures.
        largest_px: Largest distance of a keypoint, view pixels.
        median_px: Median distance.
        p99_px: Distance that 99 % of the keypoints stay below.
        score: Largest difference of a keypoint's score.
        maps: For each output of the network, the largest difference relative to its largest value.
        instances: Numbers of instances that PyTorch and the exported graph found.
        unmatched: Number of instances that only one of them found, at an overlap (IoU) of at least 0.5; of a network
            that tells only classes, the number of boxes of another class.
        inputs: What was compared, in words.
        results: Metrics on a dataset, each with PyTorch's value and the exported file's; empty without a dataset.
    """

    keypoints: int
    undecided: int
    largest_px: float
    median_px: float
    p99_px: float
    score: float
    maps: dict[str, float]
    instances: tuple[int, int]
    unmatched: int
    inputs: str
    results: dict[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return it as a table for JSON, rounded to what is meaningful."""
        numbers = {name: float(f"{getattr(self, name):.3g}") for name in ("largest_px", "median_px", "p99_px", "score")}
        return numbers | {
            "keypoints": self.keypoints,
            "undecided": self.undecided,
            "maps": {name: float(f"{value:.3g}") for name, value in self.maps.items()},
            "instances": list(self.instances),
            "unmatched": self.unmatched,
            "inputs": self.inputs,
            "results": {name: list(values) for name, values in self.results.items()},
        }

    def within(self, precision: Precision, max_drift_px: float | None = None) -> bool:
        """Return whether ``check`` accepts it."""
        try:
            self.check(precision, max_drift_px)
        except DriftError:
            return False
        return True

    def check(self, precision: Precision, max_drift_px: float | None = None) -> None:
        """Raise if keypoints moved too far.

        Args:
            precision: Decides which distance is limited, see ``MAX_DRIFT``.
            max_drift_px: Another limit, view pixels.

        Raises:
            DriftError: They did, or too many instances appeared or disappeared: any in float32, a share of
                ``MAX_UNMATCHED`` in other precisions.
        """
        which, limit = MAX_DRIFT[precision]
        limit = limit if max_drift_px is None else max_drift_px
        got = self.largest_px if which == "largest" else self.median_px
        if not got <= limit:
            raise DriftError(
                f"The {which} distance between a keypoint of the exported graph and PyTorch's is {got:.3g} px of a "
                f"view, more than {limit:g} px, over {self.keypoints:,} keypoints of {self.inputs}. Compare on your "
                "own images with --data, or allow it with --max-drift."
            )
        most = 0.0 if precision == "float32" else MAX_UNMATCHED
        if self.unmatched > most * max(self.instances):
            raise DriftError(
                f"PyTorch finds {self.instances[0]} instances and the exported graph {self.instances[1]} in "
                f"{self.inputs}, of which {self.unmatched} have no counterpart of the same class; at most {most:.0%} "
                "may have none."
            )


Sample = tuple[np.ndarray, np.ndarray]
"""An image ``(H, W, 3)`` uint8 RGB and boxes ``(N, 4)`` of it, image pixels."""


def drift_of(work: Exportable, run: Run, samples: Sequence[Sample], inputs: str) -> Drift:
    """Compare a graph on a runtime with the same graph in float32 in PyTorch.

    Args:
        work: What was exported.
        run: Runs the exported graph; without maps among its outputs, only keypoints are compared.
        samples: Images, each with at least one box.
        inputs: What they are, in words.

    Raises:
        ValueError: No samples, or none in which PyTorch finds an instance.
    """
    away: list[np.ndarray] = []
    scores: list[float] = [0.0]
    maps: dict[str, float] = {}
    largest: dict[str, float] = {}
    instances, undecided = [0, 0, 0], 0
    for given in _inputs(work, samples):
        with torch.inference_mode():
            tensors = [torch.from_numpy(given[name]) for name in work.card.inputs]
            expected = {name: value.numpy() for name, value in work.reference.named(*tensors).items()}  # type: ignore[operator]
        got = run(given)
        for name in (name for name in expected if name.startswith(MAPS) and name in got):
            key = name.removeprefix(MAPS)
            maps[key] = max(maps.get(key, 0.0), float(np.abs(expected[name] - got[name]).max(initial=0.0)))
            largest[key] = max(largest.get(key, 0.0), float(np.abs(expected[name]).max(initial=0.0)))
        one, other, scale = _paired(work, expected, got, given, instances)
        apart = np.linalg.norm(one["xy"] - other["xy"], axis=-1) * scale[:, None]
        tied = np.zeros(apart.shape, bool)
        if apart.max(initial=0.0) > SAME_PX and maps and all(maps[key] <= ROUNDING * largest[key] for key in maps):
            tied = (apart > SAME_PX) & _decoded_alike(work, given, got)
        undecided += int(tied.sum())
        away.append(apart[~tied])
        if "box_xyxy" in one:
            corners = [side["box_xyxy"].reshape(-1, 2, 2) for side in (one, other)]
            away.append((np.linalg.norm(corners[0] - corners[1], axis=-1) * scale[:, None]).ravel())
        scores.append(float(np.abs(one["score"] - other["score"])[~tied].max(initial=0.0)))
        if not work.card.spec.keypoints and work.card.spec.instances == 1:
            instances[2] += int((one["label"] != other["label"]).sum())
            scores.append(float(np.abs(one["box_score"] - other["box_score"]).max(initial=0.0)))
            away.append(np.zeros(len(one["label"])))  # boxes that were given stay where they are
    distance = np.concatenate([np.zeros(0), *away])
    if not instances[0]:
        raise ValueError(
            f"There is nothing to compare: PyTorch finds nothing in {inputs}. Give images with --data, or, with "
            "--whole-image, a lower --min-box-score."
        )
    if not distance.size:
        raise DriftError(f"PyTorch finds {instances[0]} instances in {inputs}, and the exported graph none of them.")
    return Drift(
        len(distance), undecided, float(distance.max()), float(np.median(distance)), float(np.quantile(distance, 0.99)),
        max(scores), {key: value / max(largest[key], 1e-12) for key, value in maps.items()},
        (instances[0], instances[1]), instances[2], inputs, {},
    )  # fmt: skip


def _decoded_alike(work: Exportable, given: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> np.ndarray | bool:
    """Return which keypoints ``(N, K)`` PyTorch decodes from the exported graph's maps to where that graph does.

    False for graphs that find boxes: their instances are matched, and have no rows in common.
    """
    if not isinstance(work.reference, ViewsGraph | BoxesGraph) or work.card.spec.instances != 1:
        return False
    with torch.inference_mode():
        prediction = {
            name.removeprefix(MAPS): torch.from_numpy(value) for name, value in got.items() if name.startswith(MAPS)
        }
        inputs = [torch.from_numpy(given[name]) for name in work.card.inputs]
        again = work.reference.of_maps(prediction, *inputs)["xy"].numpy()
    scale = np.ones(1)
    if work.card.kind == "boxes":
        scale = np.array([View.crop(box, work.card.input).to_view.scale for box in given["boxes_xyxy"]])
    same = np.linalg.norm(again - got["xy"], axis=-1).reshape(len(again), -1) * scale[:, None] <= SAME_PX
    return same


def _inputs(work: Exportable, samples: Sequence[Sample]) -> Iterable[dict[str, np.ndarray]]:
    """Yield inputs of the graph, in batches of several sizes."""
    kind, spec = work.card.kind, work.card.input
    if kind == "boxes":
        yield from ({"image": image, "boxes_xyxy": boxes.astype(np.float32)} for image, boxes in samples)
    elif kind != "views":
        yield from ({"image": image} for image, _ in samples)
    else:
        if work.card.spec.instances == 1:
            pairs = [(image, View.crop(box, spec)) for image, boxes in samples for box in boxes]
        else:
            pairs = [(image, View.letterbox((image.shape[1], image.shape[0]), spec.size_wh)) for image, _ in samples]
        sizes = [1, *([BATCH] * len(pairs))]  # a batch of one first: a batch size that was fixed shows itself
        while pairs:
            some, pairs = pairs[: sizes[0]], pairs[sizes[0] :]
            sizes = sizes[1:]
            home = np.broadcast_to(np.eye(2, 3, dtype=np.float32), (len(some), 2, 3)).copy()
            yield {"views": np.stack([view.read(image) for image, view in some]), "home": home}


def one_by_one(work: Exportable, samples: Sequence[Sample]) -> list[dict[str, np.ndarray]]:
    """Return the inputs of a graph with one view each, as calibration takes them; of an image with boxes, one box."""
    if work.card.kind == "boxes":
        return [{"image": image, "boxes_xyxy": boxes[:1].astype(np.float32)} for image, boxes in samples]
    found = []
    for given in _inputs(work, [(image, boxes[:1]) for image, boxes in samples]):
        if "views" not in given:
            found.append(given)
            continue
        for row in range(len(given["views"])):
            found.append({name: values[row : row + 1] for name, values in given.items()})
    return found


def _paired(
    work: Exportable,
    expected: dict[str, np.ndarray],
    got: dict[str, np.ndarray],
    given: dict[str, np.ndarray],
    instances: list[int],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Return ``xy`` and ``score`` of the same instances, and view pixels per pixel of each; counts go to ``instances``.

    Where boxes are found, they are returned too, and instances are matched by overlap: two of nearly the same score may
    change places.
    """
    kind, spec = work.card.kind, work.card.input
    names = ("xy", "score") if work.card.spec.keypoints else ("xy", "score", "label", "box_score")
    if kind == "boxes":
        scale = np.array([View.crop(box, spec).to_view.scale for box in given["boxes_xyxy"]])
        instances[0], instances[1] = instances[0] + len(scale), instances[1] + len(got["xy"])
        return {n: expected[n] for n in names}, {n: got[n] for n in names}, scale
    if kind == "views" and work.card.spec.instances == 1:
        count = len(expected["xy"])
        instances[0], instances[1] = instances[0] + count, instances[1] + len(got["xy"])
        return {n: expected[n][:, 0] for n in names}, {n: got[n][:, 0] for n in names}, np.ones(count)
    lowest = 0.3 if work.card.min_box_score is None else work.card.min_box_score
    pairs: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []
    if kind == "views":
        for row in range(len(expected["xy"])):
            keep = [side["valid"][row] & (side["box_score"][row] >= lowest) for side in (expected, got)]
            sides = [
                {n: side[n][row][kept] for n in (*names, "box_xyxy")}
                for side, kept in zip((expected, got), keep, strict=True)
            ]
            pairs.append((sides[0], sides[1]))
    else:
        pairs.append((expected, got))
    rows: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]] = []
    for one, other in pairs:
        instances[0], instances[1] = instances[0] + len(one["xy"]), instances[1] + len(other["xy"])
        mine, theirs = _same(one["box_xyxy"], other["box_xyxy"])
        instances[2] += len(one["xy"]) + len(other["xy"]) - 2 * len(mine)
        scale = np.ones(len(mine))
        if kind == "two_stage":
            scale = np.array([View.crop(box, spec).to_view.scale for box in one["box_xyxy"][mine]])
        elif kind == "people":
            height, width = given["image"].shape[:2]
            scale *= View.letterbox((width, height), spec.size_wh).to_view.scale
        boxed = (*names, "box_xyxy")
        rows.append(({n: one[n][mine] for n in boxed}, {n: other[n][theirs] for n in boxed}, scale))
    boxed = (*names, "box_xyxy")
    return (
        {n: np.concatenate([row[0][n] for row in rows]) for n in boxed},
        {n: np.concatenate([row[1][n] for row in rows]) for n in boxed},
        np.concatenate([row[2] for row in rows]),
    )


def _same(one_xyxy: np.ndarray, other_xyxy: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the rows of boxes that overlap most, by at least half (IoU), each once."""
    overlap = iou(one_xyxy, other_xyxy)
    mine: list[int] = []
    theirs: list[int] = []
    while overlap.size and overlap.max() >= 0.5:
        row, column = np.unravel_index(int(overlap.argmax()), overlap.shape)
        mine.append(int(row))
        theirs.append(int(column))
        overlap[row], overlap[:, column] = -1.0, -1.0
    return mine, theirs
