"""Composed scenes: people cut out of labelled photographs of one person each, pasted into scenes of several.

Data sets of single people (``lspet``: one labelled person in a crop of at most 256 pixels) teach where joints are, but
not where people are among other things. Pasting labelled objects into other images is known to train detectors: Dwibedi
et al., "Cut, Paste and Learn", ICCV 2017, https://arxiv.org/abs/1708.01642, section 4, where soft edges and pasted
things that are no objects keep a network from finding the cut instead of the object. Without masks, a person is pasted
with the surroundings in the person's box grown a little, and the edge fades out; with masks (``data.cutouts``), only
the person is, and the mask's bounds are the box.

A scene depends only on ``(seed, index)``, so an index gives the same pixels in any order and in any worker.

The background is a mosaic of parts of the same photographs in which nobody is labelled, pasted with the same soft edges
and enlarged about as much as the people: neither an edge nor a blur gives a person away. They come from beside the
labelled people only, so somebody without a box may still show there. Or the people are pasted into whole photographs
of another file, among the people who are labelled there.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import BOXES
from poseglass.core.warp import warp_image
from poseglass.data.masks import Cutouts, check_trunk
from poseglass.data.who_is_pasted import clipped, who_can_be_pasted, who_stands, with_cutouts
from poseglass.readers.coco import coco
from poseglass.readers.coco_choice import Allowed
from poseglass.readers.labelled import LabelledImages

MOST_PEOPLE = 30
"""Scenes of more people are rejected: they would hide each other."""

OVERLAP = 0.3
"""Largest share of the smaller of two boxes that the two share."""

SEEN = 0.6
"""Least share of a person's labelled keypoints that others leave visible, and of the box that lies in the scene."""

ATTEMPTS = 12
"""Places tried for a person before the person is left out."""

REMEMBERED = 64
"""Decoded photographs that each process keeps; people and background of a scene come from the same few."""

_POWER = 4
"""Of the superellipse that is pasted: 2 is an ellipse, infinity a rectangle."""

