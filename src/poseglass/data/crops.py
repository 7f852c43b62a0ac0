"""Crops: the people of a dataset as augmented network input; and batches of them in a reproducible order.

An augmentation depends only on (seed, epoch, person) and the order of people only on (seed, epoch), so training can
stop after any step and resume bit for bit, with any number of loader processes.
"""

import copy
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

import numpy as np

from poseglass.core.affine import CropRule
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset, PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import counted
from poseglass.core.view import View, grown
from poseglass.data.cache import CropCache, Part, Regions
from poseglass.data.examples import Place, box_of_points, sorted_augmentations
from poseglass.transforms import (
    Augmentation,
    RandomAffine,
    Transform,
    TransformError,
    ViewTransform,
)

REDUCTIONS = (1, 2, 4, 8)
"""Factors by which a JPEG can be reduced while decoding."""


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Every labelled person of a dataset as one crop.

    A crop is one warp of a part of the image, decoded at the smallest sufficient size for this draw. The part is what
    any draw of the augmentation can see at that decode size; it depends on person and recipe, not on the draw, so it
    can be stored on disk (``cached``) without changing a bit of the crops.

    Args:
        dataset: Images with instances.
        input: Crop size, padding, crop rule.
        augment: Of the three kinds in ``poseglass.transforms``. ViewTransforms choose what is read, a HalfBody first;
            Transforms and Photometrics follow in their order. Custom ones are tested here, once; see
            ``transforms.probe``. Views that only RandomAffine has changed can come from a cache; others are made from
            the files.
        seed: Seed of all augmentation.
        sizes_wh: Crop sizes that will be used; None takes ``input.size_wh``. Others can be used too, but do not come
            from a cache.
        cache: Stored parts of the images; see ``cached``.

    Attributes:
        people: ``(P, 2)`` int64, image and row of each person with a labelled keypoint; crowds are excluded.
        labels: The P people, in the pixels of their files.
        box_xyxy: ``(P, 4)`` float64, what becomes the crop before augmentation, in the pixels of the files.
        notes: What was assumed or cannot be learnt from, a sentence each: boxes made around keypoints, excluded crowds,
            people without a keypoint in the crop.
        regions: ``(P, 4, 4)`` int32, the part x0 y0 x1 y1 that draws see of an image decoded at one over each of
            ``REDUCTIONS``, before clipping to it; all 0 where no draw uses that size.

    Raises:
        ValueError: No person of the dataset has a labelled keypoint, or none has one inside the crop of its box.
        TransformError: An augmentation is invalid, or separates image and labels; or there are two RandomAffine or
            HalfBody.
    """

    dataset: Dataset
    input: InputSpec
    augment: tuple[Augmentation, ...] = ()
    _: KW_ONLY
    seed: int = 0
    sizes_wh: tuple[tuple[int, int], ...] = ()
    cache: CropCache | None = None
    people: np.ndarray = field(init=False)
    labels: Instances = field(init=False)
    box_xyxy: np.ndarray = field(init=False)
    regions: np.ndarray = field(init=False)
    notes: tuple[str, ...] = field(init=False)
    _full_wh: np.ndarray = field(init=False)
    _views: tuple[ViewTransform, ...] = field(init=False)
    _transforms: tuple[Transform, ...] = field(init=False)

    def __post_init__(self) -> None:
        rows: list[np.ndarray] = []
        parts: list[Instances] = []
        crowds = unlabelled = 0
        for i in range(len(self.dataset)):
            instances = self.dataset.instances(i)
            use = instances.known.any(1) if len(instances.skeleton) else _has_box(instances)
            unlabelled += int((~use).sum())
            if "crowd" in instances.extra:
                crowd = np.asarray(instances.extra["crowd"], dtype=bool)
                crowds += int((use & crowd).sum())
                use &= ~crowd
            if use.any():
                parts.append(instances if use.all() else instances[use])
                rows.append(np.stack([np.full(use.sum(), i), np.flatnonzero(use)], -1))
        if not rows and not len(self.dataset.skeleton):
            raise ValueError(
                f"None of the {len(self.dataset)} images has a box with area that is not a crowd's. "
                "Look at the data with `poseglass check`."
            )
        if not rows:
            raise ValueError(
                f"None of the {len(self.dataset)} images has a person with a labelled keypoint (v > 0). "
                "Look at the data with `poseglass check`."
            )
        labels = Instances.concatenate(parts)
        box = labels.box_xyxy.astype(np.float64)
        bad = ~np.isfinite(box).all(-1) | (box[:, 2] <= box[:, 0]) | (box[:, 3] <= box[:, 1])
        for person in np.flatnonzero(bad):
            box[person] = box_of_points(labels.xy[person])
        object.__setattr__(self, "people", np.concatenate(rows).astype(np.int64))
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "box_xyxy", grown(box, self.input))
        notes = self._notes(int(bad.sum()), crowds, unlabelled)
        object.__setattr__(self, "notes", notes)
        sizes = tuple(dict.fromkeys((int(w), int(h)) for w, h in self.sizes_wh or (self.input.size_wh,)))
        object.__setattr__(self, "sizes_wh", sizes)
        views, transforms = sorted_augmentations(tuple(self.augment), labels[:1], self.input, sizes)
        object.__setattr__(self, "augment", tuple(self.augment))
        object.__setattr__(self, "_views", views)
        object.__setattr__(self, "_transforms", transforms)
        affine = next((v for v in views if type(v) is RandomAffine), None)
        object.__setattr__(self, "regions", _regions(self.box_xyxy, sizes, affine, self.input.crop))
        object.__setattr__(self, "_full_wh", np.zeros((len(self.dataset), 2), np.int64))

    def _notes(self, boxes_made: int, crowds: int, unlabelled: int) -> tuple[str, ...]:
        """Return the notes on the crops.

        Raises:
            ValueError: No keypoint lies in any crop: boxes and keypoints are not of the same image, or not in pixels.
        """
        if not len(self.labels.skeleton):
            excluded = []
            if crowds:
                excluded.append(f"{counted(crowds, 'crowd')} excluded: crops are made of single objects.")
            if unlabelled:
                excluded.append(f"{counted(unlabelled, 'annotation')} without a box that has area excluded.")
            return tuple(excluded)
        low, high = self.box_xyxy[:, None, :2], self.box_xyxy[:, None, 2:]
        xy = self.labels.xy
        with np.errstate(invalid="ignore"):
            within = self.labels.known & (xy >= low).all(-1) & (xy <= high).all(-1)
        inside = within.sum(1, dtype=np.int64) > 0
        first = int(np.flatnonzero(~inside)[0]) if not inside.all() else 0
        box = ", ".join(f"{v:.0f}" for v in self.labels.box_xyxy[first])
        known = xy[first][self.labels.known[first]]
        place = ", ".join(f"{v:.4g}" for v in known[0])
        example = (
            f"of the person in {self.dataset.source(int(self.people[first, 0]))}, whose box is {box} (x0, y0, x1, y1), "
            f"the first keypoint is at {place}"
        )
        if not inside.any():
            raise ValueError(
                f"No keypoint of {len(inside):,} people lies in the crop of its box, so there is nothing to learn: "
                f"{example}. Keypoints and boxes must be pixels of the same image. `poseglass check` finds what is "
                "wrong."
            )
        notes = []
        if not inside.all():
            notes.append(
                f"{counted(int((~inside).sum()), 'crop')} of {len(inside):,} show none of the person's keypoints, so "
                f"nothing is learnt from them: {example}."
            )
        if boxes_made:
            notes.append(
                f"{counted(boxes_made, 'annotation')} without a usable box: the crop is made around the keypoints."
            )
        if crowds:
            notes.append(f"{counted(crowds, 'crowd')} excluded: crops are made of single people.")
        if unlabelled:
            notes.append(f"{counted(unlabelled, 'annotation')} without a labelled keypoint excluded.")
        return tuple(notes)

    @property
    def skeleton(self) -> Skeleton:
        """Skeleton of the dataset."""
        return self.dataset.skeleton

    @property
    def kind(self) -> str:
        """What an example is: "people", or "objects" where there are no keypoints."""
        return "people" if len(self.skeleton) else "objects"

    def __len__(self) -> int:
        return len(self.people)

    def cached(self, limit_bytes: int, cache_dir: str | Path | None = None) -> "Crops":
        """Return the same crops, bit for bit, made from a cache on disk from the second time on.

        Args:
            limit_bytes: Limit of the cache folder. People that do not fit are read from the files.
            cache_dir: The folder; see ``core.folders.cache_folder``.
        """
        full_wh = np.array([self._size_of(i) for i in self.people[:, 0]])
        source = [self.dataset.source(int(i)) for i in self.people[:, 0]]
        reduces = np.array([s.lower().endswith((".jpg", ".jpeg")) for s in source])
        factor = np.where(reduces[:, None], np.array(REDUCTIONS), 1)  # other formats are decoded at full size
        grown = np.where(reduces[:, None], 1, np.array(REDUCTIONS))
        part = self.regions.astype(np.int64) * grown[..., None]
        wide, high = (-(-full_wh[:, None, k] // factor) for k in (0, 1))
        x0, x1 = (np.clip(part[..., k], 0, wide) for k in (0, 2))
        y0, y1 = (np.clip(part[..., k], 0, high) for k in (1, 3))
        num_bytes = np.where(self.regions.any(-1), np.maximum((x1 - x0) * (y1 - y0), 1) * 3, 0)
        benefit = full_wh.prod(1).astype(np.float64)
        regions = Regions(source, self.regions, num_bytes, benefit, _levels_of(self.dataset))
        crops = copy.copy(self)
        object.__setattr__(crops, "cache", CropCache.open(regions, limit_bytes=limit_bytes, cache_dir=cache_dir))
        return crops

    def __getitem__(self, place: Place) -> PoseSample:
        """Crop, augment and return one person; the sample holds only that person.

        Raises:
            TransformError: A custom augmentation returns another size or number of people, which the test of it did not
                show.
        """
        epoch, index, width, height = place
        rng = np.random.default_rng([self.seed, epoch, index])
        person = self.labels[index : index + 1]
        view = View.of_region(self.box_xyxy[index], (width, height), self.input.crop)
        foreseen = True  # covered by the regions
        for choice in self._views:
            chosen = choice.choose_view(view, person, self.input, rng)
            foreseen = foreseen and (chosen is view or type(choice) is RandomAffine)
            view = chosen
        sample = PoseSample(
            self._pixels(index, view, whole=not foreseen),
            person.moved(view.to_view),
            view.home,
            self.dataset.source(int(self.people[index, 0])),
        )
        for transform in self._transforms:
            sample = transform(sample, rng)
        if sample.size_wh != (width, height) or len(sample.instances) != 1:
            raise TransformError(
                f"A view of {width} x {height} pixels with one person became {sample.size_wh[0]} x {sample.size_wh[1]} "
                f"with {len(sample.instances)} in epoch {epoch}, person {index}. Augmentations must keep the size and "
                "the person; check your own in augment."
            )
        return sample

    def _pixels(self, index: int, view: View, *, whole: bool) -> np.ndarray:
        """Warp a person's pixels; ``whole`` reads the whole image, for a map that the regions do not cover."""
        # A JPEG decoded at 1/2, 1/4 or 1/8 is enough where the crop shrinks at least that much.
        scale, size_wh = view.to_view.scale, view.size_wh
        level = next((i for i in (3, 2, 1) if scale * REDUCTIONS[i] <= 1.0), 0)
        region = self.regions[index, level]
        if whole or size_wh not in self.sizes_wh or not region.any():
            part = self._decoded(index, level, None)
        elif self.cache is None or not self.cache.fits(index):
            part = self._decoded(index, level, region)
        else:
            part = self.cache.read(index, level) or self._stored(self.cache, index, level)
        return view.of_reduced(part.reduce, (part.x0, part.y0)).read(part.pixels)

    def _stored(self, cache: CropCache, index: int, wanted: int) -> Part:
        """Decode a person's parts at every size that a draw can use, store them, and return one of them."""
        part = self._decoded(index, wanted, self.regions[index, wanted])
        if not cache.write(index, wanted, part):
            return part
        for level in range(len(REDUCTIONS)):
            region = self.regions[index, level]
            if level != wanted and region.any() and cache.read(index, level) is None:
                cache.write(index, level, self._decoded(index, level, region))
        return part

    def _decoded(self, index: int, level: int, region: np.ndarray | None) -> Part:
        image_index, reduce = int(self.people[index, 0]), REDUCTIONS[level]
        image = self.dataset.image(image_index, reduce=reduce)
        height, width = image.shape[:2]
        if reduce > 1:
            # A dataset may return a larger image than requested; its actual size decides, within rounding of sides.
            full_w, full_h = self._size_of(image_index)
            if width * height * reduce >= full_w * full_h:
                region = None if region is None else region * reduce
                reduce = 1
        if region is None:
            return Part(image, 0, 0, reduce)
        x0, y0 = min(max(int(region[0]), 0), width - 1), min(max(int(region[1]), 0), height - 1)
        x1, y1 = min(max(int(region[2]), x0 + 1), width), min(max(int(region[3]), y0 + 1), height)
        return Part(image[y0:y1, x0:x1], x0, y0, reduce)

    def _size_of(self, image_index: int) -> tuple[int, int]:
        """Return the size of an image; sizes that have to be read from a file are read once."""
        known = self._full_wh[image_index]
        if known[0] == 0:
            known[:] = self.dataset.size_wh(int(image_index))
        return int(known[0]), int(known[1])


