"""Instances: N people (or hands, or animals) with K keypoints each in one image; labels and predictions alike."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.box_3d import mirrored, moved_projection
from poseglass.core.boxes import around, xyxy_to_xywh
from poseglass.core.skeleton import Skeleton

_ALWAYS = ("xy", "score", "box_xyxy", "box_score", "label")
_SHAPES: dict[str, tuple[type, tuple[str | int, ...]]] = {
    "label": (np.int64, ("N",)),
    "visibility": (np.int64, ("N", "K")),
    "probability": (np.float32, ("N", "K")),
    "track_id": (np.int64, ("N",)),
    "box_3d": (np.float32, ("N", 7)),
    "projection": (np.float64, ("N", 3, 4)),
    "xyz_mm": (np.float32, ("N", "K", 3)),
}
"""Dtype and axes of the optional arrays."""
_OPTIONAL = ("visibility", "probability", "mask", "track_id", "box_3d", "projection", "xyz_mm")

VISIBILITY_WORDS = ("absent", "occluded", "visible")
"""What 0, 1 and 2 in ``Instances.visibility`` are called in files."""


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """N x K keypoints with scores and boxes in one image.

    Args:
        skeleton: Its K keypoints name the columns.
        xy: ``(N, K, 2)`` float32, image pixels, NaN = unknown.
        score: ``(N, K)`` float32 in [0, 1]; annotations: 1 labelled, 0 not.
        box_xyxy: ``(N, 4)`` float32, image pixels, edge to edge.
        box_score: ``(N,)`` float32 in [0, 1].
        label: ``(N,)`` int64, the class; None is 0 for all.
        visibility: ``(N, K)`` int64, predicted: 0 absent (not in the image), 1 occluded, 2 visible; or None. It marks
            keypoints and removes none: one that is absent keeps its coordinates and its score. Where ``known`` is
            False, nothing was predicted, and the 0 there says nothing.
        probability: ``(N, K)`` float32 in [0, 1], calibrated: how often such a keypoint is right (see
            ``Calibration``); or None.
        mask: ``(N, H, W)`` bool, image pixels, or None.
        track_id: ``(N,)`` int64, or None.
        box_3d: ``(N, 7)`` float32, camera frame: centre x, y, z and length, height, width in millimetres, and the
            rotation about the y axis in radians (see ``core.box_3d``); NaN where unknown; or None.
        projection: ``(N, 3, 4)`` float64, the calibration of the image that each instance is in, camera frame in
            millimetres to its pixels: the same for all of one image. It belongs to ``box_3d``; or None.
        xyz_mm: ``(N, K, 3)`` float32, millimetres, camera frame, or None.
        extra: One row per instance, first axis N. Known keys: "area" (N,) square pixels, "head_px" (N,), "torso_px"
            (N,), "crowd" (N,) bool, "annotation_id" (N,) int64, "category_id" (N,) int64, "box_probability"
            (N,) float32, calibrated; of labels in 3D also "truncation" (N,) 0 to 1, "occlusion" (N,) 0 to 3 as KITTI
            counts, and "scaled" (N,) bool, whether augmentation made the view larger or smaller.
        keypoint_extra: One entry per keypoint, first axes ``(N, K)``; they follow the keypoints wherever these are
            reordered. Known keys: "occluded" (N, K) bool, labelled but hidden; "visibility_probability" (N, K, 3)
            float32, predicted: of visible, occluded and absent, in this order; "radius_px" (N, K) float32, image
            pixels, predicted: the keypoint lies within it as often as the calibration says.

    Raises:
        ValueError: A shape does not match the others, or a labelled keypoint has no finite coordinates.
    """

    skeleton: Skeleton
    xy: np.ndarray
    score: np.ndarray
    box_xyxy: np.ndarray
    box_score: np.ndarray
    label: np.ndarray = field(default=None)  # type: ignore[assignment]  # __post_init__ makes it an array
    visibility: np.ndarray | None = None
    probability: np.ndarray | None = None
    mask: np.ndarray | None = None
    track_id: np.ndarray | None = None
    box_3d: np.ndarray | None = None
    projection: np.ndarray | None = None
    xyz_mm: np.ndarray | None = None
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    keypoint_extra: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, k = len(self.xy), len(self.skeleton)
        expected = {"xy": (n, k, 2), "score": (n, k), "box_xyxy": (n, 4), "box_score": (n,)}
        for name, shape in expected.items():
            array = np.asarray(getattr(self, name), dtype=np.float32)
            if array.shape != shape:
                raise ValueError(
                    f"Instances.{name} must have shape {shape} (N={n}, K={k} of {self.skeleton.name!r}), "
                    f"got {array.shape}."
                )
            object.__setattr__(self, name, array)
        if self.label is None:
            object.__setattr__(self, "label", np.zeros(n, np.int64))
        sides = {"N": n, "K": k}
        for name, (dtype, axes) in _SHAPES.items():
            value = getattr(self, name)
            if value is not None:
                array = np.asarray(value, dtype=dtype)
                shape = tuple([sides.get(axis, axis) for axis in axes])  # type: ignore[call-overload]
                if array.shape != shape:
                    raise ValueError(f"Instances.{name} must have shape {shape} or be None, got {array.shape}.")
                object.__setattr__(self, name, array)
        if self.mask is not None:
            array = np.asarray(self.mask, dtype=bool)
            if array.ndim != 3 or len(array) != n:
                raise ValueError(f"Instances.mask must be ({n}, H, W) bool or None, got {array.shape}.")
            object.__setattr__(self, "mask", array)
        for name, array in self.extra.items():
            if len(array) != n:
                raise ValueError(f"Instances.extra[{name!r}] must have {n} rows (one per instance), got {len(array)}.")
        for name, array in self.keypoint_extra.items():
            if np.shape(array)[:2] != (n, k):
                raise ValueError(
                    f"Instances.keypoint_extra[{name!r}] must begin with axes {(n, k)} (instances, keypoints), got "
                    f"{np.shape(array)}. One value per instance goes into extra."
                )

    def __len__(self) -> int:
        return len(self.xy)

    def __repr__(self) -> str:
        parts = [f"{len(self)} of {self.skeleton.name!r} ({len(self.skeleton)} keypoints)"]
        if self.score.size:
            parts.append(f"mean score {self.score.mean():.2f}")
        parts += [name for name in _OPTIONAL if getattr(self, name) is not None]
        more = [*self.extra, *self.keypoint_extra]
        parts += [f"extra: {', '.join(more)}"] if more else []
        return f"Instances({'; '.join(parts)})"

    def __getitem__(self, rows: Any) -> "Instances":
        """Select instances by a mask, a slice, a list of indices or one index.

        Raises:
            TypeError: ``rows`` is the name of a keypoint; see ``keypoint``.
        """
        if isinstance(rows, str):
            raise TypeError(
                f"Instances are selected by index or mask, got {rows!r}. For one keypoint of all of them use "
                f"instances.keypoint({rows!r})."
            )
        if isinstance(rows, int | np.integer):
            rows = [int(rows)]
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            rows = rows if rows.size else rows.astype(np.int64)  # an empty list has no integer type
        optional = {name: value[rows] for name in _OPTIONAL if (value := getattr(self, name)) is not None}
        return Instances(
            self.skeleton, self.xy[rows], self.score[rows], self.box_xyxy[rows], self.box_score[rows],
            self.label[rows], **optional,
            extra={name: np.asarray(a)[rows] for name, a in self.extra.items()},
            keypoint_extra={name: np.asarray(a)[rows] for name, a in self.keypoint_extra.items()},
        )  # fmt: skip

    def keypoint(self, name: str) -> np.ndarray:
        """Return one keypoint of every instance: ``(N, 3)`` float32, x and y in image pixels and the score.

        Raises:
            LookupError: The skeleton has no keypoint of that name; the closest name is suggested.
        """
        k = self.skeleton.index(name)
        return np.concatenate([self.xy[:, k], self.score[:, k, None]], axis=-1)

    def likely(self, least: float) -> "Instances":
        """Return the same instances without the keypoints of a lower probability: unknown (NaN), score 0.

        Args:
            least: Lowest calibrated probability of the keypoints that are kept.

        Raises:
            ValueError: No probability is known, because the weights are not calibrated.
        """
        if not len(self):
            return self
        if self.probability is None:
            raise ValueError(
                "These instances have no probabilities: the weights that predicted them are not calibrated. Use their "
                "scores, or calibrate the weights: poseglass calibrate WEIGHTS LABELS --out FILE."
            )
        keep = self.probability >= least
        return replace(self, xy=np.where(keep[..., None], self.xy, np.nan), score=np.where(keep, self.score, 0.0))

    @property
    def visibility_words(self) -> list[list[str | None]]:
        """``visibility`` in words, per instance and keypoint; None where nothing is known or predicted."""
        if self.visibility is None:
            return [[None] * len(self.skeleton) for _ in range(len(self))]
        return [
            [VISIBILITY_WORDS[int(v)] if there else None for v, there in zip(row, known, strict=True)]
            for row, known in zip(self.visibility, self.known, strict=True)
        ]

    @property
    def known(self) -> np.ndarray:
        """``(N, K)`` bool: the keypoint has coordinates and a score above 0."""
        return np.isfinite(self.xy).all(-1) & (self.score > 0)

    @classmethod
    def empty(cls, skeleton: Skeleton) -> "Instances":
        """Return an empty set of instances."""
        k = len(skeleton)
        return cls(skeleton, np.zeros((0, k, 2)), np.zeros((0, k)), np.zeros((0, 4)), np.zeros(0))

    @classmethod
    def from_keypoints(
        cls,
        skeleton: Skeleton,
        xy: np.ndarray,
        *,
        score: np.ndarray | None = None,
        box_xyxy: np.ndarray | None = None,
        extra: dict[str, np.ndarray] | None = None,
        keypoint_extra: dict[str, np.ndarray] | None = None,
    ) -> "Instances":
        """Make instances from coordinates alone: the score is 1 where they are finite, the box is around them."""
        points = np.asarray(xy, dtype=np.float32)
        if score is None:
            score = np.asarray(np.isfinite(points).all(-1), dtype=np.float32)
        if box_xyxy is None:
            box_xyxy = around(points)
        return cls(
            skeleton, points, score, box_xyxy, np.ones(len(points), np.float32), extra=extra or {},
            keypoint_extra=keypoint_extra or {},
        )  # fmt: skip

    def moved(self, affine: Affine) -> "Instances":
        """Return the same instances in another frame. A map that flips also exchanges left and right keypoints.

        Lengths and areas in ``extra`` ("area", and names that end in "_px") follow the scale. Boxes become the upright
        boxes around the moved ones. ``xyz_mm`` is rotated and flipped about the optical axis as the image is; its scale
        is kept, because enlarging an image does not make the person larger. ``box_3d`` stays where it is in the camera
        frame, and ``projection`` follows the pixels; a map that flips mirrors both.

        Raises:
            ValueError: There is ``xyz_mm`` and the map stretches one direction over 5 % more than the other; or there
                is a ``mask``, which cannot be moved yet; or a ``box_3d`` without a ``projection``, or the map turns
                them.
        """
        order = self.skeleton.flip if affine.flips else slice(None)
        lost = {"mask": self.mask is not None, "box_3d": self.box_3d is not None and self.projection is None}
        if any(lost.values()) and not np.array_equal(affine.matrix, np.eye(2, 3)):
            kept = [name for name, there in lost.items() if there]
            raise ValueError(
                f"Instances with {' and '.join(kept)} cannot be moved to another frame; drop them first: "
                f"dataclasses.replace(instances, {', '.join(f'{name}=None' for name in kept)})."
                + (" A box_3d can be moved together with the projection of its camera." if lost["box_3d"] else "")
            )
        box_3d, projection = self.box_3d, self.projection
        if projection is not None:
            projection = moved_projection(projection, affine.matrix)
            box_3d = mirrored(box_3d) if box_3d is not None and affine.flips else box_3d
        extra = {}
        for name, array in self.extra.items():
            values = np.asarray(array)
            if name == "area":
                values = values * affine.scale**2
            elif name.endswith("_px"):
                values = values * affine.scale
            extra[name] = values
        xyz_mm = None
        if self.xyz_mm is not None:
            xyz_mm = self.xyz_mm.copy()
            xyz_mm[..., :2] = xyz_mm[..., :2] @ _rotation(affine).T
            xyz_mm = xyz_mm[:, order]
        # the constructor itself: replace() takes twice as long, and this runs for every crop
        return Instances(
            self.skeleton, affine(self.xy)[:, order], self.score[:, order], affine.box(self.box_xyxy), self.box_score,
            self.label,
            visibility=None if self.visibility is None else self.visibility[:, order],
            probability=None if self.probability is None else self.probability[:, order],
            mask=self.mask, track_id=self.track_id, box_3d=box_3d, projection=projection, xyz_mm=xyz_mm,
            extra=extra,
            keypoint_extra={
                name: np.asarray(a)[:, order] * affine.scale if name.endswith("_px") else np.asarray(a)[:, order]
                for name, a in self.keypoint_extra.items()
            },
        )  # fmt: skip

    def in_skeleton(self, skeleton: Skeleton) -> "Instances":
        """Return the same instances with another skeleton's keypoints, matched by name; the rest is unknown.

        Raises:
            ValueError: The two share no keypoint name.
        """
        if skeleton == self.skeleton:
            return self
        source = self.skeleton.indices_of(skeleton.keypoints)
        if len(source) and (source < 0).all():
            raise ValueError(
                f"Skeletons {self.skeleton.name!r} and {skeleton.name!r} share no keypoint name; rename the keypoints "
                f"of one: {', '.join(self.skeleton.keypoints)} | {', '.join(skeleton.keypoints)}."
            )
        there = source >= 0

        def picked(values: np.ndarray, empty: float | bool) -> np.ndarray:
            """Return values ``(N, K, ...)`` in the order of the other skeleton, ``empty`` where this one lacks it."""
            out = np.full((len(self), len(skeleton), *values.shape[2:]), empty, values.dtype)
            out[:, there] = values[:, source[there]]
            return out

        return replace(
            self, skeleton=skeleton, xy=picked(self.xy, np.nan), score=picked(self.score, 0.0),
            visibility=None if self.visibility is None else picked(self.visibility, 0),
            probability=None if self.probability is None else picked(self.probability, 0.0),
            xyz_mm=None if self.xyz_mm is None else picked(self.xyz_mm, np.nan),
            keypoint_extra={name: picked(np.asarray(a), False) for name, a in self.keypoint_extra.items()},
        )  # fmt: skip

    @classmethod
    def concatenate(cls, parts: Sequence["Instances"]) -> "Instances":
        """Join instances of one skeleton; optional fields and keys of ``extra`` are kept where all parts have them.

        Raises:
            ValueError: No parts, or parts of different skeletons.
        """
        if not parts:
            raise ValueError("Instances.concatenate needs at least one part; use Instances.empty(skeleton) for none.")
        skeleton = parts[0].skeleton
        for part in parts:
            if part.skeleton != skeleton:
                raise ValueError(
                    f"Cannot join instances of {skeleton.name!r} and {part.skeleton.name!r}; use in_skeleton() first."
                )

        def joined(arrays: Sequence[Any]) -> np.ndarray:
            return np.concatenate([np.asarray(a) for a in arrays])

        def common(name: str) -> dict[str, np.ndarray]:
            tables = [getattr(p, name) for p in parts]
            return {k: joined([t[k] for t in tables]) for k in sorted(set.intersection(*map(set, tables)))}

        shared = [name for name in _OPTIONAL if all(getattr(p, name) is not None for p in parts)]
        return cls(
            skeleton, *(joined([getattr(p, name) for p in parts]) for name in _ALWAYS),
            **{name: joined([getattr(p, name) for p in parts]) for name in shared},
            extra=common("extra"), keypoint_extra=common("keypoint_extra"),
        )  # fmt: skip

    def named_box_3d(self, row: int) -> dict[str, Any]:
        """Return a box in space with the names of its numbers, for files: millimetres, radians, camera frame.

        Raises:
            ValueError: There are no boxes in space.
        """
        if self.box_3d is None:
            raise ValueError("These instances have no box_3d; they are those of a network that finds no boxes in 3D.")
        values = self.box_3d[row].astype(float)
        return {
            "center_mm": [round(v, 1) for v in values[:3].tolist()],
            "length_mm": round(float(values[3]), 1), "height_mm": round(float(values[4]), 1),
            "width_mm": round(float(values[5]), 1), "yaw": round(float(values[6]), 5),
        }  # fmt: skip

    def to_coco(self, image_id: int | str = 0, category_id: int = 1) -> list[dict[str, Any]]:
        """Return COCO results: flat ``x, y, v`` per keypoint, ``bbox`` xywh, ``score`` of the instance.

        v is COCO's flag, not a score: ``visibility`` where that is predicted, else 2 for a keypoint with coordinates.
        A keypoint that is predicted to be absent has v = 0 and keeps its coordinates and its score. Unknown keypoints
        are 0, 0, 0. The keypoints' scores in [0, 1] are in "keypoint_scores". The instance's score is the box score
        times the mean of the keypoints' scores.
        """
        rows = []
        for i in range(len(self)):
            known = self.known[i]
            mean = float(self.score[i].mean()) if len(self.skeleton) else 1.0
            flags = np.where(known, 2 if self.visibility is None else self.visibility[i], 0)
            flat: list[float] = []
            for (x, y), there, flag in zip(self.xy[i], known, flags, strict=True):
                flat += [round(float(x), 3), round(float(y), 3), int(flag)] if there else [0.0, 0.0, 0]
            rows.append(
                {
                    "image_id": image_id,
                    "category_id": category_id,
                    "keypoints": flat,
                    "keypoint_scores": [round(float(s), 4) for s in np.where(known, self.score[i], 0.0)],
                    "bbox": [round(float(v), 2) for v in xyxy_to_xywh(self.box_xyxy[i])],
                    "score": round(float(self.box_score[i]) * mean, 5),
                }
            )
        return rows

    def to_json(self) -> str:
        """Return the instances as JSON: keypoints by name, with visibility, probability and radius if predicted."""
        words = self.visibility_words
        people = []
        for i in range(len(self)):
            points = {
                name: {"x": round(float(x), 2), "y": round(float(y), 2), "score": round(float(s), 4)}
                | ({} if word is None else {"visibility": word})
                for name, (x, y), s, known, word in zip(
                    self.skeleton.keypoints, self.xy[i], self.score[i], self.known[i], words[i], strict=True
                )
                if known
            }
            for k, name in enumerate(self.skeleton.keypoints):
                if name in points and self.probability is not None:
                    points[name]["probability"] = round(float(self.probability[i, k]), 4)
                if name in points and "radius_px" in self.keypoint_extra:
                    points[name]["radius_px"] = round(float(self.keypoint_extra["radius_px"][i, k]), 2)
            box = [round(float(v), 2) for v in self.box_xyxy[i]]
            person = {"keypoints": points, "box_xyxy": box, "box_score": round(float(self.box_score[i]), 4)}
            if "box_probability" in self.extra:
                person["box_probability"] = round(float(self.extra["box_probability"][i]), 4)
            if self.box_3d is not None and np.isfinite(self.box_3d[i]).all():
                person["box_3d"] = self.named_box_3d(i)
            people.append(person)
        return json.dumps({"skeleton": self.skeleton.name, "instances": people}, indent=1)


def _rotation(affine: Affine) -> np.ndarray:
    """Return the rotation of a map, including a flip: ``(2, 2)``, orthogonal.

    Raises:
        ValueError: The map stretches one direction over 5 % more than the other.
    """
    u, stretch, v = np.linalg.svd(affine.matrix[:, :2])
    if stretch[0] > 1.05 * stretch[1]:
        raise ValueError(
            f"Instances with xyz_mm cannot be moved by a map that stretches by {stretch[0]:.3g} in one direction and "
            f"{stretch[1]:.3g} in another; use a map that keeps proportions, or drop xyz_mm first."
        )
    return u @ v
