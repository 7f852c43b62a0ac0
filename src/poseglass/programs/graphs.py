"""Whole programs as modules that can be exported: pixels in, instances in image pixels out.

A runtime of another language has no ``Affine``, no letterbox and no ``Instances``, so these are in the graph. There are
four, with two signatures:

- ``ViewsGraph`` takes views that the caller has read, with their maps back to the image.
- ``BoxesGraph``, ``PeopleGraph`` and ``TwoStageGraph`` take a whole image of any size, the first with boxes, and read
  the views themselves. All return instances, one per row.

Every graph returns a tuple of tensors, and ``names`` states their names.
"""

from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from poseglass.core.prediction import Decoded, Prediction
from poseglass.programs.crops import crop_maps, letterbox_maps, read_views
from poseglass.programs.torch_program import TorchProgram

MAPS = "maps_"
"""What comes before the key of a prediction in the names of a graph's outputs."""

LEAST_SIDE_PX = 0.51
"""Found boxes with a shorter side in the image are dropped. The image begins at -0.5, but at 0 for readers of COCO
files, for whom a box in the first half pixel lies outside the image. The rest is for the two decimals of such files."""

BY_INSTANCE = (
    "xy", "score", "box_xyxy", "box_score", "label", "visibility", "probability", "visibility_probability", "radius_px",
    "box_probability", "xyz_mm",
)  # fmt: skip
"""Fields of ``Decoded`` that a graph of whole images returns, in this order, where they are not None."""

ALL = tuple(field.name for field in fields(Decoded))
"""All fields of ``Decoded``."""

_NMS_ROUNDS = 16
"""Rounds of the search for duplicates: a chain of more people, each a duplicate of the next, is not fully resolved."""


