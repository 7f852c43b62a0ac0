"""Test of custom augmentations: does the label of a keypoint still lie on its pixels?

A wrong label is worse than no label, and nothing later would show it: the loss still falls, only less. So before
training an augmentation is run on an image with a dark and with a bright spot at one keypoint, with equal generators;
the two results differ where the spot is now. That position, the keypoint's label and ``to_source`` must agree, and left
and right must be swapped exactly where the image is flipped. This is done a hundred times, with another keypoint,
position and draw each.

What it finds: keypoints that stay while the image moves, or the reverse; left and right not swapped, or swapped
without a flip; a ``to_source`` that does not map back to the source; boxes, lengths and flags of keypoints that were
not moved; a flip about the wrong column (by a pixel); a Photometric that moves pixels; another size, number of
instances or skeleton; randomness from elsewhere than the generator. It finds errors in a tenth of the draws, and errors
in all.

What it cannot find: an error in a few of a hundred draws; an occasional shift below three pixels; an error that depends
on the content of the image, on the number of people or on the epoch; one that the spot does not show, because it
is covered whenever the error occurs. It rejects augmentations that are not affine, since ``to_source`` is affine.

A spot that is covered, or has left the image, is skipped. Blur, noise, compression and changes that depend on the whole
image (equalisation, white balance) leave the spot the largest difference by far.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import cv2
import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.view import View
from poseglass.transforms.transform import (
    Augmentation,
    Photometric,
    Transform,
    TransformError,
    ViewTransform,
    kind_of,
)

DRAWS = 100
"""Number of draws tested. Of what happens in a tenth of them, fewer than two are seen once in 3,000 tests."""

_TO_SOURCE = Affine.about((3.0, -2.0), scale=1.7, degrees=20.0, shift_xy=(31.0, 17.0))
_DARK, _BRIGHT = 10, 215  # distinct also if a change inverts the brightness
_FAULTS = 2  # at least this many draws must show an error: one may be a coincidence of what is painted
_ENOUGH = 8  # errors needed to name the cause: by coincidence one may look like another error
_JUDGED = 5  # at least this many draws must show the spot
_WEAKEST = 12  # of 255: smaller differences are not the spot
_OFF_PX = 0.75  # from label to spot, median of x and of y; an exact augmentation stays below 0.2
_BESIDE_PX = 1.25  # median of the distance in any direction; showing a small image enlarged gives 0.9
_SMALLEST = 32  # side of a view, pixels
_EXCHANGE = "xy[:, skeleton.flip]"
_PHOTOMETRIC_MOVES = "is a Photometric and moves pixels"
_WRITE_TRANSFORM = (
    "Write a Transform, __call__(sample, rng), which moves both: sample.warped(to_target) or sample.flipped()."
)
_MOVES = "Return sample.warped(to_target) or sample.flipped(), which move image, instances and to_source together."


def check_augmentation(
    augmentation: Augmentation,
    person: Instances,
    spec: InputSpec,
    sizes_wh: tuple[tuple[int, int], ...],
    *,
    name: str,
) -> None:
    """Raise if an augmentation separates image and labels, or is invalid.

    Args:
        augmentation: Any of the three kinds.
        person: One instance as in the data, with at least one keypoint; its coordinates are not used.
        spec: Spec of the crops.
        sizes_wh: Crop sizes, tested in turn.
        name: Name of the augmentation in messages.

    Raises:
        TransformError: It is; the message says what was expected, what came, and what to do.
    """
    kind = kind_of(augmentation, name)
    bench = _Bench(person)
    if kind == "view":
        assert isinstance(augmentation, ViewTransform)
        for draw in range(DRAWS):
            _check_view(augmentation, bench.trial(draw, sizes_wh[draw % len(sizes_wh)]), spec, name)
        return
    if kind == "photometric":
        assert isinstance(augmentation, Photometric)
        run: Transform = partial(_repaint, augmentation, name)
    else:
        assert isinstance(augmentation, Transform)
        run = partial(_transform, augmentation, name)
    judge = _Judge(run, name, photometric=kind == "photometric")
    for draw in range(DRAWS):
        judge.look_at(bench.trial(draw, sizes_wh[draw % len(sizes_wh)]))
    judge.conclude()


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """One draw: a person with known coordinates on a background; all in the pixels of an image of ``size_wh``."""

    draw: int
    size_wh: tuple[int, int]
    person: Instances
    background: np.ndarray
    keypoint: int
    radius: float

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.draw, 0x9B0BE])

    def sample(self, image: np.ndarray) -> PoseSample:
        """Return a sample that a transform may change in place."""
        person = replace(self.person, xy=self.person.xy.copy(), box_xyxy=self.person.box_xyxy.copy())
        return PoseSample(image.copy(), person, _TO_SOURCE, "probe")

    def pair(self, keypoint: int) -> tuple[PoseSample, PoseSample]:
        """Return the person with a dark and with a bright spot at a keypoint; around it the background is plain."""
        x, y = (int(v) for v in self.person.xy[0, keypoint])
        reach = int(self.radius) + 2
        across = np.arange(-reach, reach + 1)
        distance = np.hypot(across, across[:, None])
        images = []
        for value in (_DARK, _BRIGHT):
            image = self.background.copy()
            part = image[y - reach : y + reach + 1, x - reach : x + reach + 1]
            part[distance <= reach] = 128
            part[distance <= self.radius] = value
            images.append(image)
        return self.sample(images[0]), self.sample(images[1])


class _Bench:
    """Creates trials; the background is drawn once for each size."""

    def __init__(self, person: Instances) -> None:
        rng = np.random.default_rng(0x9B0BE)
        flags = {
            name: rng.random(np.shape(array)) < 0.5 if np.asarray(array).dtype == bool else array
            for name, array in person.keypoint_extra.items()
        }
        self._person = replace(
            person, score=np.ones_like(person.score), mask=None, box_3d=None, projection=None, keypoint_extra=flags
        )
        flip = person.skeleton.flip
        paired = flip != np.arange(len(flip))
        self._paired, self._single = np.flatnonzero(paired), np.flatnonzero(~paired)
        self._backgrounds: dict[tuple[int, int], np.ndarray] = {}

    def trial(self, draw: int, size_wh: tuple[int, int]) -> _Trial:
        """Return the trial of a draw. Views too small to separate positions are tested at a multiple of their size."""
        times = -(-_SMALLEST // min(size_wh))
        size_wh = (size_wh[0] * times, size_wh[1] * times)
        if size_wh not in self._backgrounds:
            self._backgrounds[size_wh] = _background(size_wh)
        rng = np.random.default_rng([draw, 0x5907])
        radius = max(3.5, 0.045 * min(size_wh))
        # the spot and its plain surroundings lie within the image
        low = np.ceil(np.maximum(0.12 * np.array(size_wh), radius + 4))
        high = np.array(size_wh) - 1 - low
        xy = np.floor(rng.uniform(low, high + 1, (1, len(self._person.skeleton), 2)))
        half = 0.3 * np.array(size_wh)
        middle = np.array(size_wh) / 2 + rng.uniform(-0.1, 0.1, 2) * size_wh
        person = replace(self._person, xy=xy, box_xyxy=np.concatenate([middle - half, middle + half])[None])
        # mostly those that are swapped by a flip
        among = self._paired if len(self._paired) and (draw % 4 or not len(self._single)) else self._single
        keypoint = int(among[draw % len(among)])
        return _Trial(draw, size_wh, person, self._backgrounds[size_wh], keypoint, radius)


def _background(size_wh: tuple[int, int]) -> np.ndarray:
    """Return a smooth grey background with black and white dots, so that no spot is the brightest or darkest."""
    rng = np.random.default_rng(0xBAC6)
    width, height = size_wh
    coarse = rng.integers(90, 166, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    image = cv2.resize(coarse, size_wh, interpolation=cv2.INTER_LINEAR)
    for i in range(max(8, width * height // 1000)):
        x, y = rng.integers(0, max(width - 2, 1)), rng.integers(0, max(height - 2, 1))
        image[y : y + 3, x : x + 3] = 255 * (i % 2)
    return image


def _transform(augmentation: Transform, name: str, sample: PoseSample, rng: np.random.Generator) -> PoseSample:
    """Run a Transform and check what one result shows."""
    size_wh, count, skeleton = sample.size_wh, len(sample.instances), sample.instances.skeleton
    try:
        out: Any = augmentation(sample, rng)
    except Exception as error:
        raise TransformError(
            f"{name} fails on a sample of {size_wh[0]} x {size_wh[1]} pixels ({type(error).__name__}: {error}). It is "
            "called with a PoseSample and a NumPy Generator, and returns a PoseSample. An augmentation that only "
            "changes the colours of an image names its method repaint(image, rng)."
        ) from error
    if not isinstance(out, PoseSample):
        raise TransformError(
            f"{name} must return a PoseSample, got {type(out).__name__}. {_MOVES} An augmentation that only changes "
            "the colours of an image names its method repaint(image, rng)."
        )
    if out.size_wh != size_wh:
        raise TransformError(
            f"{name} must keep the size of the image, {size_wh[0]} x {size_wh[1]} pixels, because a batch holds views "
            f"of one size; got {out.size_wh[0]} x {out.size_wh[1]}. Return sample.warped(to_target) without a size."
        )
    if out.instances.skeleton != skeleton:
        raise TransformError(
            f"{name} must keep the skeleton {skeleton.name!r} ({len(skeleton)} keypoints), got "
            f"{out.instances.skeleton.name!r} ({len(out.instances.skeleton)} keypoints). Set the score of a keypoint "
            "that is not to be learnt to 0 instead."
        )
    if len(out.instances) != count:
        raise TransformError(
            f"{name} must keep the number of instances, {count}, got {len(out.instances)}. Set the scores of "
            "keypoints that are not to be learnt to 0 instead."
        )
    return out


def _repaint(photometric: Photometric, name: str, sample: PoseSample, rng: np.random.Generator) -> PoseSample:
    """Run a Photometric and check what one result shows."""
    shape = sample.image.shape
    try:
        image: Any = photometric.repaint(sample.image, rng)
    except Exception as error:
        raise TransformError(
            f"{name} fails on an image {shape} uint8 ({type(error).__name__}: {error}). repaint is called with the "
            "image and a NumPy Generator, and returns the changed image."
        ) from error
    if not isinstance(image, np.ndarray) or image.shape != shape or image.dtype != np.uint8:
        got = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise TransformError(
            f"{name} must return an image {shape} uint8 from repaint, as it received, got {got}. Round and clip to 0 "
            "to 255 before astype(np.uint8), and keep the size."
        )
    return replace(sample, image=image)


def _check_view(augmentation: ViewTransform, trial: _Trial, spec: InputSpec, name: str) -> None:
    given = View(trial.size_wh, _TO_SOURCE.inverse())
    person = trial.person.moved(_TO_SOURCE)
    views: list[View] = []
    for _ in range(2):
        try:
            view: Any = augmentation.choose_view(given, person, spec, trial.rng)
        except Exception as error:
            raise TransformError(
                f"{name} fails on a view of {trial.size_wh[0]} x {trial.size_wh[1]} pixels ({type(error).__name__}: "
                f"{error}). choose_view is called with the view, one person in the image's pixels, the InputSpec and a "
                "NumPy Generator."
            ) from error
        if not isinstance(view, View):
            raise TransformError(
                f"{name} must return a View from choose_view, got {type(view).__name__}. Return view.then(affine), "
                "View.of_region(box_xyxy, view.size_wh, spec.crop), or the view unchanged."
            )
        if view.size_wh != given.size_wh:
            raise TransformError(
                f"{name} must keep the size of the view, {given.size_wh[0]} x {given.size_wh[1]} pixels, because a "
                f"batch holds views of one size; got {view.size_wh[0]} x {view.size_wh[1]}. Return view.then(affine) "
                "or View.of_region(box_xyxy, view.size_wh, spec.crop)."
            )
        try:
            view.to_view.inverse()
        except ValueError as error:
            raise TransformError(f"{name} returns a view that shows nothing: {error}") from error
        views.append(view)
    untouched = trial.person.moved(_TO_SOURCE)
    if not all(np.array_equal(getattr(person, k), getattr(untouched, k)) for k in ("xy", "score", "box_xyxy")):
        raise TransformError(
            f"{name} modifies the person that it is given, which holds the labels of the data set. Copy an array "
            "before you write into it."
        )
    if not np.array_equal(views[0].to_view.matrix, views[1].to_view.matrix):
        raise TransformError(_chance(name))


def _chance(name: str) -> str:
    return (
        f"{name} gives another result for the same input and an equal generator, so a run could not be resumed bit for "
        "bit. Draw every number from the rng that it is given, and keep no state between calls."
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Where two results differ.

    Args:
        xy: ``(n, 2)``, centres of the regions, pixels; none where the spot is covered or has left the image.
        area_px: ``(n,)``, their pixels; 0 for one that the border may have clipped.
        clear: Whether these are distinct regions, and not most of the image.
    """

    xy: np.ndarray
    area_px: np.ndarray
    clear: bool

    def distance(self, point_xy: np.ndarray) -> float:
        """Return how far a point is from the nearest region."""
        return float(np.hypot(*(self.xy - point_xy).T).min())


