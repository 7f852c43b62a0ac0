import dataclasses

import numpy as np
import pytest

from poseglass.core.affine import Affine
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeletons import COCO17
from poseglass.data.loader import PlaceSampler, collate, load_batches
from poseglass.data.whole_images import LEAST_VISIBLE, WholeImages
from poseglass.transforms import ColorJitter, HalfBody, RandomAffine, TransformError

NAN = np.nan
SPEC = InputSpec((64, 64))
AUGMENT = (RandomAffine(scale=(0.6, 1.4), degrees=0.0, shift=0.2), ColorJitter(0.2, 0.2))


def person(box_xyxy, *, posed=True, crowd=False) -> Instances:
    """Return one person whose first keypoint, if any, is the middle of the box."""
    box = np.array([box_xyxy], np.float32)
    xy = np.full((1, 17, 2), NAN, np.float32)
    score = np.zeros((1, 17), np.float32)
    if posed:
        around = np.nan_to_num(box, nan=20.0)
        xy[0, 0], score[0, 0] = (around[0, :2] + around[0, 2:]) / 2, 1.0
    return Instances(COCO17, xy, score, box, np.ones(1, np.float32), extra={"crowd": np.array([crowd])})


class Pictures:
    """Images of 128 x 64 pixels, bright inside the boxes of their instances."""

    skeleton = COCO17

    def __init__(self, *labels: list[Instances], incomplete: tuple[int, ...] = ()) -> None:
        self.labels, self.incomplete = labels, incomplete

    def __len__(self) -> int:
        return len(self.labels)

    def instances(self, index: int) -> Instances:
        people = self.labels[index]
        return Instances.concatenate(people) if people else Instances.empty(COCO17)

    def source(self, index: int) -> str:
        return f"{index}.png"

    def size_wh(self, index: int) -> tuple[int, int]:
        return 128, 64

    def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
        image = np.zeros((64, 128, 3), np.uint8)
        for box in self.instances(index).box_xyxy:
            if np.isfinite(box).all():
                x0, y0, x1, y1 = np.round(box + 0.5).astype(int).clip(0)
                image[y0:y1, x0:x1] = 200
        return image

    def __getitem__(self, index: int) -> PoseSample:
        return PoseSample(self.image(index), self.instances(index), Affine.identity(), self.source(index))

    def boxes_complete(self, index: int) -> bool:
        return index not in self.incomplete


def test_an_image_is_shown_whole_with_everybody():
    data = Pictures([person([7.5, 7.5, 39.5, 55.5]), person([63.5, 15.5, 95.5, 31.5], posed=False)])
    sample = WholeImages(data, SPEC)[0, 0, 64, 64]
    assert sample.size_wh == (64, 64)
    np.testing.assert_allclose(
        sample.instances.box_xyxy, [[3.5, 19.5, 19.5, 43.5], [31.5, 23.5, 47.5, 31.5]], atol=1e-5
    )
    lit = np.argwhere(sample.image[..., 0] > 100)
    assert lit.min(0).tolist() == [20, 4]
    assert lit.max(0).tolist() == [43, 47]
    np.testing.assert_allclose(sample.to_source(sample.instances.xy[0, 0]), [23.5, 31.5], atol=1e-4)
    assert sample.instances.known.any(1).tolist() == [True, False]


def test_augmented_boxes_stay_on_what_they_enclose():
    data = Pictures([person([7.5, 7.5, 39.5, 55.5])])
    examples = WholeImages(data, SPEC, AUGMENT[:1])
    seen = 0
    for epoch in range(60):
        sample = examples[epoch, 0, 64, 64]
        for box in np.clip(sample.instances.box_xyxy, -0.5, 63.5):
            lit = np.argwhere(sample.image[..., 0] > 100)[:, ::-1]
            if len(lit):
                np.testing.assert_allclose([*lit.min(0) - 0.5, *lit.max(0) + 0.5], box, atol=1.0)
                seen += 1
    assert seen > 40


def test_what_has_left_the_view_is_gone_and_a_sliver_of_it_is_a_crowd():
    shifted = RandomAffine(scale=(1.0, 1.0), degrees=0.0, shift=0.5, flip_probability=0.0)
    examples = WholeImages(Pictures([person([7.5, 7.5, 39.5, 55.5])]), SPEC, (shifted,))
    shares, crowds, gone = [], [], 0
    for epoch in range(300):
        instances = examples[epoch, 0, 64, 64].instances
        if not len(instances):
            gone += 1
            continue
        box = instances.box_xyxy[0]
        inside = np.clip(box, -0.5, 63.5)
        shares.append(np.prod(inside[2:] - inside[:2]) / np.prod(box[2:] - box[:2]))
        crowds.append(bool(instances.extra["crowd"][0]))
    assert gone > 5
    assert min(shares) < LEAST_VISIBLE < max(shares)
    assert crowds == [share < LEAST_VISIBLE for share in shares]


