import dataclasses
import json

import numpy as np
import pytest

from poseglass.core.image import write_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.skeletons import COCO17
from poseglass.data.chip_images import ChipImages, negative_chips, read_chips, write_chips
from poseglass.readers.labelled import LabelledImages
from poseglass.transforms import HalfBody, RandomAffine, TransformError
from poseglass.transforms.chips import ChipRule, ChipScale

RULE = ChipRule((ChipScale(2.0, 0, 30), ChipScale("whole", 20)), (96, 96), 16)
SPEC = InputSpec((96, 96))


def images(folder, *, count: int = 4, complete=None) -> LabelledImages:
    """Grey images of 200 x 150 px with three white squares each, of 12, 25 and 60 px."""
    paths, labels = [], []
    for number in range(count):
        rng = np.random.default_rng(number)
        image, boxes = np.full((150, 200, 3), 90, np.uint8), []
        for side in (12, 25, 60):
            x, y = rng.integers(0, 200 - side), rng.integers(0, 150 - side)
            image[y : y + side, x : x + side] = 255
            boxes.append([x - 0.5, y - 0.5, x + side - 0.5, y + side - 0.5])
        paths.append(folder / f"{number}.png")
        write_image(paths[-1], image)
        unknown = np.full((3, 17, 2), np.nan, np.float32)
        labels.append(
            Instances(COCO17, unknown, np.zeros((3, 17)), np.array(boxes, np.float32), np.ones(3),
                      extra={"crowd": np.zeros(3, bool), "area": np.full(3, 9.0, np.float32)})
        )  # fmt: skip
    sizes = np.tile([200, 150], (count, 1))
    ids = tuple(range(count))
    return LabelledImages("squares", COCO17, tuple(paths), tuple(labels), ids, sizes_wh=sizes, complete=complete)


def test_chips_show_their_boxes_whole_and_cut_ones_too(tmp_path):
    data = ChipImages(images(tmp_path), SPEC, rule=RULE)
    assert data.kind == "chips"
    seen = 0
    for number in range(len(data)):
        sample = data[0, number, 96, 96]
        assert sample.size_wh == (96, 96)
        image, chip = data.chips[number]
        home = sample.to_source.box(sample.instances.box_xyxy.astype(float))
        labels = data.dataset.instances(image).box_xyxy
        for box in home:
            assert np.abs(labels - box).max(1).min() < 0.01, "a box that comes home is one of the labels"
        whole = chip.covers(labels) & RULE.scales[chip.level].holds(labels)
        assert whole.any()
        seen += int(whole.sum())
        # every pixel of a box that is whole in the chip is white
        for box in chip.view.to_view.box(labels[whole].astype(float)):
            x0, y0, x1, y1 = np.round(box + np.array([2, 2, -2, -2])).astype(int)
            assert (sample.image[y0:y1, x0:x1] > 250).all()
    assert seen >= 4 * 3  # each square at one scale at least


def test_the_same_chips_for_the_same_seed(tmp_path):
    dataset = images(tmp_path)
    augment = (RandomAffine(scale=(0.8, 1.2), degrees=0.0, shift=0.1),)
    one, two, other = (ChipImages(dataset, SPEC, augment, rule=RULE, seed=seed) for seed in (5, 5, 6))
    corners = [[chip.corner_px for _, chip in data.chips] for data in (one, two, other)]
    assert corners[0] == corners[1] != corners[2]
    np.testing.assert_array_equal(one[3, 2, 96, 96].image, two[3, 2, 96, 96].image)
    assert not np.array_equal(one[3, 2, 96, 96].image, one[4, 2, 96, 96].image)


def test_notes_tell_of_chips_and_of_what_no_chip_shows(tmp_path):
    rule = ChipRule((ChipScale(3.0, 20, 80),), (96, 96), 16)
    data = ChipImages(images(tmp_path), SPEC, rule=rule)
    assert data.notes[-3:] == (
        "4 positive chips of 4 images (4 at scale 3.0), and 0 of 0 negative chips per epoch.",
        "4 instances in no valid range: learnt only where a chip shows them.",
        "4 instances larger than a chip at every valid scale: only parts are shown.",
    )