def _difference(one: np.ndarray, other: np.ndarray) -> _Seen:
    channels = cv2.split(cv2.absdiff(one, other))
    difference = cv2.max(cv2.max(channels[0], channels[1]), channels[2])
    peak = int(difference.max())
    if peak < _WEAKEST:
        return _Seen(np.zeros((0, 2)), np.zeros(0), True)
    _, mask = cv2.threshold(difference, max(peak // 2, _WEAKEST - 1), 255, cv2.THRESH_BINARY)
    left, top, width, height = cv2.boundingRect(mask)
    part = np.ascontiguousarray(mask[top : top + height, left : left + width])
    count, _, stats, middles = cv2.connectedComponentsWithStats(part, connectivity=8)
    x, y, w, h, area = stats[1:].T
    x, y = x + left, y + top
    clipped = (x == 0) | (y == 0) | (x + w == mask.shape[1]) | (y + h == mask.shape[0])
    clear = count <= 9 and area.sum() <= 0.3 * mask.size
    return _Seen(np.add(middles[1:], (left, top)), np.where(clipped, 0, area), clear)


class _Judge:
    """Compares pixels, labels and ``to_source`` draw by draw, and raises once it is sure."""

    def __init__(self, run: Transform, name: str, *, photometric: bool) -> None:
        self._run, self._name, self._photometric = run, name, photometric
        self._faults: list[str] = []
        self._judged = 0
        self._off: dict[bool, list[np.ndarray]] = {False: [], True: []}  # label minus spot, by whether it flips

    def look_at(self, trial: _Trial) -> None:
        """Run one trial.

        Raises:
            TransformError: There are enough errors, or one that cannot be a coincidence.
        """
        dark, out = (self._run(sample, trial.rng) for sample in trial.pair(trial.keypoint))
        seen = _difference(dark.image, out.image)
        if trial.draw < 10 or not seen.clear or not _same_places(dark, out):
            again = self._run(trial.pair(trial.keypoint)[0], trial.rng)
            if not (_same_places(dark, again) and np.array_equal(again.image, dark.image)):
                raise TransformError(_chance(self._name))
        if not seen.clear or not len(seen.xy):
            return
        fault = self._fault(trial, out, seen)
        if fault:
            self._faults.append(fault)
            if len(self._faults) >= _ENOUGH:
                self._tell_faults()

    def conclude(self) -> None:
        """Raise what all trials together show.

        Raises:
            TransformError: There are errors, or labels lie slightly beside their pixels, or too few trials could be
                judged.
        """
        if len(self._faults) >= _FAULTS:
            self._tell_faults()
        for flips, offsets in self._off.items():
            if len(offsets) < 4:
                continue
            off = np.median(offsets, axis=0)
            distance = float(np.median(np.hypot(*np.transpose(offsets))))
            if np.hypot(*off) <= _OFF_PX and distance <= _BESIDE_PX:
                continue
            where = " where it flips" if flips else ""
            by = f"by {distance:.1f} px{where} ({off[0]:+.1f}, {off[1]:+.1f} in the middle)"
            if self._photometric:
                raise TransformError(f"{self._name} {_PHOTOMETRIC_MOVES} {by}. {_WRITE_TRANSFORM}")
            raise TransformError(
                f"{self._name} puts keypoints beside their pixels {by}. Pixel centres are whole numbers, so a flip "
                f"takes x to width - 1 - x. {_MOVES}"
            )
        if self._judged < _JUDGED:
            raise TransformError(
                f"{self._name} could not be tested: a spot at a keypoint was found again in {self._judged} of {DRAWS} "
                f"draws, at least {_JUDGED} are needed. Let it keep most of the image, and most keypoints, visible."
            )

    def _tell_faults(self) -> NoReturn:
        kinds = [fault.partition(":")[0] for fault in self._faults]
        most = max(kinds, key=kinds.count)
        raise TransformError(f"{self._name} {self._faults[kinds.index(most)]}")

    def _fault(self, trial: _Trial, out: PoseSample, seen: _Seen) -> str:
        """Return what is wrong with a result, or an empty string."""
        keypoint, people = trial.keypoint, out.instances
        start, flip = trial.person.xy[0, keypoint], trial.person.skeleton.flip
        try:
            moved = _TO_SOURCE.then(out.to_source.inverse())
        except ValueError:
            return f"returns a to_source that cannot be inverted, {out.to_source.matrix.tolist()}. {_MOVES}"
        longest, shortest = trial.radius * np.clip(np.linalg.svd(moved.matrix[:, :2], compute_uv=False), 0.2, 5.0)
        radius, area = float(longest), np.pi * longest * shortest
        # A covered or compressed spot may show any part of itself; a whole one shows its middle.
        whole = len(seen.xy) == 1 and shortest >= 2 and abs(float(seen.area_px[0]) / area - 1) < 0.1
        near = max(2.5, 0.12 * radius) if whole else radius + 1.5

        expected, index = moved(start), int(flip[keypoint]) if moved.flips else keypoint
        agrees = not people.known[0, index] or np.hypot(*(people.xy[0, index] - expected)) <= near
        if agrees and not _inside(expected, trial.size_wh, radius + 1.5):
            return ""  # removed with its spot, of which a reflected border may still show a copy
        follows = seen.distance(expected) <= near
        flips = moved.flips if follows else self._flips(trial)
        index = int(flip[keypoint]) if flips else keypoint
        if not people.known[0, index]:
            return ""
        self._judged += 1
        label = people.xy[0, index]
        spot = seen.xy[np.hypot(*(seen.xy - label).T).argmin()]
        if seen.distance(label) > near:
            return self._beside_fault(trial, people, seen, near, flips=flips)
        if not follows:
            return (
                f"returns a to_source that does not map back to the source: the spot at {_at(spot)} came from "
                f"{_at(start)}, to_source gives {_at(moved.inverse()(spot))}. {_MOVES} A Transform "
                "cannot move pixels by a map that is not affine."
            )
        if whole:
            self._off[flips].append(label - spot)
        return self._left_behind(trial, out, moved)

    def _beside_fault(self, trial: _Trial, people: Instances, seen: _Seen, near: float, *, flips: bool) -> str:
        """Return how a label and the spot of its keypoint came apart, as text."""
        start, flip, names = trial.person.xy[0], trial.person.skeleton.flip, trial.person.skeleton.keypoints
        keypoint = trial.keypoint
        index = int(flip[keypoint]) if flips else keypoint
        label, other = people.xy[0, index], people.xy[0, int(flip[index])]
        spot = seen.xy[np.hypot(*(seen.xy - label).T).argmin()]
        stays = seen.distance(start[keypoint]) <= near
        went = f"are at {_at(spot)} as before" if stays else f"went from {_at(start[keypoint])} to {_at(spot)}"
        called = f"label as {names[index]!r}" if index != keypoint else "label"
        where = f"the pixels of {names[keypoint]!r} {went}, the {called} is at {_at(label)}"
        if self._photometric:
            return (
                f"{_PHOTOMETRIC_MOVES}: a spot at {_at(start[keypoint])} went to {_at(spot)}, and the labels stayed. "
                f"{_WRITE_TRANSFORM}"
            )
        if np.array_equal(people.xy[0], start):
            return f"moves the image and leaves the keypoints where they were: {where}. {_MOVES}"
        if index != int(flip[index]) and seen.distance(other) <= near:
            if flips:
                return f"flips the image and does not swap left and right: {where}. {_MOVES} By hand: {_EXCHANGE}."
            return f"swaps left and right although the image is not flipped: {where}. {_MOVES}"
        if stays:
            return f"moves the keypoints and leaves the image as it was: {where}. {_MOVES}"
        return f"puts keypoints beside their pixels: {where}. {_MOVES}"

    def _flips(self, trial: _Trial) -> bool:
        """Return whether a draw flips the image, judged by where several spots go."""
        found: list[np.ndarray] = []
        starts: list[np.ndarray] = []
        for keypoint in range(min(len(trial.person.skeleton), 8)):
            seen = _difference(*(self._run(sample, trial.rng).image for sample in trial.pair(keypoint)))
            if seen.clear and len(seen.xy) == 1:
                found.append(seen.xy[0])
                starts.append(trial.person.xy[0, keypoint])
        if len(found) < 3:
            return False
        linear, *_ = np.linalg.lstsq(np.c_[starts, np.ones(len(starts))], np.array(found), rcond=None)
        return bool(np.linalg.det(linear[:2]) < 0)

    def _left_behind(self, trial: _Trial, out: PoseSample, moved: Affine) -> str:
        """Return which parts of the instances were not moved with the image, or an empty string."""
        before, after = trial.person, out.instances
        try:
            expected = (before if after.xyz_mm is not None else replace(before, xyz_mm=None)).moved(moved)
        except ValueError as error:
            return f"moves the image in a way that its instances cannot follow: {error}"
        stayed: list[str] = []
        box_moves = np.abs(expected.box_xyxy - before.box_xyxy).max() > 2.0 + 0.05 * max(trial.size_wh)
        if box_moves and np.array_equal(after.box_xyxy, before.box_xyxy):
            stayed.append("box_xyxy")
        for name, array in before.keypoint_extra.items():
            got, should = after.keypoint_extra.get(name), expected.keypoint_extra[name]
            if got is not None and np.array_equal(got, array) and not np.array_equal(should, array):
                stayed.append(f"keypoint_extra[{name!r}]")
        for name, array in before.extra.items():
            got = after.extra.get(name)
            follows = name == "area" or name.endswith("_px")
            if follows and got is not None and np.array_equal(got, array) and _differs(expected.extra[name], array):
                stayed.append(f"extra[{name!r}]")
        if before.xyz_mm is not None and after.xyz_mm is not None and expected.xyz_mm is not None:
            same = np.array_equal(after.xyz_mm, before.xyz_mm, equal_nan=True)
            if same and _differs(expected.xyz_mm, before.xyz_mm):
                stayed.append("xyz_mm")
        return f"moves the image and leaves {', '.join(stayed)} of the instances unchanged. {_MOVES}" if stayed else ""


def _same_places(one: PoseSample, other: PoseSample) -> bool:
    return np.array_equal(one.instances.xy, other.instances.xy, equal_nan=True)


def _differs(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays of numbers differ by more than a tenth somewhere."""
    a, b = np.nan_to_num(np.asarray(one, np.float64)), np.nan_to_num(np.asarray(other, np.float64))
    return bool((np.abs(a - b) > 0.1 * np.abs(b).max(initial=0.0) + 1e-9).any())


def _inside(xy: np.ndarray, size_wh: tuple[int, int], margin: float) -> bool:
    return bool((xy >= margin).all() and (xy <= np.array(size_wh) - 1 - margin).all())


def _at(xy: np.ndarray) -> str:
    return f"({xy[0]:.1f}, {xy[1]:.1f})"
