"""Instances: N people (or hands, or animals) with K keypoints each in one image; labels and predictions alike."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.boxes import around, whole_image, xyxy_to_xywh
from poseglass.core.skeleton import Skeleton


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """N x K keypoints with scores and boxes in one image.

    Args:
        skeleton: Names the K keypoints.
        xy: ``(N, K, 2)`` float32, image pixels, NaN = unknown.
        score: ``(N, K)`` float32 in [0, 1]; annotations: 1 labelled, 0 not.
        box_xyxy: ``(N, 4)`` float32, image pixels, edge to edge.
        box_score: ``(N,)`` float32 in [0, 1].
        xyz_mm: ``(N, K, 3)`` float32, millimetres, camera frame, or None.
        track: ``(N,)`` int64, or None.
        extra: Arrays with first axis N. Known keys: "area" (N,) square pixels, "head_px" (N,), "torso_px" (N,),
            "crowd" (N,) bool, "occluded" (N, K) bool, "annotation_id" (N,) int64, "category_id" (N,) int64.

    Raises:
        ValueError: A shape does not fit the others, or a labelled keypoint has no finite coordinates.
    """

    skeleton: Skeleton
    xy: np.ndarray
    score: np.ndarray
    box_xyxy: np.ndarray
    box_score: np.ndarray
    xyz_mm: np.ndarray | None = None
    track: np.ndarray | None = None
    extra: dict[str, np.ndarray] = field(default_factory=dict)

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
        for name, dtype, shape in (("xyz_mm", np.float32, (n, k, 3)), ("track", np.int64, (n,))):
            value = getattr(self, name)
            if value is not None:
                array = np.asarray(value, dtype=dtype)
                if array.shape != shape:
                    raise ValueError(f"Instances.{name} must have shape {shape} or be None, got {array.shape}.")
                object.__setattr__(self, name, array)
        for name, array in self.extra.items():
            if len(array) != n:
                raise ValueError(f"Instances.extra[{name!r}] must have {n} rows (one per instance), got {len(array)}.")

    def __len__(self) -> int:
        return len(self.xy)

    def __repr__(self) -> str:
        parts = [f"{len(self)} of {self.skeleton.name!r} ({len(self.skeleton)} keypoints)"]
        if len(self):
            parts.append(f"mean score {self.score.mean():.2f}")
        parts += [name for name in ("xyz_mm", "track") if getattr(self, name) is not None]
        parts += [f"extra: {', '.join(self.extra)}"] if self.extra else []
        return f"Instances({'; '.join(parts)})"

    def __getitem__(self, rows: Any) -> "Instances":
        """Select instances by a mask, a slice, a list of indices or one index."""
        if isinstance(rows, int | np.integer):
            rows = [int(rows)]
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            rows = rows if rows.size else rows.astype(np.int64)  # an empty list says nothing of its type
        return Instances(
            self.skeleton, self.xy[rows], self.score[rows], self.box_xyxy[rows], self.box_score[rows],
            None if self.xyz_mm is None else self.xyz_mm[rows],
            None if self.track is None else self.track[rows],
            {name: np.asarray(a)[rows] for name, a in self.extra.items()},
        )  # fmt: skip

    @property
    def known(self) -> np.ndarray:
        """``(N, K)`` bool: the keypoint has coordinates and a score above 0."""
        return np.isfinite(self.xy).all(-1) & (self.score > 0)

    @classmethod
    def empty(cls, skeleton: Skeleton) -> "Instances":
        """Return no instances at all."""
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
    ) -> "Instances":
        """Make instances from coordinates alone: the score is 1 where they are finite, the box is around them."""
        points = np.asarray(xy, dtype=np.float32)
        if score is None:
            score = np.asarray(np.isfinite(points).all(-1), dtype=np.float32)
        if box_xyxy is None:
            box_xyxy = around(points)
        return cls(skeleton, points, score, box_xyxy, np.ones(len(points), np.float32), extra=extra or {})

    def moved(self, affine: Affine) -> "Instances":
        """Return the same instances in another frame. A mirroring map also exchanges left and right keypoints.

        Lengths and areas in ``extra`` ("area", "head_px", "torso_px") follow the scale. Boxes become the upright
        boxes around the moved ones. Tracks stay; ``xyz_mm`` must be None when mirroring.
        """
        order = self.skeleton.flip if affine.mirrors else np.arange(len(self.skeleton))
        if affine.mirrors and self.xyz_mm is not None:
            raise ValueError("Instances with xyz_mm cannot be mirrored in the image plane alone; drop xyz_mm first.")
        extra = {}
        for name, array in self.extra.items():
            values = np.asarray(array)
            if name == "area":
                values = values * affine.scale**2
            elif name.endswith("_px"):
                values = values * affine.scale
            elif values.ndim >= 2 and values.shape[1] == len(self.skeleton):
                values = values[:, order]
            extra[name] = values
        return Instances(
            self.skeleton, affine(self.xy)[:, order], self.score[:, order], affine.box(self.box_xyxy),
            self.box_score, self.xyz_mm, self.track, extra,
        )  # fmt: skip

    def in_skeleton(self, skeleton: Skeleton) -> "Instances":
        """Return the same instances with another skeleton's keypoints, matched by name; the rest is unknown.

        Raises:
            ValueError: The two share no keypoint name.
        """
        if skeleton == self.skeleton:
            return self
        source = self.skeleton.indices_of(skeleton.keypoints)
        if (source < 0).all():
            raise ValueError(
                f"Skeletons {self.skeleton.name!r} and {skeleton.name!r} share no keypoint name; rename the keypoints "
                f"of one: {', '.join(self.skeleton.keypoints)} | {', '.join(skeleton.keypoints)}."
            )
        there = source >= 0
        xy = np.full((len(self), len(skeleton), 2), np.nan, np.float32)
        score = np.zeros((len(self), len(skeleton)), np.float32)
        xy[:, there], score[:, there] = self.xy[:, source[there]], self.score[:, source[there]]
        xyz = None
        if self.xyz_mm is not None:
            xyz = np.full((len(self), len(skeleton), 3), np.nan, np.float32)
            xyz[:, there] = self.xyz_mm[:, source[there]]
        extra = {}
        for name, array in self.extra.items():
            values = np.asarray(array)
            if values.ndim >= 2 and values.shape[1] == len(self.skeleton):
                moved = np.zeros((len(self), len(skeleton), *values.shape[2:]), values.dtype)
                moved[:, there] = values[:, source[there]]
                values = moved
            extra[name] = values
        return Instances(skeleton, xy, score, self.box_xyxy, self.box_score, xyz, self.track, extra)

    @classmethod
    def concatenate(cls, parts: Sequence["Instances"]) -> "Instances":
        """Join instances of one skeleton; ``extra`` keeps the keys that all parts have.

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
        keys = set.intersection(*(set(p.extra) for p in parts))
        with_xyz, with_track = (all(getattr(p, a) is not None for p in parts) for a in ("xyz_mm", "track"))
        return cls(
            skeleton,
            np.concatenate([p.xy for p in parts]),
            np.concatenate([p.score for p in parts]),
            np.concatenate([p.box_xyxy for p in parts]),
            np.concatenate([p.box_score for p in parts]),
            np.concatenate([p.xyz_mm for p in parts]) if with_xyz else None,  # type: ignore[arg-type]
            np.concatenate([p.track for p in parts]) if with_track else None,  # type: ignore[arg-type]
            {k: np.concatenate([np.asarray(p.extra[k]) for p in parts]) for k in sorted(keys)},
        )

    def boxes_or_whole(self, size_wh: tuple[int, int]) -> np.ndarray:
        """Return ``(N, 4)`` boxes, the whole image where a box is unknown or empty."""
        bad = ~np.isfinite(self.box_xyxy).all(-1)
        bad |= (self.box_xyxy[:, 2] <= self.box_xyxy[:, 0]) | (self.box_xyxy[:, 3] <= self.box_xyxy[:, 1])
        return np.where(bad[:, None], whole_image(size_wh), self.box_xyxy)

    def to_coco(self, image_id: int = 0, category_id: int = 1) -> list[dict[str, Any]]:
        """Return COCO results: flat ``x, y, score`` per keypoint, ``bbox`` xywh, ``score`` of the instance.

        The third number is the keypoint's score in [0, 1]; COCO's own evaluation ignores it. Unknown is 0, 0, 0.
        The instance's score is the box's times the mean of the keypoints' scores.
        """
        rows = []
        for i in range(len(self)):
            known = self.known[i]
            xys = np.where(known[:, None], np.concatenate([self.xy[i], self.score[i, :, None]], -1), 0.0)
            rows.append(
                {
                    "image_id": image_id,
                    "category_id": category_id,
                    "keypoints": [round(float(v), 3) for v in xys.ravel()],
                    "bbox": [round(float(v), 2) for v in xyxy_to_xywh(self.box_xyxy[i])],
                    "score": round(float(self.box_score[i] * self.score[i].mean()), 5),
                }
            )
        return rows

    def to_json(self) -> str:
        """Return the instances as JSON with names: for people to read and for programs in any language."""
        people = []
        for i in range(len(self)):
            points = {
                name: {"x": round(float(x), 2), "y": round(float(y), 2), "score": round(float(s), 4)}
                for name, (x, y), s, known in zip(
                    self.skeleton.keypoints, self.xy[i], self.score[i], self.known[i], strict=True
                )
                if known
            }
            box = [round(float(v), 2) for v in self.box_xyxy[i]]
            people.append({"keypoints": points, "box_xyxy": box, "box_score": round(float(self.box_score[i]), 4)})
        return json.dumps({"skeleton": self.skeleton.name, "instances": people}, indent=1)