def moved(dataset: LabelledImages, image: int, box: list[float], *, crowd: bool = False) -> LabelledImages:
    """Return the images with the smallest square of one somewhere else, as a crowd or not."""
    labels = list(dataset.labels)
    boxes, crowds = labels[image].box_xyxy.copy(), np.zeros(3, bool)
    boxes[0], crowds[0] = box, crowd
    extra = labels[image].extra | {"crowd": crowds}
    labels[image] = dataclasses.replace(labels[image], box_xyxy=boxes, extra=extra)
    return dataclasses.replace(dataset, labels=tuple(labels))


def test_notes_tell_of_boxes_outside_their_images(tmp_path):
    data = ChipImages(moved(images(tmp_path), 1, [-30.0, 5.0, -8.0, 27.0]), SPEC, rule=RULE)
    assert data.notes[-1:] == ("1 instance with the whole box outside the image: shown by no chip.",)


def test_notes_measure_what_is_in_the_image(tmp_path):
    rule = ChipRule((ChipScale("whole", 0, 60.5),), (96, 96), 16)
    data = ChipImages(moved(images(tmp_path), 1, [100.0, 100.0, 100.0 + 2000.0, 110.0]), SPEC, rule=rule)
    assert not any("in no valid range" in note for note in data.notes)  # 31 px of it, not 141
    large = ChipRule((ChipScale(3.0, 40, 80), ChipScale("whole", 20, 30)), (96, 96), 16)
    one = images(tmp_path)
    labels = [one.instances(0), *(one.instances(i)[2:] for i in range(1, 4))]  # only the first has squares of 25 px
    data = ChipImages(dataclasses.replace(one, labels=tuple(labels)), SPEC, rule=large)
    assert "3 images without a positive chip: no box there has a valid size and fits into one." in data.notes


def pool_of(dataset: LabelledImages, count: int = 40):
    """Proposals crowded in the lower right corner of each image."""
    rng = np.random.default_rng(0)
    boxes = [np.array([170, 120, 185, 135]) + rng.uniform(-9, 9, (count, 1)) * np.ones(4) for _ in range(len(dataset))]
    return boxes, negative_chips(dataset, RULE, boxes, (10, 10))


def test_negative_chips_are_sampled_anew_in_each_epoch(tmp_path):
    dataset = images(tmp_path, count=8)
    _, pool = pool_of(dataset)
    assert len(pool) >= 4
    data = ChipImages(dataset, SPEC, rule=RULE, pool=pool, share=2 / len(ChipImages(dataset, SPEC, rule=RULE)))
    assert len(data) == len(data.chips) + 2
    numbers = range(len(data.chips), len(data))
    drawn = [[data._chip(epoch, number) for number in numbers] for epoch in range(12)]  # pyright: ignore[reportPrivateUsage]
    assert all(one[0] is not one[1] for one in drawn)
    assert len({id(chip) for epoch in drawn for chip in epoch}) > 2
    again = [[data._chip(epoch, number) for number in numbers] for epoch in range(12)]  # pyright: ignore[reportPrivateUsage]
    assert drawn == again
    sample = data[0, len(data) - 1, 96, 96]
    assert sample.size_wh == (96, 96)


def test_images_in_which_not_everything_is_labelled_have_no_negative_chips(tmp_path):
    dataset = images(tmp_path, complete=np.array([True, False, True, False]))
    _, pool = pool_of(dataset)
    assert pool
    assert {image for image, _ in pool} <= {0, 2}


def without_squares(dataset: LabelledImages, *numbers: int, complete=None) -> LabelledImages:
    labels = [one[:0] if i in numbers else one for i, one in enumerate(dataset.labels)]
    return dataclasses.replace(dataset, labels=tuple(labels), complete=complete)


def test_complete_images_without_objects_have_negative_chips(tmp_path):
    dataset = without_squares(images(tmp_path), 1, 3, complete=np.array([True, True, True, False]))
    _, pool = pool_of(dataset)
    assert [image for image, _ in pool] == sorted(image for image, _ in pool)
    assert 1 in {image for image, _ in pool} <= {0, 1, 2}
    write_chips(tmp_path / "pool.json", dataset, pool)
    chips = [each for each in read_chips(tmp_path / "pool.json", dataset, RULE) if each[0] == 1]
    augment = (RandomAffine(scale=(0.8, 1.2), degrees=0.0, shift=0.1),)
    data = ChipImages(dataset, SPEC, augment, rule=RULE, pool=tuple(chips), share=0.01 + 1 / 4)
    assert {image for image, _ in data.chips} == {0, 2}
    sample = data[0, len(data) - 1, 96, 96]
    assert sample.source.endswith("1.png")
    assert len(sample.instances) == 0
    assert sample.image.mean() > 20