class Graph(nn.Module):
    """A program inside a module, with names for what it returns.

    Args:
        program: The program; its faster forward, if it has one, is not used.
        maps: Return the last stage's prediction as well, to compare it with another runtime's.
    """

    def __init__(self, program: TorchProgram, *, maps: bool = False) -> None:
        super().__init__()
        self.core, self.maps = program.module(), maps
        self.spec = program.input

    def pixels(self, *inputs: Tensor) -> Tensor:
        """Return the views ``(B, H, W, 3)`` uint8 that the program runs."""
        raise NotImplementedError

    def of_maps(self, prediction: Prediction, *inputs: Tensor) -> dict[str, Tensor]:
        """Return what a prediction for these inputs is decoded to, in image pixels, by name."""
        raise NotImplementedError

    def named(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name, the maps last."""
        prediction = self.core.prediction(self.pixels(*inputs))
        found = self.of_maps(prediction, *inputs)
        return found | ({MAPS + key: maps for key, maps in prediction.items()} if self.maps else {})

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of their names."""
        return tuple(self.named(*inputs).values())


class ViewsGraph(Graph):
    """Views and their maps back to the image, to decoded instances in image pixels.

    Its inputs are views ``(B, H, W, 3)`` uint8 RGB of the program's size and ``home`` ``(B, 2, 3)`` float32, which maps
    view pixels to image pixels. Its outputs are the fields of ``Decoded`` that the program fills.
    """

    def pixels(self, *inputs: Tensor) -> Tensor:
        """Return the views as they are given."""
        return inputs[0]

    def of_maps(self, prediction: Prediction, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the fields of ``Decoded`` that are not None."""
        home = inputs[1]
        return _filled(_at_home(self.core.decoded(prediction), home[:, :, :2], home[:, :, 2]), ALL)


class BoxesGraph(Graph):
    """A whole image and boxes, to one instance per box in image pixels.

    Its inputs are an image ``(H, W, 3)`` uint8 RGB of any size and ``boxes_xyxy`` ``(N, 4)`` float32, image pixels.
    """

    def pixels(self, *inputs: Tensor) -> Tensor:
        """Return the crops of the boxes."""
        image, boxes_xyxy = inputs
        return read_views(image, *crop_maps(boxes_xyxy, self.spec), self.spec.size_wh)

    def of_maps(self, prediction: Prediction, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the fields of instances, one per box."""
        return _filled(self.poses(prediction, inputs[1]), BY_INSTANCE)

    def poses(self, prediction: Prediction, boxes_xyxy: Tensor) -> Decoded:
        """Return one instance per box, without the axis of instances of a view."""
        scale, shift = crop_maps(boxes_xyxy, self.spec)
        decoded = self.core.decoded(prediction)
        decoded = replace(decoded, score=decoded.score * decoded.valid[..., None], box_xyxy=boxes_xyxy[:, None])
        decoded = _mapped(decoded, 1 / scale[:, None, None], (-shift / scale)[:, None, None], boxes=False)
        return Decoded(**{name: value[:, 0] for name, value in _filled(decoded, ALL).items()})


class PeopleGraph(Graph):
    """A whole image to everybody in it, best first, in image pixels, by a one-stage program.

    Its input is an image ``(H, W, 3)`` uint8 RGB of any size.

    Args:
        program: The program; it decodes any number of instances.
        min_box_score: Instances with a lower score are not returned.
        maps: As in the other graphs.
    """

    def __init__(self, program: TorchProgram, min_box_score: float, *, maps: bool = False) -> None:
        super().__init__(program, maps=maps)
        self.min_box_score = min_box_score

    def pixels(self, *inputs: Tensor) -> Tensor:
        """Return the letterbox of the image."""
        return read_views(inputs[0], *letterbox_maps(*_sides(inputs[0]), self.spec.size_wh), self.spec.size_wh)

    def of_maps(self, prediction: Prediction, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the fields of instances, best first."""
        people = self.people(prediction, inputs[0])
        return _filled(_rows(people, people.valid.nonzero().squeeze(1)), BY_INSTANCE)

    def people(self, prediction: Prediction, image: Tensor) -> Decoded:
        """Return all candidates without a batch axis; those to be returned are ``valid``."""
        height, width = _sides(image)
        scale, shift = letterbox_maps(height, width, self.spec.size_wh)
        decoded = self.core.decoded(prediction)
        decoded = _mapped(decoded, 1 / scale[:, None, None], (-shift / scale)[:, None, None], boxes=True)
        people = Decoded(**{name: value[0] for name, value in _filled(decoded, ALL).items()})
        assert people.box_xyxy is not None
        limit = torch.stack([width, height, width, height]) - 0.5
        box = torch.minimum(people.box_xyxy.clamp(min=-0.5), limit)
        good = (box[:, 2:] - box[:, :2] >= LEAST_SIDE_PX).all(-1)
        return replace(people, box_xyxy=box, valid=people.valid & good & (people.box_score >= self.min_box_score))


class TwoStageGraph(nn.Module):
    """A whole image to everybody in it: a detector's boxes, and the poses in them.

    Its input is an image ``(H, W, 3)`` uint8 RGB of any size.

    Args:
        detector: Finds the boxes.
        poses: Finds the keypoints in a box.
        min_box_score: Boxes with a lower score are not used.
        sigmas: Those of the poses' skeleton, to remove duplicates by OKS; empty keeps all.
        nms_oks: Of two poses whose OKS is above it, the one with the lower score is removed.
    """

    def __init__(
        self,
        detector: TorchProgram,
        poses: TorchProgram,
        min_box_score: float,
        *,
        sigmas: tuple[float, ...] = (),
        nms_oks: float = 0.9,
    ) -> None:
        super().__init__()
        self.finder, self.poser = PeopleGraph(detector, min_box_score), BoxesGraph(poses)
        self.nms_oks = nms_oks
        self.sigmas = sigmas

    def named(self, image: Tensor) -> dict[str, Tensor]:
        """Return the fields of instances, by name, best first by box score times mean keypoint score."""
        people = self.finder.people(self.finder.core.prediction(self.finder.pixels(image)), image)
        assert people.box_xyxy is not None
        # one box at least, so that the pose network never runs an empty batch; it is removed again below
        used = people.valid | (torch.arange(len(people.valid), device=image.device) == 0)
        rows = used.nonzero().squeeze(1)
        torch._check(rows.shape[0] >= 1)  # tells torch.export what it cannot see
        torch._check(rows.shape[0] <= len(people.valid))
        valid, box = people.valid[rows], people.box_xyxy[rows]
        small = (box[:, 2:] - box[:, :2] < LEAST_SIDE_PX).any(-1, keepdim=True)
        box = torch.where(small, torch.cat([box[:, :2], box[:, :2] + 1], 1), box)
        poses = self.poser.poses(self.poser.core.prediction(self.poser.pixels(image, box)), box)
        poses = replace(poses, box_score=people.box_score[rows], label=people.label[rows])
        if people.box_probability is not None:
            poses = replace(poses, box_probability=people.box_probability[rows])
        rank = torch.where(valid, poses.box_score * poses.score.mean(1), -1.0)
        order = rank.topk(rank.shape[0]).indices  # the exporter to ONNX has no stable sort
        poses, valid = _rows(poses, order), valid[order]
        if self.sigmas:
            valid = valid & self._first_of_duplicates(poses, valid)
        return _filled(_rows(poses, valid.nonzero().squeeze(1)), BY_INSTANCE)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of their names."""
        return tuple(self.named(image).values())

    def _first_of_duplicates(self, poses: Decoded, valid: Tensor) -> Tensor:
        """Return which poses ``(P,)``, best first, greedy suppression by OKS keeps.

        A pose is kept if no better one that is kept resembles it. Rounds of this rule, from all being kept, settle the
        k-th best pose after k rounds at the latest, and in practice within a few.
        """
        assert poses.box_xyxy is not None
        size = poses.box_xyxy[:, 2:] - poses.box_xyxy[:, :2]
        area = size[:, 0] * size[:, 1]
        variance = (2 * torch.tensor(self.sigmas, device=area.device)).square()
        away = (poses.xy[:, None] - poses.xy[None]).square().sum(-1)  # (P, P, K)
        shared = (area[:, None] + area[None])[..., None] / 2
        alike = torch.exp(-away / (2 * variance * shared.clamp(min=1e-9))).mean(-1) > self.nms_oks
        place = torch.arange(area.shape[0], device=area.device)
        better = (alike & (place[:, None] > place[None]) & valid[None]).float()
        keep = torch.ones_like(area)
        for _ in range(_NMS_ROUNDS):
            keep = 1 - torch.matmul(better, keep[:, None])[:, 0].clamp(max=1)
        return keep > 0.5


def names(graph: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[str, ...]:
    """Return the names of what a graph returns for such inputs, in order."""
    with torch.no_grad():
        return tuple(graph.named(*inputs))  # type: ignore[operator]


def _at_home(decoded: Decoded, linear: Tensor, shift: Tensor) -> Decoded:
    """Return instances ``(B, N, ...)`` mapped by ``linear`` ``(B, 2, 2)`` and ``shift`` ``(B, 2)``."""
    xy = torch.matmul(decoded.xy, linear[:, None].transpose(-1, -2)) + shift[:, None, None]
    changed: dict[str, Tensor] = {"xy": xy}
    if decoded.box_xyxy is not None:
        low, high = decoded.box_xyxy[..., :2], decoded.box_xyxy[..., 2:]
        center = torch.matmul((low + high) / 2, linear.transpose(-1, -2)) + shift[:, None]
        half = torch.matmul((high - low) / 2, linear.abs().transpose(-1, -2))
        changed["box_xyxy"] = torch.cat([center - half, center + half], -1)
    if decoded.radius_px is not None:
        area = linear[:, 0, 0] * linear[:, 1, 1] - linear[:, 0, 1] * linear[:, 1, 0]
        changed["radius_px"] = decoded.radius_px * area.abs().sqrt()[:, None, None]
    if decoded.observed_3d is not None:
        observed = decoded.observed_3d
        middle = torch.matmul(observed[..., :2], linear.transpose(-1, -2)) + shift[:, None]
        area = linear[:, 0, 0] * linear[:, 1, 1] - linear[:, 0, 1] * linear[:, 1, 0]
        focal = observed[..., 3:4] * area.abs().sqrt()[:, None, None]
        changed["observed_3d"] = torch.cat([middle, observed[..., 2:3], focal, observed[..., 4:]], -1)
    return replace(decoded, **changed)


def _mapped(decoded: Decoded, scale: Tensor, shift: Tensor, *, boxes: bool) -> Decoded:
    """Return instances ``(B, N, ...)`` mapped by an upright map: scale and shift ``(B, 1, 1, 2)``."""
    changed: dict[str, Tensor] = {"xy": decoded.xy * scale + shift}
    if boxes and decoded.box_xyxy is not None:
        corners = decoded.box_xyxy.unflatten(-1, (2, 2)) * scale + shift
        changed["box_xyxy"] = corners.flatten(-2)
    if decoded.radius_px is not None:
        changed["radius_px"] = decoded.radius_px * scale.prod(-1).sqrt()
    if decoded.observed_3d is not None:
        observed = decoded.observed_3d
        middle = observed[..., :2] * scale[:, 0] + shift[:, 0]
        focal = observed[..., 3:4] * scale[:, 0].prod(-1, keepdim=True).sqrt()
        changed["observed_3d"] = torch.cat([middle, observed[..., 2:3], focal, observed[..., 4:]], -1)
    return replace(decoded, **changed)


def _sides(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the height and the width of an image as float32 scalars of the graph."""
    height, width = (torch.full((), side, dtype=torch.float32, device=image.device) for side in image.shape[:2])
    return height, width


def _filled(decoded: Decoded, order: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the fields of these names that are not None."""
    return {name: value for name in order if (value := getattr(decoded, name)) is not None}


def _rows(decoded: Decoded, rows: Tensor) -> Decoded:
    """Return the rows of these numbers, of every field."""
    return Decoded(**{name: value.index_select(0, rows) for name, value in _filled(decoded, ALL).items()})