def test_it_says_what_it_made_and_what_it_excludes():
    no_box = dataclasses.replace(person([0, 0, 40, 40]), box_xyxy=np.full((1, 4), NAN, np.float32))
    nothing = dataclasses.replace(person([0, 0, 40, 40], posed=False), box_xyxy=np.full((1, 4), NAN, np.float32))
    data = Pictures(
        [no_box], [nothing], [], [person([0, 0, 30, 30], crowd=True)],
        [person([0, 0, 30, 30]), person([40, 0, 60, 30], crowd=True)],
        incomplete=(4,),
    )  # fmt: skip
    examples = WholeImages(data, SPEC)
    assert examples.images.tolist() == [0, 4]
    assert len(examples.labels) == 2
    assert examples.kind == "images"
    assert examples.notes == (
        "3 images of 5 without a labelled instance excluded.",
        "1 annotation without a usable box: boxes were made around the keypoints.",
        "1 annotation with neither a box nor a keypoint excluded.",
        "1 crowd: nothing of their class is learnt inside.",
        "In 1 image of 2 not everybody is labelled (boxes_complete is false): there, nothing is learnt as background.",
    )


def test_around_the_labels_of_a_partly_labelled_image_nothing_is_learnt():
    data = Pictures([person([7.5, 7.5, 39.5, 55.5])], [person([7.5, 7.5, 39.5, 55.5])], incomplete=(1,))
    examples = WholeImages(data, SPEC)
    assert examples[0, 0, 64, 64].instances.extra["crowd"].tolist() == [False]
    partly = examples[0, 1, 64, 64].instances
    assert partly.extra["crowd"].tolist() == [False, True]
    assert partly.box_xyxy[1].tolist() == [-0.5, -0.5, 63.5, 63.5]
    assert partly.label.tolist() == [0, -1]  # of any class
    assert not partly.known[1].any()


def test_a_view_without_anybody_in_a_partly_labelled_image_still_has_its_crowd():
    away = RandomAffine(scale=(8.0, 8.0), degrees=0.0, shift=0.0, flip_probability=0.0)
    partly = WholeImages(Pictures([person([0, 0, 8, 8])], incomplete=(0,)), SPEC, (away,))[0, 0, 64, 64].instances
    assert partly.extra["crowd"].tolist() == [True]


def test_batches_depend_on_seed_epoch_and_image_alone():
    data = Pictures(*([person([4 * i, 8, 4 * i + 30, 50])] * (1 + i % 3) for i in range(8)))
    examples = WholeImages(data, SPEC, AUGMENT, seed=3)

    def batches(start: int, workers: int) -> list:
        sampler = PlaceSampler(8, batch_size=4, sizes_wh=[(64, 64)] * 2, seed=3, start_step=start)
        return list(load_batches(examples, sampler, workers=workers))

    whole, resumed = batches(0, 0), batches(2, 1)
    for a, b in zip(whole[2:], resumed, strict=True):
        assert a.images.equal(b.images)
        assert a.targets.box_xyxy.equal(b.targets.box_xyxy)
        assert a.sources == b.sources
    assert examples[0, 0, 64, 64].image.tobytes() != examples[1, 0, 64, 64].image.tobytes()
    assert collate([examples[0, i, 64, 64] for i in range(3)]).targets.valid.shape[0] == 3


def test_what_cannot_be_trained_on_is_refused():
    with pytest.raises(ValueError, match=r"None of the 2 images has a labelled instance with a box or keypoints"):
        WholeImages(Pictures([], []), SPEC)
    with pytest.raises(TransformError, match=r"augment has a HalfBody, .* trained on whole images\. Remove it"):
        WholeImages(Pictures([person([0, 0, 9, 9])]), SPEC, (HalfBody(),))


def test_an_augmentation_that_loses_somebody_is_refused():
    data = Pictures([person([0, 0, 40, 40]), person([50, 0, 90, 40])])

    def loses(sample: PoseSample, rng: np.random.Generator) -> PoseSample:
        return dataclasses.replace(sample, instances=sample.instances[:1])

    examples = WholeImages(data, SPEC)
    object.__setattr__(examples, "_transforms", (loses,))  # its own test, with one person, would not show it
    with pytest.raises(TransformError, match=r"with 2 instances became 64 x 64 with 1 in epoch 0, image 0"):
        examples[0, 0, 64, 64]