def _has_box(instances: Instances) -> np.ndarray:
    """Return which instances have a box with area, ``(N,)`` bool."""
    box = instances.box_xyxy
    return np.isfinite(box).all(1) & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])


def _regions(
    box_xyxy: np.ndarray, sizes_wh: Sequence[tuple[int, int]], affine: RandomAffine | None, rule: CropRule
) -> np.ndarray:
    """Return what draws see of an image at each decode size, with a margin to interpolate: ``(P, 4, 4)`` int32."""
    low, high = (1.0, 1.0) if affine is None else (affine.scale[0], affine.largest_scale)
    zooms = affine is not None and affine.zoom_probability > 0
    box_center = (box_xyxy[:, None, :2] + box_xyxy[:, None, 2:]) / 2
    box_wh = box_xyxy[:, 2:] - box_xyxy[:, :2]
    reductions = np.array(REDUCTIONS, dtype=np.float64)
    first, last = np.full((2, len(box_xyxy), 4, 2), np.inf)
    last = -last
    for size_wh in sizes_wh:
        reach = np.array(size_wh) / 2 if affine is None else np.array(affine.reach(size_wh))
        # (P, 2) crop pixels to a pixel of the file, before the draw
        enlarge = (np.array(size_wh) - (rule == "udp")) / box_wh
        # what the middle of the crop shows
        center = box_center - (0.5 if rule == "msra" else 0.0) / enlarge[:, None]
        scale = np.sqrt(enlarge.prod(1))[:, None]
        # A draw that shrinks the file to between 1/(2r) and 1/r uses the image decoded at 1/r.
        smallest = np.maximum(np.where(reductions == 8, 0.0, 0.5 / (reductions * scale)), low) * (1 - 1e-9)
        largest = np.minimum(np.where(reductions == 1, np.inf, 1 / (reductions * scale)), high) * (1 + 1e-9)
        # what is visible before the zoom, at any scale
        seen_at = np.full_like(smallest, low) if zooms else smallest
        half = reach / (seen_at[..., None] * enlarge[:, None])  # pixels of the file
        # Bilinear warping reads one pixel beyond; averaging down by a whole factor reads as many as the factor.
        margin = 2.0 + np.ceil(1 / (reductions * smallest * scale))[..., None]
        r = reductions[:, None]
        begin, end = ((center + sign * half - (r - 1) / 2) / r + sign * margin for sign in (-1, 1))
        asked = (smallest <= largest)[..., None]
        first = np.where(asked, np.minimum(first, np.floor(begin)), first)
        last = np.where(asked, np.maximum(last, np.ceil(end) + 1), last)
    regions = np.concatenate([first, last], -1)
    return np.where(np.isfinite(regions), np.clip(regions, -(2**24), 2**24), 0).astype(np.int32)


def _levels_of(dataset: Dataset) -> str:
    """Return the white levels of a data set's images of more than 8 bits, if it states them."""
    parts = getattr(dataset, "parts", None)
    return ";".join(map(_levels_of, parts)) if parts else str(getattr(dataset, "levels", ""))
