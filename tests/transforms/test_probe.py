"""The probe refuses whatever parts image and labels, and nothing else."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from poseglass.core.affine import Affine
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17, MPII16
from poseglass.core.view import View
from poseglass.transforms import ColorJitter, Occlusion, TransformError, check_augmentation

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

Rng = np.random.Generator
Change = Callable[[PoseSample, Rng], PoseSample]
ELSEWHERE = np.random.default_rng()
HANDS = Skeleton("hands3", ("left_hand", "right_hand", "nose"))


class Repaints:
    """A Photometric of a function."""

    def __init__(self, change: Callable[[np.ndarray, Rng], Any]) -> None:
        self.change = change

    def repaint(self, image: np.ndarray, rng: Rng) -> Any:
        return self.change(image, rng)


class Looks:
    """A ViewTransform of a function."""

    def __init__(self, choose: Callable[[View, Instances, InputSpec, Rng], Any]) -> None:
        self.choose = choose

    def choose_view(self, view: View, person: Instances, spec: InputSpec, rng: Rng) -> Any:
        return self.choose(view, person, spec, rng)


def check(augmentation: Any, size_wh: tuple[int, int] = (64, 80), skeleton: Skeleton = COCO17) -> None:
    """Try it on a person that has all that a dataset may tell."""
    k = len(skeleton)
    person = Instances.from_keypoints(
        skeleton,
        np.random.default_rng(0).uniform(0, 300, (1, k, 2)),
        extra={"area": np.array([5000.0]), "head_px": np.array([30.0]), "annotation_id": np.array([7])},
        keypoint_extra={"occluded": np.zeros((1, k), bool)},
    )
    person = replace(person, xyz_mm=np.random.default_rng(1).uniform(-900, 900, (1, k, 3)))
    check_augmentation(augmentation, person, InputSpec(size_wh), (size_wh,), name="augment[1] 'mine:Flip'")


def sometimes(probability: float, change: Change) -> Change:
    return lambda sample, rng: change(sample, rng) if rng.random() < probability else sample


def flipped_image(sample: PoseSample) -> np.ndarray:
    return np.ascontiguousarray(sample.image[:, ::-1])


def middle(sample: PoseSample) -> tuple[float, float]:
    return (sample.size_wh[0] - 1) / 2, (sample.size_wh[1] - 1) / 2


def rotated(sample: PoseSample, rng: Rng) -> PoseSample:
    return sample.warped(Affine.about(middle(sample), degrees=rng.uniform(-180, 180), scale=rng.uniform(0.4, 2.5)))


def flipped_by_hand(sample: PoseSample, rng: Rng) -> PoseSample:
    flip = Affine.flip(sample.size_wh[0])
    return PoseSample(flipped_image(sample), sample.instances.moved(flip), flip.then(sample.to_source), sample.source)


def with_border(mode: int) -> Change:
    """A rotation that fills the outside with copies of the inside."""

    def change(sample: PoseSample, rng: Rng) -> PoseSample:
        shift = tuple(rng.uniform(-0.2, 0.2, 2) * sample.size_wh)
        drawn = Affine.about(middle(sample), degrees=rng.uniform(-40, 40), scale=rng.uniform(0.6, 1.3), shift_xy=shift)
        if rng.random() < 0.5:
            drawn = drawn.then(Affine.flip(sample.size_wh[0]))
        image = cv2.warpAffine(sample.image, drawn.matrix, sample.size_wh, borderMode=mode)
        return PoseSample(image, sample.instances.moved(drawn), drawn.inverse().then(sample.to_source), sample.source)

    return change


def without_what_left(sample: PoseSample, rng: Rng) -> PoseSample:
    """A rotation that gives keypoints outside the image the score 0."""
    out = rotated(sample, rng)
    inside = ((out.instances.xy >= 0) & (out.instances.xy <= np.array(out.size_wh) - 1)).all(-1)
    return replace(out, instances=replace(out.instances, score=np.where(inside, out.instances.score, 0)))


def in_place(sample: PoseSample, rng: Rng) -> PoseSample:
    sample.image[:4] = 0
    sample.instances.xy[:] = Affine.flip(sample.size_wh[0])(sample.instances.xy)[:, sample.instances.skeleton.flip]
    out = flipped_by_hand(sample, rng)
    return replace(out, instances=replace(out.instances, xy=sample.instances.xy))


GOOD: dict[str, Change] = {
    "flip": lambda sample, rng: sample.flipped(),
    "flip now and then": sometimes(0.1, lambda sample, rng: sample.flipped()),
    "flip by hand": flipped_by_hand,
    "in place": in_place,
    "rotation": rotated,
    "upside down": lambda sample, rng: sample.warped(Affine.about(middle(sample), degrees=180)),
    "reflected border": with_border(cv2.BORDER_REFLECT_101),
    "replicated border": with_border(cv2.BORDER_REPLICATE),
    "repeated border": with_border(cv2.BORDER_WRAP),
    "drops what left": without_what_left,
    "colours": lambda sample, rng: replace(sample, image=ColorJitter().repaint(sample.image, rng)),
    "noise from the generator": lambda sample, rng: replace(
        sample, image=cv2.add(sample.image, rng.integers(0, 40, sample.image.shape, np.uint8))
    ),
    "nothing": lambda sample, rng: sample,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
def test_what_moves_image_and_labels_together_is_taken(name: str) -> None:
    check(GOOD[name])


@pytest.mark.slow
@pytest.mark.parametrize("size_wh", [(8, 8), (16, 24), (32, 32), (192, 256), (256, 256)])
def test_at_any_size(size_wh: tuple[int, int]) -> None:
    check(rotated, size_wh)
    check(GOOD["flip"], size_wh)
    with pytest.raises(TransformError, match="leaves the keypoints where they were"):
        check(sometimes(0.1, lambda sample, rng: replace(sample, image=flipped_image(sample))), size_wh)


def per_channel(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray, Rng], np.ndarray]:
    return lambda image, rng: np.stack([change(np.ascontiguousarray(image[..., c])) for c in range(3)], -1)


def stretched(image: np.ndarray, rng: Rng) -> np.ndarray:
    low, high = image.min((0, 1)).astype(float), image.max((0, 1)).astype(float)
    return np.clip((image - low) / np.maximum(high - low, 1) * 255, 0, 255).astype(np.uint8)


def grey_world(image: np.ndarray, rng: Rng) -> np.ndarray:
    return np.clip(image * (128 / np.maximum(image.mean((0, 1)), 1)), 0, 255).astype(np.uint8)


def compressed(image: np.ndarray, rng: Rng) -> np.ndarray:
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(5, 40))])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)


def coarse(image: np.ndarray, rng: Rng) -> np.ndarray:
    height, width = image.shape[:2]
    small = cv2.resize(image, (width // 3, height // 3), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def solarised(image: np.ndarray, rng: Rng) -> np.ndarray:
    return np.where(image > rng.integers(60, 200), 255 - image, image).astype(np.uint8)


PHOTOMETRIC: dict[str, Callable[[np.ndarray, Rng], np.ndarray]] = {
    "equalised": per_channel(cv2.equalizeHist),
    "equalised by tiles": per_channel(cv2.createCLAHE(4.0, (8, 8)).apply),
    "stretched": stretched,
    "grey world": grey_world,
    "compressed": compressed,
    "coarse": coarse,
    "blurred": lambda image, rng: cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 3)),
    "median": lambda image, rng: cv2.medianBlur(image, 5),
    "inverted": lambda image, rng: 255 - image,
    "solarised": solarised,
    "far too bright or dark": lambda image, rng: np.clip(image + rng.uniform(-180, 180), 0, 255).astype(np.uint8),
    "channels exchanged": lambda image, rng: image[..., rng.permutation(3)],
    "black and white": lambda image, rng: np.where(image > 128, 255, 0).astype(np.uint8),
    "noise": lambda image, rng: np.clip(image + rng.normal(0, 30, image.shape), 0, 255).astype(np.uint8),
    "covered": Occlusion(1.0, (0.3, 0.6)).repaint,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_colours_and_what_looks_at_the_whole_image_give_no_alarm(name: str) -> None:
    change = PHOTOMETRIC[name]
    check(Repaints(change), (96, 128))
    check(lambda sample, rng: replace(sample, image=np.ascontiguousarray(change(sample.image, rng))))


def left_and_right_kept(sample: PoseSample, rng: Rng) -> PoseSample:
    """Flip pixels and places by hand, and forget that left is right now."""
    width, people = sample.size_wh[0], sample.instances
    x, (x0, y0, x1, y1) = width - 1 - people.xy[..., :1], people.box_xyxy.T
    box = np.stack([width - 1 - x1, y0, width - 1 - x0, y1], -1)
    people = replace(people, xy=np.concatenate([x, people.xy[..., 1:]], -1), box_xyxy=box)
    return replace(sample, image=flipped_image(sample), instances=people)


def moved_labels(sample: PoseSample, rng: Rng) -> PoseSample:
    drawn = Affine.about(middle(sample), degrees=rng.uniform(-40, 40))
    return replace(sample, instances=sample.instances.moved(drawn))


def other_way_round(sample: PoseSample, rng: Rng) -> PoseSample:
    """Rotate the image one way and the keypoints the other."""
    drawn = Affine.about(middle(sample), degrees=rng.uniform(-40, 40))
    image = cv2.warpAffine(sample.image, drawn.inverse().matrix, sample.size_wh)
    return replace(sample, image=image, instances=sample.instances.moved(drawn))


def about_the_wrong_column(sample: PoseSample, rng: Rng) -> PoseSample:
    width = sample.size_wh[0]
    wrong = Affine(np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]]))
    return replace(flipped_by_hand(sample, rng), instances=sample.instances.moved(wrong))


def trembling(sample: PoseSample, rng: Rng) -> PoseSample:
    return replace(sample, image=np.roll(sample.image, rng.choice([-2, 2]), 1))


def source_forgotten(sample: PoseSample, rng: Rng) -> PoseSample:
    return replace(sample.flipped(), to_source=sample.to_source)


def source_from_here(sample: PoseSample, rng: Rng) -> PoseSample:
    return replace(sample.flipped(), to_source=Affine.flip(sample.size_wh[0]))


def bent(sample: PoseSample, rng: Rng) -> PoseSample:
    """A perspective that image and keypoints follow; to_source, an affine map, cannot."""
    matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.4 / sample.size_wh[0], 0.0, 1.0]])
    xy = cv2.perspectiveTransform(sample.instances.xy.astype(np.float64), matrix)
    image = cv2.warpPerspective(sample.image, matrix, sample.size_wh)
    return replace(sample, image=image, instances=replace(sample.instances, xy=xy))


def left_behind(**kept: str) -> Change:
    """Rotate and flip, but keep a field of the instances as it was."""

    def change(sample: PoseSample, rng: Rng) -> PoseSample:
        out, name = rotated(sample, rng).flipped(), kept["field"]
        return replace(out, instances=replace(out.instances, **{name: getattr(sample.instances, name)}))

    return change


def stateful() -> Change:
    calls = []

    def change(sample: PoseSample, rng: Rng) -> PoseSample:
        calls.append(1)
        return sample.flipped() if len(calls) % 3 == 0 else sample

    return change


FLIPPED = "went from (.*) to (.*), the label (.*)is at (.*)Return sample.warped"
BAD: dict[str, tuple[Any, str]] = {
    "image alone": (
        lambda sample, rng: replace(sample, image=flipped_image(sample)),
        f"^augment.1. 'mine:Flip' moves the image and leaves the keypoints where they were: the pixels of .* {FLIPPED}",
    ),
    "image alone, not contiguous": (
        lambda sample, rng: replace(sample, image=sample.image[:, ::-1]),
        "moves the image and leaves the keypoints where they were",
    ),
    "image upside down": (
        lambda sample, rng: replace(sample, image=sample.image[::-1]),
        "moves the image and leaves the keypoints where they were",
    ),
    "labels alone": (moved_labels, "moves the keypoints and leaves the image as it was: the pixels of"),
    "other way round": (other_way_round, "puts keypoints beside their pixels: the pixels of"),
    "left and right kept": (left_and_right_kept, r"does not swap left and right(.*)xy\[:, skeleton.flip\]"),
    "left and right kept, with its source": (
        lambda sample, rng: replace(left_and_right_kept(sample, rng), to_source=sample.flipped().to_source),
        "flips the image and does not swap left and right",
    ),
    "left and right exchanged for nothing": (
        lambda sample, rng: replace(
            sample,
            instances=replace(sample.instances, xy=sample.instances.xy[:, sample.instances.skeleton.flip]),
        ),
        "swaps left and right although the image is not flipped",
    ),
    "wrong column": (about_the_wrong_column, r"by 1\.0 px where it flips \(\+1\.0, \+0\.0 in the middle\)"),
    "trembling": (trembling, "puts keypoints beside their pixels by"),
    "source forgotten": (source_forgotten, "to_source that does not map back to the source: the spot at"),
    "source from here": (source_from_here, "to_source that does not map back to the source"),
    "source singular": (
        lambda sample, rng: replace(sample, to_source=Affine(np.zeros((2, 3)))),
        "to_source that cannot be inverted",
    ),
    "bent": (bent, "A Transform cannot move pixels by a map that is not affine"),
    "box left behind": (left_behind(field="box_xyxy"), "leaves box_xyxy of the instances unchanged"),
    "flags left behind": (left_behind(field="keypoint_extra"), r"leaves keypoint_extra\['occluded'\] of the instances"),
    "lengths left behind": (left_behind(field="extra"), r"leaves extra\['area'\], extra\['head_px'\] of the instances"),
    "3D left behind": (left_behind(field="xyz_mm"), "leaves xyz_mm of the instances unchanged"),
    "two people": (
        lambda sample, rng: replace(sample, instances=Instances.concatenate([sample.instances] * 2)),
        "must keep the number of instances, 1, got 2. Set the scores of keypoints that are not to be learnt to 0",
    ),
    "nobody": (
        lambda sample, rng: replace(sample, instances=sample.instances[:0]),
        "must keep the number of instances, 1, got 0",
    ),
    "another skeleton": (
        lambda sample, rng: replace(sample, instances=sample.instances.in_skeleton(MPII16)),
        r"must keep the skeleton 'coco17' \(17 keypoints\), got 'mpii16' \(16 keypoints\)",
    ),
    "another size": (
        lambda sample, rng: sample.warped(Affine.identity(), (40, 32)),
        "must keep the size of the image, 64 x 80 pixels, because a batch holds views of one size; got 40 x 32. Return",
    ),
    "old style": (
        lambda image, rng: image[:, ::-1],
        "fails on a sample of 64 x 80 pixels .TypeError: (.*) is called with a PoseSample and a NumPy Generator, and",
    ),
    "old style that swallows it": (
        lambda image, rng: np.zeros((80, 64, 3), np.uint8),
        r"must return a PoseSample, got ndarray(.*)names its method repaint\(image, rng\)",
    ),
    "nothing returned": (lambda sample, rng: None, "must return a PoseSample, got NoneType"),
    "all black": (
        lambda sample, rng: replace(sample, image=np.zeros_like(sample.image)),
        "could not be tested: a spot at a keypoint was found again in 0 of 100 draws, at least 5 are needed",
    ),
    "all unknown": (
        lambda sample, rng: replace(sample, instances=replace(sample.instances, score=0 * sample.instances.score)),
        "could not be tested",
    ),
    "chance from elsewhere": (
        lambda sample, rng: sample.flipped() if ELSEWHERE.random() < 0.5 else sample,
        "another result for the same input and an equal generator(.*)Draw every number from the rng",
    ),
    "a state": (stateful(), "another result for the same input and an equal generator"),
    "a Photometric that flips": (
        Repaints(lambda image, rng: np.ascontiguousarray(image[:, ::-1])),
        r"is a Photometric and moves pixels: a spot at (.*) went to (.*)Write a Transform, __call__\(sample, rng\)",
    ),
    "a Photometric that shifts": (
        Repaints(lambda image, rng: np.roll(image, 1, 1)),
        "is a Photometric and moves pixels by 1.0 px",
    ),
    "a Photometric of floats": (
        Repaints(lambda image, rng: image / 255),
        r"must return an image \(80, 64, 3\) uint8 from repaint, as it received, got \(80, 64, 3\) float64. Round",
    ),
    "a Photometric without colours": (Repaints(lambda image, rng: image[..., 0]), r"as it received, got \(80, 64\)"),
    "a Photometric of nothing": (Repaints(lambda image, rng: None), "as it received, got NoneType"),
    "a Photometric that fails": (
        Repaints(lambda image, rng: image.flipped()),
        r"fails on an image \(80, 64, 3\) uint8 .AttributeError: (.*)repaint is called with the image and",
    ),
    "a view of nothing": (Looks(lambda view, person, spec, rng: None), "must return a View from choose_view, got None"),
    "a view of another size": (
        Looks(lambda view, person, spec, rng: View((9, 7), view.to_view)),
        "must keep the size of the view, 64 x 80 pixels, because a batch holds views of one size; got 9 x 7",
    ),
    "a view of a point": (
        Looks(lambda view, person, spec, rng: View(view.size_wh, Affine(np.zeros((2, 3))))),
        "returns a view that shows nothing: Affine cannot be inverted",
    ),
    "a view by chance from elsewhere": (
        Looks(lambda view, person, spec, rng: view.then(Affine.about((0, 0), scale=ELSEWHERE.uniform(1, 2)))),
        "another result for the same input and an equal generator",
    ),
    "a view that writes into the labels": (
        Looks(lambda view, person, spec, rng: [person.xy.__iadd__(1.0), view][1]),
        "modifies the person that it is given, which holds the labels of the data set. Copy an array",
    ),
    "a view that fails": (
        Looks(lambda view, person, spec, rng: view.flipped()),
        "fails on a view of 64 x 80 pixels .AttributeError: (.*)choose_view is called with the view, one person",
    ),
    "a class": (Looks, "'mine:Flip' is a class; list an instance of it: Looks"),
    "a number": (5, "must have one of three methods: (.*) Its int has none of them"),
    "two kinds": (type("Both", (Looks, Repaints), {})(None), "Its Both has several of them"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_refused(name: str) -> None:
    augmentation, message = BAD[name]
    with pytest.raises(TransformError, match=message):
        check(augmentation)


@pytest.mark.slow
@pytest.mark.parametrize("probability", [0.5, 0.1])
@pytest.mark.parametrize(
    "name",
    ["image alone", "labels alone", "left and right kept", "wrong column", "source forgotten", "flags left behind"],
)
@pytest.mark.parametrize("skeleton", [COCO17, HANDS], ids=lambda s: s.name)
def test_an_occasional_error_is_found(name: str, probability: float, skeleton: Skeleton) -> None:
    change, message = BAD[name]
    with pytest.raises(TransformError, match=message.removeprefix("^").split("(.*)")[0]):
        check(sometimes(probability, change), skeleton=skeleton)


def test_an_error_is_found_behind_noise_and_jitter() -> None:
    def change(sample: PoseSample, rng: Rng) -> PoseSample:
        image = flipped_image(sample) if rng.random() < 0.1 else sample.image
        for photometric in (ColorJitter(0.3, 0.2, 0.1, 0.2), Occlusion(0.5)):
            image = photometric.repaint(image, rng)
        return replace(sample, image=np.clip(image + rng.normal(0, 20, image.shape), 0, 255).astype(np.uint8))

    with pytest.raises(TransformError, match="moves the image and leaves the keypoints where they were"):
        check(change)


def test_a_skeleton_without_sides_has_none_to_swap() -> None:
    one = Skeleton("one", ("nose",))
    check(left_and_right_kept_with_source, skeleton=one)
    with pytest.raises(TransformError, match="leaves the keypoints where they were"):
        check(BAD["image alone"][0], skeleton=one)


def left_and_right_kept_with_source(sample: PoseSample, rng: Rng) -> PoseSample:
    kept, right = left_and_right_kept(sample, rng), sample.flipped()
    return replace(right, image=kept.image, instances=replace(right.instances, xy=kept.instances.xy))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    linear=st.tuples(*[st.floats(-1.5, 1.5)] * 4).filter(lambda m: abs(m[0] * m[3] - m[1] * m[2]) > 0.15),
    shift=st.floats(0, 0.15),
    probability=st.sampled_from([1.0, 0.5, 0.1]),
    skeleton=st.sampled_from([COCO17, MPII16, HANDS]),
)
def test_any_affine_map_is_taken(
    linear: tuple[float, ...], shift: float, probability: float, skeleton: Skeleton
) -> None:
    """Rotations, flips, shears and stretches about the middle, each with a shift of its own, all by one word."""

    def change(sample: PoseSample, rng: Rng) -> PoseSample:
        if rng.random() >= probability:
            return sample
        matrix, center = np.reshape(linear, (2, 2)), np.array(middle(sample))
        offset = center - matrix @ center + rng.uniform(-shift, shift, 2) * sample.size_wh
        sample = replace(sample, instances=replace(sample.instances, xyz_mm=None))  # a stretch has no answer in space
        return sample.warped(Affine(np.concatenate([matrix, offset[:, None]], 1)))

    check(change, skeleton=skeleton)


def test_it_is_cheap() -> None:
    start = time.process_time()
    check(GOOD["flip"], (256, 256))
    assert time.process_time() - start < 1.0  # 0.15 s on a machine that has nothing else to do