_EVERYWHERE = np.array([-1e6, -1e6, 1e6, 1e6])


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A part of a photograph at its place in a scene.

    Args:
        photo: Index of the photograph in the source.
        to_scene: Pixels of the photograph to pixels of the scene.
        box_xyxy: What is pasted, in the scene's pixels; it is opaque in the middle and fades out towards its edges.
        soft: Share of the patch that fades out, up to 1; 0 does not fade out at all.
        inside_xyxy: Part of the scene that the photograph covers; the patch fades out towards it, too.
        fade_px: Width of that second edge.
        strip_xyxy: Part of the photograph that is pasted, mirrored at its edges as often as needed; None: all, once.
        mask: ``(h, w)`` uint8, 0 or 255, of the whole photograph, that is pasted alone; None pastes the whole patch.
        mask_to_scene: Pixels of the mask to pixels of the scene.
    """

    photo: int
    to_scene: Affine
    box_xyxy: np.ndarray
    soft: float
    inside_xyxy: np.ndarray
    fade_px: float
    strip_xyxy: np.ndarray | None = None
    mask: np.ndarray | None = None
    mask_to_scene: Affine | None = None

    def covers(self, xy: np.ndarray) -> np.ndarray:
        """Return which points of the scene the patch hides, ``(..., 2)`` to ``(...)`` bool."""
        if self.mask is None or self.mask_to_scene is None:
            return np.asarray(self.alpha(xy[..., 0], xy[..., 1]) > 0.5)
        height, width = self.mask.shape
        at = np.round(self.mask_to_scene.inverse()(xy))
        inside = (at >= 0).all(-1) & (at[..., 0] < width) & (at[..., 1] < height)
        x, y = np.where(inside[..., None], at, 0.0).astype(np.intp).reshape(-1, 2).T
        return inside & (self.mask[y, x] > 0).reshape(inside.shape)

    def alpha(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return how opaque the patch is at points of the scene, 0 to 1, float32; x and y broadcast."""
        x0, y0, x1, y1 = (float(v) for v in self.box_xyxy)
        across = ((x - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** _POWER
        down = ((y - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** _POWER
        ramp = np.clip((1.0 - (across + down).astype(np.float32)) / np.float32(1 - (1 - self.soft) ** _POWER), 0, 1)
        left, top, right, bottom = (float(v) for v in self.inside_xyxy)
        edge_x = np.clip(np.minimum(x - left, right - x) / self.fade_px, 0, 1).astype(np.float32)
        edge_y = np.clip(np.minimum(y - top, bottom - y) / self.fade_px, 0, 1).astype(np.float32)
        return ramp * ramp * (3 - 2 * ramp) * edge_x * edge_y


@dataclass(frozen=True, slots=True, eq=False)
class PastedPerson:
    """A person in a scene: the patch, the person's row in the photograph, and the labels in the scene's pixels.

    Without a patch, the person stands in the photograph that is behind the scene.
    """

    patch: Patch | None
    row: int
    labels: Instances
    covered: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """A person to paste: photograph, row, labels and box in the photograph's pixels, and the mask if there is one."""

    photo: int
    row: int
    labels: Instances
    box_xyxy: np.ndarray
    mask: np.ndarray | None = None
    mask_to_photo: Affine | None = None


@dataclass(frozen=True, eq=False)
class ComposedScenes:
    """Scenes of pasted people, a ``Dataset``. Create it with ``composed``, for defaults and checks.

    Args:
        name: Name of the dataset.
        photos: The labelled photographs.
        people: ``(P, 2)`` int64, photograph and row of each person that can be pasted.
        scenes: Number of scenes.
        canvas_wh: Width and height of the scenes, pixels.
        most: Most people in a scene.
        seed: Scenes of another seed have nothing in common with these.
        mirror: Share of people and parts that are flipped left to right.
        enlarge: Largest factor by which a person is enlarged.
        cutouts: Masks of the people; None pastes soft patches.
        onto: Photographs to paste people into, each in turn; a scene then has the size of its photograph. None composes
            a background.
        notes: Who cannot be pasted and what was assumed, a sentence each.
        boxes_only: Whether labels are boxes without keypoints.
    """

    name: str
    photos: LabelledImages
    people: np.ndarray
    scenes: int
    canvas_wh: tuple[int, int]
    most: int
    seed: int
    mirror: float
    enlarge: float
    cutouts: Cutouts | None = None
    onto: LabelledImages | None = None
    notes: tuple[str, ...] = ()
    boxes_only: bool = False
    _decoded: OrderedDict[tuple[int, int], np.ndarray] = field(default_factory=OrderedDict, init=False, repr=False)
    _recent: dict[int, tuple[PastedPerson, ...]] = field(default_factory=dict, init=False, repr=False)

    @property
    def skeleton(self) -> Skeleton:
        """Skeleton of every instance: that of the photographs, or one without keypoints."""
        return BOXES if self.boxes_only else self.photos.skeleton

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the photographs."""
        return self.photos.classes

    def __len__(self) -> int:
        return self.scenes

    def __getitem__(self, index: int) -> PoseSample:
        """Compose a scene.

        Raises:
            IndexError: No such scene.
            FileNotFoundError, ValueError: A photograph is missing or cannot be read.
        """
        index = self._checked(index)
        return PoseSample(self.image(index), self.instances(index), Affine.identity(), self.source(index))

    def source(self, index: int) -> str:
        """Return a name that tells how to compose the scene again."""
        return f"{self.name}-{self.seed}-{self._checked(index)}"

    def size_wh(self, index: int) -> tuple[int, int]:
        """Return width and height of a scene, pixels."""
        index = self._checked(index)
        return self.canvas_wh if self.onto is None else self.onto.size_wh(index % len(self.onto))

    def boxes_complete(self, index: int) -> bool:
        """Return whether everybody has a box.

        In a composed background, as far as the photographs show only people who have one; else, as in the photograph
        behind.
        """
        index = self._checked(index)
        return self.onto is None or self.onto.boxes_complete(index % len(self.onto))

    def instances(self, index: int) -> Instances:
        """Return the labels of a scene without decoding a photograph, people at the back first.

        A keypoint that another person covers is marked in ``keypoint_extra["occluded"]`` where the photographs tell
        hidden keypoints from visible ones, and is unlabelled where they do not. Keypoints outside the scene are
        unlabelled; boxes are clipped to the scene, "area" by the same share.
        """
        people = self.plan(index)
        if people:
            size = self.size_wh(index)
            labels = Instances.concatenate([self._labels(person, size) for person in people])
        else:  # nobody found a place
            labels = self.photos.instances(int(self.people[0, 0]))[:0]
        return labels.in_skeleton(self.skeleton)

    def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
        """Compose the image ``(H, W, 3)`` uint8 RGB, always at full size: there is no decoding to save.

        Raises:
            IndexError: No such scene.
            FileNotFoundError, ValueError: A photograph is missing or cannot be read, or ``reduce`` is not 1, 2, 4 or 8.
        """
        if reduce not in (1, 2, 4, 8):
            raise ValueError(f"reduce must be 1, 2, 4 or 8, got {reduce}.")
        index = self._checked(index)
        people = self.plan(index)
        if self.onto is not None:
            image = self.onto.image(index % len(self.onto)).copy()
        else:
            image = np.full((self.canvas_wh[1], self.canvas_wh[0], 3), 127, np.uint8)
            for patch in self._background(index, people):
                self._paste(image, patch)
        for person in people:
            if person.patch is not None:
                self._paste(image, person.patch)
        return image

    def plan(self, index: int) -> tuple[PastedPerson, ...]:
        """Return the people of a scene, at the back first, without decoding a photograph.

        The last scene is kept, as labels and image are usually read in turn.
        """
        index = self._checked(index)
        if index not in self._recent:
            found = self._plan(index, np.random.default_rng((self.seed, index, 0)))
            self._recent.clear()
            self._recent[index] = found
        return self._recent[index]

    def _plan(self, index: int, rng: np.random.Generator) -> tuple[PastedPerson, ...]:
        canvas_wh = self.size_wh(index)
        count = int(rng.integers(1, self.most + 1))
        largest = 0.95 / count**0.3
        wanted = []
        for number in rng.integers(0, len(self.people), count):
            person = self._chosen(int(self.people[number, 0]), int(self.people[number, 1]))
            w, h = person.box_xyxy[2:] - person.box_xyxy[:2]
            share = float(np.exp(rng.uniform(np.log(0.15), np.log(max(largest, 0.2)))))
            scale = min(share * canvas_wh[1] / h, 0.95 * canvas_wh[0] / w, self.enlarge)
            wanted.append((scale * max(w, h), scale, person))
        wanted.sort(key=lambda one: one[0])  # what is larger is nearer
        placed = self._standing(index)
        for _, scale, person in wanted:
            flips = bool(rng.random() < self.mirror)
            growth, soft = float(rng.uniform(1.2, 1.5)), float(rng.uniform(0.2, 0.45))
            for place in rng.random((ATTEMPTS, 2)):
                new = self._placed(person, place, scale, flips, growth, soft, canvas_wh)
                covered = self._covered(placed, new, canvas_wh)
                if covered is not None:
                    placed = [replace(p, covered=c) for p, c in zip(placed, covered, strict=True)] + [new]
                    break
        return tuple(placed)

    def _standing(self, index: int) -> list[PastedPerson]:
        """Return the people who stand in the photograph behind a scene."""
        if self.onto is None:
            return []
        people = self.onto.instances(index % len(self.onto))
        return [PastedPerson(None, row, people[row], np.zeros(people.xy.shape[1], bool)) for row in range(len(people))]

    def _chosen(self, photo: int, row: int) -> _Chosen:
        """Return a person of the photographs: labels, box and mask. With a mask, its bounds are the box."""
        person = self.photos.instances(photo)[row]
        photo_wh = self.photos.size_wh(photo)
        if self.cutouts is None:
            return _Chosen(photo, row, person, clipped(person.box_xyxy[0], photo_wh))
        mask = self.cutouts.mask(int(person.extra["annotation_id"][0]))
        to_photo = _onto(_edges((mask.shape[1], mask.shape[0])), _edges(photo_wh), False)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        bounds = np.array([columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5])
        return _Chosen(photo, row, person, to_photo.box(bounds), mask, to_photo)

    def _placed(
        self, person: _Chosen, place: np.ndarray, scale: float, flips: bool, growth: float, soft: float,
        canvas_wh: tuple[int, int],
    ) -> PastedPerson:  # fmt: skip
        """Put a person somewhere: up to a tenth of the box may leave the scene on each side."""
        size_wh = scale * (person.box_xyxy[2:] - person.box_xyxy[:2])
        low = -0.1 * size_wh
        at = low + place * np.maximum(np.array(canvas_wh) - size_wh - 2 * low, 0.0) - 0.5
        target = np.concatenate([at, at + size_wh])
        to_scene = _onto(person.box_xyxy, target, flips)
        middle = (target[:2] + target[2:]) / 2
        half = (size_wh if person.mask is not None else growth * size_wh) / 2 + 2.0
        inside = to_scene.box(_edges(self.photos.size_wh(person.photo)))
        grown = np.concatenate([middle - half, middle + half])
        fade = max(0.06 * float(size_wh.max()), 2.0)
        to_mask = None if person.mask_to_photo is None else person.mask_to_photo.then(to_scene)
        patch = Patch(person.photo, to_scene, grown, soft, inside, fade, None, person.mask, to_mask)
        labels = replace(person.labels, box_xyxy=person.box_xyxy[None].astype(np.float32)).moved(to_scene)
        own = np.where(labels.known[0][:, None], labels.xy[0], middle)
        return PastedPerson(patch, person.row, labels, ~patch.covers(own))  # faded out at its own edge

    def _covered(
        self, placed: list[PastedPerson], new: PastedPerson, canvas_wh: tuple[int, int]
    ) -> list[np.ndarray] | None:
        """Return the covered keypoints of each placed person ``(K,)`` bool with a new one, None if it cannot be there.

        It cannot if the boxes overlap too much, or too few keypoints of somebody remain visible.
        """
        box = new.labels.box_xyxy[0]
        known = new.labels.known[0]
        xy = new.labels.xy[0]
        if (known & ~new.covered & _within(xy, canvas_wh)).sum() < max(SEEN * known.sum(), 1):
            return None
        if placed:
            theirs = np.concatenate([other.labels.box_xyxy for other in placed])
            sides = np.minimum(box[2:], theirs[:, 2:]) - np.maximum(box[:2], theirs[:, :2])
            shared = np.maximum(sides, 0.0).prod(-1)
            smaller = np.minimum((box[2:] - box[:2]).prod(), (theirs[:, 2:] - theirs[:, :2]).prod(-1))
            if (shared > OVERLAP * smaller).any():
                return None
        found = []
        for other in placed:
            points = np.where(other.labels.known[0][:, None], other.labels.xy[0], -1e6)
            assert new.patch is not None
            covered = other.covered | new.patch.covers(points)
            seen = other.labels.known[0] & _within(points, canvas_wh)
            if seen.any() and (seen & ~covered).sum() < max(SEEN * seen.sum(), 1):
                return None
            found.append(covered)
        return found

    def _labels(self, person: PastedPerson, canvas_wh: tuple[int, int]) -> Instances:
        labels = person.labels
        known = labels.known & _within(labels.xy, canvas_wh)
        hidden = np.asarray(labels.keypoint_extra["occluded"], dtype=bool)
        if self._tells_hidden:
            hidden = (hidden | person.covered) & known
        else:
            known = known & ~person.covered
        box = labels.box_xyxy.astype(np.float64)
        in_scene = clipped(box[0], canvas_wh)[None]
        share = np.prod(in_scene[:, 2:] - in_scene[:, :2], axis=-1) / np.prod(box[:, 2:] - box[:, :2], axis=-1)
        return replace(
            labels,
            xy=np.where(known[..., None], labels.xy, np.nan),
            score=np.where(known, labels.score, 0.0),
            box_xyxy=in_scene,
            extra={
                "area": (labels.extra["area"] * np.minimum(share, 1.0)).astype(np.float32),
                "crowd": labels.extra["crowd"],
            },
            keypoint_extra={"occluded": hidden},
        )

    @property
    def _tells_hidden(self) -> bool:
        files = [self.photos] if self.onto is None else [self.photos, self.onto]
        return all(bool(photos.everyone.keypoint_extra["occluded"].any()) for photos in files)

    def _background(self, index: int, people: tuple[PastedPerson, ...]) -> list[Patch]:
        """Return the mosaic behind the people: parts of their photographs, and of a few others, without people.

        The first patch fills the scene. Behind some of the people lies more of their own photograph.
        """
        rng = np.random.default_rng((self.seed, index, 1))
        people = tuple(person for person in people if person.patch is not None)
        own = [person.patch.photo for person in people if person.patch is not None]
        photos = own + [int(self.people[i, 0]) for i in rng.integers(0, len(self.people), 4)]
        strips = {photo: self._free_strips(photo) for photo in dict.fromkeys(photos)}
        usable = [photo for photo, found in strips.items() if found]
        if not usable:
            return []
        width, height = self.canvas_wh
        columns = int(rng.integers(2, 6))
        cell = width / columns
        rows = max(round(height / cell), 1)
        patches = [self._backing(rng, usable, strips, np.array([-0.5, -0.5, width - 0.5, height - 0.5]), fills=True)]
        for number in rng.permutation(columns * rows):
            if rng.random() < 0.2:
                continue
            middle = (np.array([number % columns, number // columns]) + rng.uniform(0.1, 0.9, 2)) * cell
            half = rng.uniform(0.35, 0.9, 2) * cell
            patches.append(self._backing(rng, usable, strips, np.concatenate([middle - half, middle + half])))
        for person in people:
            if person.patch is not None and strips[person.patch.photo] and rng.random() < 0.7:
                box = person.labels.box_xyxy[0].astype(np.float64)
                half = (box[2:] - box[:2]) / 2 * rng.uniform(1.3, 2.2, 2)
                middle = (box[:2] + box[2:]) / 2
                around = np.concatenate([middle - half, middle + half])
                scale = person.patch.to_scene.scale
                patches.append(self._backing(rng, [person.patch.photo], strips, around, scale=scale))
        return patches

    def _backing(
        self, rng: np.random.Generator, photos: list[int], strips: dict[int, list[np.ndarray]], target_xyxy: np.ndarray,
        *, fills: bool = False, scale: float | None = None,
    ) -> Patch:  # fmt: skip
        """Return a strip of a photograph without people, mirrored at its edges as often as the target needs."""
        photo = photos[int(rng.integers(len(photos)))]
        sizes = np.array([np.prod(strip[2:] - strip[:2]) for strip in strips[photo]]) ** 2
        strip = strips[photo][int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
        if scale is None:
            scale = float(np.exp(rng.uniform(np.log(self.enlarge / 2.5), np.log(self.enlarge))))
        size = (target_xyxy[2:] - target_xyxy[:2]) / scale
        at = strip[:2] + rng.random(2) * (strip[2:] - strip[:2] - size)
        to_scene = _onto(np.concatenate([at, at + size]), target_xyxy, bool(rng.random() < 0.5))
        soft = float(rng.uniform(0.2, 0.6))
        if fills:
            return Patch(photo, to_scene, target_xyxy, 0.0, _EVERYWHERE, 1.0, strip)
        return Patch(photo, to_scene, target_xyxy, soft, _EVERYWHERE, 1.0, strip)

    def _free_strips(self, photo: int) -> list[np.ndarray]:
        """Return the strips beside, above and below the labelled people of a photograph that are not too narrow."""
        width, height = self.photos.size_wh(photo)
        boxes = self.photos.instances(photo).box_xyxy
        boxes = boxes[np.isfinite(boxes).all(-1)]
        x0, y0 = boxes[:, :2].min(0)
        x1, y1 = boxes[:, 2:].max(0)
        margin = 0.04 * max(x1 - x0, y1 - y0)  # hands and feet extend beyond boxes
        x0, y0, x1, y1 = x0 - margin, y0 - margin, x1 + margin, y1 + margin
        left, top, right, bottom = -0.5, -0.5, width - 0.5, height - 0.5
        strips = ((left, top, x0, bottom), (x1, top, right, bottom), (left, top, right, y0), (left, y1, right, bottom))
        least = max(16.0, 0.12 * max(width, height))
        return [np.array(s) for s in strips if s[2] - s[0] >= least and s[3] - s[1] >= least]

    def _paste(self, image: np.ndarray, patch: Patch) -> None:
        """Blend a patch into the image, in place."""
        height, width = image.shape[:2]
        low = np.maximum(np.maximum(patch.box_xyxy[:2], patch.inside_xyxy[:2]), 0)
        high = np.minimum(np.minimum(patch.box_xyxy[2:], patch.inside_xyxy[2:]), [width - 1, height - 1])
        x0, y0 = (int(v) for v in np.floor(low))
        x1, y1 = (int(v) + 1 for v in np.ceil(high))
        x1, y1 = min(x1, width), min(y1, height)
        if x1 <= x0 or y1 <= y0:
            return
        photo, from_full = self._photo(patch.photo, patch.to_scene.scale)
        to_part = Affine(np.array([[1.0, 0.0, -x0], [0.0, 1.0, -y0]]))
        to_part = from_full.inverse().then(patch.to_scene).then(to_part)
        if patch.strip_xyxy is not None:
            photo, from_photo = _mirrored(photo, from_full.box(patch.strip_xyxy), to_part, (x1 - x0, y1 - y0))
            to_part = from_photo.inverse().then(to_part)
        warped = warp_image(photo, to_part, (x1 - x0, y1 - y0))
        if patch.mask is not None and patch.mask_to_scene is not None:
            mask = np.repeat(cv2.GaussianBlur(patch.mask, (0, 0), 0.8)[..., None], 3, axis=2)
            to_part = patch.mask_to_scene.then(Affine(np.array([[1.0, 0.0, -x0], [0.0, 1.0, -y0]])))
            alpha = warp_image(mask, to_part, (x1 - x0, y1 - y0))[..., 0].astype(np.float32) / np.float32(255)
            image[y0:y1, x0:x1] = cv2.blendLinear(warped, image[y0:y1, x0:x1], alpha, 1 - alpha)
            return
        if patch.soft == 0:
            image[y0:y1, x0:x1] = warped
            return
        alpha = patch.alpha(np.arange(x0, x1)[None], np.arange(y0, y1)[:, None])
        image[y0:y1, x0:x1] = cv2.blendLinear(warped, image[y0:y1, x0:x1], alpha, 1 - alpha)

    def _photo(self, photo: int, scale: float) -> tuple[np.ndarray, Affine]:
        """Return a photograph, decoded at the smallest sufficient size, and the map from its full pixels to these."""
        reduce = next((r for r in (8, 4, 2) if scale * r <= 1.0), 1)
        key = (photo, reduce)
        image = self._decoded.get(key)
        if image is None:
            image = self.photos.image(photo, reduce=reduce)
            self._decoded[key] = image
            if len(self._decoded) > REMEMBERED:
                self._decoded.popitem(last=False)
        else:
            self._decoded.move_to_end(key)
        full = self.photos.size_wh(photo)
        factor = 1.0 if (image.shape[1], image.shape[0]) == full else 1.0 / reduce
        return image, Affine.about((-0.5, -0.5), scale=factor)

    def _checked(self, index: int) -> int:
        if not -self.scenes <= index < self.scenes:
            raise IndexError(f"ComposedScenes has {self.scenes} scenes, 0 to {self.scenes - 1}; got index {index}.")
        return int(index) % self.scenes

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoded": OrderedDict(), "_recent": {}}


def composed(
    annotations: str | Path,
    *,
    images: str | Path | None = None,
    where: Mapping[str, Allowed] | None = None,
    scenes: int = 4000,
    size_wh: tuple[int, int] = (640, 480),
    most: int = 8,
    seed: int = 0,
    mirror: float = 0.5,
    enlarge: float = 2.0,
    upright: bool = False,
    cutouts: str | Path | None = None,
    onto: str | Path | None = None,
    onto_where: Mapping[str, Allowed] | None = None,
    boxes_only: bool = False,
    name: str | None = None,
) -> ComposedScenes:
    """Create a dataset of scenes with the people of a COCO keypoint file.

    Args:
        annotations: The JSON file; see ``readers.coco``. People whose surroundings show other labelled people are not
            pasted. Best are photographs of one person each: others without a box would be background.
        images: Folder of its images; None as in ``readers.coco``.
        where: Which images to use, by fields of their records; see ``readers.coco``.
        scenes: Number of scenes.
        size_wh: Width and height of the scenes, pixels, 64 to 4096.
        most: Most people in a scene, 1 to 30; each number from 1 is as likely, and who finds no place is left out.
        seed: 0 or more.
        mirror: Share of people that are flipped left to right, 0 to 1.
        enlarge: Largest factor by which a person is enlarged, 0.25 to 8.
        upright: Whether to paste only people whose shoulders lie above their hips, as most people's do.
        cutouts: Masks of the people, a file of ``data.cutouts``; who has none is not pasted. None pastes each person
            with the surroundings, with soft edges.
        onto: COCO keypoint file of photographs to paste people into; None composes backgrounds.
        onto_where: Which of those photographs to use.
        boxes_only: Keep only the boxes as labels, for training what finds people without their keypoints.
        name: Name of the dataset; None takes "composed-" and the file's.

    Raises:
        FileNotFoundError: No such JSON file, or no such file of cutouts.
        ValueError: A file is invalid, a number is out of range, the two files have different skeletons or classes, or
            nobody can be pasted.
    """
    if scenes < 1:
        raise ValueError(f"scenes must be 1 or more, got {scenes}.")
    if len(size_wh) != 2 or not all(64 <= int(v) <= 4096 for v in size_wh):
        raise ValueError(f"size_wh must be (width, height) with 64 to 4096 pixels each, got {size_wh}.")
    if not 1 <= most <= MOST_PEOPLE:
        raise ValueError(f"most must be the most people in a scene, 1 to {MOST_PEOPLE}, got {most}.")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    if not 0.0 <= mirror <= 1.0:
        raise ValueError(f"mirror must be a share of people from 0 to 1, got {mirror}.")
    if not 0.25 <= enlarge <= 8.0:
        raise ValueError(f"enlarge must be a factor from 0.25 to 8, got {enlarge}.")
    photos = coco(annotations, images=images, where=where)
    if upright:
        check_trunk(photos.skeleton, f"{annotations}: upright = true, which can be left out, needs")
    people, notes = who_can_be_pasted(photos)
    if upright:
        people, more = who_stands(photos, people)
        notes += more
    masks = None if cutouts is None else Cutouts.read(cutouts)
    if masks is not None:
        people, more = with_cutouts(photos, people, masks, str(cutouts))
        notes += more
    behind = None if onto is None else coco(onto, where=onto_where)
    if behind is not None and (behind.skeleton != photos.skeleton or behind.classes != photos.classes):
        raise ValueError(
            f"{annotations} has keypoints of {photos.skeleton.name!r} and the classes {', '.join(photos.classes)}, but "
            f"{onto} has {behind.skeleton.name!r} and {', '.join(behind.classes)}: people can only be pasted among "
            "people with the same keypoints. Write both files with one skeleton."
        )
    if not len(people):
        raise ValueError(
            f"{annotations}: nobody can be pasted into a scene. {' '.join(notes)} Use labels of people who are "
            "alone in their photographs, or train on the photographs themselves with the dataset coco."
        )
    if mirror and not photos.skeleton.mirrors:
        notes.append(f"People are not flipped: {photos.skeleton.mirroring_unknown}.")
        mirror = 0.0
    notes.append(f"Scenes are composed of {len(people):,} of the file's {photos.num_instances:,} instances.")
    return ComposedScenes(
        name or f"composed-{photos.name}", photos, people, int(scenes), (int(size_wh[0]), int(size_wh[1])), int(most),
        int(seed), float(mirror), float(enlarge), masks, behind, photos.notes + tuple(notes),
        bool(boxes_only),
    )  # fmt: skip


def _edges(size_wh: tuple[int, int]) -> np.ndarray:
    """Return the outer edges of an image as a box."""
    return np.array([-0.5, -0.5, size_wh[0] - 0.5, size_wh[1] - 0.5])


def _onto(box_xyxy: np.ndarray, target_xyxy: np.ndarray, flips: bool) -> Affine:
    """Return the map from one box to another, edge to edge, flipped left to right or not."""
    (x0, y0, x1, y1), (left, top, right, bottom) = (box.astype(float) for box in (box_xyxy, target_xyxy))
    along, down = (right - left) / (x1 - x0), (bottom - top) / (y1 - y0)
    if flips:
        return Affine(np.array([[-along, 0.0, right + along * x0], [0.0, down, top - down * y0]]))
    return Affine(np.array([[along, 0.0, left - along * x0], [0.0, down, top - down * y0]]))


def _mirrored(
    photo: np.ndarray, strip_xyxy: np.ndarray, to_target: Affine, target_wh: tuple[int, int]
) -> tuple[np.ndarray, Affine]:
    """Return a strip continued by its mirror images over all that a target shows, and the map from the photograph."""
    height, width = photo.shape[:2]
    x0, y0 = (int(np.clip(np.ceil(v), 0, side - 1)) for v, side in zip(strip_xyxy[:2], (width, height), strict=True))
    x1, y1 = (
        int(np.clip(np.floor(v) + 1, low + 1, side))
        for v, low, side in zip(strip_xyxy[2:], (x0, y0), (width, height), strict=True)
    )
    seen = to_target.inverse().box(np.array([-0.5, -0.5, target_wh[0] - 0.5, target_wh[1] - 0.5]))
    left, top = (max(int(np.ceil(low - v)) + 2, 0) for v, low in zip(seen[:2], (x0, y0), strict=True))
    right, bottom = (max(int(np.ceil(v - high)) + 2, 0) for v, high in zip(seen[2:], (x1, y1), strict=True))
    grown = cv2.copyMakeBorder(photo[y0:y1, x0:x1], top, bottom, left, right, cv2.BORDER_REFLECT)
    return grown, Affine(np.array([[1.0, 0.0, left - x0], [0.0, 1.0, top - y0]]))


def _within(xy: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Return which points lie in an image: ``(...)`` bool; unknown ones do not."""
    with np.errstate(invalid="ignore"):
        return np.asarray(((xy >= -0.5) & (xy <= np.array(size_wh) - 0.5)).all(-1))