class Around:
    """A view of somebody's own, which takes for granted that there is an instance."""

    def choose_view(self, view, person, spec, rng):
        float(person.box_xyxy[0, 0])
        return view


def test_a_view_that_needs_an_instance_is_refused_where_there_is_none(tmp_path):
    dataset = without_squares(images(tmp_path), 1)
    _, pool = pool_of(dataset)
    ChipImages(images(tmp_path), SPEC, (Around(),), rule=RULE, pool=pool, share=0.3)
    with pytest.raises(TransformError, match=r"Around chooses a view by the instances .* negative chips .* have none"):
        ChipImages(dataset, SPEC, (Around(),), rule=RULE, pool=pool, share=0.3)


def test_a_pool_with_an_image_that_may_have_objects_is_refused(tmp_path):
    dataset = without_squares(images(tmp_path), 1)
    _, pool = pool_of(dataset)
    now = dataclasses.replace(dataset, complete=np.array([True, False, True, True]))
    says = r"A negative chip is of .*1.png, in which no object is labelled, but some may be there .* Make the negative"
    with pytest.raises(ValueError, match=says):
        ChipImages(now, SPEC, rule=RULE, pool=pool, share=0.3)


def test_proposals_in_a_crowd_make_no_negative_chip(tmp_path):
    dataset = images(tmp_path)
    boxes, pool = pool_of(dataset)
    assert 1 in {image for image, _ in pool}
    crowded = moved(dataset, 1, [160.0, 110.0, 199.5, 149.5], crowd=True)  # most of each proposal
    left = negative_chips(crowded, RULE, boxes, (10, 10))
    assert {image for image, _ in left} == {image for image, _ in pool} - {1}
    beside = moved(dataset, 1, [160.0, 110.0, 168.0, 149.5], crowd=True)
    assert 1 in {image for image, _ in negative_chips(beside, RULE, boxes, (10, 10))}


def test_chips_are_kept_in_a_file(tmp_path):
    dataset = images(tmp_path)
    _, pool = pool_of(dataset)
    file = tmp_path / "pool.json"
    write_chips(file, dataset, pool)
    back = read_chips(file, dataset, RULE)
    assert [(i, c.level, c.corner_px, c.scale) for i, c in back] == [
        (i, c.level, c.corner_px, c.scale) for i, c in pool
    ]

    with pytest.raises(ValueError, match="chip 0 has another scale or size than the recipe's chips"):
        read_chips(file, dataset, ChipRule((ChipScale(3.0), ChipScale("whole")), (96, 96), 16))
    with pytest.raises(ValueError, match=r"chip \d+ is of .*3.png, which is not image 3 of the data"):
        read_chips(file, images(tmp_path, count=3), RULE)
    document = json.loads(file.read_text())
    del document["chips"][0]["level"]
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"expected negative chips as poseglass writes them, but KeyError\('level'\)"):
        read_chips(file, dataset, RULE)
    with pytest.raises(FileNotFoundError):
        read_chips(tmp_path / "none.json", dataset, RULE)


@pytest.mark.parametrize(("options", "says"), [
    ({"rule": ChipRule((ChipScale(1.0, 300),), (96, 96), 16)},
     "None of 12 instances has a box with a size in a valid range of the chips, 300 to inf px"),
    ({"share": 0.5}, "Negative chips are to be 0.5 times as many as positive ones, but the pool holds none"),
    ({"share": -1.0}, "The share of negative chips must be 0 or more, got -1.0"),
])  # fmt: skip
def test_what_cannot_be_is_said(tmp_path, options, says):
    with pytest.raises(ValueError, match=says):
        ChipImages(images(tmp_path), SPEC, **({"rule": RULE} | options))


def test_a_part_of_a_person_is_refused(tmp_path):
    with pytest.raises(TransformError, match="augment has a HalfBody"):
        ChipImages(images(tmp_path), SPEC, (HalfBody(),), rule=RULE)


def test_one_array_of_proposals_for_each_image(tmp_path):
    with pytest.raises(ValueError, match="There are proposals for 1 images, but the dataset has 4"):
        negative_chips(images(tmp_path), RULE, [np.zeros((0, 4))], (10, 10))
